/* base:allocation: what was told last is kept until something is written there. */
#include <errno.h>
#include <poll.h>

#include "rpc/base/check.h"
#include "storage/tapd/nbd_client_private.h"

#define STATUS_MIN ((int64_t)64 << 20) /* asked for at once, though less is wanted: the next one will want it */
#define STATUS_MAX ((int64_t)1 << 30)
#define WAIT_MS 100           /* then the silence is looked at again */

static void forget(struct nbd_client *c)
{
    c->n_extents = c->extent_hint = 0;
    c->extents_from = c->extents_to = c->extent_hint_at = 0;
}

/* What comes before the write is still true. */
void nbd_client_extents_forget(struct nbd_client *c, int64_t offset, int64_t length)
{
    if (offset >= c->extents_to || offset + length <= c->extents_from)
        return;
    if (offset > c->extents_from)
        c->extents_to = offset;
    else
        forget(c);
}

void nbd_status_entry(struct nbd_client *c, uint32_t length, uint32_t flags)
{
    struct nbd_extent *last = c->n_extents > 0 ? &c->extents[c->n_extents - 1] : NULL;

    if (c->extents_full)
        return;
    if (last != NULL && last->flags == flags) {
        last->length += length; /* all together no more than STATUS_MAX */
    } else if (c->n_extents < NBD_EXTENTS) {
        c->extents[c->n_extents++] = (struct nbd_extent) { length, flags };
    } else {
        c->extents_full = true;
        return;
    }
    c->extents_to += length;
}

/* Serves one connection only, until 'status' is done; owners hear of what else is done from the loop. */
static void wait_for(struct nbd_client *c, struct nbd_connection *n, const struct nbd_status *status)
{
    while (!status->done) {
        int r = n->blocked || n->queue == NULL ? 0 : nbd_connection_send(n);
        if (r == 0) {
            struct pollfd p = { n->wire.fd, (short)(POLLIN | (n->blocked ? POLLOUT : 0)), 0 };
            bool ready = poll(&p, 1, nbd_wire_pending(&n->wire) ? 0 : WAIT_MS) > 0 || nbd_wire_pending(&n->wire);
            if ((p.revents & POLLOUT) != 0)
                r = nbd_connection_send(n);
            if (r == 0 && ready)
                r = nbd_connection_receive(n);
            if (r == 0 && !ready && nbd_connection_silent(n, clock_us(loop_clock(c->block.loop))))
                r = -ETIMEDOUT;
        }
        if (r < 0)
            nbd_client_lost(c, r);
    }
    if (n->phase == NBD_READY)
        nbd_connection_watch(n);
}

static int fetch(struct nbd_client *c, int64_t offset, int64_t wanted)
{
    struct nbd_slot *slot = &c->slots[NBD_SLOTS];
    struct nbd_status status = { .offset = offset };
    int64_t rest = c->block.size - offset;
    int64_t ask = wanted < STATUS_MIN ? STATUS_MIN : wanted < STATUS_MAX ? wanted : STATUS_MAX;

    if (!c->up)
        return c->lost_reason;
    CHECK(slot->connection == NULL); /* nobody asks from inside */
    forget(c);
    c->extents_full = false;
    c->extents_from = c->extents_to = c->extent_hint_at = offset;
    status.length = (uint32_t)(rest < ask ? rest : ask);
    slot->status = &status;
    c->hold_reports++;
    nbd_client_start(c, slot, NBD_CMD_BLOCK_STATUS, 0, offset, status.length);
    wait_for(c, slot->connection, &status);
    c->hold_reports--;
    if (status.result != 0)
        forget(c);
    return status.result;
}

/* Gives what is known of [at, end) and returns where that ends; *enough_r when the receiver wants no more. */
static int64_t give(struct nbd_client *c, int64_t at, int64_t end, block_extent_fn *fn, void *ctx, bool *enough_r)
{
    unsigned i = at >= c->extent_hint_at ? c->extent_hint : 0;
    int64_t from = at >= c->extent_hint_at ? c->extent_hint_at : c->extents_from;

    if (end > c->extents_to)
        end = c->extents_to; /* some of what was told behind it has been forgotten */
    while (i < c->n_extents && at < end && !*enough_r) {
        int64_t to = from + c->extents[i].length;
        if (to > at) {
            struct block_extent e = { .offset = at, .length = (to < end ? to : end) - at,
                                      .hole = (c->extents[i].flags & NBD_STATE_HOLE) != 0, .zero = (c->extents[i].flags & NBD_STATE_ZERO) != 0 };
            e.hole = e.hole && e.zero; /* a hole that may hold anything is data for us */
            at += e.length;
            *enough_r = !fn(ctx, &e);
        }
        if (at >= to) {
            i++;
            from = to;
        }
    }
    c->extent_hint = i;
    c->extent_hint_at = from;
    return at;
}

int nbd_client_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    struct nbd_client *c = CONTAINER_OF(b, struct nbd_client, block);
    int64_t at = offset, end = offset + length;
    bool enough = false;

    if (!c->can_status) {
        struct block_extent all = { .offset = offset, .length = length };
        fn(ctx, &all);
        return 0;
    }
    while (at < end && !enough) {
        if (at < c->extents_from || at >= c->extents_to) {
            int r = fetch(c, at, end - at);
            if (r < 0)
                return c->options.keep && !c->up ? -EAGAIN : r; /* kept: a read will wait, then this can be asked again */
        }
        at = give(c, at, end, fn, ctx, &enough);
    }
    return 0;
}
