#include "storage/tapd/nbd_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "storage/tapd/nbd_server_private.h"

LOG_MODULE(nbd_server);

#define BACKLOG 64
#define ACCEPTS_OF_A_TURN 16
#define ACCEPT_PAUSE_US 100000 /* after running out of descriptors */
#define STOP_US 5000000        /* how long peers have to take their last replies */

/* --- the server's own turn ------------------------------------------------------------------------------ */

/* Calls 'stopped' when all are gone; it may free the server. */
static bool check_stopped(struct nbd_server *s)
{
    void (*stopped)(void *) = s->stopped;

    if (!s->stopping || stopped == NULL || s->clients > 0 || s->gone != NULL)
        return false;
    loop_timer_clear(s->loop, &s->sweep);
    s->stopped = NULL;
    stopped(s->stopped_ctx);
    return true;
}

static void go_on_all(struct nbd_server *s)
{
    for (struct nbd_conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        nbd_conn_go_on(c);
    }
}

/* Sends what was queued since the last turn, then lets those go on that waited for buffers. */
static void later(struct loop_idle *idle)
{
    struct nbd_server *s = CONTAINER_OF(idle, struct nbd_server, later);
    unsigned n = 0;

    while (s->senders != NULL) {
        struct nbd_conn *c = s->senders;

        s->senders = c->next_sender;
        c->sending = false;
        if (c->ended || !nbd_out_send(c))
            nbd_conn_drop(c);
        else if (c->draining)
            nbd_conn_go_on(c); /* ends it when that was all */
        else
            nbd_conn_events(c);
    }
    for (const struct nbd_conn *c = s->waiting; c != NULL; c = c->next_waiting)
        n++;
    for (; n > 0 && s->waiting != NULL; n--) {
        struct nbd_conn *c = s->waiting;

        s->waiting = c->next_waiting;
        if (s->waiting == NULL)
            s->waiting_last = &s->waiting;
        c->waiting = false;
        nbd_conn_go_on(c);
    }
    if (s->stopping && !check_stopped(s))
        go_on_all(s);
}

/* While others wait, a connection with buffers that did not move for long is dropped. When stopping: all of them. */
static void sweep(struct loop_timer *t)
{
    struct nbd_server *s = CONTAINER_OF(t, struct nbd_server, sweep);
    int64_t now = loop_now_us(s->loop);

    for (struct nbd_conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        bool holds = c->piece != NULL || c->out != NULL;
        if (s->stopping || (s->waiting != NULL && holds && now - c->moved_us > NBD_SERVER_STALL_US))
            nbd_conn_drop(c);
    }
    if (s->waiting != NULL && !s->stopping)
        loop_timer_set(s->loop, &s->sweep, now + NBD_SERVER_STALL_US / 4);
}

/* --- listening ------------------------------------------------------------------------------------------ */

static void accept_some(struct loop_fd *watch, uint32_t events)
{
    struct nbd_listener *l = CONTAINER_OF(watch, struct nbd_listener, watch);
    struct nbd_server *s = l->server;

    for (unsigned i = 0; i < ACCEPTS_OF_A_TURN && l->watch.fd >= 0; i++) {
        int fd = accept4(l->watch.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            log_warn_rl("cannot accept: %s", strerror(errno));
            loop_change(s->loop, &l->watch, 0);
            loop_timer_set(s->loop, &s->accept_again, loop_now_us(s->loop) + ACCEPT_PAUSE_US);
        }
        if (fd < 0)
            return;
        if (s->clients >= NBD_SERVER_CLIENTS_MAX) {
            log_warn_rl("more than %u connections: one closed", NBD_SERVER_CLIENTS_MAX);
            fd_close(&fd);
            continue;
        }
        nbd_conn_start(s, fd, l->read_only, l->tls, false);
    }
}

static void accept_again(struct loop_timer *t)
{
    struct nbd_server *s = CONTAINER_OF(t, struct nbd_server, accept_again);

    if (s->unix_listener.watch.fd >= 0)
        loop_change(s->loop, &s->unix_listener.watch, EPOLLIN);
    if (s->tcp_listener.watch.fd >= 0)
        loop_change(s->loop, &s->tcp_listener.watch, EPOLLIN);
}

static void unlisten(struct nbd_listener *l)
{
    if (l->watch.fd < 0)
        return;
    loop_remove(l->server->loop, &l->watch);
    fd_close(&l->watch.fd);
    disk_tls_unref(l->tls);
    l->tls = NULL;
}

static void listen_on(struct nbd_listener *l, int fd, bool read_only, struct disk_tls_context *tls)
{
    unlisten(l);
    (void)!fd_set_nonblock(fd, true);
    l->watch = (struct loop_fd){ .fd = fd, .ready = accept_some, .events = EPOLLIN };
    l->read_only = read_only;
    l->tls = tls != NULL ? disk_tls_ref(tls) : NULL;
    loop_add(l->server->loop, &l->watch);
}

int nbd_server_listen_unix(struct nbd_server *s, const char *path, bool read_only)
{
    int fd = unix_listen(path, 0600, BACKLOG);

    if (fd < 0)
        return fd;
    listen_on(&s->unix_listener, fd, read_only, NULL);
    return 0;
}

/* The context of a certificate file; the last one is kept while the file stays as it is. Borrowed. */
static int certificate(struct nbd_server *s, const char *path, struct disk_tls_context **context_r)
{
    struct stat st;
    struct disk_tls_context *fresh;

    *context_r = NULL;
    if (path == NULL)
        return 0;
    if (stat(path, &st) < 0)
        return -errno;
    int64_t mtime = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    if (s->certificate == NULL || strcmp(s->certificate_path, path) != 0 || s->certificate_mtime_ns != mtime) {
        int rc = disk_tls_server(path, &fresh);
        if (rc < 0)
            return rc;
        disk_tls_unref(s->certificate);
        xfree(s->certificate_path);
        s->certificate = fresh;
        s->certificate_path = xstrdup(path);
        s->certificate_mtime_ns = mtime;
    }
    *context_r = s->certificate;
    return 0;
}

union address { struct sockaddr any; struct sockaddr_in v4; struct sockaddr_in6 v6; };

static int address_of(const char *text, unsigned port, union address *a, socklen_t *len_r)
{
    memset(a, 0, sizeof *a);
    if (port > 65535)
        return -EINVAL;
    if (inet_pton(AF_INET, text[0] != '\0' ? text : "0.0.0.0", &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)port);
        *len_r = sizeof a->v4;
        return 0;
    }
    if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) != 1)
        return -EINVAL;
    a->v6.sin6_family = AF_INET6;
    a->v6.sin6_port = htons((uint16_t)port);
    *len_r = sizeof a->v6;
    return 0;
}

int nbd_server_listen_tcp(struct nbd_server *s, const char *address, unsigned port, const char *certificate_path, bool read_only, unsigned *port_r)
{
    struct disk_tls_context *tls;
    union address a;
    socklen_t len;
    int on = 1, rc = certificate(s, certificate_path, &tls);

    if (rc == 0)
        rc = address_of(address, port, &a, &len);
    if (rc < 0)
        return rc;
    AUTO_FD fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, &a.any, len) < 0 || listen(fd, BACKLOG) < 0 || getsockname(fd, &a.any, &len) < 0)
        return -errno;
    *port_r = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
    listen_on(&s->tcp_listener, fd_steal(&fd), read_only, tls);
    return 0;
}

void nbd_server_unlisten_tcp(struct nbd_server *s) { unlisten(&s->tcp_listener); }

int nbd_server_adopt(struct nbd_server *s, int fd, bool read_only, const char *certificate_path)
{
    struct disk_tls_context *tls;
    struct stat st;
    int rc = certificate(s, certificate_path, &tls);

    if (rc == 0 && (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode)))
        rc = -ENOTSOCK;
    if (rc == 0 && (s->stopping || s->clients >= NBD_SERVER_CLIENTS_MAX))
        rc = s->stopping ? -ESHUTDOWN : -EMFILE;
    if (rc < 0) {
        fd_close(&fd);
        return rc;
    }
    nbd_conn_start(s, fd, read_only, tls, true);
    return 0;
}

void nbd_server_cut(struct nbd_server *s)
{
    for (struct nbd_conn *c = s->conns, *next; c != NULL; c = next) {
        next = c->next;
        if (c->adopted)
            nbd_conn_drop(c);
    }
}

/* --- life ------------------------------------------------------------------------------------------------- */

struct nbd_server *nbd_server_new(struct loop *loop, struct block *block)
{
    struct nbd_server *s = xcalloc(1, sizeof *s);

    s->loop = loop;
    s->block = block;
    s->unix_listener = s->tcp_listener = (struct nbd_listener){ .watch.fd = -1, .server = s };
    s->waiting_last = &s->waiting;
    s->later.run = later;
    s->sweep.fired = sweep;
    s->accept_again.fired = accept_again;
    nbd_pool_init(&s->pool);
    return s;
}

void nbd_server_block(struct nbd_server *s, struct block *block)
{
    CHECK(s->below == 0);
    s->block = block;
}

void nbd_server_dirty(struct nbd_server *s, struct nbd_dirty_source *source) { s->dirty = source; }
unsigned nbd_server_clients(const struct nbd_server *s) { return s->clients; }
unsigned nbd_server_in_flight(const struct nbd_server *s) { return s->below; }

void nbd_server_stop(struct nbd_server *s, void (*stopped)(void *ctx), void *ctx)
{
    unlisten(&s->unix_listener);
    unlisten(&s->tcp_listener);
    s->stopping = true;
    s->stopped = stopped;
    s->stopped_ctx = ctx;
    loop_timer_set(s->loop, &s->sweep, loop_now_us(s->loop) + STOP_US);
    go_on_all(s);
    loop_later(s->loop, &s->later); /* 'stopped' is called from there */
}

void nbd_server_free(struct nbd_server *s)
{
    if (s == NULL)
        return;
    unlisten(&s->unix_listener);
    unlisten(&s->tcp_listener);
    while (s->conns != NULL)
        nbd_conn_drop(s->conns);
    CHECK(s->below == 0 && s->gone == NULL);
    loop_timer_clear(s->loop, &s->sweep);
    loop_timer_clear(s->loop, &s->accept_again);
    loop_not_later(s->loop, &s->later);
    disk_tls_unref(s->certificate);
    xfree(s->certificate_path);
    nbd_pool_release(&s->pool);
    xfree(s);
}
