#include "xapi/migrate/path_watch.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/thread.h"

#define LOOK_MS 100

struct path_watch {
    struct call *c;
    struct byte_stream *stream;
    int64_t patience_ms, most_ms;
    int fd, stop_fd;
    atomic_int verdict;
    pthread_t thread;
};

static uint64_t moved(int fd)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(uint64_t))
        return 0;
    return info.tcpi_bytes_acked + info.tcpi_bytes_received;
}

/* Waits a little: true when the watch is to end. */
static bool told_to_stop(struct path_watch *w)
{
    struct pollfd fds[] = { { .fd = w->stop_fd, .events = POLLIN },
                            { .fd = w->c->cancel != NULL && !cancel_raised(w->c->cancel) ? cancel_fd(w->c->cancel) : -1, .events = POLLIN } };
    (void)poll(fds, ARRAY_LEN(fds), LOOK_MS);
    return fds[0].revents != 0;
}

static void *watch_main(void *arg)
{
    struct path_watch *w = arg;
    int64_t began = clock_ms(w->c->clock), changed_at = began;
    uint64_t last = moved(w->fd);
    while (!told_to_stop(w)) {
        int64_t now = clock_ms(w->c->clock);
        uint64_t n = moved(w->fd);
        if (n != last)
            changed_at = now;
        last = n;
        bool over = w->most_ms > 0 && now - began > w->most_ms, cancelled = call_cancelled(w->c);
        if (!cancelled && !over && now - changed_at < w->patience_ms)
            continue;
        atomic_store(&w->verdict, cancelled ? PATH_CANCELLED : PATH_STALLED);
        bytes_abort(w->stream);
        break;
    }
    return NULL;
}

struct path_watch *path_watch_start(struct call *c, struct byte_stream *stream, int64_t patience_ms, int64_t most_ms)
{
    struct path_watch *w = xcalloc(1, sizeof *w);
    *w = (struct path_watch){ .c = c, .stream = stream, .patience_ms = patience_ms, .most_ms = most_ms, .fd = stream->ops->fd(stream),
                              .stop_fd = eventfd(0, EFD_CLOEXEC) };
    if (w->stop_fd >= 0 && thread_try_start("path-watch", watch_main, w, &w->thread) == 0)
        return w;
    fd_close(&w->stop_fd);
    xfree(w);
    return NULL;
}

enum path_verdict path_watch_stop(struct path_watch *w)
{
    if (w == NULL)
        return PATH_FINE;
    CHECK(eventfd_write(w->stop_fd, 1) == 0);
    CHECK(pthread_join(w->thread, NULL) == 0);
    enum path_verdict verdict = (enum path_verdict)atomic_load(&w->verdict);
    fd_close(&w->stop_fd);
    xfree(w);
    return verdict;
}
