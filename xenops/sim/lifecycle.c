/* From create to destroy. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/sim/host.h"
#include "xenops/state_text.h"

LOG_MODULE(sim);

#define KILL_MS 10000
#define THROTTLE_MAX 99u /* percent */
#define SHUTDOWN_MS 1200000 /* when the caller gives no limit */

/* For what has to be done even when the caller has given up. */
static struct call uncancelled(const struct call *c)
{
    struct call u = *c;

    u.cancel = NULL;
    u.deadline_ms = 0;
    return u;
}

/* --- create --- */

static void spec_keep(struct call *c, struct sim_domain *d, const struct vm_spec *s)
{
    AUTO_TEXT t = TEXT_INIT;
    struct value v = vm_spec_to_value(c->arena, s);

    state_text_add(&t, &v);
    xfree(d->spec);
    d->spec = text_steal(&t);
}

/* The process that did not make it, and all it left. */
static void discard(struct sim_host *h, struct sim_domain *d)
{
    int status;

    sim_guest_kill(d);
    if (d->pid > 0 && child_wait(d->pid, KILL_MS, &status) < 0)
        log_warn("guest %d does not go away", d->domid);
    sim_domain_remove(h, d);
    sim_dir_remove(d->dir);
}

static int64_t initial_memory(const struct vm_spec *s)
{
    return s->memory_dynamic_max > 0 && s->memory_dynamic_max < s->memory_static_max ? s->memory_dynamic_max : s->memory_static_max;
}

struct error *sim_create(struct call *c, void *host, const struct vm_spec *s, const char *uuid, struct domain_info *info)
{
    struct sim_host *h = host;
    int domid;

    if (s->memory_static_max < GUEST_PAGE || (uint64_t)s->memory_static_max / GUEST_PAGE > GUEST_PAGES_MAX)
        return err_internal(c->arena, "a VM of %lld bytes of memory", (long long)s->memory_static_max);
    TRY(sim_domid_next(c, h, &domid));
    const char *dir = arena_printf(c->arena, "%s/domains/%d", h->state_dir, domid);
    AUTO_DOMAIN *d = sim_domain_new(uuid, domid, dir);
    d->n_pages = ((uint64_t)s->memory_static_max + GUEST_PAGE - 1) / GUEST_PAGE;
    d->memory_static_max = s->memory_static_max;
    d->vcpus = s->vcpus > 0 ? s->vcpus : 1;
    d->started_at = clock_wall(h->clock);
    spec_keep(c, d, s);
    TRY(sim_domain_insert(c, h, d, initial_memory(s)));
    int rc = dir_create(dir, 0700);
    struct error *e = rc < 0 ? err_internal(c->arena, "%s: %s", dir, strerror(-rc)) : sim_guest_start(c, h, s, d);
    if (e != NULL) {
        discard(h, d);
        return e;
    }
    sim_domain_ready(h, d);
    sim_watch_add(h, d);
    sim_info_fill(c, d, uuid, info);
    return NULL;
}

/* --- running and standing --- */

static struct error *simple(struct call *c, struct sim_host *h, const char *uuid, enum guest_verb verb, const char *expected)
{
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    return sim_guest_call(c, d, verb, 0, NULL, 0, expected);
}

struct error *sim_build(struct call *c, void *host, const char *uuid, const struct vm_spec *s)
{
    return simple(c, host, uuid, GUEST_VERB_BUILD, "halted");
}
struct error *sim_unpause(struct call *c, void *host, const char *uuid)
{
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, host, uuid, &d));
    TRY(sim_guest_call(c, d, GUEST_VERB_UNPAUSE, 0, NULL, 0, "paused"));
    if (atomic_load(&d->control->postcopy) != GUEST_POSTCOPY_FILLING)
        sim_memory_unmap(d);
    return NULL;
}
struct error *sim_pause(struct call *c, void *host, const char *uuid) { return simple(c, host, uuid, GUEST_VERB_PAUSE, "running"); }

/* Not one of whom another copy runs already. */
struct error *sim_resume(struct call *c, void *host, const char *uuid)
{
    uint32_t offered = GUEST_POSTCOPY_OFFERED;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, host, uuid, &d));
    if (atomic_load(&d->control->postcopy) == GUEST_POSTCOPY_GIVEN)
        return sim_bad_state(c, "suspended", "postcopy");
    atomic_compare_exchange_strong(&d->control->postcopy, &offered, GUEST_POSTCOPY_NONE);
    TRY(sim_guest_call(c, d, GUEST_VERB_RESUME, 0, NULL, 0, "suspended"));
    sim_memory_unmap(d);
    return NULL;
}

struct error *sim_throttle(struct call *c, void *host, const char *uuid, unsigned percent)
{
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, host, uuid, &d));
    atomic_store(&d->control->throttle, percent < THROTTLE_MAX ? percent : THROTTLE_MAX);
    return NULL;
}

static struct error *shutdown_error(struct call *c, struct sim_domain *d, const struct guest_answered *a, int rc)
{
    if (rc == -ECANCELED)
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (rc == -ETIMEDOUT)
        return error_make(c->arena, __FILE__, __LINE__, "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", 0);
    if (rc < 0)
        return err_internal(c->arena, "guest %d does not answer: %s", d->domid, strerror(-rc));
    if (a->answer == GUEST_ANSWER_STATE)
        return sim_bad_state(c, "running", (const char *)a->payload);
    return NULL;
}

struct error *sim_shutdown(struct call *c, void *host, const char *uuid, enum domain_end how, int64_t timeout_ms)
{
    struct sim_host *h = host;
    int64_t now = clock_ms(c->clock), limit = timeout_ms > 0 ? timeout_ms : SHUTDOWN_MS;
    struct guest_answered a = { .answer = GUEST_ANSWER_ACK };
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    AUTO_FD fd = sim_guest_connect(d);
    int rc = fd < 0 ? fd : sim_guest_send(fd, GUEST_VERB_SHUTDOWN, how == DOMAIN_END_REBOOT ? GUEST_END_REBOOT : GUEST_END_POWEROFF, NULL, 0);
    if (rc == 0)
        rc = sim_guest_receive(c, fd, now + (limit < h->options.suspend_ack_ms ? limit : h->options.suspend_ack_ms), &a);
    TRY(shutdown_error(c, d, &a, rc));
    if (sim_domain_wait_end(c, h, d, now + limit))
        return NULL;
    if (call_cancelled(c))
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    return error_make(c->arena, __FILE__, __LINE__, "VM_SHUTDOWN_TIMEOUT", 1, arena_printf(c->arena, "%lld", (long long)(limit / 1000)));
}

struct error *sim_destroy(struct call *c, void *host, const char *uuid)
{
    struct sim_host *h = host;
    struct call go_on = uncancelled(c);
    AUTO_DOMAIN *d = NULL;

    if (sim_domain_find(c, h, uuid, &d) != NULL)
        return NULL; /* gone already */
    sim_busy_break(h, d, false);
    if (atomic_load(&d->end) == GUEST_END_NONE) {
        sim_guest_kill(d);
        if (!sim_domain_wait_end(&go_on, h, d, clock_ms(h->clock) + KILL_MS))
            return err_internal(c->arena, "guest %d (process %d) cannot be killed", d->domid, (int)d->pid);
    }
    sim_watch_remove(h, d);
    sim_domain_remove(h, d);
    sim_dir_remove(d->dir);
    return NULL;
}

/* --- changes --- */

struct error *sim_rename(struct call *c, void *host, const char *from, const char *to)
{
    struct sim_host *h = host;
    AUTO_DOMAIN *d = NULL, *taken = NULL;

    TRY(sim_domain_find(c, h, from, &d));
    if (strcmp(from, to) == 0)
        return NULL;
    if (sim_domain_find(c, h, to, &taken) == NULL)
        return sim_bad_state(c, "halted", "running");
    TRY(sim_record_write(c, d, to));
    lock_take(&h->lock);
    char *old = d->uuid;
    d->uuid = xstrdup(to);
    lock_drop(&h->lock);
    xfree(old);
    return NULL;
}

void sim_reserve_actual(struct call *c, struct sim_host *h, struct sim_domain *d)
{
    uint64_t actual = atomic_load(&d->control->actual_pages), target = atomic_load(&d->control->target_pages);

    /* a guest that has more than it may is counted as what it has */
    if (sim_domain_reserve(c, h, d, (int64_t)((actual > target ? actual : target) * GUEST_PAGE)) != NULL)
        log_warn("guest %d holds more memory than the host has left", d->domid);
}

struct error *sim_balloon(struct call *c, void *host, const char *uuid, int64_t target)
{
    struct sim_host *h = host;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    if (target > d->memory_static_max)
        target = d->memory_static_max;
    int64_t actual = (int64_t)(atomic_load(&d->control->actual_pages) * GUEST_PAGE);
    TRY(sim_domain_reserve(c, h, d, target > actual ? target : actual));
    TRY(sim_guest_call(c, d, GUEST_VERB_BALLOON, target, NULL, 0, "running"));
    sim_reserve_actual(c, h, d);
    return NULL;
}

struct error *sim_disk_plug(struct call *c, void *host, const char *uuid, const struct disk_spec *disk)
{
    struct sim_host *h = host;
    AUTO_TEXT t = TEXT_INIT;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    sim_disk_line(&t, disk);
    return sim_guest_call(c, d, GUEST_VERB_PLUG, 0, t.bytes, t.len - 1, "running"); /* without the newline */
}

struct error *sim_disk_unplug(struct call *c, void *host, const char *uuid, const struct disk_spec *disk)
{
    struct sim_host *h = host;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    return sim_guest_call(c, d, GUEST_VERB_UNPLUG, 0, disk->device, strlen(disk->device), "running");
}
