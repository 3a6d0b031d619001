/* An image over several connections: what arrives is what was sent, whatever the number, the compression and the pieces in
 * which it comes; and blocks that lie are refused by name. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"
#include "xenops/stream/confirm.h"
#include "xenops/stream/fan.h"
#include "xenops/stream/fan_auto.h"
#include "xenops/stream/input.h"
#include "xenops/stream/output.h"

#define PAGES 5000u

static uint8_t *memory_new(void)
{
    uint8_t *m = xcalloc(PAGES, LIBXC_PAGE);
    uint64_t rng = 7;

    for (unsigned p = 0; p < PAGES; p++) /* a third is noise, a third is text, a third is empty */
        for (unsigned i = 0; p % 3 < 2 && i < LIBXC_PAGE; i += 8) {
            rng = rng * 6364136223846793005ull + 1442695040888963407ull;
            uint64_t word = p % 3 == 0 ? rng : 0x2074786574206f6eull + (rng >> 62);
            memcpy(m + p * LIBXC_PAGE + i, &word, 8);
        }
    return m;
}

/* --- a slow wire: a socket whose reader gets little at a time --- */
struct thin { struct byte_stream stream; struct byte_stream *under; size_t step; };

static ssize_t thin_read(struct byte_stream *s, void *to, size_t n)
{
    const struct thin *t = (const struct thin *)s;

    return bytes_read(t->under, to, t->step > 0 && n > t->step ? t->step : n);
}
static int thin_writev(struct byte_stream *s, struct iovec *v, int n) { return bytes_writev(((struct thin *)s)->under, v, n); }
static int thin_finish(struct byte_stream *s) { return bytes_finish(((struct thin *)s)->under); }
static void thin_abort(struct byte_stream *s) { bytes_abort(((struct thin *)s)->under); }
static void thin_close(struct byte_stream *s) { bytes_close(((struct thin *)s)->under); }
static int thin_fd(const struct byte_stream *s) { const struct thin *t = (const struct thin *)s; return t->under->ops->fd(t->under); }
static size_t thin_pending(const struct byte_stream *s) { return 0; }
static const struct byte_stream_ops thin_ops = { .name = "thin", .read = thin_read, .writev = thin_writev, .finish = thin_finish,
                                                 .abort = thin_abort, .close = thin_close, .fd = thin_fd, .pending = thin_pending };

struct world {
    unsigned n;
    enum fan_compress compress;
    bool confirm;
    const uint8_t *memory;
    struct byte_stream *near[FAN_MAX], *told[FAN_MAX];
    struct thin far[FAN_MAX];
    struct byte_stream *far_of[FAN_MAX];
    struct fan_stats stats;
    struct error *error; /* of the writer, text only */
    bool ok;
};

static void world_init(struct world *w, unsigned n, enum fan_compress compress, bool confirm, size_t step)
{
    *w = (struct world){ .n = n, .compress = compress, .confirm = confirm };
    for (unsigned i = 0; i < n; i++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        w->near[i] = bytes_from_fd(fds[0]);
        w->told[i] = confirm ? confirm_out_new(w->near[i]) : NULL;
        w->far[i] = (struct thin){ .stream = { .ops = &thin_ops }, .under = bytes_from_fd(fds[1]), .step = step };
        w->far_of[i] = &w->far[i].stream;
    }
}

static void world_release(struct world *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        bytes_close(w->told[i]);
        bytes_close(w->near[i]);
        bytes_close(w->far_of[i]);
    }
}

static struct error *write_image(struct call *c, struct world *w, struct byte_stream *fan)
{
    struct stream_output *o = xcalloc(1, sizeof(*o));
    struct error *e;

    output_init(o, fan, w->memory);
    e = output_begin(c, o, "{}", 2);
    for (unsigned round = 0; e == NULL && round < 2; round++) {
        for (unsigned p = 0; e == NULL && p < PAGES; p += 1 + round * (p % 5)) {
            if (output_is_full(o))
                e = output_flush(c, o);
            if (e == NULL && round == 0 && p % 3 == 2)
                output_zero_page(o, p);
            else if (e == NULL)
                output_page(o, p);
        }
        if (e == NULL)
            e = output_flush(c, o);
    }
    if (e == NULL)
        e = output_finish(c, o, "context", 7);
    xfree(o);
    return e;
}

static void *writer_run(void *arg)
{
    struct world *w = arg;
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = &clock_real };
    struct byte_stream *fan = fan_out_new(w->confirm ? w->told : w->near, w->n, w->compress, &clock_real);

    w->ok = write_image(&c, w, fan) == NULL;
    if (w->ok && w->confirm)
        w->ok = confirm_wait(fan, 1024, -1, 20000) == 0;
    fan_out_stats(fan, &w->stats);
    bytes_close(fan);
    for (unsigned i = 0; w->ok && i < w->n; i++) /* what follows an image is somebody else's */
        w->ok = bytes_write(w->near[i], "behind", 6) == 0;
    return NULL;
}

static void round_trip(unsigned n, enum fan_compress compress, bool confirm, size_t step, struct fan_stats *stats_r)
{
    AUTO_FAKECALL f;
    struct world w;
    struct input_result r;
    uint8_t *from = memory_new(), *to = xcalloc(PAGES, LIBXC_PAGE);
    const struct input_target target = { .memory = to, .n_pages = PAGES, .memory_fd = -1 };
    char behind[6];

    fakecall_init(&f);
    world_init(&w, n, compress, confirm, step);
    w.memory = from;
    pthread_t writer = thread_start("writer", writer_run, &w);
    struct byte_stream *fan = fan_in_new(w.far_of, n, confirm);
    struct error *e = input_read(&f.call, fan, &target, &r);
    if (e != NULL)
        print_message("%s; %s\n", error_text(f.call.arena, e), fan_in_fault(fan) != NULL ? fan_in_fault(fan) : "");
    assert_null(e);
    assert_int_equal(bytes_read(fan, behind, 1), 0); /* the end of the image */
    bytes_close(fan);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(bytes_read_all(w.far_of[i], behind, 6), 0);
        assert_memory_equal(behind, "behind", 6);
    }
    pthread_join(writer, NULL);
    assert_true(w.ok);
    assert_memory_equal(from, to, (size_t)PAGES * LIBXC_PAGE);
    *stats_r = w.stats;
    world_release(&w);
    xfree(from);
    xfree(to);
}

static void test_round_trips(void **state)
{
    static const size_t steps[] = { 0, 1000 };
    struct fan_stats stats;

    for (unsigned n = 1; n <= 4; n++)
        for (enum fan_compress c = FAN_OFF; c <= FAN_AUTO; c++)
            for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
                round_trip(n, c, i == 0, steps[i], &stats);
                assert_true(stats.blocks > 0);
                if (c == FAN_OFF)
                    assert_int_equal(stats.zstd_blocks, 0);
                if (c == FAN_ON)
                    assert_true(stats.zstd_blocks == stats.blocks && stats.zstd_bytes < stats.zstd_plain * 3 / 4);
            }
}

static void test_many_connections(void **state)
{
    struct fan_stats stats;

    round_trip(FAN_MAX, FAN_ON, true, 0, &stats);
}

/* --- what is no image --- */
static void test_writer_refuses_nonsense(void **state)
{
    struct world w;

    world_init(&w, 2, FAN_OFF, false, 0);
    struct byte_stream *fan = fan_out_new(w.near, 2, FAN_OFF, &clock_real);
    assert_int_equal(bytes_write(fan, "this is no signature", 20), -EPROTO);
    bytes_close(fan);
    world_release(&w);
}

/* --- lies --- */
struct lie { const char *says; unsigned connection; struct fan_head head; uint64_t pfn; uint32_t type, count, length; bool cut; };

static void tell(struct byte_stream *to, const struct lie *lie)
{
    struct { struct fan_head fan; struct libxc_record_head record; struct libxc_page_head page; uint64_t pfn; uint8_t data[LIBXC_PAGE]; } block = {
        .fan = lie->head,
        .record = { .type = lie->type, .length = lie->length },
        .page = { .count = lie->count },
        .pfn = lie->pfn,
    };
    size_t body = lie->head.length < sizeof(block) - sizeof(block.fan) ? lie->head.length : sizeof(block) - sizeof(block.fan);

    assert_int_equal(bytes_write(to, &block, sizeof(block.fan) + (lie->cut ? body / 2 : body)), 0);
    if (lie->cut)
        assert_int_equal(bytes_finish(to), 0);
}

#define ONE (8 + 8 + 8 + LIBXC_PAGE) /* a record of one page */
#define PAGE_OK .type = LIBXC_PAGE_DATA, .count = 1, .length = ONE - 8

static void test_lies_are_refused(void **state)
{
    static const struct lie lies[] = {
        { .says = "unknown kind", .head = { .kind = 99 } },
        { .says = "reserved bits", .head = { .kind = FAN_PAGES, .zero = 1 } },
        { .says = "of a wrong length", .head = { .kind = FAN_PAGES, .length = 1u << 30, .plain = 1u << 30 } },
        { .says = "of a wrong length", .head = { .kind = FAN_ZSTD, .length = 10, .plain = 1u << 30 } },
        { .says = "cannot be unpacked", .head = { .kind = FAN_ZSTD, .length = 20, .plain = ONE } },
        { .says = "is cut", .head = { .kind = FAN_PAGES, .length = 4, .plain = 4 } },
        { .says = "no PAGE_DATA", .head = { .kind = FAN_PAGES, .length = ONE, .plain = ONE }, .type = LIBXC_HVM_CONTEXT, .count = 1, .length = ONE - 8 },
        { .says = "wrong count", .head = { .kind = FAN_PAGES, .length = ONE, .plain = ONE }, .type = LIBXC_PAGE_DATA, .count = 5000, .length = ONE - 8 },
        { .says = "of a wrong length", .head = { .kind = FAN_PAGES, .length = ONE, .plain = ONE }, .pfn = LIBXC_PFN(LIBXC_PFN_ALLOCATE, 1), PAGE_OK },
        { .says = "another connection's stripe", .head = { .kind = FAN_PAGES, .length = ONE, .plain = ONE }, .pfn = FAN_STRIPE, PAGE_OK },
        { .says = "ended", .head = { .kind = FAN_PAGES, .length = ONE, .plain = ONE }, .cut = true, PAGE_OK },
        { .says = "pages at a barrier", .head = { .kind = FAN_PAGES, .length = ONE, .plain = ONE }, PAGE_OK },
        { .says = "a barrier at a barrier", .head = { .kind = FAN_BARRIER, .plain = 1 } },
        { .says = "a barrier of a wrong number", .head = { .kind = FAN_BARRIER, .plain = 7 }, .connection = 1 },
        { .says = "a block of other bytes", .head = { .kind = FAN_RAW, .length = 8, .plain = 8 }, .connection = 1 },
        { .says = "a release out of place", .head = { .kind = FAN_RELEASE }, .connection = 1 },
        { .says = "other bytes of a wrong length", .head = { .kind = FAN_RAW, .length = FAN_RAW_MAX + 1, .plain = FAN_RAW_MAX + 1 } },
        { .says = "connection 0 ended", .head = { .kind = FAN_RAW, .length = 4000, .plain = 4000 }, .cut = true },
    };

    for (unsigned i = 0; i < ARRAY_LEN(lies); i++) {
        struct world w;
        char byte;
        world_init(&w, 2, FAN_OFF, false, 0);
        if (lies[i].connection == 1) { /* connection 0 lifts the barrier, so that the other's blocks count */
            const struct fan_head release = { .kind = FAN_RELEASE };
            assert_int_equal(bytes_write(w.near[0], &release, sizeof(release)), 0);
        }
        tell(w.near[lies[i].connection], &lies[i]);
        struct byte_stream *fan = fan_in_new(w.far_of, 2, false);
        assert_true(bytes_read(fan, &byte, 1) < 0);
        const char *fault = fan_in_fault(fan);
        if (fault == NULL || strstr(fault, lies[i].says) == NULL)
            fail_msg("lie %u ('%s'): %s", i, lies[i].says, fault != NULL ? fault : "no fault");
        bytes_close(fan);
        world_release(&w);
    }
}

static void *abort_run(void *fan)
{
    bytes_abort(fan);
    return NULL;
}

static void test_abort_wakes_the_reader(void **state)
{
    struct world w;
    char byte;

    world_init(&w, 3, FAN_OFF, false, 0);
    struct byte_stream *fan = fan_in_new(w.far_of, 3, false);
    pthread_t other = thread_start("abort", abort_run, fan);
    assert_int_equal(bytes_read(fan, &byte, 1), -ECONNABORTED);
    pthread_join(other, NULL);
    bytes_close(fan);
    world_release(&w);
}

/* --- whether compressing pays --- */
struct link { double plain, ratio, pack; }; /* bytes/s, part, bytes/s */

/* So many seconds over that link; the part of the bytes that went packed. */
static double simulate(struct fan_auto *a, const struct link *l, double seconds)
{
    double now = 1, packed = 0, all = 0, block = 4 << 20;

    while (now < 1 + seconds) {
        int64_t us = (int64_t)(now * 1e6);
        double wire = a->packing ? block * l->ratio / l->plain : block / l->plain, pack_s = a->packing ? block / l->pack : 0;
        double took = wire > pack_s ? wire : pack_s;
        if (fan_auto_wants_sample(a, us))
            fan_auto_sample(a, us, 1 << 17, (uint64_t)(l->ratio * (1 << 17)), (int64_t)((1 << 17) / l->pack * 1e6));
        all += block;
        packed += a->packing ? block : 0;
        now += took;
        fan_auto_moved(a, (int64_t)(now * 1e6), (uint64_t)block, (int64_t)(took * 1e6), (int64_t)(pack_s * 1e6));
    }
    return packed / all;
}

static void test_auto_packs_where_it_pays(void **state)
{
    static const struct { struct link link; double at_least, at_most; } cases[] = {
        { { 50e6, 0.5, 400e6 }, 0.8, 1 },     /* a slow link */
        { { 1e9, 0.5, 400e6 }, 0, 0.03 },     /* a fast one */
        { { 50e6, 0.99, 400e6 }, 0, 0.01 },   /* noise */
        { { 300e6, 0.5, 400e6 }, 0.7, 1 },    /* a little gain */
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct fan_auto a;
        fan_auto_init(&a, 1);
        double part = simulate(&a, &cases[i].link, 20);
        if (part < cases[i].at_least || part > cases[i].at_most)
            fail_msg("case %u: %.2f of the bytes were packed", i, part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),       cmocka_unit_test(test_many_connections),       cmocka_unit_test(test_writer_refuses_nonsense),
        cmocka_unit_test(test_lies_are_refused),  cmocka_unit_test(test_abort_wakes_the_reader), cmocka_unit_test(test_auto_packs_where_it_pays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
