/* tapd's NBD client against a server made of prepared bytes: what is no answer must lose the server, and nothing
 * else; what is an answer, however odd, must be understood. */
#include "tests/unit/tapd/nbd_world.h"

#include <endian.h>
#include <errno.h>
#include <sys/socket.h>

#include "rpc/base/text.h"
#include "rpc/nbd/nbd_protocol.h"
#include "storage/tapd/nbd_client_private.h"

#define SIZE (4 << 20)
#define ALLOCATION 7u
#define HASH 9u

static void add16(struct text *t, unsigned v) { uint16_t x = htobe16((uint16_t)v); text_add_len(t, &x, 2); }
static void add32(struct text *t, uint32_t v) { uint32_t x = htobe32(v); text_add_len(t, &x, 4); }
static void add64(struct text *t, uint64_t v) { uint64_t x = htobe64(v); text_add_len(t, &x, 8); }

static void option(struct text *t, uint32_t option, uint32_t type, uint32_t length)
{
    add64(t, NBD_MAGIC_OPTION_REPLY);
    add32(t, option);
    add32(t, type);
    add32(t, length);
}

static void context(struct text *t, uint32_t id, const char *name)
{
    option(t, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, (uint32_t)(4 + strlen(name)));
    add32(t, id);
    text_add(t, name);
}

/* A negotiation with everything. */
static void hello(struct text *t, uint64_t size)
{
    add64(t, NBD_MAGIC_INIT);
    add64(t, NBD_MAGIC_OPTION);
    add16(t, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    option(t, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, 0);
    context(t, ALLOCATION, NBD_CONTEXT_ALLOCATION);
    context(t, HASH, NBD_CONTEXT_HASH);
    option(t, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
    option(t, NBD_OPT_GO, NBD_REP_INFO, 12);
    add16(t, NBD_INFO_EXPORT);
    add64(t, size);
    add16(t, NBD_TFLAG_HAS_FLAGS | NBD_TFLAG_SEND_FLUSH | NBD_TFLAG_SEND_FUA | NBD_TFLAG_SEND_TRIM | NBD_TFLAG_SEND_WRITE_ZEROES);
    option(t, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static void chunk(struct text *t, uint64_t cookie, unsigned flags, unsigned type, uint32_t length)
{
    add32(t, NBD_MAGIC_STRUCTURED_REPLY);
    add16(t, flags);
    add16(t, type);
    add64(t, cookie);
    add32(t, length);
}

static void data(struct text *t, uint64_t cookie, unsigned flags, uint64_t offset, uint32_t length, char byte)
{
    chunk(t, cookie, flags, NBD_REPLY_OFFSET_DATA, 8 + length);
    add64(t, offset);
    for (uint32_t i = 0; i < length; i++)
        text_add_byte(t, byte);
}

static void hole(struct text *t, uint64_t cookie, unsigned flags, uint64_t offset, uint32_t length)
{
    chunk(t, cookie, flags, NBD_REPLY_OFFSET_HOLE, 12);
    add64(t, offset);
    add32(t, length);
}

static void simple(struct text *t, uint64_t cookie, uint32_t error)
{
    add32(t, NBD_MAGIC_SIMPLE_REPLY);
    add32(t, error);
    add64(t, cookie);
}

#define DONE NBD_REPLY_FLAG_DONE
#define AT 8192u
#define LEN 4096u

/* --- answers to a read of [AT, AT + LEN) ------------------------------------------------------------------ */

typedef void answer_fn(struct text *, uint64_t cookie);
static void a_whole(struct text *t, uint64_t c) { data(t, c, DONE, AT, LEN, 'a'); }
static void a_pieces(struct text *t, uint64_t c)
{
    data(t, c, 0, AT + 2048, 1024, 'a');
    data(t, c, 0, AT, 2048, 'a');
    data(t, c, DONE, AT + 3072, 1024, 'a');
}
static void a_none_last(struct text *t, uint64_t c)
{
    data(t, c, 0, AT, LEN, 'a');
    chunk(t, c, DONE, NBD_REPLY_NONE, 0);
}
static void a_hole(struct text *t, uint64_t c) { hole(t, c, DONE, AT, LEN); }
static void a_error(struct text *t, uint64_t c)
{
    chunk(t, c, DONE, NBD_REPLY_ERROR, 6 + 3);
    add32(t, NBD_ENOSPC);
    add16(t, 3);
    text_add(t, "bad");
}
static void a_error_after_data(struct text *t, uint64_t c)
{
    data(t, c, 0, AT, 512, 'a');
    chunk(t, c, 0, NBD_REPLY_ERROR_OFFSET, 14);
    add32(t, NBD_EPERM);
    add16(t, 0);
    add64(t, AT + 512);
    chunk(t, c, DONE, NBD_REPLY_NONE, 0);
}
static void a_unknown_error(struct text *t, uint64_t c)
{
    chunk(t, c, DONE, 0x8fff, 6);
    add32(t, 4711);
    add16(t, 0);
}
static void a_simple_error(struct text *t, uint64_t c) { simple(t, c, NBD_EINVAL); }

static void b_magic(struct text *t, uint64_t c) { text_add_len(t, "XXXXXXXXXXXXXXXXXXXXXXXX", 24); }
static void b_simple_read(struct text *t, uint64_t c)
{
    simple(t, c, 0);
    for (unsigned i = 0; i < LEN; i++)
        text_add_byte(t, 'a');
}
static void b_cookie(struct text *t, uint64_t c) { data(t, c ^ (1ull << 40), DONE, AT, LEN, 'a'); }
static void b_cookie_index(struct text *t, uint64_t c) { data(t, c | 0xfffff, DONE, AT, LEN, 'a'); }
static void b_too_long(struct text *t, uint64_t c) { data(t, c, DONE, AT, LEN + 512, 'a'); }
static void b_before(struct text *t, uint64_t c) { data(t, c, DONE, AT - 512, 512, 'a'); }
static void b_behind(struct text *t, uint64_t c) { data(t, c, DONE, AT + LEN, 512, 'a'); }
static void b_over_the_end(struct text *t, uint64_t c) { data(t, c, DONE, AT + 3584, 1024, 'a'); }
static void b_far(struct text *t, uint64_t c) { data(t, c, DONE, UINT64_MAX - 511, 512, 'a'); }
static void b_empty(struct text *t, uint64_t c) { data(t, c, DONE, AT, 0, 'a'); }
static void b_twice(struct text *t, uint64_t c)
{
    data(t, c, 0, AT, 1024, 'a');
    data(t, c, DONE, AT + 512, LEN - 512, 'a');
}
static void b_whole_twice(struct text *t, uint64_t c)
{
    data(t, c, 0, AT, LEN, 'a');
    data(t, c, DONE, AT, LEN, 'a');
}
static void b_odd(struct text *t, uint64_t c) { data(t, c, 0, AT, 100, 'a'); }
static void b_missing(struct text *t, uint64_t c) { data(t, c, DONE, AT, 2048, 'a'); }
static void b_nothing(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_NONE, 0); }
static void b_none_not_last(struct text *t, uint64_t c) { chunk(t, c, 0, NBD_REPLY_NONE, 0); }
static void b_none_with_data(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_NONE, 8); }
static void b_hole_long(struct text *t, uint64_t c) { hole(t, c, DONE, AT, UINT32_MAX); }
static void b_hole_empty(struct text *t, uint64_t c) { hole(t, c, DONE, AT, 0); }
static void b_hole_size(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_OFFSET_HOLE, 400); }
static void b_error_short(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_ERROR, 2); }
static void b_error_long(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_ERROR, UINT32_MAX); }
static void b_type(struct text *t, uint64_t c) { chunk(t, c, DONE, 0x4000, 8); }
static void b_status(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_BLOCK_STATUS, 12); }
static void b_hash(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_XAPI_HASH, 16); }
static void b_end(struct text *t, uint64_t c) { chunk(t, c, DONE, NBD_REPLY_OFFSET_DATA, 8 + LEN); }

static const struct { const char *name; answer_fn *answer; int result; char byte; } reads[] = {
    { "whole", a_whole, 0, 'a' }, { "pieces", a_pieces, 0, 'a' }, { "none last", a_none_last, 0, 'a' }, { "hole", a_hole, 0, 0 },
    { "error", a_error, -ENOSPC, 0 }, { "error after data", a_error_after_data, -EPERM, 0 }, { "unknown error", a_unknown_error, -EIO, 0 },
    { "simple error", a_simple_error, -EINVAL, 0 },
#define LOST(f) { #f, f, -ECONNRESET, 0 }
    LOST(b_magic), LOST(b_simple_read), LOST(b_cookie), LOST(b_cookie_index), LOST(b_too_long), LOST(b_before), LOST(b_behind),
    LOST(b_over_the_end), LOST(b_far), LOST(b_empty), LOST(b_twice), LOST(b_whole_twice), LOST(b_odd), LOST(b_missing), LOST(b_nothing),
    LOST(b_none_not_last), LOST(b_none_with_data), LOST(b_hole_long), LOST(b_hole_empty), LOST(b_hole_size), LOST(b_error_short),
    LOST(b_error_long), LOST(b_type), LOST(b_status), LOST(b_hash), LOST(b_end),
};

/* --- the other side ------------------------------------------------------------------------------------------ */

struct peer { struct world w; int fd; };

static struct error *peer_open(struct peer *p, const struct text *greeting, bool more)
{
    struct nbd_options options = { .lost = world_lost, .ctx = &p->w };
    int fds[2];

    p->w = (struct world) { .arena = arena_new(), .loop = loop_new(&clock_real) };
    tempdir_make(&p->w.dir);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    p->fd = fds[1];
    assert_int_equal(send(p->fd, greeting->bytes, greeting->len, 0), greeting->len);
    if (!more)
        shutdown(p->fd, SHUT_WR);
    return nbd_open_fd(p->w.arena, p->w.loop, fds[0], &options, false, &p->w.block);
}

static void peer_make(struct peer *p)
{
    AUTO_TEXT t = TEXT_INIT;
    char junk[65536];

    hello(&t, SIZE);
    assert_null(peer_open(p, &t, true));
    assert_true(recv(p->fd, junk, sizeof junk, MSG_DONTWAIT) > 0); /* the client's half of the negotiation */
}

static void peer_end(struct peer *p)
{
    close(p->fd);
    world_end(&p->w);
}

/* Turns until the client's next request is there. */
static struct nbd_request next_request(struct peer *p)
{
    struct nbd_request r;
    for (unsigned i = 0; recv(p->fd, &r, sizeof r, MSG_DONTWAIT) != sizeof r; i++) {
        assert_true(i < 1000);
        loop_turn(p->w.loop, 10);
    }
    return r;
}

/* In pieces of 'step' bytes, the client reading between them. */
static void answer(struct peer *p, const struct text *t, size_t step)
{
    for (size_t i = 0; i < t->len; i += step) {
        size_t n = t->len - i < step ? t->len - i : step;
        if (send(p->fd, t->bytes + i, n, MSG_NOSIGNAL) < 0)
            return; /* it has had enough */
        loop_turn(p->w.loop, 1);
    }
}

static void read_case(unsigned i, size_t step)
{
    struct peer p;
    AUTO_TEXT t = TEXT_INIT;
    uint8_t buffer[LEN + 1024];
    bool done = false;
    struct block_request r = { .op = BLOCK_READ, .offset = AT, .length = LEN, .buffer = buffer, .done = request_done, .owner = &done };

    peer_make(&p);
    memset(buffer, 'z', sizeof buffer);
    block_submit(p.w.block, &r);
    reads[i].answer(&t, be64toh(next_request(&p).cookie));
    answer(&p, &t, step);
    if (reads[i].answer == b_end || reads[i].answer == b_none_not_last)
        shutdown(p.fd, SHUT_RDWR);
    turn_until(&p.w, &done);
    if (r.result != reads[i].result)
        fail_msg("%s: %d, not %d", reads[i].name, r.result, reads[i].result);
    assert_int_equal(p.w.lost, r.result == -ECONNRESET);
    for (unsigned k = 0; r.result == 0 && k < LEN; k++)
        assert_int_equal(buffer[k], reads[i].byte);
    for (unsigned k = LEN; k < sizeof buffer; k++)
        assert_int_equal(buffer[k], 'z');
    peer_end(&p);
}

static void test_reads(void **state)
{
    static const size_t steps[] = { 1 << 20, 19, 1000 };
    for (unsigned s = 0; s < ARRAY_LEN(steps); s++)
        for (unsigned i = 0; i < ARRAY_LEN(reads); i++)
            read_case(i, steps[s]);
}

/* An answer that comes twice: the slot is free then. */
static void test_answer_twice(void **state)
{
    struct peer p;
    AUTO_TEXT t = TEXT_INIT;
    uint8_t buffer[LEN] = { 0 };
    bool done = false, done2 = false;
    struct block_request r = { .op = BLOCK_WRITE, .length = LEN, .buffer = buffer, .done = request_done, .owner = &done };
    struct block_request r2 = { .op = BLOCK_FLUSH, .done = request_done, .owner = &done2 };
    uint64_t cookie;

    peer_make(&p);
    block_submit(p.w.block, &r);
    cookie = be64toh(next_request(&p).cookie);
    assert_int_equal(recv(p.fd, buffer, LEN, MSG_WAITALL), LEN);
    simple(&t, cookie, 0);
    answer(&p, &t, 100);
    turn_until(&p.w, &done);
    assert_int_equal(r.result, 0);
    block_submit(p.w.block, &r2);
    next_request(&p);
    answer(&p, &t, 100);
    turn_until(&p.w, &done2);
    assert_int_equal(r2.result, -ECONNRESET);
    peer_end(&p);
}

/* --- hashes ----------------------------------------------------------------------------------------------------- */

static void hash_done(struct nbd_hash *h) { *(bool *)h->owner = true; }

static int hash_case(uint32_t length, uint32_t answered, uint8_t (*digests)[16])
{
    struct peer p;
    AUTO_TEXT t = TEXT_INIT;
    bool done = false;
    struct nbd_hash h = { .offset = 65536, .length = length, .digests = digests, .done = hash_done, .owner = &done };

    peer_make(&p);
    assert_true(nbd_can_hash(p.w.block));
    nbd_hash(p.w.block, &h);
    struct nbd_request request = next_request(&p);
    assert_int_equal(be16toh(request.type), NBD_CMD_XAPI_HASH);
    assert_int_equal(be32toh(request.length), length);
    if (answered == 0) {
        simple(&t, be64toh(request.cookie), NBD_EIO);
    } else {
        chunk(&t, be64toh(request.cookie), DONE, NBD_REPLY_XAPI_HASH, answered);
        for (uint32_t i = 0; i < answered; i++)
            text_add_byte(&t, (char)i);
    }
    answer(&p, &t, 1000);
    turn_until(&p.w, &done);
    peer_end(&p);
    return h.result;
}

static void test_hashes(void **state)
{
    uint8_t digests[4][16] = { 0 };
    assert_int_equal(hash_case(2 * NBD_HASH_BLOCK + 4096, 48, digests), 0);
    for (unsigned i = 0; i < 48; i++)
        assert_int_equal(digests[i / 16][i % 16], i);
    assert_int_equal(digests[3][0], 0);
    assert_int_equal(hash_case(2 * NBD_HASH_BLOCK, 48, digests), -ECONNRESET);
    assert_int_equal(hash_case(2 * NBD_HASH_BLOCK, 16, digests), -ECONNRESET);
    assert_int_equal(hash_case(4096, 0, digests), -EIO);
}

/* --- block status ---------------------------------------------------------------------------------------------- */

struct script { uint32_t id; unsigned n; struct { uint32_t length, flags; } e[4]; int result; const char *map; };

static bool draw(void *ctx, const struct block_extent *e)
{
    char *map = ctx;
    for (int64_t i = e->offset >> 20; i < (e->offset + e->length) >> 20; i++)
        map[i] = e->hole ? 'h' : e->zero ? 'z' : 'd';
    return true;
}

/* block_extents waits, so the answer is there before: the cookie is known (the last slot, first use). */
static void status_case(const struct script *s)
{
    struct peer p;
    AUTO_TEXT t = TEXT_INIT;
    char map[8] = { 0 };

    peer_make(&p);
    chunk(&t, 1ull << 32 | NBD_SLOTS, DONE, NBD_REPLY_BLOCK_STATUS, 4 + 8 * s->n);
    add32(&t, s->id);
    for (unsigned i = 0; i < s->n; i++) {
        add32(&t, s->e[i].length);
        add32(&t, s->e[i].flags);
    }
    assert_int_equal(send(p.fd, t.bytes, t.len, 0), t.len);
    assert_int_equal(block_extents(p.w.block, 0, SIZE, false, draw, map), s->result);
    assert_string_equal(map, s->map);
    peer_end(&p);
}

static void test_status(void **state)
{
    static const struct script scripts[] = {
        { ALLOCATION, 3, { { 1 << 20, 0 }, { 1 << 20, 3 }, { 2 << 20, 2 } }, 0, "dhzz" },
        { ALLOCATION, 2, { { 1 << 20, 1 }, { 100 << 20, 3 } }, 0, "dhhh" }, /* a hole of unknown contents; more than asked */
        { ALLOCATION, 2, { { 1 << 20, 0 }, { 0, 3 } }, -ECONNRESET, "" },
        { HASH, 1, { { 4 << 20, 0 } }, -ECONNRESET, "" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(scripts); i++)
        status_case(&scripts[i]);
}

/* --- negotiation -------------------------------------------------------------------------------------------------- */

static void test_truncated_negotiation(void **state)
{
    AUTO_TEXT t = TEXT_INIT;
    hello(&t, SIZE);
    for (size_t n = 0; n < t.len; n++) {
        struct peer p;
        struct text part = { t.bytes, n, t.cap };
        assert_true(error_is(peer_open(&p, &part, false), "SR_BACKEND_FAILURE"));
        p.w.block = NULL;
        peer_end(&p);
    }
}

static void test_sizes(void **state)
{
    static const uint64_t sizes[] = { 513, UINT64_MAX, 1ull << 63 };
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        struct peer p;
        AUTO_TEXT t = TEXT_INIT;
        hello(&t, sizes[i]);
        assert_true(error_is(peer_open(&p, &t, false), "SR_BACKEND_FAILURE"));
        p.w.block = NULL;
        peer_end(&p);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),  cmocka_unit_test(test_answer_twice),         cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_status), cmocka_unit_test(test_truncated_negotiation), cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
