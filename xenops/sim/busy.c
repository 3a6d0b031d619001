/* Breaking off what goes on for long with a domain. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "rpc/base/fd.h"
#include "xenops/sim/host.h"

#define DYING_MS 1000 /* for the watcher to see an end that its connection saw first */

static struct error *watch(struct call *c, struct sim_busy *b)
{
    if (c->cancel == NULL)
        return NULL;
    b->cancel_copy_fd = fcntl(cancel_fd(c->cancel), F_DUPFD_CLOEXEC, 0);
    int rc = b->cancel_copy_fd < 0 ? -errno : sim_watch_cancel(b->host, b->domain, b->cancel_copy_fd);
    return rc < 0 ? err_internal(c->arena, "watching for cancellation: %s", strerror(-rc)) : NULL;
}

static void release(struct sim_busy *b)
{
    if (b->cancel_copy_fd >= 0)
        sim_watch_cancel_remove(b->host, b->cancel_copy_fd);
    fd_close(&b->cancel_copy_fd);
    lock_take(&b->host->lock);
    b->domain->busy = NULL;
    lock_drop(&b->host->lock);
    cancel_unref(b->call.cancel);
}

struct error *sim_busy_begin(struct call *c, struct sim_host *h, struct sim_domain *d, struct byte_stream *stream, bool outlives,
                             struct sim_busy *b)
{
    *b = (struct sim_busy){ .host = h, .domain = d, .stream = stream, .call = *c, .outlives = outlives, .cancel_copy_fd = -1 };
    b->call.cancel = cancel_new();
    lock_take(&h->lock);
    bool taken = d->busy != NULL;
    if (!taken)
        d->busy = b;
    lock_drop(&h->lock);
    if (taken) {
        cancel_unref(b->call.cancel);
        return sim_bad_state(c, "running", "postcopy");
    }
    struct error *e = watch(c, b);
    if (e != NULL) {
        release(b);
        return e;
    }
    if (call_cancelled(c) || (!outlives && atomic_load(&d->end) != GUEST_END_NONE))
        cancel_raise(b->call.cancel);
    return NULL;
}

/* Seen from here first: a connection that was refused or broke. The watcher knows it soon. */
static bool has_ended(struct call *c, struct sim_busy *b)
{
    struct pollfd p = { .fd = b->domain->pidfd, .events = POLLIN };
    struct call go_on = *c;

    go_on.cancel = NULL;
    go_on.deadline_ms = 0;
    if (atomic_load(&b->domain->end) != GUEST_END_NONE)
        return true;
    bool ending = b->domain->control != NULL && atomic_load(&b->domain->control->state) == GUEST_ENDED;
    if (!ending && poll(&p, 1, 0) <= 0)
        return false;
    return sim_domain_wait_end(&go_on, b->host, b->domain, clock_ms(b->host->clock) + DYING_MS);
}

static struct error *ended(struct call *c, const struct sim_busy *b, const struct error *cause)
{
    struct error *e = sim_bad_state(c, b->outlives ? "suspended" : "running", "halted");

    e->cause = error_text(c->arena, cause);
    return e;
}

struct error *sim_busy_end(struct call *c, struct sim_busy *b, struct error *e)
{
    release(b);
    if (e == NULL || error_is(e, "TASK_CANCELLED"))
        return e == NULL || call_cancelled(c) ? e : ended(c, b, e);
    if (call_cancelled(c)) /* it came of the broken stream */
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (!b->broken && (b->outlives || !has_ended(c, b)))
        return e;
    return ended(c, b, e);
}

void sim_busy_break(struct sim_host *h, struct sim_domain *d, bool by_guest)
{
    LOCK_SCOPE(&h->lock);

    if (d->busy == NULL || (by_guest && d->busy->outlives))
        return;
    d->busy->broken = true;
    cancel_raise(d->busy->call.cancel);
    bytes_abort(d->busy->stream);
}

void sim_busy_cancel(struct sim_host *h, struct sim_domain *d)
{
    LOCK_SCOPE(&h->lock);

    if (d->busy == NULL)
        return;
    cancel_raise(d->busy->call.cancel);
    bytes_abort(d->busy->stream); /* it may stand in a write to a peer that does not read */
}
