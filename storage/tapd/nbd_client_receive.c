/* The reply parser of one connection: foreign input. A breach of the protocol is -EPROTO, which loses the server.
 *
 * Bytes come into the staging buffer; data of reads and hashes goes past it into its place as soon as the
 * staged bytes are used up. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "storage/tapd/nbd_client_private.h"

#define TURNS 8            /* reads of one connection before others have their turn; TLS gives what it has */
#define SIMPLE_SIZE sizeof(struct nbd_simple_reply)
#define STRUCTURED_SIZE sizeof(struct nbd_structured_reply)
#define DATA_HEAD 8u       /* the offset before a chunk's data */
#define ERROR_HEAD 6u

static size_t staged(const struct nbd_connection *n) { return n->in_len - n->in_pos; }

static uint32_t take32(struct nbd_connection *n)
{
    uint32_t v;
    memcpy(&v, n->in + n->in_pos, sizeof v);
    n->in_pos += sizeof v;
    return be32toh(v);
}

static uint64_t take64(struct nbd_connection *n)
{
    uint64_t high = take32(n);
    return high << 32 | take32(n);
}

static int errno_of(uint32_t error)
{
    switch (error) {
    case NBD_EPERM: return -EPERM;
    case NBD_ENOMEM: return -ENOMEM;
    case NBD_EINVAL: return -EINVAL;
    case NBD_ENOSPC: return -ENOSPC;
    case NBD_EOVERFLOW: return -EOVERFLOW;
    case NBD_ENOTSUP: return -EOPNOTSUPP;
    case NBD_ESHUTDOWN: return -ESHUTDOWN;
    default: return -EIO;
    }
}

static unsigned type_of(const struct nbd_slot *slot) { return be16toh(slot->wire.type); }

/* What a reply without an error carries; more than was asked for is refused before it is received. */
static uint32_t wanted(const struct nbd_slot *slot)
{
    if (slot->hash != NULL)
        return (slot->length + NBD_HASH_BLOCK - 1) / NBD_HASH_BLOCK * 16;
    return type_of(slot) == NBD_CMD_READ ? slot->length : 0;
}

/* The reply to a slot is complete. */
static int finish_reply(struct nbd_connection *n)
{
    struct nbd_client *c = n->client;
    struct nbd_slot *slot = n->slot;
    unsigned type = type_of(slot);

    n->slot = NULL;
    if (slot->error == 0 && slot->covered < wanted(slot))
        return -EPROTO;
    if (slot->error == 0 && slot->status != NULL && slot->covered == 0)
        return -EPROTO;
    if (slot->error == 0 && slot->r != NULL && (slot->r->flags & BLOCK_FUA) != 0 && (type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES) &&
        (c->server.flags & NBD_TFLAG_SEND_FUA) == 0 && (c->server.flags & NBD_TFLAG_SEND_FLUSH) != 0) {
        nbd_client_restart(c, slot, NBD_CMD_FLUSH);
        return 0;
    }
    nbd_client_done(c, slot, slot->error);
    return 0;
}

static int finish_chunk(struct nbd_connection *n)
{
    n->rx = NBD_RX_HEADER;
    return n->chunk_done ? finish_reply(n) : 0;
}

/* --- coverage of a read that comes in pieces ----------------------------------------------------------- */

/* Notes [from, from + len) of the slot's range; pieces must not overlap and lie on sectors. */
static int cover(struct nbd_slot *slot, uint64_t from, uint32_t len)
{
    if (len == 0 || from > slot->length || len > slot->length - from)
        return -EPROTO;
    if (len == slot->length && slot->covered == 0) {
        slot->covered = len;
        return 0;
    }
    if ((from | len) % COVER_UNIT != 0 || slot->covered == slot->length)
        return -EPROTO;
    if (!slot->partial)
        memset(slot->cover, 0, sizeof slot->cover);
    slot->partial = true;
    for (uint64_t i = from / COVER_UNIT; i < (from + len) / COVER_UNIT; i++) {
        uint64_t bit = 1ull << (i % 64);
        if ((slot->cover[i / 64] & bit) != 0)
            return -EPROTO;
        slot->cover[i / 64] |= bit;
    }
    slot->covered += len;
    return 0;
}

/* The position in the slot's range of an absolute offset; anything else than inside is caught by cover(). */
static uint64_t relative(const struct nbd_slot *slot, uint64_t offset)
{
    return offset - be64toh(slot->wire.offset);
}

/* --- states of the parser: 1 went on, 0 needs more bytes, -errno ------------------------------------------ */

static int simple_header(struct nbd_connection *n)
{
    struct nbd_slot *slot = n->slot;
    uint32_t want = wanted(slot);

    n->chunk_done = true;
    if (slot->error != 0 || want == 0)
        return finish_chunk(n);
    if (n->client->server.structured || slot->hash != NULL)
        return -EPROTO;
    slot->covered = want;
    n->into = slot->r->buffer;
    n->into_rest = want;
    n->rx = NBD_RX_INTO;
    return 0;
}

static int structured_header(struct nbd_connection *n, unsigned type)
{
    struct nbd_slot *slot = n->slot;
    bool read = type_of(slot) == NBD_CMD_READ;

    switch (type) {
    case NBD_REPLY_NONE:
        return n->rest == 0 && n->chunk_done ? finish_chunk(n) : -EPROTO;
    case NBD_REPLY_OFFSET_DATA:
        n->rx = NBD_RX_DATA_OFFSET;
        return read && n->rest > DATA_HEAD && n->rest - DATA_HEAD <= slot->length ? 0 : -EPROTO;
    case NBD_REPLY_OFFSET_HOLE:
        n->rx = NBD_RX_HOLE;
        return read && n->rest == DATA_HEAD + 4 ? 0 : -EPROTO;
    case NBD_REPLY_BLOCK_STATUS:
        n->rx = NBD_RX_CONTEXT;
        return slot->status != NULL && n->rest >= 12 && n->rest % 8 == 4 ? 0 : -EPROTO;
    case NBD_REPLY_XAPI_HASH:
        if (slot->hash == NULL || n->rest != wanted(slot) || slot->covered != 0)
            return -EPROTO;
        slot->covered = n->rest;
        n->into = slot->hash->digests[0];
        n->into_rest = n->rest;
        n->rx = NBD_RX_INTO;
        return 0;
    default:
        n->rx = NBD_RX_ERROR;
        return (type & 0x8000u) != 0 && n->rest >= ERROR_HEAD && n->rest <= 2 * NBD_NAME_MAX ? 0 : -EPROTO;
    }
}

static int find_slot(struct nbd_connection *n, uint64_t cookie)
{
    uint64_t index = cookie & 0xffffffffu;
    struct nbd_slot *slot;

    if (index > NBD_SLOTS)
        return -EPROTO;
    slot = &n->client->slots[index];
    if (slot->connection != n || !slot->sent || slot->serial != cookie >> 32)
        return -EPROTO;
    n->slot = slot;
    return 0;
}

static int on_header(struct nbd_connection *n)
{
    uint32_t magic, error = 0;
    unsigned flags = 0, type = 0;
    int r;

    if (staged(n) < SIMPLE_SIZE)
        return 0;
    memcpy(&magic, n->in + n->in_pos, sizeof magic);
    magic = be32toh(magic);
    if (magic == NBD_MAGIC_STRUCTURED_REPLY && n->client->server.structured) {
        if (staged(n) < STRUCTURED_SIZE)
            return 0;
        n->in_pos += sizeof magic;
        error = take32(n);
        flags = error >> 16;
        type = error & 0xffff;
    } else if (magic == NBD_MAGIC_SIMPLE_REPLY) {
        n->in_pos += sizeof magic;
        error = take32(n);
    } else {
        return -EPROTO;
    }
    r = find_slot(n, take64(n));
    if (r < 0)
        return r;
    if (magic == NBD_MAGIC_SIMPLE_REPLY) {
        n->slot->error = error == 0 ? 0 : errno_of(error);
        r = simple_header(n);
    } else {
        n->rest = take32(n);
        n->chunk_done = (flags & NBD_REPLY_FLAG_DONE) != 0;
        r = structured_header(n, type);
    }
    return r < 0 ? r : 1;
}

static int on_data_offset(struct nbd_connection *n)
{
    uint64_t from;
    int r;

    if (staged(n) < DATA_HEAD)
        return 0;
    from = relative(n->slot, take64(n));
    n->rest -= DATA_HEAD;
    r = cover(n->slot, from, n->rest);
    if (r < 0)
        return r;
    n->into = (uint8_t *)n->slot->r->buffer + from;
    n->into_rest = n->rest;
    n->rx = NBD_RX_INTO;
    return 1;
}

static int on_hole(struct nbd_connection *n)
{
    uint64_t from;
    uint32_t len;
    int r;

    if (staged(n) < DATA_HEAD + 4)
        return 0;
    from = relative(n->slot, take64(n));
    len = take32(n);
    r = cover(n->slot, from, len);
    if (r < 0)
        return r;
    memset((uint8_t *)n->slot->r->buffer + from, 0, len);
    r = finish_chunk(n);
    return r < 0 ? r : 1;
}

static int on_into(struct nbd_connection *n)
{
    size_t k = staged(n) < n->into_rest ? staged(n) : n->into_rest;
    int r;

    memcpy(n->into, n->in + n->in_pos, k);
    n->in_pos += k;
    n->into += k;
    n->into_rest -= (uint32_t)k;
    if (n->into_rest > 0)
        return 0;
    r = finish_chunk(n);
    return r < 0 ? r : 1;
}

static int on_error(struct nbd_connection *n)
{
    if (staged(n) < ERROR_HEAD)
        return 0;
    if (n->slot->error == 0)
        n->slot->error = errno_of(take32(n));
    else
        n->in_pos += 4;
    n->in_pos += 2; /* the length of a text, which is skipped with what else there is */
    n->rest -= ERROR_HEAD;
    n->rx = NBD_RX_SKIP;
    return 1;
}

static int on_context(struct nbd_connection *n)
{
    uint32_t id;

    if (staged(n) < 4)
        return 0;
    id = take32(n);
    n->rest -= 4;
    n->rx = id == n->client->allocation_id ? NBD_RX_EXTENTS : NBD_RX_SKIP;
    if (n->rx == NBD_RX_EXTENTS && n->slot->covered != 0)
        return -EPROTO;
    return 1;
}

static int on_extents(struct nbd_connection *n)
{
    uint32_t length, flags;
    int r;

    if (n->rest == 0) {
        r = finish_chunk(n);
        return r < 0 ? r : 1;
    }
    if (staged(n) < 8)
        return 0;
    length = take32(n);
    flags = take32(n);
    n->rest -= 8;
    if (length == 0)
        return -EPROTO;
    if (length > n->slot->length - n->slot->covered)
        length = n->slot->length - n->slot->covered;
    if (length == 0)
        return 1; /* more than was asked for */
    n->slot->covered += length;
    nbd_status_entry(n->client, length, flags);
    return 1;
}

static int on_skip(struct nbd_connection *n)
{
    size_t k = staged(n) < n->rest ? staged(n) : n->rest;
    int r;

    n->in_pos += k;
    n->rest -= (uint32_t)k;
    if (n->rest > 0)
        return 0;
    r = finish_chunk(n);
    return r < 0 ? r : 1;
}

/* Uses up what is staged. The owner of a finished request may have closed or lost us: then it stops. */
static int parse(struct nbd_connection *n)
{
    static int (*const states[])(struct nbd_connection *) = {
        [NBD_RX_HEADER] = on_header, [NBD_RX_DATA_OFFSET] = on_data_offset, [NBD_RX_HOLE] = on_hole,       [NBD_RX_INTO] = on_into,
        [NBD_RX_ERROR] = on_error,   [NBD_RX_CONTEXT] = on_context,         [NBD_RX_EXTENTS] = on_extents, [NBD_RX_SKIP] = on_skip,
    };
    int r;

    do {
        r = states[n->rx](n);
    } while (r > 0 && n->phase == NBD_READY);
    return r;
}

/* --- bytes ---------------------------------------------------------------------------------------------- */

/* How much to stage: not the data behind a header, which is to go into its place. */
static size_t stage_size(const struct nbd_connection *n)
{
    if (n->bulk == 0)
        return NBD_STAGING;
    return n->client->server.structured ? STRUCTURED_SIZE + DATA_HEAD : SIMPLE_SIZE;
}

/* One read: bytes, -EAGAIN, -errno; *full_r: there may be more at once. */
static ssize_t fill(struct nbd_connection *n, bool *full_r)
{
    struct iovec iov[2];
    size_t want = stage_size(n), direct = 0;
    ssize_t got;
    int k = 0;

    if (n->in_pos > 0) {
        memmove(n->in, n->in + n->in_pos, staged(n));
        n->in_len -= n->in_pos;
        n->in_pos = 0;
    }
    if (n->rx == NBD_RX_INTO) {
        direct = n->into_rest;
        iov[k++] = (struct iovec) { n->into, direct };
    }
    if (want <= n->in_len)
        want = NBD_STAGING;
    want -= n->in_len;
    iov[k++] = (struct iovec) { n->in + n->in_len, want };
    got = nbd_wire_readv(&n->wire, iov, k);
    if (got <= 0)
        return got == 0 ? -ECONNRESET : got;
    *full_r = (size_t)got == direct + want;
    n->client->received += (uint64_t)got;
    if ((size_t)got < direct)
        direct = (size_t)got;
    if (direct > 0)
        n->into += direct;
    n->into_rest -= (uint32_t)direct;
    n->in_len += (size_t)got - direct;
    return got;
}

int nbd_connection_receive(struct nbd_connection *n)
{
    for (unsigned i = 0; (i < TURNS || nbd_wire_pending(&n->wire)) && n->phase == NBD_READY; i++) {
        bool full = false;
        ssize_t got = fill(n, &full);
        int r;
        if (got == -EAGAIN)
            return 0;
        if (got < 0)
            return (int)got;
        n->heard_us = loop_now_us(n->client->block.loop);
        r = parse(n);
        if (r < 0)
            return r;
        if (!full && n->phase == NBD_READY && !nbd_wire_pending(&n->wire))
            return 0;
    }
    return 0;
}
