#include "xapi/transfer/transfer_watch.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

#include "rpc/base/check.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

LOG_MODULE(transfer);

#define LOOK_MS 1000

struct transfer_watch {
    struct xapi *xapi;
    struct lock lock;
    struct cond changed;
    struct transfer_watched *list;
    pthread_t thread;
    bool running, stopping;
};

static uint64_t moved(const struct transfer_watched *w)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof info;
    uint64_t steps = atomic_load(&w->steps);

    if (getsockopt(w->stream->ops->fd(w->stream), IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(uint64_t))
        return steps;
    return steps + info.tcpi_bytes_acked + info.tcpi_bytes_received;
}

/* Why this job must end now; NULL: it may go on. */
static struct error *reason(struct call *c, struct xapi *xapi, struct transfer_watched *w)
{
    int64_t now = clock_ms(xapi->clock), patience_s = config_int(xapi->config, "transfer-silence-s");
    uint64_t n = moved(w);

    if (!atomic_load(&xapi->serving))
        return err_internal(c->arena, "this host's daemon is stopping");
    if (n != w->seen)
        w->seen_ms = now;
    w->seen = n;
    if (now - w->seen_ms > patience_s * 1000)
        return err_internal(c->arena, "the client has moved no byte for %lld s", (long long)patience_s);
    return transfer_note(c, xapi, w->transfer, (double)atomic_load(&w->millionths) / 1e6);
}

/* Without the lock. */
static void look(struct xapi *xapi, struct transfer_watched *w)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = xapi->clock, .id = "transfers" };

    if (w->error != NULL) { /* told a second ago, and still there */
        bytes_abort(w->stream);
        return;
    }
    struct error *e = reason(&c, xapi, w);
    if (e == NULL)
        return;
    log_info("transfer %s is ended: %s", w->transfer->id, error_text(a, e));
    w->error = error_dup(w->arena, e);
    cancel_raise(w->cancel);
}

static void *watch_main(void *arg)
{
    struct transfer_watch *watch = arg;

    lock_take(&watch->lock);
    while (!watch->stopping) {
        (void)cond_wait_ms(&watch->changed, &watch->lock, LOOK_MS);
        for (struct transfer_watched *w = watch->list; w != NULL && !watch->stopping; w = w->next) {
            w->busy = true;
            lock_drop(&watch->lock);
            look(watch->xapi, w);
            lock_take(&watch->lock);
            w->busy = false; /* it is still in the list: who takes it out has waited for this */
            cond_broadcast(&watch->changed);
        }
    }
    lock_drop(&watch->lock);
    return NULL;
}

struct transfer_watch *transfer_watch_new(void)
{
    struct transfer_watch *watch = xcalloc(1, sizeof *watch);

    lock_init(&watch->lock, LOCK_TASK);
    cond_init(&watch->changed);
    return watch;
}

void transfer_watch_free(struct transfer_watch *watch)
{
    if (watch == NULL)
        return;
    lock_take(&watch->lock);
    watch->stopping = true;
    cond_broadcast(&watch->changed);
    lock_drop(&watch->lock);
    if (watch->running)
        CHECK(pthread_join(watch->thread, NULL) == 0);
    cond_release(&watch->changed);
    lock_release(&watch->lock);
    xfree(watch);
}

void transfer_watch_add(struct transfer_watch *watch, struct xapi *xapi, struct transfer_watched *w)
{
    w->arena = arena_new();
    w->seen = moved(w);
    w->seen_ms = clock_ms(xapi->clock);
    LOCK_SCOPE(&watch->lock);
    w->next = watch->list;
    watch->list = w;
    if (watch->running)
        return;
    watch->running = true;
    watch->xapi = xapi;
    watch->thread = thread_start("transfers", watch_main, watch);
}

struct error *transfer_watch_remove(struct arena *a, struct transfer_watch *watch, struct transfer_watched *w)
{
    lock_take(&watch->lock);
    while (w->busy)
        cond_wait(&watch->changed, &watch->lock);
    struct transfer_watched **at = &watch->list;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    lock_drop(&watch->lock);
    struct error *e = error_dup(a, w->error);
    arena_free(w->arena);
    return e;
}
