#include "storage/tapd/tap.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"

LOG_MODULE(tap);

#define AGAIN_US 1000000

struct error *tap_error(struct arena *a, const char *what, int rc)
{
    return err_sr_backend_failure(a, "tapd", "", rc == 0 ? what : arena_printf(a, "%s: %s", what, strerror(-rc)));
}

/* --- verbs, one at a time -------------------------------------------------------------------------- */

static void run_next(struct loop_idle *i)
{
    struct tap *t = CONTAINER_OF(i, struct tap, next_call);

    if (t->call != NULL || t->queue == NULL)
        return;
    t->call = t->queue;
    t->queue = t->call->next;
    if (t->queue == NULL)
        t->queue_last = &t->queue;
    log_debug("%s", t->call->verb);
    tap_run(t, t->call);
}

static void handle(void *ctx, struct control_call *call)
{
    struct tap *t = ctx;

    if (tap_runs_at_once(call)) {
        tap_run(t, call);
        return;
    }
    call->next = NULL;
    *t->queue_last = call;
    t->queue_last = &call->next;
    loop_later(t->loop, &t->next_call);
}

void tap_answer(struct tap *t, const struct error *e, const struct value *result)
{
    struct control_call *call = t->call;

    t->call = NULL;
    control_answer(call, e, result);
    if (t->queue != NULL)
        loop_later(t->loop, &t->next_call);
}

void tap_answer_state(struct tap *t)
{
    const struct member state = member_of("state", value_string(spec_state_name(t->spec.state)));
    struct value v = value_map(&state, 1);

    tap_answer(t, NULL, &v);
}

/* --- holding the guest ----------------------------------------------------------------------------- */

static void held(struct tap *t, int result)
{
    tap_after_fn *after = t->after;

    t->after = NULL;
    after(t, result);
}

/* What comes next may close what is below, which the request has still to return through. */
static void flushed(struct block_request *r)
{
    struct tap *t = r->owner;
    loop_later(t->loop, &t->flush_done);
}

static void flush_done(struct loop_idle *i)
{
    struct tap *t = CONTAINER_OF(i, struct tap, flush_done);
    held(t, t->flush.result);
}

static void drained(void *ctx)
{
    struct tap *t = ctx;

    if (!t->wants_flush || t->source == NULL || t->gate->read_only) {
        held(t, 0);
        return;
    }
    /* below the statistics and the throttle, which are the guest's */
    t->flush = (struct block_request){ .op = BLOCK_FLUSH, .done = flushed, .owner = t };
    block_submit(t->throttle->below, &t->flush);
}

void tap_hold(struct tap *t, bool flush, tap_after_fn *after)
{
    CHECK(t->after == NULL);
    t->after = after;
    t->wants_flush = flush;
    gate_close(t->gate, drained, t);
}

/* --- life ------------------------------------------------------------------------------------------ */

struct error *tap_save(struct tap *t, struct arena *a, bool durable)
{
    int rc = spec_write(t->spec_path, &t->spec, durable);

    return rc < 0 ? tap_error(a, t->spec_path, rc) : NULL;
}

static void open_again(struct loop_timer *timer)
{
    handle(CONTAINER_OF(timer, struct tap, again), control_call_new("start"));
}

void tap_fail_later(struct tap *t) { loop_timer_set(t->loop, &t->again, loop_now_us(t->loop) + AGAIN_US); }

static struct error *listen_on(struct tap *t, struct arena *a)
{
    const char *nbd = arena_printf(a, "%s/nbd", t->dir), *control = arena_printf(a, "%s/control", t->dir);
    int rc = nbd_server_listen_unix(t->server, nbd, false);

    if (rc < 0)
        return tap_error(a, nbd, rc);
    rc = control_new(t->loop, control, handle, t, &t->control);
    return rc < 0 ? tap_error(a, control, rc) : NULL;
}

struct error *tap_new(struct arena *a, const struct tap_options *o, struct tap **tap_r)
{
    const char *spec_path = arena_printf(a, "%s/spec", o->dir);
    struct spec spec;
    int rc = spec_read(spec_path, &spec);

    if (rc < 0)
        return tap_error(a, spec_path, rc);
    struct tap *t = xcalloc(1, sizeof(*t));
    t->loop = o->loop;
    t->io = o->io;
    t->dir = xstrdup(o->dir);
    t->spec_path = xstrdup(spec_path);
    t->map_path = xprintf("%s/map", o->dir);
    t->allow_faults = o->allow_faults;
    t->spec = spec;
    t->queue_last = &t->queue;
    t->next_call.run = run_next;
    t->flush_done.run = flush_done;
    t->again.fired = open_again;
    t->gate = gate_new(o->loop, spec.size, spec.read_only);
    t->server = nbd_server_new(o->loop, t->gate);
    tap_mirror_load(t);
    struct error *e = listen_on(t, a);
    if (e != NULL) {
        tap_free(t);
        return e;
    }
    handle(t, control_call_new("start"));
    *tap_r = t;
    return NULL;
}

void tap_shutdown(struct tap *t) { handle(t, control_call_new("shutdown")); }

void tap_free(struct tap *t)
{
    if (t->mirror != NULL) { /* goes on after a restart as after a kill: the map has it all */
        log_info("ends in the middle of a mirror");
        _exit(0);
    }
    gate_refuse(t->gate, -ESHUTDOWN);
    int rc = tap_close(t);
    if (rc < 0)
        log_err("%s: closing: %s", t->spec.path, strerror(-rc));
    nbd_server_free(t->server);
    while (t->queue != NULL) {
        t->call = t->queue;
        t->queue = t->call->next;
        tap_answer(t, tap_error(t->call->arena, "tapd ends", 0), NULL);
    }
    control_free(t->control);
    if (t->stats != NULL)
        block_close(t->stats);
    block_close(t->gate);
    loop_timer_clear(t->loop, &t->again);
    loop_not_later(t->loop, &t->next_call);
    loop_not_later(t->loop, &t->flush_done);
    spec_release(&t->spec);
    xfree(t->dir);
    xfree(t->spec_path);
    xfree(t->map_path);
    xfree(t);
}
