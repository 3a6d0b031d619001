/* The table of domains and the host's memory. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "xenops/sim/host.h"

#define WAIT_SLICE_MS 50 /* between two looks at cancellation */

struct sim_domain *sim_domain_new(const char *uuid, int domid, const char *dir)
{
    struct sim_domain *d = xcalloc(1, sizeof(*d));

    atomic_init(&d->refs, 1);
    atomic_init(&d->end, GUEST_END_NONE);
    d->uuid = xstrdup(uuid);
    d->dir = xstrdup(dir);
    d->spec = xstrdup("{}");
    d->domid = domid;
    d->pidfd = d->ram_fd = d->event_fd = d->faults_fd = -1;
    return d;
}

struct sim_domain *sim_domain_ref(struct sim_domain *d)
{
    atomic_fetch_add(&d->refs, 1);
    return d;
}

void sim_memory_unmap(struct sim_domain *d)
{
    uint8_t *memory = atomic_exchange(&d->memory, NULL);

    if (memory != NULL)
        munmap(memory, d->n_pages * GUEST_PAGE);
}

void sim_domain_unref(struct sim_domain *d)
{
    if (d == NULL || atomic_fetch_sub(&d->refs, 1) != 1)
        return;
    sim_memory_unmap(d);
    if (d->control != NULL)
        munmap(d->control, d->control_size);
    fd_close(&d->pidfd);
    fd_close(&d->ram_fd);
    fd_close(&d->event_fd);
    fd_close(&d->faults_fd);
    xfree(d->missing);
    xfree(d->uuid);
    xfree(d->dir);
    xfree(d->spec);
    xfree(d);
}

static struct sim_domain *find_locked(struct sim_host *h, const char *uuid)
{
    for (struct sim_domain *d = h->domains; d != NULL; d = d->next)
        if (strcmp(d->uuid, uuid) == 0)
            return d;
    return NULL;
}

struct error *sim_domain_find(struct call *c, struct sim_host *h, const char *uuid, struct sim_domain **d_r)
{
    lock_take(&h->lock);
    struct sim_domain *d = find_locked(h, uuid);
    d = d != NULL && d->ready ? sim_domain_ref(d) : NULL;
    lock_drop(&h->lock);
    *d_r = d;
    return d != NULL ? NULL : error_make(c->arena, __FILE__, __LINE__, "DOMAIN_NOT_FOUND", 1, uuid);
}

struct error *sim_bad_state(struct call *c, const char *expected, const char *actual)
{
    return error_make(c->arena, __FILE__, __LINE__, "VM_BAD_POWER_STATE", 2, expected, actual);
}

struct error *sim_domain_find_alive(struct call *c, struct sim_host *h, const char *uuid, struct sim_domain **d_r)
{
    TRY(sim_domain_find(c, h, uuid, d_r));
    return atomic_load(&(*d_r)->end) == GUEST_END_NONE ? NULL : sim_bad_state(c, "running", "halted");
}

/* --- memory --- */

static int64_t free_locked(const struct sim_host *h)
{
    int64_t used = 0;

    for (const struct sim_domain *d = h->domains; d != NULL; d = d->next)
        used += d->reserved;
    return h->options.memory > used ? h->options.memory - used : 0;
}

int64_t sim_memory_free(struct sim_host *h)
{
    LOCK_SCOPE(&h->lock);

    return free_locked(h);
}

static struct error *not_enough(struct call *c, int64_t needed, int64_t available)
{
    const char *n = arena_printf(c->arena, "%lld", (long long)needed), *a = arena_printf(c->arena, "%lld", (long long)available);

    return error_make(c->arena, __FILE__, __LINE__, "HOST_NOT_ENOUGH_FREE_MEMORY", 2, n, a);
}

struct error *sim_domain_reserve(struct call *c, struct sim_host *h, struct sim_domain *d, int64_t bytes)
{
    LOCK_SCOPE(&h->lock);
    int64_t available = free_locked(h) + d->reserved;

    if (bytes > available && bytes > d->reserved)
        return not_enough(c, bytes, available);
    d->reserved = bytes;
    return NULL;
}

struct error *sim_domain_insert(struct call *c, struct sim_host *h, struct sim_domain *d, int64_t reserve)
{
    LOCK_SCOPE(&h->lock);

    if (find_locked(h, d->uuid) != NULL)
        return sim_bad_state(c, "halted", "running");
    if (reserve > free_locked(h))
        return not_enough(c, reserve, free_locked(h));
    d->reserved = reserve;
    d->next = h->domains;
    h->domains = sim_domain_ref(d);
    return NULL;
}

void sim_domain_ready(struct sim_host *h, struct sim_domain *d)
{
    LOCK_SCOPE(&h->lock);

    d->ready = true;
}

void sim_domain_remove(struct sim_host *h, struct sim_domain *gone)
{
    struct sim_domain *removed = NULL;

    lock_take(&h->lock);
    for (struct sim_domain **at = &h->domains; *at != NULL; at = &(*at)->next)
        if (*at == gone) {
            removed = gone;
            *at = gone->next;
            break;
        }
    lock_drop(&h->lock);
    sim_domain_unref(removed);
}

struct error *sim_domid_next(struct call *c, struct sim_host *h, int *domid_r)
{
    char text[16];

    lock_take(&h->lock);
    while (h->domid_writing) /* one at a time, so that the file never goes back */
        cond_wait(&h->changed, &h->lock);
    h->domid_writing = true;
    *domid_r = ++h->next_domid;
    lock_drop(&h->lock);
    snprintf(text, sizeof(text), "%d", *domid_r);
    int rc = file_replace(arena_printf(c->arena, "%s/next_domid", h->state_dir), text, strlen(text), 0600);
    lock_take(&h->lock);
    h->domid_writing = false;
    cond_broadcast(&h->changed);
    lock_drop(&h->lock);
    return rc < 0 ? err_internal(c->arena, "%s/next_domid: %s", h->state_dir, strerror(-rc)) : NULL;
}

/* --- state --- */

enum domain_state sim_domain_state(const struct sim_domain *d)
{
    if (atomic_load(&d->end) != GUEST_END_NONE)
        return DOMAIN_ENDED;
    if (d->control == NULL)
        return DOMAIN_PAUSED; /* it lives, but does not let us in */
    switch ((enum guest_state)atomic_load(&d->control->state)) {
    case GUEST_RUNNING: return DOMAIN_RUNNING;
    case GUEST_SUSPENDED: return DOMAIN_SUSPENDED;
    case GUEST_ENDED: /* its process goes any moment now; the watcher will say so */
    case GUEST_EMPTY:
    case GUEST_PAUSED: return DOMAIN_PAUSED;
    }
    return DOMAIN_PAUSED;
}

bool sim_domain_wait_end(struct call *c, struct sim_host *h, struct sim_domain *d, int64_t until_ms)
{
    LOCK_SCOPE(&h->lock);

    while (atomic_load(&d->end) == GUEST_END_NONE) {
        if (call_cancelled(c) || (until_ms > 0 && clock_ms(h->clock) >= until_ms))
            return false;
        cond_wait_ms(&h->changed, &h->lock, WAIT_SLICE_MS);
    }
    return true;
}
