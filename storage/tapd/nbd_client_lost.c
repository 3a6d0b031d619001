#include <errno.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "rpc/base/log.h"
#include "storage/tapd/nbd_client_private.h"

LOG_MODULE(nbd_client);

/* --- silence ---------------------------------------------------------------------------------------- */

void nbd_client_silence(struct nbd_client *c)
{
    if (c->silence.at_us == 0)
        loop_timer_set(c->block.loop, &c->silence, loop_now_us(c->block.loop) + c->options.silence_us / 4);
}

/* A peer that takes what we send is alive, though it has nothing to answer yet (a long write over a slow line). */
bool nbd_connection_silent(struct nbd_connection *n, int64_t now_us)
{
    int queued = 0;
    uint64_t taken;

    if (n->phase != NBD_READY || n->in_flight == 0)
        return false;
    if (ioctl(n->wire.fd, SIOCOUTQ, &queued) != 0)
        queued = 0;
    taken = n->sent_bytes > (uint64_t)queued ? n->sent_bytes - (uint64_t)queued : 0;
    if (taken > n->progress) {
        n->progress = taken;
        n->heard_us = now_us;
    }
    return now_us - n->heard_us >= n->client->options.silence_us;
}

void nbd_client_silence_fired(struct loop_timer *timer)
{
    struct nbd_client *c = CONTAINER_OF(timer, struct nbd_client, silence);
    int64_t now = loop_now_us(c->block.loop);

    for (unsigned i = 0; i < c->n_connections; i++) {
        if (nbd_connection_silent(&c->connections[i], now)) {
            nbd_client_lost(c, -ETIMEDOUT);
            return;
        }
    }
    if (c->up && c->in_flight > 0)
        loop_timer_set(c->block.loop, &c->silence, now + c->options.silence_us / 4);
}

/* --- again and again -------------------------------------------------------------------------------- */

static void tried(void *ctx, int result)
{
    struct nbd_client *c = ctx;

    if (result == 0) {
        log_info("%s: connected again", c->uri.socket != NULL ? c->uri.socket : c->uri.host);
        return;
    }
    if (c->tries++ % 64 == 0)
        log_warn("%s: still lost: %s: %s", c->uri.socket != NULL ? c->uri.socket : c->uri.host, c->connect_text, strerror(-result));
    loop_timer_set(c->block.loop, &c->again, clock_us(loop_clock(c->block.loop)) + c->options.retry_us);
}

static void again_fired(struct loop_timer *timer)
{
    struct nbd_client *c = CONTAINER_OF(timer, struct nbd_client, again);
    nbd_client_connect(c, tried, c);
}

void nbd_client_again(struct nbd_client *c)
{
    c->tries = 0;
    c->again.fired = again_fired;
    loop_timer_set(c->block.loop, &c->again, loop_now_us(c->block.loop) + 1);
}

/* --- loss ------------------------------------------------------------------------------------------- */

static int by_order(const void *a, const void *b)
{
    const struct nbd_slot *x = *(struct nbd_slot *const *)a, *y = *(struct nbd_slot *const *)b;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* All that was in flight, oldest first, as a list in front of what waits. */
static void take_back(struct nbd_client *c)
{
    struct nbd_slot *busy[NBD_SLOTS];
    struct block_request *list = NULL, **end = &list;
    unsigned n = 0;

    for (unsigned i = 0; i < NBD_SLOTS; i++)
        if (c->slots[i].r != NULL)
            busy[n++] = &c->slots[i];
    qsort(busy, n, sizeof *busy, by_order);
    for (unsigned i = 0; i < n; i++) {
        struct block_request *r = busy[i]->r;
        busy[i]->r = NULL;
        nbd_client_done(c, busy[i], 0); /* the slot only */
        *end = r;
        end = &r->next;
    }
    if (n == 0)
        return;
    *end = c->waiting;
    if (c->waiting == NULL)
        c->waiting_end = end;
    c->waiting = list;
}

void nbd_client_lost(struct nbd_client *c, int reason)
{
    if (!c->up)
        return;
    log_warn("%s: lost with %u requests in flight: %s", c->uri.socket != NULL ? c->uri.socket : c->uri.host != NULL ? c->uri.host : "peer", c->in_flight,
             strerror(-reason));
    c->up = false;
    c->lost_reason = reason == -ETIMEDOUT ? reason : -ECONNRESET;
    c->hold_reports++;
    loop_timer_clear(c->block.loop, &c->silence);
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++)
        nbd_connection_down(&c->connections[i]);
    take_back(c);
    for (unsigned i = 0; i <= NBD_SLOTS; i++)
        if (c->slots[i].hash != NULL || c->slots[i].status != NULL)
            nbd_client_done(c, &c->slots[i], c->lost_reason);
    while (!c->options.keep && c->waiting != NULL) {
        struct block_request *r = c->waiting;
        c->waiting = r->next;
        nbd_client_report(c, r, c->lost_reason);
    }
    if (c->waiting == NULL)
        c->waiting_end = &c->waiting;
    c->n_extents = 0;
    c->extents_from = c->extents_to = 0;
    c->lost_unreported = true;
    loop_later(c->block.loop, &c->report_later);
    if (c->options.keep && c->options.retry_us > 0)
        nbd_client_again(c);
    c->hold_reports--;
}
