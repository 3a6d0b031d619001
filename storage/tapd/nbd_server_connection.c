/* The life of one connection: what its socket is watched for, its phases, its end.
 *
 * It is dropped only from the loop's own calls (an event, a timer, the server's turn of sending), never inside a
 * request's 'done': whoever finds something wrong there sets 'ended'. */
#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/nbd_server_private.h"

#define READS_OF_A_TURN 16

static void ready(struct loop_fd *, uint32_t events);
static void too_slow(struct loop_timer *);

void nbd_conn_start(struct nbd_server *s, int fd, bool read_only, struct disk_tls_context *tls, bool adopted)
{
    struct nbd_conn *c = xcalloc(1, sizeof *c);

    c->server = s;
    nbd_wire_init(&c->wire, fd);
    c->in = xcalloc(1, NBD_INPUT_SIZE);
    c->hello = xcalloc(1, NBD_HELLO_SIZE);
    c->out_last = &c->out;
    c->read_only = read_only;
    c->tls = tls != NULL ? disk_tls_ref(tls) : NULL;
    c->must_tls = tls != NULL;
    c->adopted = adopted;
    c->timer.fired = too_slow;
    c->moved_us = loop_now_us(s->loop);
    c->watch = (struct loop_fd){ .fd = fd, .ready = ready, .events = EPOLLIN };
    c->next = s->conns;
    c->prev = &s->conns;
    if (c->next != NULL)
        c->next->prev = &c->next;
    s->conns = c;
    s->clients++;
    loop_add(s->loop, &c->watch);
    loop_timer_set(s->loop, &c->timer, loop_now_us(s->loop) + NBD_SERVER_HELLO_US);
    if (adopted && tls != NULL) {
        c->phase = NBD_CONN_TLS;
        CHECK(nbd_wire_tls(&c->wire, tls, NULL, NULL) == 0);
        nbd_options_hello(c); /* goes out once the handshake is done */
        return;
    }
    c->phase = NBD_CONN_FLAGS;
    nbd_options_hello(c);
    nbd_conn_go_on(c);
}

/* --- the end ----------------------------------------------------------------------------------------- */

static void unlink_from(struct nbd_conn *c)
{
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

static void free_conn(struct nbd_conn *c)
{
    unlink_from(c);
    xfree(c->in);
    xfree(c->hello);
    disk_tls_unref(c->tls);
    xfree(c);
}

static void leave_lists(struct nbd_conn *c)
{
    struct nbd_server *s = c->server;

    if (c->sending)
        for (struct nbd_conn **p = &s->senders; *p != NULL; p = &(*p)->next_sender)
            if (*p == c) {
                *p = c->next_sender;
                break;
            }
    if (c->waiting)
        for (struct nbd_conn **p = &s->waiting; *p != NULL; p = &(*p)->next_waiting)
            if (*p == c) {
                *p = c->next_waiting;
                if (s->waiting_last == &c->next_waiting)
                    s->waiting_last = p;
                break;
            }
    c->sending = c->waiting = false;
}

/* Gives back what the command that was being taken in holds. */
static void abandon_intake(struct nbd_conn *c)
{
    struct nbd_job *m = c->job;

    if (c->piece != NULL)
        nbd_piece_give(c->server, c->piece);
    c->piece = NULL;
    c->job = NULL;
    if (m == NULL)
        return;
    m->issued = true;
    if (m->pieces > 0)
        return;
    if (m->result != NULL)
        nbd_piece_give(c->server, m->result);
    m->result = NULL;
    nbd_job_give(m);
}

void nbd_conn_drop(struct nbd_conn *c)
{
    struct nbd_server *s = c->server;

    if (c->dead)
        return;
    c->dead = true;
    loop_timer_clear(s->loop, &c->timer);
    loop_remove(s->loop, &c->watch);
    leave_lists(c);
    nbd_wire_close(&c->wire);
    abandon_intake(c);
    nbd_out_drop(c);
    s->clients--;
    unlink_from(c);
    c->next = s->gone;
    c->prev = &s->gone;
    if (c->next != NULL)
        c->next->prev = &c->next;
    s->gone = c;
    nbd_conn_settle(c);
}

void nbd_conn_settle(struct nbd_conn *c)
{
    struct nbd_server *s = c->server;

    if (c->dead && c->jobs == 0)
        free_conn(c);
    if (s->stopping)
        loop_later(s->loop, &s->later);
}

/* Whether nothing is left to be answered on a connection that takes no more. */
static bool is_done(const struct nbd_conn *c)
{
    bool only_half = c->jobs == 1 && c->intake == NBD_IN_PAYLOAD && c->job != NULL && c->job->pieces == 0;

    if (c->out != NULL || c->hello_at < c->hello_len || nbd_wire_unsent(&c->wire))
        return false;
    return (c->draining || c->server->stopping) && (c->jobs == 0 || (c->server->stopping && only_half));
}

static void too_slow(struct loop_timer *t) { nbd_conn_drop(CONTAINER_OF(t, struct nbd_conn, timer)); }

/* --- events ------------------------------------------------------------------------------------------- */

void nbd_conn_events(struct nbd_conn *c)
{
    struct iovec places[2];
    uint32_t events = nbd_wire_wants(&c->wire);

    if (c->phase != NBD_CONN_TLS) {
        if (!c->tls_next && c->phase != NBD_CONN_LEAVING && nbd_conn_places(c, places) > 0)
            events |= EPOLLIN;
        if (c->out != NULL || c->hello_at < c->hello_len)
            events |= EPOLLOUT;
    }
    loop_change(c->server->loop, &c->watch, events);
}

/* What is in the input buffer. False: drop. */
static bool take_in(struct nbd_conn *c)
{
    if (c->phase == NBD_CONN_FLAGS || c->phase == NBD_CONN_OPTIONS) {
        if (!nbd_options_input(c))
            return false;
        if (c->phase == NBD_CONN_SERVING)
            loop_timer_clear(c->server->loop, &c->timer);
    }
    return c->phase != NBD_CONN_SERVING || nbd_conn_input(c);
}

/* 1: perhaps there is more, 0: nothing more for now, -1: drop. */
static int read_some(struct nbd_conn *c)
{
    struct iovec places[2];
    size_t asked = 0;
    int n = c->phase == NBD_CONN_LEAVING || c->tls_next ? 0 : nbd_conn_places(c, places);

    if (n == 0)
        return 0;
    for (int i = 0; i < n; i++)
        asked += places[i].iov_len;
    ssize_t got = nbd_wire_readv(&c->wire, places, n);
    if (got == -EAGAIN)
        return 0;
    if (got <= 0)
        return -1;
    nbd_conn_got(c, (size_t)got);
    if (!take_in(c))
        return -1;
    return (size_t)got == asked || nbd_wire_pending(&c->wire) ? 1 : 0;
}

/* False: drop. */
static bool handshake(struct nbd_conn *c)
{
    int rc = nbd_wire_handshake(&c->wire);

    if (rc == -EAGAIN)
        return true;
    if (rc < 0)
        return false;
    c->phase = c->options == 0 ? NBD_CONN_FLAGS : NBD_CONN_OPTIONS;
    return true;
}

static bool turn(struct nbd_conn *c, bool readable)
{
    int more = 1;

    if (c->phase == NBD_CONN_TLS && !handshake(c))
        return false;
    if (c->phase == NBD_CONN_TLS)
        return true;
    if (!take_in(c))
        return false;
    for (unsigned i = 0; more > 0 && i < READS_OF_A_TURN && (readable || nbd_wire_pending(&c->wire)); i++) {
        more = read_some(c);
        readable = more > 0;
        if (more < 0)
            return false;
    }
    /* What OpenSSL holds wakes nobody. */
    if (nbd_wire_pending(&c->wire) && !c->waiting && !c->draining) {
        nbd_conn_wait(c);
        loop_later(c->server->loop, &c->server->later);
    }
    return c->out != NULL || nbd_out_send(c); /* replies wait for their companions, negotiation does not */
}

/* After whatever was done with it: drops it, or watches for what it needs. */
static void after(struct nbd_conn *c, bool good)
{
    if (!good || c->ended || is_done(c))
        nbd_conn_drop(c);
    else
        nbd_conn_events(c);
}

void nbd_conn_go_on(struct nbd_conn *c) { after(c, turn(c, false)); }

static void ready(struct loop_fd *watch, uint32_t events)
{
    struct nbd_conn *c = CONTAINER_OF(watch, struct nbd_conn, watch);
    bool good = true;

    if ((events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLIN))
        good = false;
    if (good && (events & EPOLLOUT))
        good = nbd_out_send(c);
    if (good)
        good = turn(c, (events & EPOLLIN) != 0);
    after(c, good);
}
