#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/tapd/nbd_client_private.h"

#define RETRY_US 20000 /* a Unix listener whose backlog is full says EAGAIN */

static void drive(struct nbd_connection *);
static void try_address(struct nbd_connection *);

/* --- addresses -------------------------------------------------------------------------------------- */

static int resolve_unix(struct nbd_client *c)
{
    struct sockaddr_un *sun = (struct sockaddr_un *)&c->addresses[0].address;
    size_t len = strlen(c->uri.socket);

    if (len >= sizeof sun->sun_path)
        return -ENAMETOOLONG;
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path, c->uri.socket, len + 1);
    c->addresses[0].len = sizeof *sun;
    c->n_addresses = 1;
    return 0;
}

int nbd_client_resolve(struct nbd_client *c)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *list;
    char port[16];

    if (c->uri.socket != NULL)
        return resolve_unix(c);
    snprintf(port, sizeof port, "%u", c->uri.port);
    if (getaddrinfo(c->uri.host, port, &hints, &list) != 0)
        return -ENOENT;
    for (struct addrinfo *a = list; a != NULL && c->n_addresses < NBD_ADDRESSES; a = a->ai_next) {
        struct nbd_address *to = &c->addresses[c->n_addresses];
        if (a->ai_addrlen > sizeof to->address)
            continue;
        memcpy(&to->address, a->ai_addr, a->ai_addrlen);
        to->len = a->ai_addrlen;
        c->n_addresses++;
    }
    freeaddrinfo(list);
    return c->n_addresses > 0 ? 0 : -ENOENT;
}

/* --- one connection's descriptor ------------------------------------------------------------------------ */

static void unwatch(struct nbd_connection *n)
{
    if (n->watched)
        loop_remove(n->client->block.loop, &n->watch);
    n->watched = false;
}

static void watch(struct nbd_connection *n, uint32_t events)
{
    struct loop *loop = n->client->block.loop;

    if (n->watched) {
        if (n->watch.events != events)
            loop_change(loop, &n->watch, events);
        return;
    }
    n->watch = (struct loop_fd) { .fd = n->wire.fd, .ready = nbd_connection_ready, .events = events };
    n->watched = true;
    loop_add(loop, &n->watch);
}

void nbd_connection_watch(struct nbd_connection *n)
{
    watch(n, EPOLLIN | (n->blocked ? EPOLLOUT : 0) | nbd_wire_wants(&n->wire));
}

void nbd_connection_down(struct nbd_connection *n)
{
    unwatch(n);
    if (n->wire.fd >= 0)
        nbd_wire_close(&n->wire);
    n->wire = (struct nbd_wire) { .fd = -1 };
    n->phase = NBD_DOWN;
    xfree(n->front);
    n->front = NULL;
    n->queue = NULL;
    n->queue_end = &n->queue;
    n->head_sent = 0;
    n->blocked = false;
    n->in_flight = n->bulk = 0;
    n->load = 0;
    n->rx = NBD_RX_HEADER;
    n->slot = NULL;
    n->in_pos = n->in_len = 0;
    n->progress = n->sent_bytes = 0;
}

/* --- the end of connecting ------------------------------------------------------------------------------- */

static void finish(struct nbd_client *c, int result)
{
    if (!c->connecting || c->connect_error != 0)
        return;
    c->connect_error = result;
    if (result != 0)
        for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++)
            nbd_connection_down(&c->connections[i]);
    loop_later(c->block.loop, &c->connect_end);
}

static void fail(struct nbd_client *c, const char *text, int error)
{
    if (c->connecting && c->connect_error == 0)
        snprintf(c->connect_text, sizeof c->connect_text, "%s", text);
    finish(c, error);
}

static void stop_connecting(struct nbd_client *c)
{
    c->connecting = false;
    loop_timer_clear(c->block.loop, &c->deadline);
    loop_timer_clear(c->block.loop, &c->retry);
    loop_not_later(c->block.loop, &c->connect_begin);
    loop_not_later(c->block.loop, &c->connect_end);
}

static void connect_end(struct loop_idle *idle)
{
    struct nbd_client *c = CONTAINER_OF(idle, struct nbd_client, connect_end);
    void (*connected)(void *ctx, int result) = c->connected;
    int result = c->connect_error;

    stop_connecting(c);
    nbd_client_enter(c);
    if (result == 0) {
        c->up = c->known = true;
        c->lost_unreported = false;
        nbd_client_pump(c);
    }
    connected(c->connected_ctx, result);
    nbd_client_leave(c);
}

void nbd_client_connect_cancel(struct nbd_client *c)
{
    if (c->connecting)
        stop_connecting(c);
}

static void deadline_passed(struct loop_timer *timer)
{
    fail(CONTAINER_OF(timer, struct nbd_client, deadline), "no answer", -ETIMEDOUT);
}

/* --- connecting ------------------------------------------------------------------------------------------- */

static bool same_server(const struct nbd_client *c, const struct nbd_shaken *s)
{
    return s->size == c->server.size && s->flags == c->server.flags && s->structured == c->server.structured;
}

/* Takes what the first connection negotiated; later ones and reconnections must agree. */
static int take_server(struct nbd_client *c, const struct nbd_shaken *s, const char **text_r)
{
    bool read_only = (s->flags & NBD_TFLAG_READ_ONLY) != 0;

    *text_r = "negotiation";
    if (c->known) {
        *text_r = "it is not the disk it was";
        return s->size == c->server.size && (!read_only || c->block.read_only) && s->block_max >= BLOCK_REQUEST_MAX ? 0 : -ESTALE;
    }
    if (s->size % 512 != 0 || s->size > INT64_MAX) {
        *text_r = "its size is no multiple of 512";
        return -EINVAL;
    }
    if (s->block_min > 4096 || s->block_min == 0 || s->block_max < BLOCK_REQUEST_MAX) {
        *text_r = "its block sizes do not allow for ours";
        return -EINVAL;
    }
    if ((int64_t)s->size < c->options.later_size) {
        *text_r = "it is not the disk it was";
        return -ESTALE;
    }
    *text_r = "it is exported read-only";
    return read_only && !c->block.read_only ? -EROFS : 0;
}

static void adopt_server(struct nbd_client *c, const struct nbd_shaken *s)
{
    c->server = *s;
    c->block.size = (int64_t)s->size;
    c->can_status = s->structured && s->has_context[0];
    c->allocation_id = s->context_id[0];
    c->can_hash = s->structured && s->has_context[1];
    c->block.thin = (s->flags & NBD_TFLAG_SEND_TRIM) != 0 && (s->flags & NBD_TFLAG_SEND_WRITE_ZEROES) != 0;
    if ((s->flags & NBD_TFLAG_SEND_WRITE_ZEROES) == 0 && c->zeros == NULL)
        c->zeros = xcalloc(1, BLOCK_REQUEST_MAX);
}

/* One more has finished its negotiation. */
static void connection_up(struct nbd_connection *n)
{
    struct nbd_client *c = n->client;
    struct nbd_shaken shaken = n->shake->result;
    const char *text;
    int r;

    xfree(n->shake);
    n->shake = NULL;
    n->phase = NBD_READY;
    if (n == &c->connections[0]) {
        r = take_server(c, &shaken, &text);
        if (r < 0) {
            fail(c, text, r);
            return;
        }
        adopt_server(c, &shaken);
        c->n_connections = (shaken.flags & NBD_TFLAG_CAN_MULTI_CONN) != 0 && c->preset_fd < 0 ? c->options.connections : 1;
        for (unsigned i = 1; i < c->n_connections && c->connect_error == 0; i++) {
            c->connections[i].address = n->address;
            try_address(&c->connections[i]);
        }
    } else if (!same_server(c, &shaken)) {
        fail(c, "its connections differ", -EPROTO);
        return;
    }
    nbd_connection_watch(n);
    for (unsigned i = 0; i < c->n_connections; i++)
        if (c->connections[i].phase != NBD_READY)
            return;
    finish(c, 0);
}

/* The address did not work out: the next one, if there is one. */
static void address_failed(struct nbd_connection *n, const char *text, int error)
{
    nbd_connection_down(n);
    if (n == &n->client->connections[0] && n->address + 1 < n->client->n_addresses) {
        n->address++;
        try_address(n);
        return;
    }
    fail(n->client, text, error);
}

/* Connected, and encrypted where that comes first. */
static void begin_talking(struct nbd_connection *n)
{
    n->phase = n->fronted ? NBD_SHAKING : NBD_FRONTING;
    if (n->fronted)
        return;
    n->front = xcalloc(1, sizeof *n->front);
    n->front_sent = 0;
}

static void begin_negotiation(struct nbd_connection *n)
{
    const struct nbd_client *c = n->client;
    struct nbd_wish wish = { .name = c->uri.name, .starttls = c->uri.tls && !c->uri.tls_first, .structured = true,
                             .contexts = { NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_HASH, c->session != 0 ? c->session_text : NULL } };
    int r = 0;

    nbd_wire_init(&n->wire, n->wire.fd);
    if (n->shake == NULL)
        n->shake = xcalloc(1, sizeof *n->shake);
    nbd_handshake_init(n->shake, &wish);
    n->todo = nbd_handshake_step(n->shake);
    n->shake_done = 0;
    n->fronted = c->request == NULL;
    if (c->uri.tls_first) {
        r = nbd_wire_tls(&n->wire, c->tls, c->uri.sni != NULL ? c->uri.sni : c->uri.host, c->uri.fingerprint);
        n->phase = NBD_TLS;
    } else {
        begin_talking(n);
    }
    if (r < 0)
        fail(n->client, "TLS", r);
    else
        drive(n);
}

static void try_address(struct nbd_connection *n)
{
    struct nbd_client *c = n->client;
    const struct nbd_address *a = &c->addresses[n->address];
    int fd = c->preset_fd >= 0 ? fd_steal(&c->preset_fd) : -1;

    if (fd >= 0) {
        n->wire.fd = fd;
        begin_negotiation(n);
        return;
    }
    fd = c->n_addresses > 0 ? socket(a->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0) {
        fail(c, "no connection", c->n_addresses > 0 ? -errno : -ENOTCONN);
        return;
    }
    n->wire.fd = fd;
    if (connect(fd, (const struct sockaddr *)&a->address, a->len) == 0) {
        begin_negotiation(n);
    } else if (errno == EINPROGRESS) {
        n->phase = NBD_CONNECTING;
        watch(n, EPOLLOUT);
    } else if (errno == EAGAIN) {
        nbd_connection_down(n);
        n->phase = NBD_CONNECTING;
        loop_timer_set(c->block.loop, &c->retry, clock_us(loop_clock(c->block.loop)) + RETRY_US);
    } else {
        address_failed(n, "cannot connect", -errno);
    }
}

static void retry_fired(struct loop_timer *timer)
{
    struct nbd_client *c = CONTAINER_OF(timer, struct nbd_client, retry);
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++)
        if (c->connections[i].phase == NBD_CONNECTING && c->connections[i].wire.fd < 0)
            try_address(&c->connections[i]);
}

static void connect_begin(struct loop_idle *idle)
{
    struct nbd_client *c = CONTAINER_OF(idle, struct nbd_client, connect_begin);
    c->connections[0].address = 0;
    try_address(&c->connections[0]);
}

/* Of a directory on a machine, also for the next process there; the clock goes on from one to the next. */
void nbd_client_session(struct nbd_client *c, const char *dir)
{
    char *boot;
    size_t len;
    uint64_t h = 0xcbf29ce484222325ull;

    if (file_read(c->arena, "/proc/sys/kernel/random/boot_id", 256, &boot, &len) != 0)
        return;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)boot[i]) * 0x100000001b3ull;
    for (; *dir != '\0'; dir++)
        h = (h ^ (unsigned char)*dir) * 0x100000001b3ull;
    c->session = h;
}

static void next_generation(struct nbd_client *c)
{
    uint64_t now = (uint64_t)clock_us(loop_clock(c->block.loop));

    c->generation = now > c->generation ? now : c->generation + 1;
    snprintf(c->session_text, sizeof c->session_text, NBD_CONTEXT_SESSION "%016llx%016llx", (unsigned long long)c->session, (unsigned long long)c->generation);
}

void nbd_client_connect(struct nbd_client *c, void (*connected)(void *ctx, int result), void *ctx)
{
    next_generation(c);
    c->connecting = true;
    c->connect_error = 0;
    c->connected = connected;
    c->connected_ctx = ctx;
    c->connect_begin.run = connect_begin;
    c->connect_end.run = connect_end;
    c->deadline.fired = deadline_passed;
    c->retry.fired = retry_fired;
    loop_timer_set(c->block.loop, &c->deadline, clock_us(loop_clock(c->block.loop)) + NBD_CONNECT_US);
    loop_later(c->block.loop, &c->connect_begin);
}

/* --- negotiation ------------------------------------------------------------------------------------------ */

/* Moves bytes for the handshake's last wish: 0 when it is fulfilled, -EAGAIN, -errno. */
static int exchange(struct nbd_connection *n)
{
    struct nbd_handshake *h = n->shake;
    bool send = n->todo == NBD_SHAKE_SEND;
    size_t want = send ? h->out_len : h->want;

    while (n->shake_done < want) {
        struct iovec iov = { (send ? h->out : h->in) + n->shake_done, want - n->shake_done };
        ssize_t got = send ? nbd_wire_writev(&n->wire, &iov, 1) : nbd_wire_readv(&n->wire, &iov, 1);
        if (got <= 0)
            return got == 0 ? -ECONNRESET : (int)got;
        n->shake_done += (size_t)got;
    }
    return send ? nbd_wire_flush(&n->wire) : 0;
}

/* One step; 0 to go on, -EAGAIN to wait, 1 when it stands or has failed. */
static int shake(struct nbd_connection *n)
{
    struct nbd_client *c = n->client;
    int r = 0;

    switch (n->todo) {
    case NBD_SHAKE_SEND:
    case NBD_SHAKE_RECV:
        r = exchange(n);
        break;
    case NBD_SHAKE_TLS:
        r = nbd_wire_tls(&n->wire, c->tls, c->uri.sni != NULL ? c->uri.sni : c->uri.host, c->uri.fingerprint);
        n->phase = NBD_TLS;
        break;
    case NBD_SHAKE_DONE:
        connection_up(n);
        return 1;
    case NBD_SHAKE_FAILED:
        fail(c, "negotiation", n->shake->error);
        return 1;
    }
    if (r == -EAGAIN)
        return r;
    if (r < 0) {
        fail(c, "negotiation", r);
        return 1;
    }
    n->shake_done = 0;
    n->todo = nbd_handshake_step(n->shake);
    return 0;
}

/* The request, then the head of the answer and not a byte more: 1 when it let us through, -EAGAIN, -errno. */
static int ask_front(struct nbd_connection *n)
{
    const char *request = n->client->request;
    size_t len = strlen(request);
    ssize_t got;
    int r = 0;

    while (n->front_sent < len) {
        struct iovec iov = { (char *)(uintptr_t)(request + n->front_sent), len - n->front_sent };
        got = nbd_wire_writev(&n->wire, &iov, 1);
        if (got < 0)
            return (int)got;
        n->front_sent += (size_t)got;
    }
    r = nbd_wire_flush(&n->wire);
    while (r == 0) {
        char byte;
        struct iovec iov = { &byte, 1 };
        got = nbd_wire_readv(&n->wire, &iov, 1);
        if (got <= 0)
            return got == 0 ? -ECONNRESET : (int)got;
        r = nbd_front_byte(n->front, byte);
    }
    return r;
}

/* As ask_front, but 0 when it let us through; a failure is told. */
static int pass_front(struct nbd_connection *n)
{
    char line[96], text[128] = "the front does not answer";
    int r = ask_front(n);

    if (r == -EAGAIN)
        return r;
    if (r == 1) {
        xfree(n->front);
        n->front = NULL;
        n->fronted = true;
        n->phase = NBD_SHAKING;
        return 0;
    }
    nbd_front_line(n->front, line, sizeof line);
    if (line[0] != '\0')
        snprintf(text, sizeof text, "the front answered '%s'", line);
    fail(n->client, text, r);
    return r;
}

static int pass_tls(struct nbd_connection *n)
{
    int r = nbd_wire_handshake(&n->wire);

    if (r == 0)
        begin_talking(n);
    else if (r != -EAGAIN)
        fail(n->client, "TLS", r);
    return r;
}

/* What the phase waits for, on top of what the wire wants. */
static uint32_t awaited(const struct nbd_connection *n)
{
    if (n->phase == NBD_FRONTING)
        return n->front_sent < strlen(n->client->request) ? EPOLLOUT : EPOLLIN;
    return n->phase == NBD_SHAKING ? n->todo == NBD_SHAKE_SEND ? EPOLLOUT : EPOLLIN : 0;
}

static void drive(struct nbd_connection *n)
{
    int r = 0;

    while (r == 0)
        r = n->phase == NBD_TLS ? pass_tls(n) : n->phase == NBD_FRONTING ? pass_front(n) : shake(n);
    if (r == -EAGAIN)
        watch(n, awaited(n) | nbd_wire_wants(&n->wire));
}

static void connecting_ready(struct nbd_connection *n)
{
    int error = 0;
    socklen_t len = sizeof error;

    if (getsockopt(n->wire.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error != 0) {
        address_failed(n, "cannot connect", -error);
        return;
    }
    begin_negotiation(n);
}

void nbd_connection_ready(struct loop_fd *fd, uint32_t events)
{
    struct nbd_connection *n = CONTAINER_OF(fd, struct nbd_connection, watch);
    struct nbd_client *c = n->client;
    int r = 0;

    nbd_client_enter(c);
    if (n->phase == NBD_CONNECTING) {
        connecting_ready(n);
    } else if (n->phase == NBD_TLS || n->phase == NBD_FRONTING || n->phase == NBD_SHAKING) {
        drive(n);
    } else if (n->phase == NBD_READY) {
        if ((events & EPOLLOUT) != 0 || n->blocked)
            r = nbd_connection_send(n);
        if (r == 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0)
            r = nbd_connection_receive(n);
        if (r < 0 && c->up)
            nbd_client_lost(c, r);
        else if (r < 0)
            fail(c, "connection", r);
        else if (n->phase == NBD_READY && !c->close_wanted)
            nbd_connection_watch(n);
    }
    nbd_client_leave(c);
}
