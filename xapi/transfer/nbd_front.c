#include "xapi/transfer/nbd_front.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/thread.h"
#include "rpc/base/work.h"
#include "xapi/transfer/nbd_gate.h"

LOG_MODULE(nbd_front);

#define CONNECTIONS_MAX 128
#define BACKLOG 64

struct nbd_front {
    struct xapi *xapi;
    struct tls_context *tls;
    int listen_fd, stop_fd, port;
    pthread_t thread;
    struct lock lock;          /* class LEAF: what follows */
    struct cond changed;
    struct nbd_visitor *visitors;
    unsigned n;
    bool stopping;
};

struct nbd_visitor { struct nbd_visitor *next; struct nbd_front *front; struct nbd_gate gate; };

/* --- visitors -------------------------------------------------------------------------------------------------- */
static void leave(struct nbd_visitor *v)
{
    struct nbd_front *f = v->front;
    LOCK_SCOPE(&f->lock);
    struct nbd_visitor **at = &f->visitors;

    while (*at != v)
        at = &(*at)->next;
    *at = v->next;
    f->n--;
    cond_broadcast(&f->changed);
}

static void *visit(void *arg)
{
    struct nbd_visitor *v = arg;

    nbd_gate_serve(&v->gate);
    leave(v);
    nbd_gate_release(&v->gate);
    xfree(v);
    return NULL;
}

static bool enter(struct nbd_front *f, struct nbd_visitor *v)
{
    LOCK_SCOPE(&f->lock);
    if (f->stopping || f->n >= CONNECTIONS_MAX)
        return false;
    v->next = f->visitors;
    f->visitors = v;
    f->n++;
    return true;
}

static void welcome(struct nbd_front *f, int fd)
{
    struct nbd_visitor *v = xcalloc(1, sizeof *v);
    int on = 1;
    pthread_t thread;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    v->front = f;
    nbd_gate_init(&v->gate, f->xapi, f->tls, fd);
    if (enter(f, v)) {
        int rc = thread_try_start("nbd", visit, v, &thread);
        if (rc == 0) {
            CHECK(pthread_detach(thread) == 0);
            return;
        }
        log_warn_rl("a client of the NBD server is turned away: %s", strerror(-rc));
        leave(v);
    }
    nbd_gate_release(&v->gate);
    xfree(v);
}

static void *listen_run(void *arg)
{
    struct nbd_front *f = arg;
    struct pollfd fds[] = { { .fd = f->listen_fd, .events = POLLIN }, { .fd = f->stop_fd, .events = POLLIN } };

    for (;;) {
        if (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[1].revents != 0)
            return NULL;
        int fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            welcome(f, fd);
    }
}

/* --- the listener -------------------------------------------------------------------------------------------------- */
static int listen_on(const char *address, int port, int *port_r)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
    bool v6 = inet_pton(AF_INET, address, &in.sin_addr) != 1;
    socklen_t len = v6 ? sizeof in6 : sizeof in;
    int on = 1;

    if (v6 && inet_pton(AF_INET6, address, &in6.sin6_addr) != 1)
        return -EINVAL;
    AUTO_FD fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr *sa = v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 || bind(fd, sa, len) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, sa, &len) != 0)
        return -errno;
    *port_r = ntohs(v6 ? in6.sin6_port : in.sin_port);
    return fd_steal(&fd);
}

struct nbd_front *nbd_front_start(struct arena *arena, struct xapi *xapi)
{
    int port = (int)config_int(xapi->config, "nbd-port"), at = 0;

    if (port < 0)
        return NULL;
    AUTO_FD fd = listen_on(xapi->address, port, &at);
    struct tls_context *tls = NULL;
    struct error *e = fd >= 0 ? tls_server_context(arena, arena_printf(arena, "%s/xapi.pem", xapi->dir), &tls) : NULL;
    if (fd < 0 || e != NULL) {
        log_warn("disks are not served over NBD on %s port %d: %s", xapi->address, port, e != NULL ? error_text(arena, e) : strerror(-fd));
        return NULL;
    }
    struct nbd_front *f = xcalloc(1, sizeof *f);
    f->xapi = xapi;
    f->tls = tls;
    f->port = at;
    f->listen_fd = fd_steal(&fd);
    f->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(f->stop_fd >= 0);
    lock_init(&f->lock, LOCK_LEAF);
    cond_init(&f->changed);
    f->thread = thread_start("nbd-listen", listen_run, f);
    return f;
}

void nbd_front_stop(struct nbd_front *f)
{
    if (f == NULL)
        return;
    CHECK(eventfd_write(f->stop_fd, 1) == 0);
    CHECK(pthread_join(f->thread, NULL) == 0);
    lock_take(&f->lock);
    f->stopping = true;
    for (struct nbd_visitor *v = f->visitors; v != NULL; v = v->next)
        nbd_gate_abort(&v->gate);
    while (f->n > 0)
        cond_wait(&f->changed, &f->lock);
    lock_drop(&f->lock);
    cond_release(&f->changed);
    lock_release(&f->lock);
    close(f->listen_fd);
    close(f->stop_fd);
    tls_context_free(f->tls);
    xfree(f);
}

int nbd_front_port(const struct nbd_front *f) { return f != NULL ? f->port : 0; }
