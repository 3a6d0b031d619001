/* Parked connections: no exchange, no buffers, an entry in a list and perhaps a deadline. */
#include "rpc/base/check.h"
#include "rpc/http/connection.h"
#include "rpc/http/loop.h"
#include "rpc/http/reply.h"

static void set_deadline(struct connection *c)
{
    int64_t at = c->parked->deadline_ms;

    timer_set(&c->loop->timers, &c->timer, at > 0 ? at : TIMER_NEVER);
}

void park_begin(struct connection *c, struct http_parked *p, bool poll_now)
{
    exchange_free(c->exchange);
    c->exchange = NULL;
    c->parked = p;
    p->connection = c;
    connection_enter(c, CONN_PARKED);
    link_remove(&c->link);
    link_append(&c->loop->parked, &c->link);
    atomic_fetch_add(&c->loop->server->n_parked, 1);
    input_settle(&c->in);
    set_deadline(c);
    if (c->loop->stopping)
        connection_close(c);
    else if (poll_now) /* it was on its way here for a while: a wake may have been missed */
        park_poll(c, false);
}

void park_poll(struct connection *c, bool expired)
{
    struct http_parked *p = c->parked;
    int64_t before = p->deadline_ms;

    if (c->hung_up) {
        connection_close(c);
        return;
    }
    if (p->ops->poll(p, expired)) {
        CHECK(c->parked == NULL && c->out != NULL); /* poll answered */
        connection_start_writing(c);
        connection_serve(c);
        return;
    }
    CHECK(c->parked == p && c->out == NULL);
    if (expired && p->deadline_ms == before) /* told once; without a new deadline there is none */
        timer_set(&c->loop->timers, &c->timer, TIMER_NEVER);
    else
        set_deadline(c);
}

void park_end(struct connection *c)
{
    c->parked = NULL;
    link_remove(&c->link);
    link_append(&c->loop->open, &c->link);
    atomic_fetch_sub(&c->loop->server->n_parked, 1);
}
