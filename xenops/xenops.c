#include "xenops/xenops.h"

#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/turns.h"

LOG_MODULE(xenops);

#define SAVE_ENDS_MS 30000

struct xenops {
    const struct xenops_backend *backend;
    void *host;
    struct turns turns;
};

static const struct xenops_backend *const backends[] = { &xenops_sim };

struct error *xenops_open(struct arena *a, const char *backend, const char *state_dir, const struct value *options,
                          const struct clock *clock, xenops_watch_fn *watch, void *watch_ctx, struct xenops **x_r)
{
    for (unsigned i = 0; i < ARRAY_LEN(backends); i++) {
        if (strcmp(backends[i]->name, backend) != 0)
            continue;
        struct xenops *x = xcalloc(1, sizeof(*x));
        struct error *e = backends[i]->open(a, state_dir, options, clock, watch, watch_ctx, &x->host);
        if (e != NULL) {
            xfree(x);
            return e;
        }
        x->backend = backends[i];
        turns_init(&x->turns);
        *x_r = x;
        return NULL;
    }
    return err_internal(a, "no backend \"%s\" in this build", backend);
}

void xenops_close(struct xenops *x)
{
    if (x == NULL)
        return;
    x->backend->close(x->host);
    turns_release(&x->turns);
    xfree(x);
}

/* --- one verb: its turn, its fault point, its time --- */

struct verb {
    struct call *c;
    struct xenops *x;
    const char *point, *uuid; /* "xenops.save" */
    int64_t began_ms;
    struct turn turn;
};

static struct error *begin_as(struct call *c, struct xenops *x, const char *point, const char *uuid, enum turn_kind kind, struct verb *v)
{
    *v = (struct verb){ .c = c, .x = x, .point = point, .uuid = uuid, .began_ms = clock_ms(c->clock) };
    TRY(turn_take(c, &x->turns, &v->turn, uuid, kind));
    if (!fault_hit(point))
        return NULL;
    turn_drop(&x->turns, &v->turn);
    return err_internal(c->arena, "fault %s", point);
}

static struct error *verb_begin(struct call *c, struct xenops *x, const char *point, const char *uuid, struct verb *v)
{
    return begin_as(c, x, point, uuid, TURN_ALONE, v);
}

/* Without a turn: the verb goes on beside any other. */
static struct error *verb_beside(struct call *c, struct xenops *x, const char *point, const char *uuid, struct verb *v)
{
    *v = (struct verb){ .c = c, .x = x, .point = point, .uuid = uuid, .began_ms = clock_ms(c->clock) };
    return fault_hit(point) ? err_internal(c->arena, "fault %s", point) : NULL;
}

static struct error *verb_end(struct verb *v, struct error *e)
{
    if (v->turn.taken)
        turn_drop(&v->x->turns, &v->turn);
    log_debug("%s %s: %s in %lld ms", v->point, v->uuid, e == NULL ? "done" : e->code,
              (long long)(clock_ms(v->c->clock) - v->began_ms));
    return e;
}

static struct call uncancelled(const struct call *c)
{
    struct call go_on = *c;

    go_on.cancel = NULL;
    go_on.deadline_ms = 0;
    return go_on;
}

/* What has to be undone is undone even for a caller who has given up. */
static void undo(struct call *c, struct xenops *x, const char *uuid)
{
    struct call go_on = uncancelled(c);
    struct error *e = x->backend->destroy(&go_on, x->host, uuid);
    if (e != NULL)
        log_err("domain %s is left behind: %s", uuid, error_text(c->arena, e));
}

/* --- looking --- */

struct error *xenops_facts(struct call *c, struct xenops *x, struct host_facts *f) { return x->backend->facts(c, x->host, f); }

struct error *xenops_list(struct call *c, struct xenops *x, struct domain_info **infos_r, unsigned *n_r)
{
    return x->backend->list(c, x->host, infos_r, n_r);
}

struct error *xenops_find(struct call *c, struct xenops *x, const char *uuid, struct domain_info *info_r)
{
    struct domain_info *infos;
    unsigned n;

    TRY(x->backend->list(c, x->host, &infos, &n));
    for (unsigned i = 0; i < n; i++)
        if (strcmp(infos[i].uuid, uuid) == 0) {
            *info_r = infos[i];
            return NULL;
        }
    return error_make(c->arena, __FILE__, __LINE__, "DOMAIN_NOT_FOUND", 1, uuid);
}

static const char *state_name(enum domain_state s)
{
    switch (s) {
    case DOMAIN_PAUSED: return "paused";
    case DOMAIN_RUNNING: return "running";
    case DOMAIN_SUSPENDED: return "suspended";
    case DOMAIN_ENDED: return "halted";
    }
    return "halted";
}

/* Refuses a verb in a state it is not for. */
static struct error *require(struct call *c, struct xenops *x, const char *uuid, enum domain_state a, enum domain_state b)
{
    struct domain_info info;

    TRY(xenops_find(c, x, uuid, &info));
    if (info.state == a || info.state == b)
        return NULL;
    return error_make(c->arena, __FILE__, __LINE__, "VM_BAD_POWER_STATE", 2, state_name(a), state_name(info.state));
}

/* --- starting and ending --- */

static struct error *start(struct call *c, struct xenops *x, const struct vm_spec *s, bool paused, struct domain_info *info)
{
    TRY(x->backend->create(c, x->host, s, s->uuid, info));
    struct error *e = x->backend->build(c, x->host, s->uuid, s);
    if (e == NULL && !paused)
        e = x->backend->unpause(c, x->host, s->uuid);
    if (e == NULL)
        e = xenops_find(c, x, s->uuid, info);
    if (e != NULL)
        undo(c, x, s->uuid);
    return e;
}

struct error *xenops_start(struct call *c, struct xenops *x, const struct vm_spec *s, bool paused, struct domain_info *info)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.start", s->uuid, &v));
    return verb_end(&v, start(c, x, s, paused, info));
}

static struct error *ask_to_end(struct verb *v, enum domain_end how, int64_t timeout_ms)
{
    struct xenops *x = v->x;

    TRY(require(v->c, x, v->uuid, DOMAIN_RUNNING, DOMAIN_ENDED));
    struct error *e = x->backend->shutdown(v->c, x->host, v->uuid, how, timeout_ms);
    return e != NULL && require(v->c, x, v->uuid, DOMAIN_ENDED, DOMAIN_ENDED) == NULL ? NULL : e; /* of its own accord, just before */
}

/* A save is over soon after its guest ended; what it says to the toolstack on its way out is waited for. */
static void wait_save_end(struct verb *v)
{
    struct call go_on = uncancelled(v->c);

    go_on.deadline_ms = clock_ms(v->c->clock) + SAVE_ENDS_MS;
    if (turn_alone(&go_on, &v->x->turns, &v->turn) != NULL)
        log_warn("domain %s is gone, but its save does not end", v->uuid);
}

/* While a save goes on the guest is asked all the same: its end ends the save. A suspended guest hears nothing: then
 * the outcome of the save is waited for. */
static struct error *stop(struct verb *v, enum domain_end how, int64_t timeout_ms)
{
    struct turns *turns = &v->x->turns;
    bool beside = turn_is_beside(turns, &v->turn);
    struct error *e = ask_to_end(v, how, timeout_ms);

    if (e != NULL && beside && error_is(e, "VM_BAD_POWER_STATE")) {
        TRY(turn_alone(v->c, turns, &v->turn));
        e = ask_to_end(v, how, timeout_ms);
    }
    TRY(e);
    wait_save_end(v);
    return v->x->backend->destroy(v->c, v->x->host, v->uuid);
}

struct error *xenops_shutdown(struct call *c, struct xenops *x, const char *uuid, int64_t timeout_ms)
{
    struct verb v;

    TRY(begin_as(c, x, "xenops.shutdown", uuid, TURN_INTO, &v));
    return verb_end(&v, stop(&v, DOMAIN_END_POWEROFF, timeout_ms));
}

/* At once, whatever goes on with it; then whatever went on is over. */
static struct error *destroy(struct verb *v)
{
    struct error *e = v->x->backend->destroy(v->c, v->x->host, v->uuid);

    wait_save_end(v);
    return e;
}

static struct error *reboot(struct verb *v, const struct vm_spec *s, bool hard, int64_t timeout_ms, struct domain_info *info)
{
    TRY(hard ? destroy(v) : stop(v, DOMAIN_END_REBOOT, timeout_ms));
    return start(v->c, v->x, s, false, info);
}

struct error *xenops_reboot(struct call *c, struct xenops *x, const struct vm_spec *s, bool hard, int64_t timeout_ms, struct domain_info *info)
{
    struct verb v;

    TRY(begin_as(c, x, "xenops.reboot", s->uuid, TURN_INTO, &v));
    return verb_end(&v, reboot(&v, s, hard, timeout_ms, info));
}

struct error *xenops_destroy(struct call *c, struct xenops *x, const char *uuid)
{
    struct verb v;

    TRY(begin_as(c, x, "xenops.destroy", uuid, TURN_INTO, &v));
    return verb_end(&v, destroy(&v));
}

struct error *xenops_create(struct call *c, struct xenops *x, const struct vm_spec *s, const char *uuid, struct domain_info *info)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.create", uuid, &v));
    return verb_end(&v, x->backend->create(c, x->host, s, uuid, info));
}

/* --- running, standing --- */

struct error *xenops_unpause(struct call *c, struct xenops *x, const char *uuid)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.unpause", uuid, &v));
    struct error *e = require(c, x, uuid, DOMAIN_PAUSED, DOMAIN_RUNNING);
    return verb_end(&v, e != NULL ? e : x->backend->unpause(c, x->host, uuid));
}

struct error *xenops_pause(struct call *c, struct xenops *x, const char *uuid)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.pause", uuid, &v));
    struct error *e = require(c, x, uuid, DOMAIN_RUNNING, DOMAIN_PAUSED);
    return verb_end(&v, e != NULL ? e : x->backend->pause(c, x->host, uuid));
}

struct error *xenops_resume(struct call *c, struct xenops *x, const char *uuid)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.resume", uuid, &v));
    struct error *e = require(c, x, uuid, DOMAIN_SUSPENDED, DOMAIN_RUNNING);
    return verb_end(&v, e != NULL ? e : x->backend->resume(c, x->host, uuid));
}

/* --- changing --- */

static struct error *rename_both(struct call *c, struct xenops *x, const char *from, const char *to, struct verb *v)
{
    struct turn other;
    bool from_first = strcmp(from, to) < 0;

    TRY(turn_take(c, &x->turns, &v->turn, from_first ? from : to, TURN_ALONE)); /* in this order always */
    struct error *e = turn_take(c, &x->turns, &other, from_first ? to : from, TURN_ALONE);
    if (e == NULL) {
        e = fault_hit(v->point) ? err_internal(c->arena, "fault %s", v->point) : x->backend->rename(c, x->host, from, to);
        turn_drop(&x->turns, &other);
    }
    return verb_end(v, e);
}

struct error *xenops_rename(struct call *c, struct xenops *x, const char *from, const char *to)
{
    struct verb v = { .c = c, .x = x, .point = "xenops.rename", .uuid = from, .began_ms = clock_ms(c->clock) };
    struct domain_info info;

    if (strcmp(from, to) == 0)
        return xenops_find(c, x, from, &info);
    return rename_both(c, x, from, to, &v);
}

struct error *xenops_balloon(struct call *c, struct xenops *x, const char *uuid, int64_t target)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.balloon", uuid, &v));
    return verb_end(&v, x->backend->balloon(c, x->host, uuid, target));
}

struct error *xenops_disk_plug(struct call *c, struct xenops *x, const char *uuid, const struct disk_spec *disk)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.disk_plug", uuid, &v));
    return verb_end(&v, x->backend->disk_plug(c, x->host, uuid, disk));
}

struct error *xenops_disk_unplug(struct call *c, struct xenops *x, const char *uuid, const struct disk_spec *disk)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.disk_unplug", uuid, &v));
    return verb_end(&v, x->backend->disk_unplug(c, x->host, uuid, disk));
}

/* --- moving --- */

struct error *xenops_save(struct call *c, struct xenops *x, const char *uuid, struct byte_stream *stream, const struct save_policy *policy,
                          const struct save_callbacks *callbacks, struct save_result *r)
{
    struct verb v;

    TRY(begin_as(c, x, "xenops.save", uuid, TURN_SAVE, &v));
    struct error *e = require(c, x, uuid, DOMAIN_RUNNING, DOMAIN_RUNNING);
    return verb_end(&v, e != NULL ? e : x->backend->save(c, x->host, uuid, stream, policy, callbacks, r));
}

struct error *xenops_restore(struct call *c, struct xenops *x, const char *uuid, const struct vm_spec *s, struct byte_stream *stream)
{
    struct verb v;

    TRY(verb_begin(c, x, "xenops.restore", uuid, &v));
    struct error *e = require(c, x, uuid, DOMAIN_PAUSED, DOMAIN_PAUSED);
    return verb_end(&v, e != NULL ? e : x->backend->restore(c, x->host, uuid, s, stream));
}

bool xenops_can(struct xenops *x, enum xenops_ability ability)
{
    const struct xenops_backend *b = x->backend;

    switch (ability) {
    case XENOPS_THROTTLE: return b->throttle != NULL;
    case XENOPS_POSTCOPY:
        return b->postcopy_send != NULL && b->postcopy_receive != NULL && (b->postcopy_ready == NULL || b->postcopy_ready(x->host));
    }
    return false;
}

struct error *xenops_throttle(struct call *c, struct xenops *x, const char *uuid, unsigned percent)
{
    struct verb v;

    if (!xenops_can(x, XENOPS_THROTTLE))
        return err_internal(c->arena, "backend %s cannot slow a guest down", x->backend->name);
    TRY(verb_beside(c, x, "xenops.throttle", uuid, &v));
    return verb_end(&v, x->backend->throttle(c, x->host, uuid, percent));
}

static struct error *postcopy(struct call *c, struct xenops *x, const char *point, const char *uuid, xenops_postcopy_fn *run,
                              struct byte_stream *stream, int64_t *bytes_r)
{
    struct verb v;

    *bytes_r = 0;
    if (!xenops_can(x, XENOPS_POSTCOPY))
        return err_internal(c->arena, "backend %s has no post-copy here", x->backend->name);
    TRY(verb_beside(c, x, point, uuid, &v));
    return verb_end(&v, run(c, x->host, uuid, stream, bytes_r));
}

struct error *xenops_postcopy_send(struct call *c, struct xenops *x, const char *uuid, struct byte_stream *stream, int64_t *bytes_r)
{
    return postcopy(c, x, "xenops.postcopy_send", uuid, x->backend->postcopy_send, stream, bytes_r);
}

struct error *xenops_postcopy_receive(struct call *c, struct xenops *x, const char *uuid, struct byte_stream *stream, int64_t *bytes_r)
{
    return postcopy(c, x, "xenops.postcopy_receive", uuid, x->backend->postcopy_receive, stream, bytes_r);
}
