#include "rpc/http/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/http/connection.h"
#include "rpc/http/loop.h"
#include "rpc/http/quota.h"

LOG_MODULE(http);

#define BACKLOG 4096
#define ACCEPTS_PER_TURN 16
#define REFUSED_AT_ONCE 64u /* connections beyond the limit that still get a 503 */

void listener_unref(struct listener *l)
{
    if (atomic_fetch_sub(&l->refs, 1) > 1)
        return;
    fd_close(&l->fd);
    tls_context_free(l->tls);
    xfree(l->unix_path);
    xfree(l);
}

void listener_shut(struct listener *l)
{
    atomic_store(&l->shut, true);
    shutdown(l->fd, SHUT_RDWR);
    if (l->unix_path != NULL)
        unlink(l->unix_path);
}

/* --- accepting ------------------------------------------------------------------------------------ */

static void name_peer(const struct sockaddr_storage *a, char *out, size_t size)
{
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, out, (socklen_t)size);
    } else if (a->ss_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)a)->sin6_addr;

        if (IN6_IS_ADDR_V4MAPPED(in6))
            inet_ntop(AF_INET, in6->s6_addr + 12, out, (socklen_t)size);
        else
            inet_ntop(AF_INET6, in6, out, (socklen_t)size);
    } else {
        snprintf(out, size, "unix");
    }
}

/* On the loop's thread; loop->load has been raised already. */
static void admit(struct loop *loop, struct listener *l, int fd, const struct sockaddr_storage *address)
{
    struct http_server *server = loop->server;
    const struct http_limits *limits = &server->limits;
    unsigned n = atomic_fetch_add(&server->n_connections, 1) + 1;
    char peer[PEER_SIZE];

    name_peer(address, peer, sizeof peer);
    bool quota = !l->unix_socket && limits->per_address > 0;
    bool granted = n <= limits->connections && (!quota || quota_take(server->quota, peer, limits->per_address));
    bool told = granted || (l->tls == NULL && n <= limits->connections + REFUSED_AT_ONCE);
    struct connection *c = told ? connection_new(loop, l, fd, peer) : NULL;

    if (c == NULL) {
        if (!told) {
            close(fd);
            atomic_fetch_add(&server->n_refused, 1);
        }
        connection_uncount(server, peer, granted && quota);
        atomic_fetch_sub(&loop->load, 1);
        return;
    }
    c->counted = granted && quota;
    if (l->unix_socket) {
        struct ucred cred = { .uid = (uid_t)-1 };
        socklen_t size = sizeof cred;

        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size);
        c->uid = cred.uid;
    }
    if (!granted)
        connection_refuse(c, 503);
    connection_serve(c);
}

/* The kernel wakes the same thread again and again: a connection goes to the loop that has the fewest. */
struct handover { struct mail mail; struct listener *listener; int fd; struct sockaddr_storage address; };

static void deliver_handover(struct loop *loop, struct mail *m)
{
    struct handover *h = CONTAINER_OF(m, struct handover, mail);

    if (atomic_load(&loop->server->stop) || atomic_load(&h->listener->shut)) {
        close(h->fd);
        atomic_fetch_sub(&loop->load, 1);
    } else {
        admit(loop, h->listener, h->fd, &h->address);
    }
    listener_unref(h->listener);
    xfree(h);
}

static struct loop *choose_loop(struct loop *here)
{
    struct http_server *server = here->server;
    struct loop *best = here;

    for (unsigned i = 0; i < server->n_loops; i++)
        if (atomic_load(&server->loops[i].load) < atomic_load(&best->load))
            best = &server->loops[i];
    atomic_fetch_add(&best->load, 1);
    return best;
}

static void assign(struct loop *here, struct listener *l, int fd, const struct sockaddr_storage *address)
{
    struct loop *loop = choose_loop(here);

    if (loop == here) {
        admit(loop, l, fd, address);
        return;
    }
    struct handover *h = xcalloc(1, sizeof *h);

    *h = (struct handover){ .mail = { .deliver = deliver_handover }, .listener = l, .fd = fd, .address = *address };
    atomic_fetch_add(&l->refs, 1);
    loop_send(loop, &h->mail);
}

/* Out of descriptors: takes the connection with the spare one and drops it, or it would be announced for ever. */
static void shed(struct loop *loop, struct listener *l)
{
    fd_close(&loop->spare_fd);
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0)
        close(fd);
    loop->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    atomic_fetch_add(&loop->server->n_refused, 1);
    log_warn_rl("out of file descriptors, a connection was dropped");
}

void listener_accept(struct loop *loop, struct listener *l)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        struct sockaddr_storage address = { 0 };
        socklen_t size = sizeof address;
        int fd = accept4(l->fd, (struct sockaddr *)&address, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            assign(loop, l, fd, &address);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE)
            shed(loop, l);
        else if (errno != EINTR && errno != ECONNABORTED)
            return; /* EAGAIN, or closed (EINVAL) */
    }
}

/* --- opening -------------------------------------------------------------------------------------- */

/* Takes fd. */
static struct error *add_listener(struct arena *arena, struct http_server *s, struct listener *l, int fd, int *id_r)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = &l->source };

    l->source.kind = SOURCE_LISTENER;
    l->fd = fd;
    atomic_init(&l->refs, 1 + s->n_loops);
    lock_take(&s->lock);
    l->id = ++s->last_id;
    l->next = s->listeners;
    s->listeners = l;
    lock_drop(&s->lock);
    *id_r = l->id;
    for (unsigned i = 0; i < s->n_loops; i++) {
        if (epoll_ctl(s->loops[i].epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
            struct error *error = err_internal(arena, "cannot poll a listening socket: %s", strerror(errno));

            http_unlisten(s, *id_r, true);
            return error;
        }
    }
    return NULL;
}

/* Inherited by the accepted ones, which saves calls for each. */
static void set_options(int fd, int family)
{
    int on = 1, off = 0, idle = 60, interval = 15, count = 4;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
}

/* A bound and listening socket, or -errno. address may be an IPv6 literal with or without brackets. */
static int open_tcp(const char *address, int port, int *port_r)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
    struct addrinfo *found;
    char host[PEER_SIZE], service[12];
    struct sockaddr_storage bound;
    socklen_t size = sizeof bound;
    size_t len = strlen(address);

    if (len > 1 && address[0] == '[' && address[len - 1] == ']')
        snprintf(host, sizeof host, "%.*s", (int)(len - 2), address + 1);
    else
        snprintf(host, sizeof host, "%s", address);
    snprintf(service, sizeof service, "%d", port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EINVAL;
    AUTO_FD fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc = fd < 0 ? -errno : 0;

    if (rc == 0) {
        set_options(fd, found->ai_family);
        if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0 ||
            getsockname(fd, (struct sockaddr *)&bound, &size) != 0)
            rc = -errno;
    }
    freeaddrinfo(found);
    if (rc != 0)
        return rc;
    *port_r = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
    return fd_steal(&fd);
}

struct error *http_listen_tcp(struct arena *arena, struct http_server *s, const char *address, int port, struct tls_context *tls,
                              int *id_r, int *port_r)
{
    int bound = 0;
    int fd = open_tcp(address, port, &bound);

    if (fd < 0)
        return err_internal(arena, "cannot listen on %s port %d: %s", address, port, strerror(-fd));
    struct listener *l = xcalloc(1, sizeof *l);

    l->tls = tls != NULL ? tls_context_ref(tls) : NULL;
    TRY(add_listener(arena, s, l, fd, id_r));
    if (port_r != NULL)
        *port_r = bound;
    return NULL;
}

struct error *http_listen_unix(struct arena *arena, struct http_server *s, const char *path, int *id_r)
{
    int fd = unix_listen(path, 0600, BACKLOG);

    if (fd >= 0 && fd_set_nonblock(fd, true) != 0) {
        close(fd);
        fd = -EIO;
    }
    if (fd < 0)
        return err_internal(arena, "cannot listen on %s: %s", path, strerror(-fd));
    struct listener *l = xcalloc(1, sizeof *l);

    l->unix_socket = true;
    l->unix_path = xstrdup(path);
    return add_listener(arena, s, l, fd, id_r);
}
