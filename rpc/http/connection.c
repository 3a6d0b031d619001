#include "rpc/http/connection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/http/listener.h"
#include "rpc/http/loop.h"
#include "rpc/http/quota.h"
#include "rpc/http/reply.h"
#include "rpc/http/takeover.h"

#define STEPS_PER_TURN 512
#define LINGER_MS 2000

/* --- life ----------------------------------------------------------------------------------------- */

struct connection *connection_new(struct loop *loop, const struct listener *listener, int fd, const char *peer)
{
    struct connection *c = xcalloc(1, sizeof *c);

    c->source.kind = SOURCE_CONNECTION;
    c->fd = fd;
    c->loop = loop;
    c->listener_id = listener->id;
    c->unix_socket = listener->unix_socket;
    c->timer.at = TIMER_NEVER;
    c->can_read = true;
    c->minor = 1;
    snprintf(c->peer, sizeof c->peer, "%s", peer);
    if (listener->tls != NULL)
        c->tls = tls_session_new(listener->tls, fd, NULL);
    struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = &c->source };

    if ((listener->tls != NULL && c->tls == NULL) || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
        tls_session_free(c->tls);
        close(fd);
        xfree(c);
        return NULL;
    }
    link_append(&loop->open, &c->link);
    connection_enter(c, c->tls != NULL ? CONN_HANDSHAKE : CONN_HEAD);
    return c;
}

void connection_uncount(struct http_server *server, const char *peer, bool in_quota)
{
    if (in_quota)
        quota_release(server->quota, peer);
    atomic_fetch_sub(&server->n_connections, 1);
}

/* Out of the loop's lists; what only a living connection has is let go. */
static void retire(struct connection *c)
{
    timer_remove(&c->loop->timers, &c->timer);
    link_remove(&c->link);
    atomic_fetch_sub(&c->loop->load, 1);
    c->state = CONN_CLOSED;
    c->next_dead = c->loop->dead;
    c->loop->dead = c;
}

void connection_close(struct connection *c)
{
    struct http_server *server = c->loop->server;
    struct http_parked *parked = c->parked;

    if (c->state == CONN_CLOSED)
        return;
    CHECK(c->state != CONN_HANDLING);
    if (c->tls != NULL && !c->hung_up && c->state != CONN_HANDSHAKE)
        tls_session_close_notify(c->tls);
    tls_session_free(c->tls);
    c->tls = NULL;
    fd_close(&c->fd);
    retire(c);
    outgoing_free(c->out);
    c->out = NULL;
    exchange_free(c->exchange);
    c->exchange = NULL;
    input_release(&c->in);
    connection_uncount(server, c->peer, c->counted);
    if (parked != NULL) {
        c->parked = NULL;
        atomic_fetch_sub(&server->n_parked, 1);
        parked->ops->closed(parked);
    }
}

void connection_detach(struct connection *c, int *fd_r, struct tls_session **tls_r)
{
    epoll_ctl(c->loop->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    *fd_r = fd_steal(&c->fd);
    *tls_r = c->tls;
    c->tls = NULL;
    c->exchange = NULL;
    retire(c);
}

void connection_free(struct connection *c)
{
    input_release(&c->in);
    xfree(c);
}

void connection_enter(struct connection *c, enum connection_state state)
{
    c->state = state;
    c->wait = WAIT_NONE;
}

/* --- the socket ----------------------------------------------------------------------------------- */

ssize_t connection_read(struct connection *c, void *buffer, size_t n)
{
    short events;

    if (c->tls != NULL) {
        ssize_t got = tls_session_read(c->tls, buffer, n, &events);

        if (got <= 0 || (tls_session_drained(c->tls) && !c->hung_up))
            c->can_read = false;
        return got;
    }
    ssize_t got;

    do
        got = recv(c->fd, buffer, n, 0);
    while (got < 0 && errno == EINTR);
    /* a short read has emptied the socket: the edge of the next byte will come */
    if (got < 0 || ((size_t)got < n && !c->hung_up))
        c->can_read = false;
    return got < 0 ? -errno : got;
}

ssize_t connection_writev(struct connection *c, const struct iovec *v, int n)
{
    short events;

    if (c->tls != NULL)
        return tls_session_write(c->tls, v->iov_base, v->iov_len, &events);
    struct msghdr m = { .msg_iov = (struct iovec *)v, .msg_iovlen = (size_t)n };
    ssize_t put;

    do
        put = sendmsg(c->fd, &m, MSG_NOSIGNAL);
    while (put < 0 && errno == EINTR);
    return put < 0 ? -errno : put;
}

void connection_event(struct connection *c, uint32_t events)
{
    if (c->state == CONN_CLOSED)
        return;
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        c->hung_up = true;
    if (c->tls != NULL || (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        c->can_read = true;
    connection_serve(c);
}

/* --- answering ------------------------------------------------------------------------------------ */

void connection_start_writing(struct connection *c)
{
    if (c->body_unread || c->out->close_delimited || c->draining || c->loop->stopping)
        c->keep_alive = false;
    if (c->body_unread)
        c->linger = true;
    reply_begin(c->out, c->keep_alive, c->minor);
    connection_enter(c, CONN_WRITING);
}

enum step connection_refuse(struct connection *c, int status)
{
    struct reply_context context = { .server = c->loop->server, .minor = c->minor, .head_only = c->exchange != NULL && c->head_only };
    struct text body = TEXT_INIT;

    atomic_fetch_add(&c->loop->server->n_refused, 1);
    exchange_free(c->exchange);
    c->exchange = NULL;
    text_printf(&body, "<html><body><h1>%d %s</h1></body></html>\n", status, status_reason(status));
    c->out = reply_text(&context, status, "text/html", NULL, &body);
    c->keep_alive = false;
    c->linger = true;
    connection_start_writing(c);
    return STEP_AGAIN;
}

void connection_answer(struct connection *c, struct http_exchange *ex)
{
    switch (ex->answer) {
    case ANSWER_NONE:
        BUG("an exchange without an answer");
    case ANSWER_REPLY:
        c->out = ex->out;
        ex->out = NULL;
        if (c->out->release == NULL && !c->out->streaming) { /* else its context may be in the arena */
            exchange_free(ex);
            c->exchange = NULL;
        }
        connection_start_writing(c);
        break;
    case ANSWER_PARK:
        park_begin(c, ex->parked, !c->answered);
        break;
    case ANSWER_TAKEOVER:
        takeover_begin(c, ex);
        break;
    }
}

/* --- the states ----------------------------------------------------------------------------------- */

static enum step step_handshake(struct connection *c)
{
    short events;
    int rc = tls_session_handshake(c->tls, &events);

    if (rc == -EAGAIN)
        return STEP_WAIT;
    if (rc != 0) {
        atomic_fetch_add(&c->loop->server->n_refused, 1);
        c->hung_up = true; /* no close_notify over a broken session */
        connection_close(c);
        return STEP_WAIT;
    }
    connection_enter(c, CONN_HEAD);
    return STEP_AGAIN;
}

static enum step step_write(struct connection *c)
{
    bool progress;
    enum send_result r = reply_send(c, c->out, &progress);

    if (progress)
        c->wait = WAIT_NONE;
    if (r == SEND_TURN) {
        loop_make_ready(c);
        return STEP_WAIT;
    }
    if (r == SEND_BROKEN)
        c->hung_up = true;
    if (r == SEND_BROKEN || (r == SEND_BLOCKED && c->loop->stopping)) {
        connection_close(c);
        return STEP_WAIT;
    }
    if (r == SEND_BLOCKED)
        return STEP_WAIT;
    outgoing_free(c->out);
    c->out = NULL;
    exchange_free(c->exchange);
    c->exchange = NULL;
    if (c->keep_alive && !c->draining && !c->loop->stopping) {
        connection_enter(c, CONN_HEAD);
        return STEP_AGAIN;
    }
    if ((!c->linger && input_len(&c->in) == 0) || c->loop->stopping) {
        connection_close(c);
        return STEP_WAIT;
    }
    if (c->tls != NULL)
        tls_session_close_notify(c->tls);
    shutdown(c->fd, SHUT_WR);
    input_release(&c->in);
    c->can_read = true;
    connection_enter(c, CONN_LINGER);
    return STEP_AGAIN;
}

/* Closing with unread bytes would reset the connection and take the reply from the client. */
static enum step step_linger(struct connection *c)
{
    ssize_t got = recv(c->fd, c->loop->scratch, SCRATCH_SIZE, 0);

    if (got > 0)
        return STEP_AGAIN;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return STEP_WAIT;
    c->hung_up = true;
    connection_close(c);
    return STEP_WAIT;
}

static enum step step(struct connection *c)
{
    switch (c->state) {
    case CONN_HANDSHAKE:
        return step_handshake(c);
    case CONN_HEAD:
        return receive_head(c);
    case CONN_BODY:
        return receive_body(c);
    case CONN_WRITING:
        return step_write(c);
    case CONN_LINGER:
        return step_linger(c);
    case CONN_PARKED:
        if (c->hung_up)
            connection_close(c);
        return STEP_WAIT;
    case CONN_HANDLING:
    case CONN_CLOSED:
        return STEP_WAIT;
    }
    return STEP_WAIT;
}

/* --- deadlines ------------------------------------------------------------------------------------ */

static void set_deadline(struct connection *c)
{
    const struct http_limits *limits = &c->loop->server->limits;
    static const enum connection_wait waits[] = {
        [CONN_HANDSHAKE] = WAIT_HANDSHAKE, [CONN_HEAD] = WAIT_HEAD, [CONN_BODY] = WAIT_BODY,
        [CONN_HANDLING] = WAIT_HANDLER,    [CONN_PARKED] = WAIT_PARKED, [CONN_WRITING] = WAIT_WRITE,
        [CONN_LINGER] = WAIT_LINGER,       [CONN_CLOSED] = WAIT_NONE,
    };
    enum connection_wait wait = waits[c->state];
    int64_t ms = limits->header_ms;

    if (wait == WAIT_HEAD && input_len(&c->in) == 0)
        wait = WAIT_IDLE;
    if (wait == c->wait || wait == WAIT_PARKED) /* park.c sets its own */
        return;
    c->wait = wait;
    if (wait == WAIT_HANDLER) {
        timer_set(&c->loop->timers, &c->timer, TIMER_NEVER);
        return;
    }
    if (wait == WAIT_IDLE || wait == WAIT_WRITE)
        ms = limits->idle_ms;
    else if (wait == WAIT_BODY)
        ms = limits->body_idle_ms;
    else if (wait == WAIT_LINGER)
        ms = LINGER_MS;
    timer_set(&c->loop->timers, &c->timer, c->loop->now + ms);
}

void connection_timeout(struct connection *c)
{
    enum connection_wait wait = c->wait;

    c->wait = WAIT_NONE;
    if (wait == WAIT_HEAD || wait == WAIT_BODY) {
        connection_refuse(c, 408);
        connection_serve(c);
    } else if (c->state == CONN_PARKED) {
        park_poll(c, true);
    } else if (c->state != CONN_HANDLING) {
        connection_close(c);
    }
}

void connection_serve(struct connection *c)
{
    int steps = 0;

    while (step(c) == STEP_AGAIN) {
        if (++steps == STEPS_PER_TURN) {
            loop_make_ready(c);
            break;
        }
    }
    if (c->state == CONN_CLOSED)
        return;
    input_settle(&c->in);
    set_deadline(c);
}
