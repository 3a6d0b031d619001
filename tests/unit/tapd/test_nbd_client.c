/* tapd's NBD client against nbdkit. Hostile servers: test_nbd_client_hostile.c. */
#include "tests/unit/tapd/nbd_world.h"

#include <errno.h>
#include <stdlib.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

#define MIB (1 << 20)

static void fill(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((i >> 9) * 7 + i * 31 + seed);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

/* Everything a block does, whatever the server can. */
static void check_operations(struct world *w)
{
    AUTO_FREE uint8_t *a = xcalloc(1, MIB), *b = xcalloc(1, MIB);

    assert_int_equal(w->block->size, 8 * MIB);
    fill(a, MIB, 1);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 512, MIB, a), 0);
    assert_int_equal(run(w, BLOCK_READ, 0, 512, MIB, b), 0);
    assert_memory_equal(a, b, MIB);
    assert_int_equal(run(w, BLOCK_ZERO, 0, 65536, 131072, NULL), 0);
    assert_int_equal(run(w, BLOCK_ZERO, BLOCK_NO_HOLE | BLOCK_FUA, 300 * 1024, 4096, NULL), 0);
    assert_int_equal(run(w, BLOCK_READ, 0, 0, MIB, b), 0);
    assert_true(all_zero(b + 65536, 131072) && all_zero(b + 300 * 1024, 4096) && all_zero(b, 512));
    assert_memory_equal(a, b + 512, 65536 - 512);
    assert_int_equal(run(w, BLOCK_WRITE, BLOCK_FUA, 7 * MIB, MIB, a), 0);
    assert_int_equal(run(w, BLOCK_DISCARD, 0, 7 * MIB, 65536, NULL), 0);
    assert_int_equal(run(w, BLOCK_FLUSH, 0, 0, 0, NULL), 0);
    assert_int_equal(run(w, BLOCK_READ, 0, 7 * MIB + 65536, MIB - 65536, b), 0);
    assert_memory_equal(a + 65536, b, MIB - 65536);
    assert_int_equal(run(w, BLOCK_READ, 0, 8 * MIB - 512, 1024, b), -EINVAL);
    assert_int_equal(run(w, BLOCK_WRITE, 0, 8 * MIB - 512, 1024, b), -ENOSPC);
}

static void test_operations(void **state)
{
    static const char *const servers[][6] = {
        { "memory", "8M" },
        { "--no-sr", "memory", "8M" },
        { "--filter=nozero", "memory", "8M" },
        { "--filter=fua", "memory", "8M" },
        { "--filter=fua", "memory", "8M", "fuamode=force" },
        { "--filter=noextents", "--filter=multi-conn", "memory", "8M", "multi-conn-mode=disable" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(servers); i++) {
        struct world w;
        world_make(&w);
        server_start(&w, servers[i]);
        world_open(&w, (struct nbd_options) { .connections = i % 2 + 1 });
        check_operations(&w);
        assert_int_equal(w.lost, 0);
        world_end(&w);
    }
}

/* --- many at once ----------------------------------------------------------------------------------------- */

#define BLOCKS 2048u /* of 4 KiB */
#define DEPTH 400u   /* more than there are slots */

struct storm {
    struct world *w;
    uint8_t *shadow, *buffers;
    bool busy[BLOCKS];
    struct block_request r[DEPTH];
    unsigned blocks[DEPTH], seed, started, finished;
    int failed;
};

static unsigned next_random(struct storm *s) { return (s->seed = s->seed * 1103515245u + 12345u) >> 8; }

static void storm_done(struct block_request *r)
{
    struct storm *s = r->owner;
    unsigned i = (unsigned)(r - s->r), n = r->length / 4096;

    if (r->result != 0)
        s->failed = r->result;
    else if (r->op == BLOCK_READ)
        assert_memory_equal(r->buffer, s->shadow + s->blocks[i] * 4096, r->length);
    for (unsigned k = 0; k < n; k++)
        s->busy[s->blocks[i] + k] = false;
    s->finished++;
}

/* One request on blocks nobody else has. */
static void storm_start(struct storm *s, unsigned i)
{
    struct block_request *r = &s->r[i];
    unsigned at, n;

    for (;;) {
        bool free = true;
        n = 1 + next_random(s) % 4;
        at = next_random(s) % (BLOCKS - n);
        for (unsigned k = 0; k < n; k++)
            free = free && !s->busy[at + k];
        if (free)
            break;
    }
    for (unsigned k = 0; k < n; k++)
        s->busy[at + k] = true;
    s->blocks[i] = at;
    *r = (struct block_request) { .op = next_random(s) % 3 == 0 ? BLOCK_READ : next_random(s) % 8 == 0 ? BLOCK_ZERO : BLOCK_WRITE,
                                  .offset = at * 4096, .length = n * 4096, .buffer = s->buffers + (size_t)i * 16384, .done = storm_done, .owner = s };
    if (r->op == BLOCK_WRITE) {
        fill(r->buffer, r->length, next_random(s));
        memcpy(s->shadow + at * 4096, r->buffer, r->length);
    } else if (r->op == BLOCK_ZERO) {
        memset(s->shadow + at * 4096, 0, r->length);
    }
    s->started++;
    block_submit(s->w->block, r);
}

static void storm(struct world *w, unsigned rounds, void (*between)(struct world *, unsigned round))
{
    struct storm *s = xcalloc(1, sizeof *s);

    s->w = w;
    s->seed = 42;
    s->shadow = xcalloc(BLOCKS, 4096);
    s->buffers = xcalloc(DEPTH, 16384);
    assert_int_equal(w->block->size, BLOCKS * 4096);
    for (int64_t at = 0; at < w->block->size; at += MIB)
        assert_int_equal(run(w, BLOCK_ZERO, 0, at, MIB, NULL), 0);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < DEPTH; i++)
            storm_start(s, i);
        if (between != NULL)
            between(w, round);
        for (unsigned turns = 0; s->finished < s->started; turns++) {
            assert_true(turns < 100000);
            loop_turn(w->loop, 10);
        }
        assert_int_equal(s->failed, 0);
    }
    xfree(s->shadow);
    xfree(s->buffers);
    xfree(s);
}

static void test_many_at_once(void **state)
{
    for (unsigned connections = 1; connections <= 4; connections += 3) {
        struct world w;
        world_make(&w);
        SERVER(&w, "--filter=delay", "memory", "8M", "rdelay=2ms", "wdelay=1ms");
        world_open(&w, (struct nbd_options) { .connections = connections });
        storm(&w, 5, NULL);
        world_end(&w);
    }
}

/* --- errors and what is refused ------------------------------------------------------------------------------ */

static void test_errors_keep_their_number(void **state)
{
    static const struct { const char *name; int error; } errors[] = {
        { "error=ENOSPC", -ENOSPC }, { "error=EIO", -EIO }, { "error=EPERM", -EPERM }, { "error=EINVAL", -EINVAL }, { "error=ENOMEM", -ENOMEM },
    };
    for (unsigned i = 0; i < ARRAY_LEN(errors); i++) {
        struct world w;
        uint8_t buffer[4096] = { 0 };
        world_make(&w);
        SERVER(&w, "--filter=error", "memory", "1M", errors[i].name, "error-rate=100%");
        world_open(&w, (struct nbd_options) { 0 });
        assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, buffer), errors[i].error);
        assert_int_equal(run(&w, BLOCK_READ, 0, 0, 4096, buffer), errors[i].error);
        assert_int_equal(run(&w, BLOCK_ZERO, 0, 0, 4096, NULL), errors[i].error);
        assert_int_equal(w.lost, 0);
        world_end(&w);
    }
}

static void refused(const char *const *words, const char *text)
{
    struct world w;
    struct nbd_options options = { 0 };
    struct error *e;

    world_make(&w);
    if (words != NULL)
        server_start(&w, words);
    e = world_try(&w, &options, false);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    if (strstr(e->params[2], text) == NULL)
        fail_msg("'%s' does not say '%s'", e->params[2], text);
    w.block = NULL;
    world_end(&w);
}

static void test_refused(void **state)
{
    refused((const char *const[]) { "memory", "1000", NULL }, "multiple of 512");
    refused((const char *const[]) { "-r", "memory", "1M", NULL }, "read-only");
    refused((const char *const[]) { "--filter=blocksize-policy", "memory", "1M", "blocksize-maximum=64k", "blocksize-preferred=64k", "blocksize-minimum=512", NULL }, "block sizes");
    refused((const char *const[]) { "-o", "memory", "1M", NULL }, "negotiation");
    refused(NULL, "cannot connect");
}

static void test_read_only(void **state)
{
    struct world w;
    struct nbd_options options = { 0 };
    uint8_t buffer[512] = { 0 };

    world_make(&w);
    SERVER(&w, "-r", "memory", "1M");
    assert_null(world_try(&w, &options, true));
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, 512, buffer), 0);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 512, buffer), -EROFS);
    world_end(&w);
}

/* --- block status --------------------------------------------------------------------------------------------- */

struct seen { int64_t at; char map[64]; };

static bool see(void *ctx, const struct block_extent *e)
{
    struct seen *s = ctx;
    assert_int_equal(e->offset, s->at);
    assert_true(e->length > 0 && e->hole == e->zero);
    for (int64_t i = e->offset / 65536; i < (e->offset + e->length) / 65536; i++)
        s->map[i] = e->hole ? '.' : 'x';
    s->at += e->length;
    return true;
}

static void check_map(struct world *w, int64_t from, int64_t to, const char *want)
{
    struct seen s = { .at = from };
    assert_int_equal(block_extents(w->block, from, to - from, false, see, &s), 0);
    assert_int_equal(s.at, to);
    assert_string_equal(s.map + from / 65536, want);
}

static void test_extents(void **state)
{
    struct world w;
    uint8_t *a = xcalloc(1, 65536);
    uint64_t sent, sent2, received;

    world_make(&w);
    SERVER(&w, "memory", "1M");
    world_open(&w, (struct nbd_options) { 0 });
    check_map(&w, 0, MIB, "................");
    fill(a, 65536, 3);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 3 * 65536, 65536, a), 0);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 9 * 65536, 65536, a), 0);
    check_map(&w, 0, MIB, "...x.....x......"); /* up to the first write it was known, what is behind is asked for */
    check_map(&w, 0, MIB, "...x.....x......");
    nbd_traffic(w.block, &sent, &received);
    check_map(&w, 2 * 65536, 10 * 65536, ".x.....x"); /* from what is known */
    check_map(&w, 65536, 4 * 65536, "..x");
    nbd_traffic(w.block, &sent2, &received);
    assert_int_equal(sent, sent2);
    assert_int_equal(run(&w, BLOCK_DISCARD, 0, 9 * 65536, 65536, NULL), 0);
    check_map(&w, 0, MIB, "...x............");
    xfree(a);
    world_end(&w);
}

static void test_extents_unknown(void **state)
{
    struct world w;
    world_make(&w);
    SERVER(&w, "--no-sr", "memory", "1M");
    world_open(&w, (struct nbd_options) { 0 });
    check_map(&w, 0, MIB, "xxxxxxxxxxxxxxxx");
    world_end(&w);
}

/* Owners do not hear of their requests inside block_extents, but after it. */
static void test_extents_in_between(void **state)
{
    struct world w;
    bool done = false;
    uint8_t *a = xcalloc(1, 65536);
    struct block_request r = { .op = BLOCK_WRITE, .length = 65536, .buffer = a, .done = request_done, .owner = &done };

    world_make(&w);
    SERVER(&w, "--filter=delay", "memory", "1M", "delay-extents=50ms", "-t", "4");
    world_open(&w, (struct nbd_options) { 0 });
    block_submit(w.block, &r);
    check_map(&w, MIB / 2, MIB, "........");
    assert_false(done);
    turn_until(&w, &done);
    assert_int_equal(r.result, 0);
    xfree(a);
    world_end(&w);
}

/* --- loss ------------------------------------------------------------------------------------------------------- */

static void test_lost_and_again(void **state)
{
    struct world w;
    struct block_request r[20];
    bool done[20] = { 0 };
    uint8_t *a = xcalloc(1, MIB);

    world_make(&w);
    SERVER(&w, "--filter=delay", "memory", "8M", "wdelay=60");
    world_open(&w, (struct nbd_options) { .connections = 2 });
    for (unsigned i = 0; i < 20; i++) {
        r[i] = (struct block_request) { .op = BLOCK_WRITE, .offset = i * 65536, .length = 65536, .buffer = a, .done = request_done, .owner = &done[i] };
        block_submit(w.block, &r[i]);
    }
    loop_turn(w.loop, 10);
    server_end(&w, SIGKILL);
    for (unsigned i = 0; i < 20; i++) {
        turn_until(&w, &done[i]);
        assert_int_equal(r[i].result, -ECONNRESET);
    }
    assert_int_equal(w.lost, 1);
    assert_int_equal(w.lost_reason, -ECONNRESET);
    assert_true(nbd_is_lost(w.block));
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, a), -ECONNRESET);
    xfree(a);
    world_end(&w);
}

struct again { bool done; int result; };

static void again_done(void *ctx, int result) { *(struct again *)ctx = (struct again) { true, result }; }

static int reconnect(struct world *w)
{
    struct again again = { 0 };
    nbd_reconnect(w->block, again_done, &again);
    assert_false(again.done);
    turn_until(w, &again.done);
    return again.result;
}

static void test_reconnect(void **state)
{
    struct world w;
    uint8_t a[4096] = { 1 };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { .connections = 2 });
    server_end(&w, SIGKILL);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, a), -ECONNRESET);
    assert_int_equal(reconnect(&w), -ENOENT);
    SERVER(&w, "memory", "4M");
    assert_int_equal(reconnect(&w), -ESTALE);
    server_end(&w, SIGKILL);
    SERVER(&w, "-r", "memory", "8M");
    assert_int_equal(reconnect(&w), -ESTALE);
    server_end(&w, SIGKILL);
    SERVER(&w, "memory", "8M");
    assert_true(nbd_is_lost(w.block));
    assert_int_equal(reconnect(&w), 0);
    check_operations(&w);
    assert_int_equal(w.lost, 1);
    world_end(&w);
}

/* Opened while nobody is there: lost from the beginning. */
static void test_later(void **state)
{
    struct world w;
    uint8_t a[4096] = { 1 };

    world_make(&w);
    world_open(&w, (struct nbd_options) { .later_size = 8 << 20 });
    assert_int_equal(w.block->size, 8 << 20);
    assert_true(nbd_is_lost(w.block));
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, 4096, a), -ENOTCONN);
    assert_int_equal(reconnect(&w), -ENOENT);
    SERVER(&w, "memory", "4M");
    assert_int_equal(reconnect(&w), -ESTALE);
    server_end(&w, SIGKILL);
    SERVER(&w, "--filter=nozero", "memory", "8M");
    assert_int_equal(reconnect(&w), 0);
    check_operations(&w);
    world_end(&w);
}

/* nbd_keep with a time: it comes back by itself, and what was asked meanwhile is done then. */
static void test_comes_back(void **state)
{
    struct world w;
    uint8_t a[4096] = { 1 }, b[4096];
    bool done = false;
    struct block_request r = { .op = BLOCK_WRITE, .length = sizeof a, .buffer = a, .done = request_done, .owner = &done };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    server_end(&w, SIGKILL);
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, sizeof b, b), -ECONNRESET);
    nbd_reconnect(w.block, again_done, NULL); /* given up */
    nbd_keep(w.block, 1000);
    for (unsigned round = 0; round < 3; round++) {
        done = false;
        block_submit(w.block, &r);
        for (unsigned i = 0; i < 20; i++)
            loop_turn(w.loop, 1);
        assert_false(done);
        assert_int_equal(block_extents(w.block, 0, 4096, false, NULL, NULL), -EAGAIN);
        SERVER(&w, "memory", "8M");
        turn_until(&w, &done);
        assert_int_equal(r.result, 0);
        assert_int_equal(run(&w, BLOCK_READ, 0, 0, sizeof b, b), 0);
        assert_memory_equal(a, b, sizeof b);
        server_end(&w, SIGKILL);
        for (int lost = w.lost; w.lost == lost;)
            loop_turn(w.loop, 1);
    }
    world_end(&w);
}

/* With 'keep' nobody notices. The disk is a file, so that it outlives its server. */
static void restart_under_it(struct world *w, unsigned round)
{
    const char *file = tempdir_file(&w->dir, "disk");
    if (round % 2 == 0)
        return;
    loop_turn(w->loop, 10);
    server_end(w, SIGKILL);
    for (int lost = w->lost; w->lost == lost;)
        loop_turn(w->loop, 10);
    SERVER(w, "--filter=delay", "file", file, "wdelay=1ms");
    assert_int_equal(reconnect(w), 0);
}

static void test_kept_over_restarts(void **state)
{
    struct world w;
    AUTO_FD fd = -1;

    world_make(&w);
    fd = open(tempdir_file(&w.dir, "disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, BLOCKS * 4096), 0);
    SERVER(&w, "--filter=delay", "file", tempdir_file(&w.dir, "disk"), "wdelay=1ms");
    world_open(&w, (struct nbd_options) { .connections = 2, .keep = true });
    storm(&w, 8, restart_under_it);
    assert_int_equal(w.lost, 4);
    world_end(&w);
}

/* The same without anybody who connects it again. */
static void restart_only(struct world *w, unsigned round)
{
    if (round % 2 == 0)
        return;
    loop_turn(w->loop, 10);
    server_end(w, SIGKILL);
    for (int lost = w->lost; w->lost == lost;)
        loop_turn(w->loop, 10);
    SERVER(w, "--filter=delay", "file", tempdir_file(&w->dir, "disk"), "wdelay=1ms");
}

static void test_connects_again_by_itself(void **state)
{
    struct world w;
    AUTO_FD fd = -1;

    world_make(&w);
    fd = open(tempdir_file(&w.dir, "disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, BLOCKS * 4096), 0);
    SERVER(&w, "--filter=delay", "file", tempdir_file(&w.dir, "disk"), "wdelay=1ms");
    world_open(&w, (struct nbd_options) { .keep = true, .retry_us = 5000 });
    storm(&w, 4, restart_only);
    assert_int_equal(w.lost, 2);
    nbd_keep(w.block, 1000); /* from now on, and while it stands */
    storm(&w, 2, restart_only);
    assert_int_equal(w.lost, 3);
    server_end(&w, SIGKILL); /* closed while it tries */
    while (!nbd_is_lost(w.block))
        loop_turn(w.loop, 10);
    loop_turn(w.loop, 2);
    world_end(&w);
}

static void test_silence(void **state)
{
    struct world w;
    uint8_t *a = xcalloc(1, MIB);

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, MIB, a), 0);
    kill(w.server, SIGSTOP);
    assert_int_equal(waitpid(w.server, NULL, WUNTRACED), w.server); /* all its threads stand */
    nbd_watch(w.block, 100000, world_lost, &w);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 0, MIB, a), -ETIMEDOUT);
    assert_int_equal(w.lost_reason, -ETIMEDOUT);
    xfree(a);
    world_end(&w);
}

/* Nothing in flight: nothing is expected, so no silence. */
static void idle_over(struct loop_timer *timer) { timer->at_us = 0; }

static void test_idle_is_no_silence(void **state)
{
    struct world w;
    uint8_t a[512] = { 0 };
    struct loop_timer timer = { .fired = idle_over };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, 512, a), 0);
    nbd_watch(w.block, 20000, world_lost, &w);
    loop_timer_set(w.loop, &timer, clock_us(&clock_real) + 100000);
    while (timer.at_us != 0)
        loop_turn(w.loop, -1);
    assert_int_equal(w.lost, 0);
    nbd_watch(w.block, NBD_SILENCE_US, world_lost, &w);
    assert_int_equal(run(&w, BLOCK_READ, 0, 0, 512, a), 0);
    world_end(&w);
}

/* The owner closes the block in the callback of its last request. */
static void close_inside(struct block_request *r)
{
    struct world *w = r->owner;
    block_close(w->block);
    w->block = NULL;
}

static void test_close_inside_done(void **state)
{
    struct world w;
    uint8_t a[512] = { 0 };
    struct block_request r = { .op = BLOCK_READ, .length = 512, .buffer = a, .done = close_inside, .owner = &w };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    world_open(&w, (struct nbd_options) { 0 });
    block_submit(w.block, &r);
    while (w.block != NULL)
        loop_turn(w.loop, 10);
    world_end(&w);
}

/* --- TLS ---------------------------------------------------------------------------------------------------------- */

/* A certificate and its key for nbdkit; its fingerprint. NULL: there is no openssl. */
static const char *certificate(struct world *w)
{
    const char *dir = w->dir.path;
    const char *script = arena_printf(w->arena,
        "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -keyout server-key.pem "
        "-out server-cert.pem 2>/dev/null && cp server-cert.pem ca-cert.pem && openssl x509 -in server-cert.pem -noout -fingerprint -sha256", dir);
    const char *const argv[] = { "sh", "-c", script, NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    char *said;
    int status = -1;

    spec.argv = argv;
    if (child_run(w->arena, &spec, 30000, 1000, &status, &said) != 0 || status != 0 || strchr(said, '=') == NULL)
        return NULL;
    said[strcspn(said, "\n")] = '\0';
    return strchr(said, '=') + 1;
}

static struct error *open_tls(struct world *w, const char *fingerprint)
{
    static const struct nbd_options options = { .connections = 2 };
    struct block_open o = { .loop = w->loop, .format = "nbd" };
    o.path = arena_printf(w->arena, "nbds+unix:///?socket=%s&fingerprint=%s", w->socket, fingerprint);
    return nbd_open_with(w->arena, &o, &options, &w->block);
}

static void test_starttls(void **state)
{
    struct world w;
    const char *fingerprint;

    world_make(&w);
    fingerprint = certificate(&w);
    if (fingerprint == NULL) {
        print_message("skipped: openssl cannot make a certificate here\n");
        world_end(&w);
        return;
    }
    SERVER(&w, "--tls=require", arena_printf(w.arena, "--tls-certificates=%s", w.dir.path), "memory", "8M");
    assert_true(error_is(open_tls(&w, "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99"), "SR_BACKEND_FAILURE"));
    assert_null(open_tls(&w, fingerprint));
    check_operations(&w);
    storm(&w, 2, NULL);
    world_end(&w);
}

/* A server that wants TLS, and one that has none. */
static void test_tls_or_not(void **state)
{
    struct world w;
    struct nbd_options options = { 0 };

    world_make(&w);
    SERVER(&w, "memory", "8M");
    assert_true(error_is(open_tls(&w, ""), "SR_BACKEND_FAILURE"));
    server_end(&w, SIGKILL);
    if (certificate(&w) != NULL) {
        SERVER(&w, "--tls=require", arena_printf(w.arena, "--tls-certificates=%s", w.dir.path), "memory", "8M");
        assert_true(error_is(world_try(&w, &options, false), "SR_BACKEND_FAILURE"));
    }
    w.block = NULL;
    world_end(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_errors_keep_their_number),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_extents),
        cmocka_unit_test(test_extents_unknown),
        cmocka_unit_test(test_extents_in_between),
        cmocka_unit_test(test_lost_and_again),
        cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_later),
        cmocka_unit_test(test_comes_back),
        cmocka_unit_test(test_kept_over_restarts),
        cmocka_unit_test(test_connects_again_by_itself),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_idle_is_no_silence),
        cmocka_unit_test(test_close_inside_done),
        cmocka_unit_test(test_starttls),
        cmocka_unit_test(test_tls_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
