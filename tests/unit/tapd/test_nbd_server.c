/* The NBD server's commands: what is done, what is refused, in how many pieces, under faults. */
#include "tests/unit/tapd/nbd_peer.h"

#include <xxhash.h>

#include "rpc/base/memory.h"

#define SIZE (64 * (int64_t)MIB)

static void test_write_read_both_ways(void **state)
{
    for (unsigned way = 0; way < 4; way++) {
        struct peer p;
        char out[8192], in[8192];
        uint32_t holes;

        peer_start(&p, SIZE);
        p.disk->later = way & 2;
        peer_open(&p, way & 1);
        assert_int_equal(p.shaken.size, SIZE);
        assert_true(p.shaken.flags & NBD_TFLAG_CAN_MULTI_CONN);
        peer_fill(out, sizeof out, 7);
        assert_int_equal(peer_request(&p, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 1, 4096, sizeof out), 0);
        assert_int_equal(peer_say(&p, out, sizeof out), 0);
        assert_int_equal(peer_simple(&p, 1), 0);
        assert_int_equal(p.disk->last_flags, BLOCK_FUA);
        assert_memory_equal(p.disk->data + 4096, out, sizeof out);
        assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 2, 4096, sizeof in), 0);
        if (way & 1) {
            assert_int_equal(peer_read_chunks(&p, 2, 4096, in, sizeof in, &holes), 0);
        } else {
            assert_int_equal(peer_simple(&p, 2), 0);
            assert_int_equal(peer_hear(&p, in, sizeof in), 0);
        }
        assert_memory_equal(in, out, sizeof in);
        assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 3, 0, 0), 0);
        assert_int_equal(peer_simple(&p, 3), 0);
        assert_int_equal(p.disk->n[BLOCK_FLUSH], 1);
        peer_stop(&p);
    }
}

/* command, flags, offset, length, the error */
static const struct { unsigned type, flags; uint64_t offset; uint32_t length, error; } refused[] = {
    { NBD_CMD_READ, 0, 1, 512, NBD_EINVAL },
    { NBD_CMD_READ, 0, 0, 511, NBD_EINVAL },
    { NBD_CMD_READ, 0, 0, 0, NBD_EINVAL },
    { NBD_CMD_READ, 0, SIZE, 512, NBD_EINVAL },
    { NBD_CMD_READ, 0, UINT64_MAX - 511, 512, NBD_EINVAL },
    { NBD_CMD_READ, 0, INT64_MAX - 511, 1024, NBD_EINVAL },
    { NBD_CMD_READ, 0, 0, NBD_REQUEST_MAX + 512, NBD_EINVAL },
    { NBD_CMD_READ, 0x4000, 0, 512, NBD_EINVAL },
    { NBD_CMD_WRITE, 0, SIZE - 512, 1024, NBD_ENOSPC },
    { NBD_CMD_WRITE, 0, 100, 1024, NBD_EINVAL },
    { NBD_CMD_WRITE, NBD_CMD_FLAG_DF, 0, 1024, NBD_EINVAL },
    { NBD_CMD_WRITE, 0, 0, NBD_REQUEST_MAX + 512, NBD_EINVAL },
    { NBD_CMD_TRIM, 0, SIZE, 512, NBD_ENOSPC },
    { NBD_CMD_WRITE_ZEROES, 0, 0, 0, NBD_EINVAL },
    { NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_NO_HOLE, 0, 512, NBD_ENOTSUP },
    { NBD_CMD_CACHE, 0, SIZE, 512, NBD_EINVAL },
    { NBD_CMD_BLOCK_STATUS, 0, 0, 512, NBD_EINVAL },
    { NBD_CMD_XAPI_HASH, 0, 0, 4096, NBD_EINVAL },
    { 99, 0, 0, 512, NBD_EINVAL },
};

static void test_refused(void **state)
{
    struct peer p;
    char *payload = xcalloc(1, NBD_REQUEST_MAX + 512);

    peer_start(&p, SIZE);
    peer_open(&p, false);
    for (unsigned i = 0; i < ARRAY_LEN(refused); i++) {
        assert_int_equal(peer_request(&p, refused[i].type, refused[i].flags, 100 + i, refused[i].offset, refused[i].length), 0);
        if (refused[i].type == NBD_CMD_WRITE)
            assert_int_equal(peer_say(&p, payload, refused[i].length), 0);
        assert_int_equal(peer_simple(&p, 100 + i), refused[i].error);
    }
    for (unsigned op = 0; op <= BLOCK_FLUSH; op++)
        assert_int_equal(p.disk->n[op], 0);
    xfree(payload);
    peer_stop(&p);
}

static void test_read_only(void **state)
{
    struct peer p;
    const struct nbd_wish wish = { .name = "", .structured = true };
    char payload[512] = { 0 };

    peer_start(&p, SIZE);
    peer_connect(&p, true, NULL);
    assert_int_equal(peer_shake(&p, &wish, NULL), 0);
    assert_true(p.shaken.flags & NBD_TFLAG_READ_ONLY);
    assert_int_equal(peer_request(&p, NBD_CMD_WRITE, 0, 1, 0, 512), 0);
    assert_int_equal(peer_say(&p, payload, 512), 0);
    assert_int_equal(peer_simple(&p, 1), NBD_EPERM);
    assert_int_equal(peer_request(&p, NBD_CMD_TRIM, 0, 2, 0, 512), 0);
    assert_int_equal(peer_simple(&p, 2), NBD_EPERM);
    assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 3, 0, 0), 0);
    assert_int_equal(peer_simple(&p, 3), 0);
    peer_stop(&p);
}

/* The longest requests, whole and in pieces; several at a time need more buffers than there are. */
static void test_longest(void **state)
{
    char *out = xcalloc(1, NBD_REQUEST_MAX), *in = xcalloc(1, NBD_REQUEST_MAX);

    peer_fill(out, NBD_REQUEST_MAX, 3);
    for (unsigned way = 0; way < 6; way++) {
        struct peer p;
        bool structured = way & 1;
        uint32_t holes;

        peer_start(&p, SIZE);
        p.disk->later = way & 2;
        peer_open(&p, structured);
        assert_int_equal(peer_request(&p, NBD_CMD_WRITE, 0, 1, MIB - 512, NBD_REQUEST_MAX), 0);
        assert_int_equal(peer_say(&p, out, NBD_REQUEST_MAX), 0);
        assert_int_equal(peer_simple(&p, 1), 0);
        bool in_order = !structured || way == 5; /* else chunks of several reads come mixed */
        for (unsigned i = 0; i < 3 && in_order; i++)
            assert_int_equal(peer_request(&p, NBD_CMD_READ, way == 5 ? NBD_CMD_FLAG_DF : 0u, 2 + i, MIB - 512, NBD_REQUEST_MAX), 0);
        for (unsigned i = 0; i < 3; i++) {
            if (!in_order)
                assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 2 + i, MIB - 512, NBD_REQUEST_MAX), 0);
            memset(in, 0xee, NBD_REQUEST_MAX);
            if (structured) {
                assert_int_equal(peer_read_chunks(&p, 2 + i, MIB - 512, in, NBD_REQUEST_MAX, &holes), 0);
            } else {
                assert_int_equal(peer_simple(&p, 2 + i), 0);
                assert_int_equal(peer_hear(&p, in, NBD_REQUEST_MAX), 0);
            }
            assert_memory_equal(in, out, NBD_REQUEST_MAX);
        }
        assert_true(p.disk->longest <= BLOCK_REQUEST_MAX);
        peer_stop(&p);
    }
    xfree(out);
    xfree(in);
}

static void test_zeroes_and_trim(void **state)
{
    struct peer p;

    peer_start(&p, SIZE);
    p.disk->later = true;
    peer_open(&p, true);
    memset(p.disk->data, 0xaa, SIZE);
    assert_int_equal(peer_request(&p, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE, 1, 512, (uint32_t)SIZE - 512), 0);
    assert_int_equal(peer_simple(&p, 1), 0);
    assert_int_equal(p.disk->last_flags, BLOCK_FUA | BLOCK_NO_HOLE);
    assert_int_equal((unsigned char)p.disk->data[511], 0xaa);
    assert_int_equal(p.disk->data[512], 0);
    assert_int_equal(p.disk->data[SIZE - 1], 0);
    assert_int_equal(p.disk->n[BLOCK_ZERO], SIZE / MIB);
    assert_true(p.disk->most_in_flight <= 32);
    assert_int_equal(peer_request(&p, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO, 2, 0, 512), 0);
    assert_int_equal(peer_simple(&p, 2), 0);
    assert_int_equal(peer_request(&p, NBD_CMD_TRIM, 0, 3, 0, (uint32_t)SIZE), 0);
    assert_int_equal(peer_simple(&p, 3), 0);
    assert_int_equal(p.disk->n[BLOCK_DISCARD], SIZE / MIB);
    p.disk->error = -ENOSPC;
    p.disk->error_op = BLOCK_ZERO;
    p.disk->error_from = 3 * MIB;
    assert_int_equal(peer_request(&p, NBD_CMD_WRITE_ZEROES, 0, 4, 0, (uint32_t)SIZE), 0);
    assert_int_equal(peer_simple(&p, 4), NBD_ENOSPC);
    peer_stop(&p);
}

static void test_holes(void **state)
{
    struct peer p;
    char *in = xcalloc(1, MIB);
    uint32_t holes;

    peer_start(&p, SIZE);
    peer_open(&p, true);
    for (unsigned i = 0; i < 3; i++) {
        p.disk->there[i * 64] = true;
        memset(p.disk->data + i * 64 * RAM_UNIT, 0x51, RAM_UNIT);
    }
    assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 1, 0, MIB), 0);
    assert_int_equal(peer_read_chunks(&p, 1, 0, in, MIB, &holes), 0);
    assert_memory_equal(in, p.disk->data, MIB);
    assert_int_equal(holes, MIB - 3 * RAM_UNIT);
    assert_int_equal(p.disk->n[BLOCK_READ], 3);
    assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 2, 2 * MIB, MIB), 0); /* nothing but a hole */
    assert_int_equal(peer_read_chunks(&p, 2, 2 * MIB, in, MIB, &holes), 0);
    assert_int_equal(holes, MIB);
    assert_int_equal(peer_request(&p, NBD_CMD_READ, NBD_CMD_FLAG_DF, 3, 0, MIB), 0);
    assert_int_equal(peer_read_chunks(&p, 3, 0, in, MIB, &holes), 0);
    assert_int_equal(holes, 0);
    for (unsigned i = 0; i < 256; i += 2) /* more ranges than are told apart */
        p.disk->there[1024 + i] = true;
    memset(p.disk->data + 4 * MIB, 0x17, MIB);
    for (unsigned i = 1; i < 256; i += 2)
        memset(p.disk->data + 4 * MIB + i * RAM_UNIT, 0, RAM_UNIT);
    assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 4, 4 * MIB, MIB), 0);
    assert_int_equal(peer_read_chunks(&p, 4, 4 * MIB, in, MIB, &holes), 0);
    assert_memory_equal(in, p.disk->data + 4 * MIB, MIB);
    p.disk->extents_error = -EAGAIN;
    p.disk->extents_errors = 1;
    assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 5, 0, MIB), 0);
    assert_int_equal(peer_read_chunks(&p, 5, 0, in, MIB, &holes), 0);
    assert_int_equal(holes, 0);
    xfree(in);
    peer_stop(&p);
}

/* --- block status, hashes --------------------------------------------------------------------------------- */

static int first_megabyte(struct nbd_dirty_source *s, int64_t offset, int64_t length, block_extent_fn *fn, void *ctx)
{
    int64_t dirty = offset < MIB ? MIB - offset : 0;

    dirty = dirty < length ? dirty : length;
    if (dirty > 0 && !fn(ctx, &(struct block_extent){ .offset = offset, .length = dirty }))
        return 0;
    if (length > dirty)
        fn(ctx, &(struct block_extent){ .offset = offset + dirty, .length = length - dirty, .hole = true });
    return 0;
}

static unsigned hear_status(struct peer *p, uint64_t cookie, uint32_t id, uint32_t pairs[][2], bool *done_r)
{
    struct chunk c = peer_chunk(p);
    unsigned char word[8];
    unsigned n = (c.length - 4) / 8;

    assert_int_equal(c.type, NBD_REPLY_BLOCK_STATUS);
    assert_int_equal(c.cookie, cookie);
    assert_int_equal(peer_hear(p, word, 4), 0);
    assert_int_equal(nbd_get32(word), id);
    assert_true(n <= 16);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(peer_hear(p, word, 8), 0);
        pairs[i][0] = nbd_get32(word);
        pairs[i][1] = nbd_get32(word + 4);
    }
    *done_r = c.flags & NBD_REPLY_FLAG_DONE;
    return n;
}

static void test_status(void **state)
{
    struct nbd_dirty_source source = { .extents = first_megabyte };
    struct peer p;
    uint32_t x[16][2];
    bool done;

    peer_start(&p, SIZE);
    nbd_server_dirty(p.server, &source);
    peer_open(&p, true);
    assert_true(p.shaken.has_context[0] && p.shaken.has_context[1] && p.shaken.has_context[2]);
    p.disk->there[1] = p.disk->there[2] = true;
    for (unsigned i = 0; i < 2; i++) { /* the second time the gate is closed at first, twice */
        p.disk->later = i > 0;
        p.disk->extents_errors = i * 2;
        p.disk->extents_error = -EAGAIN;
        assert_int_equal(peer_request(&p, NBD_CMD_BLOCK_STATUS, 0, 1, 0, 2 * MIB), 0);
        assert_int_equal(hear_status(&p, 1, p.shaken.context_id[0], x, &done), 3);
        assert_false(done);
        assert_int_equal(x[0][0], 4096);
        assert_int_equal(x[0][1], NBD_STATE_HOLE | NBD_STATE_ZERO);
        assert_int_equal(x[1][0], 8192);
        assert_int_equal(x[1][1], 0);
        assert_int_equal(x[2][0], 2 * MIB - 12288);
        assert_int_equal(hear_status(&p, 1, p.shaken.context_id[2], x, &done), 2);
        assert_true(done);
        assert_int_equal(x[0][0], MIB);
        assert_int_equal(x[0][1], NBD_STATE_DIRTY);
        assert_int_equal(p.disk->n[BLOCK_READ], i * 2);
    }
    assert_int_equal(peer_request(&p, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 2, 0, 2 * MIB), 0);
    assert_int_equal(hear_status(&p, 2, p.shaken.context_id[0], x, &done), 1);
    assert_int_equal(x[0][0], 4096);
    assert_int_equal(hear_status(&p, 2, p.shaken.context_id[2], x, &done), 1);
    p.disk->extents_error = -EIO;
    p.disk->extents_errors = 1;
    assert_int_equal(peer_request(&p, NBD_CMD_BLOCK_STATUS, 0, 3, 0, 2 * MIB), 0);
    assert_int_equal(peer_read_chunks(&p, 3, 0, NULL, 0, &x[0][0]), NBD_EIO);
    peer_stop(&p);
}

static void test_hash(void **state)
{
    struct peer p;
    struct chunk c;
    unsigned char got[16];
    uint32_t ignored;
    uint32_t length = (uint32_t)(32 * MIB - 2 * NBD_HASH_BLOCK + 1024);
    int64_t offset = 32 * MIB + 2 * NBD_HASH_BLOCK;

    peer_start(&p, 64 * MIB + 1024);
    p.disk->later = true;
    peer_open(&p, true);
    peer_fill(p.disk->data, 64 * MIB, 9);
    assert_int_equal(peer_request(&p, NBD_CMD_XAPI_HASH, 0, 1, (uint64_t)offset, length), 0);
    c = peer_chunk(&p);
    assert_int_equal(c.type, NBD_REPLY_XAPI_HASH);
    assert_int_equal(c.length, (length + NBD_HASH_BLOCK - 1) / NBD_HASH_BLOCK * 16);
    for (uint32_t at = 0; at < length; at += NBD_HASH_BLOCK) {
        XXH128_canonical_t want;
        size_t n = length - at < NBD_HASH_BLOCK ? length - at : NBD_HASH_BLOCK;
        XXH128_canonicalFromHash(&want, XXH3_128bits(p.disk->data + offset + at, n));
        assert_int_equal(peer_hear(&p, got, 16), 0);
        assert_memory_equal(got, want.digest, 16);
    }
    assert_int_equal(peer_request(&p, NBD_CMD_XAPI_HASH, 0, 2, 0, 1024), 0);
    assert_int_equal(peer_read_chunks(&p, 2, 0, NULL, 0, &ignored), NBD_EINVAL);
    p.disk->error = -EIO;
    p.disk->error_op = BLOCK_READ;
    p.disk->error_from = 2 * MIB;
    assert_int_equal(peer_request(&p, NBD_CMD_XAPI_HASH, 0, 3, 0, 32 * MIB), 0);
    assert_int_equal(peer_read_chunks(&p, 3, 0, NULL, 0, &ignored), NBD_EIO);
    peer_stop(&p);
}

/* --- faults ---------------------------------------------------------------------------------------------- */

static void test_errors(void **state)
{
    char *in = xcalloc(1, 8 * MIB);

    for (unsigned way = 0; way < 4; way++) {
        struct peer p;
        uint32_t holes;

        peer_start(&p, SIZE);
        p.disk->later = way & 2;
        peer_open(&p, way & 1);
        memset(p.disk->there, 1, (size_t)(SIZE / RAM_UNIT));
        p.disk->error = -EIO;
        p.disk->error_op = BLOCK_READ;
        p.disk->error_from = 2 * MIB;
        assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 1, 2 * MIB, 4096), 0);
        if (way & 1) {
            assert_int_equal(peer_read_chunks(&p, 1, 2 * MIB, in, 4096, &holes), NBD_EIO);
            assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 2, 0, 8 * MIB), 0);
            assert_int_equal(peer_read_chunks(&p, 2, 0, in, 8 * MIB, &holes), NBD_EIO);
        } else { /* the head is gone when the third piece fails: only hanging up is honest */
            assert_int_equal(peer_simple(&p, 1), NBD_EIO);
            assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 2, 2 * MIB, 8 * MIB), 0);
            assert_int_equal(peer_simple(&p, 2), NBD_EIO);
            assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 2, 0, 8 * MIB), 0);
            assert_int_equal(peer_simple(&p, 2), 0);
            assert_int_equal(peer_hear(&p, in, 2 * MIB), 0);
            assert_true(peer_is_gone(&p));
        }
        peer_stop(&p);
    }
    xfree(in);
}

/* Many commands in one send, answered in any order. */
static void test_pipelined(void **state)
{
    enum { N = 600 };
    struct peer p;
    unsigned char *many = xcalloc(N, 28 + 4096), *at = many;
    bool seen[N] = { false };

    peer_start(&p, SIZE);
    p.disk->later = true;
    peer_open(&p, false);
    for (unsigned i = 0; i < N; i++) {
        at = nbd_put64(nbd_put32(nbd_put32(at, NBD_MAGIC_REQUEST), NBD_CMD_WRITE), i);
        at = nbd_put32(nbd_put64(at, i * 4096), 4096);
        memset(at, (int)i, 4096);
        at += 4096;
    }
    assert_int_equal(peer_say(&p, many, (size_t)(at - many)), 0);
    for (unsigned i = 0; i < N; i++) {
        unsigned char head[16];
        assert_int_equal(peer_hear(&p, head, 16), 0);
        assert_int_equal(nbd_get32(head + 4), 0);
        assert_false(seen[nbd_get64(head + 8)]);
        seen[nbd_get64(head + 8)] = true;
    }
    for (unsigned i = 0; i < N; i++)
        assert_int_equal((unsigned char)p.disk->data[i * 4096 + 99], i & 255);
    assert_true(p.disk->most_in_flight > 1 && p.disk->most_in_flight <= BLOCK_GUEST_DEPTH);
    xfree(many);
    peer_stop(&p);
}

/* A client that leaves in the middle of everything: what is below comes back to nobody. */
static void test_leaves(void **state)
{
    for (unsigned way = 0; way < 6; way++) {
        struct peer p;
        char half[3000] = { 0 };

        peer_start(&p, SIZE);
        peer_open(&p, way & 1);
        p.disk->hold = true;
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, i, 0, way > 3 ? 8 * MIB : 4096), 0);
            assert_int_equal(peer_request(&p, NBD_CMD_WRITE_ZEROES, 0, 10 + i, 0, 4 * MIB), 0);
        }
        if (way & 2) {
            assert_int_equal(peer_request(&p, NBD_CMD_WRITE, 0, 9, 0, 3 * MIB), 0);
            assert_int_equal(peer_say(&p, half, sizeof half), 0);
        }
        peer_turn(&p);
        assert_true(p.disk->in_flight > 0);
        assert_int_equal(nbd_server_in_flight(p.server), p.disk->in_flight);
        nbd_wire_close(&p.wire);
        peer_turn(&p);
        assert_int_equal(nbd_server_clients(p.server), 0);
        ram_block_let_go(p.disk);
        assert_int_equal(nbd_server_in_flight(p.server), 0);
        peer_open(&p, true); /* all buffers are there again */
        peer_stop(&p);
    }
}

static void test_disconnect_waits_for_answers(void **state)
{
    struct peer p;

    peer_start(&p, SIZE);
    peer_open(&p, false);
    p.disk->hold = true;
    assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 1, 0, 0), 0);
    assert_int_equal(peer_request(&p, NBD_CMD_DISC, 0, 2, 0, 0), 0);
    assert_int_equal(nbd_server_clients(p.server), 1);
    ram_block_let_go(p.disk);
    assert_int_equal(peer_simple(&p, 1), 0);
    assert_true(peer_is_gone(&p));
    assert_int_equal(nbd_server_clients(p.server), 0);
    peer_stop(&p);
}

/* A client that comes back: what it had on older connections is over, and done, before anything new of its is begun. */
static void test_session(void **state)
{
    static const char *const names[] = { "xapi:session:00000000000000070000000000000001", "xapi:session:00000000000000070000000000000002",
                                         "xapi:session:00000000000000080000000000000001", "xapi:session:0000000000000007000000000000000x" };
    struct nbd_wish wish = { .name = "", .structured = true };
    struct nbd_wire old;
    char out[4096];
    struct peer p;

    peer_start(&p, SIZE);
    peer_connect(&p, false, NULL);
    wish.contexts[0] = names[0];
    assert_int_equal(peer_shake(&p, &wish, NULL), 0);
    assert_false(p.shaken.has_context[0]);
    p.disk->hold = true;
    peer_fill(out, sizeof out, 1);
    assert_int_equal(peer_request(&p, NBD_CMD_WRITE, 0, 1, 0, sizeof out), 0);
    assert_int_equal(peer_say(&p, out, sizeof out), 0);
    peer_turn(&p);
    assert_int_equal(p.disk->n[BLOCK_WRITE], 1);
    for (unsigned i = 3; i >= 1; i--) { /* nobody's, another one's, its own */
        old = p.wire;
        p.wire.fd = -1;
        peer_connect(&p, false, NULL);
        wish.contexts[0] = names[i];
        assert_int_equal(peer_shake(&p, &wish, NULL), 0);
        assert_int_equal(nbd_server_clients(p.server), i > 1 ? 2 : 1);
        if (i == 1)
            break;
        nbd_wire_close(&p.wire);
        p.wire = old;
        peer_turn(&p);
    }
    peer_fill(out, sizeof out, 2);
    assert_int_equal(peer_request(&p, NBD_CMD_WRITE, 0, 1, 0, sizeof out), 0);
    assert_int_equal(peer_say(&p, out, sizeof out), 0);
    peer_turn(&p);
    assert_int_equal(p.disk->n[BLOCK_WRITE], 1); /* the old one is still below */
    ram_block_let_go(p.disk);
    p.disk->hold = false;
    assert_int_equal(peer_simple(&p, 1), 0);
    assert_int_equal(p.disk->n[BLOCK_WRITE], 2);
    assert_memory_equal(p.disk->data, out, sizeof out);
    nbd_wire_close(&old);
    peer_stop(&p);
}

static void count(void *ctx) { ++*(unsigned *)ctx; }

static void test_stop(void **state)
{
    struct peer p;
    unsigned stopped = 0;

    peer_start(&p, SIZE);
    peer_open(&p, false);
    p.disk->hold = true;
    assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 1, 0, 0), 0);
    nbd_server_stop(p.server, count, &stopped);
    assert_int_equal(peer_request(&p, NBD_CMD_FLUSH, 0, 2, 0, 0), 0);
    assert_int_equal(peer_simple(&p, 2), NBD_ESHUTDOWN);
    assert_int_equal(stopped, 0);
    ram_block_let_go(p.disk);
    assert_int_equal(peer_simple(&p, 1), 0);
    assert_true(peer_is_gone(&p));
    assert_int_equal(stopped, 1);
    peer_stop(&p);
}

/* A reader that never takes its replies keeps reads' buffers, but another client's writes go on; one that stalls
 * in a payload while others wait is dropped after a while. */
static void test_slow_peers(void **state)
{
    struct peer p;
    struct nbd_wire slow[3];
    char block[4096] = { 1 };

    peer_start(&p, SIZE);
    memset(p.disk->there, 1, (size_t)(SIZE / RAM_UNIT));
    for (unsigned k = 0; k < 3; k++) {
        peer_open(&p, true);
        for (unsigned i = 0; i < 100; i++)
            assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, i, 0, k == 0 ? 4096 : k == 1 ? 256 * KIB : MIB), 0);
        slow[k] = p.wire;
        p.wire.fd = -1;
    }
    peer_open(&p, false);
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(peer_request(&p, NBD_CMD_WRITE, 0, i, i * 4096, 4096), 0);
        assert_int_equal(peer_say(&p, block, 4096), 0);
        assert_int_equal(peer_simple(&p, i), 0);
    }
    assert_int_equal(peer_request(&p, NBD_CMD_READ, 0, 999, 0, MIB), 0);
    assert_int_equal(peer_hear(&p, block, 1), 1); /* waits */
    for (unsigned i = 0; i < 6; i++) {
        clock_fake_advance_ms(&p.clock, NBD_SERVER_STALL_US / 4 / 1000 + 1);
        peer_turn(&p);
    }
    assert_int_equal(peer_simple(&p, 999), 0);
    peer_turn(&p);
    assert_true(nbd_server_clients(p.server) < 4);
    for (unsigned k = 0; k < 3; k++)
        nbd_wire_close(&slow[k]);
    peer_stop(&p);
}

static void test_clients_limit(void **state)
{
    struct peer p;
    int pair[NBD_SERVER_CLIENTS_MAX + 1][2];

    peer_start(&p, SIZE);
    for (unsigned i = 0; i <= NBD_SERVER_CLIENTS_MAX; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair[i]), 0);
        assert_int_equal(nbd_server_adopt(p.server, pair[i][1], false, NULL), i < NBD_SERVER_CLIENTS_MAX ? 0 : -EMFILE);
    }
    for (unsigned i = 0; i <= NBD_SERVER_CLIENTS_MAX; i++)
        fd_close(&pair[i][0]);
    peer_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_read_both_ways),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_zeroes_and_trim),
        cmocka_unit_test(test_holes),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_leaves),
        cmocka_unit_test(test_disconnect_waits_for_answers),
        cmocka_unit_test(test_session),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_slow_peers),
        cmocka_unit_test(test_clients_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
