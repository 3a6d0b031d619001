#include <endian.h>
#include <errno.h>

#include "storage/tapd/nbd_client_private.h"

#define IOV_ENTRIES 64
#define IOV_BYTES ((size_t)2 << 20) /* in one call: enough to fill a socket's buffer */

static unsigned type_of(const struct nbd_slot *slot) { return be16toh(slot->wire.type); }

void nbd_connection_queue(struct nbd_connection *n, struct nbd_slot *slot)
{
    slot->connection = n;
    slot->next = NULL;
    *n->queue_end = slot;
    n->queue_end = &slot->next;
    slot->bulk = type_of(slot) == NBD_CMD_READ || slot->hash != NULL;
    n->bulk += slot->bulk;
    n->load += slot->length;
    if (n->in_flight++ == 0)
        n->heard_us = loop_now_us(n->client->block.loop);
    nbd_client_silence(n->client);
    loop_later(n->client->block.loop, &n->client->send_later);
}

/* What follows the header on the wire. */
static struct iovec payload_of(struct nbd_slot *slot)
{
    struct nbd_client *c = slot->connection->client;
    if (type_of(slot) != NBD_CMD_WRITE)
        return (struct iovec) { NULL, 0 };
    return (struct iovec) { slot->r->op == BLOCK_ZERO ? c->zeros : slot->r->buffer, slot->length };
}

/* The vectors of the queue's beginning, 'skip' bytes of which are sent. */
static int gather(struct nbd_connection *n, struct iovec *iov, size_t *total_r)
{
    size_t skip = n->head_sent, total = 0;
    int k = 0;

    for (struct nbd_slot *slot = n->queue; slot != NULL && k + 2 <= IOV_ENTRIES && total < IOV_BYTES; slot = slot->next) {
        struct iovec parts[2] = { { &slot->wire, sizeof slot->wire }, payload_of(slot) };
        for (int i = 0; i < 2; i++) {
            size_t cut = skip < parts[i].iov_len ? skip : parts[i].iov_len;
            skip -= cut;
            if (cut == parts[i].iov_len)
                continue;
            iov[k++] = (struct iovec) { (char *)parts[i].iov_base + cut, parts[i].iov_len - cut };
            total += parts[i].iov_len - cut;
        }
    }
    *total_r = total;
    return k;
}

static void advance(struct nbd_connection *n, size_t got)
{
    n->sent_bytes += got;
    n->client->sent += got;
    n->head_sent += got;
    while (n->queue != NULL) {
        size_t whole = sizeof n->queue->wire + payload_of(n->queue).iov_len;
        if (n->head_sent < whole)
            return;
        n->head_sent -= whole;
        n->queue->sent = true;
        n->queue = n->queue->next;
    }
    n->queue_end = &n->queue;
}

int nbd_connection_send(struct nbd_connection *n)
{
    struct iovec iov[IOV_ENTRIES];
    size_t total;
    int r;

    n->blocked = false;
    while (n->queue != NULL && !n->blocked) {
        int k = gather(n, iov, &total);
        ssize_t got = nbd_wire_writev(&n->wire, iov, k);
        if (got == -EAGAIN) {
            n->blocked = true;
        } else if (got < 0) {
            return (int)got;
        } else {
            advance(n, (size_t)got);
            n->blocked = (size_t)got < total && n->wire.tls == NULL;
        }
    }
    r = nbd_wire_flush(&n->wire);
    if (r == -EAGAIN)
        n->blocked = true;
    else if (r < 0)
        return r;
    return 0;
}

void nbd_client_send_all(struct nbd_client *c)
{
    for (unsigned i = 0; i < c->n_connections && c->up; i++) {
        struct nbd_connection *n = &c->connections[i];
        if (n->phase != NBD_READY || n->blocked || n->queue == NULL)
            continue;
        int r = nbd_connection_send(n);
        if (r < 0)
            nbd_client_lost(c, r);
        else
            nbd_connection_watch(n);
    }
}
