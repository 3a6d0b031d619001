/* qcow2 through qemu-storage-daemon, checked with qemu-img. */
#include "tests/unit/tapd/nbd_world.h"

#include <errno.h>
#include <stdio.h>

#include "rpc/base/memory.h"
#include "storage/tapd/qcow2_daemon.h"

#define MIB (1 << 20)

/* Runs a program to its end: its exit status. */
static int program(struct world *w, const char *const *argv)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    char *said;
    int status = -1;

    spec.argv = argv;
    if (child_run(w->arena, &spec, 60000, 10000, &status, &said) != 0)
        return -1;
    if (status != 0)
        print_message("%s: %s\n", argv[0], said);
    return status;
}
#define PROGRAM(w, ...) program(w, (const char *const[]) { __VA_ARGS__, NULL })

static bool installed(struct world *w)
{
    static int known = -1;
    if (known < 0)
        known = PROGRAM(w, "qemu-storage-daemon", "--version") == 0 && PROGRAM(w, "qemu-img", "--version") == 0;
    return known == 1;
}

/* An image of 'size', open for writing. False: skipped. */
static bool image_make(struct world *w, const char *name, const char *size)
{
    world_make(w);
    if (!installed(w)) {
        print_message("skipped: qemu-storage-daemon or qemu-img is not installed\n");
        world_end(w);
        return false;
    }
    w->socket = tempdir_file(&w->dir, name);
    assert_int_equal(PROGRAM(w, "qemu-img", "create", "-q", "-f", "qcow2", w->socket, size), 0);
    return true;
}

static struct error *image_try(struct world *w, const char *path, bool read_only, struct block **block_r)
{
    struct block_open o = { .loop = w->loop, .format = "qcow2", .path = path, .read_only = read_only, .dir = w->dir.path };
    return qcow2_open(w->arena, &o, block_r);
}

static void image_open(struct world *w)
{
    struct error *e = image_try(w, w->socket, false, &w->block);
    if (e != NULL)
        fail_msg("%s", error_text(w->arena, e));
}

static void image_close(struct world *w)
{
    assert_int_equal(block_close(w->block), 0);
    w->block = NULL;
}

static pid_t daemon_pid(struct world *w)
{
    AUTO_ARENA a = arena_new();
    struct block_open o = { .path = w->socket };
    char line[64] = { 0 };
    unsigned long long h = 0xcbf29ce484222325ull;
    FILE *f;
    int pid = 0;

    for (const char *p = o.path; *p != '\0'; p++)
        h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
    f = fopen(arena_printf(a, "%s/qcow2-%08llx.pid", w->dir.path, h & 0xffffffff), "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    assert_int_equal(sscanf(line, "%d", &pid), 1);
    return pid;
}

static void pattern(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)((i >> 9) * 13 + i * 7 + seed);
}

static void test_round_trip(void **state)
{
    struct world w;
    AUTO_FREE uint8_t *a = xcalloc(1, MIB), *b = xcalloc(1, MIB);

    if (!image_make(&w, "a,b.qcow2", "64M")) /* a comma is special in qemu's options */
        return;
    image_open(&w);
    assert_int_equal(w.block->size, 64 * MIB);
    assert_true(w.block->thin);
    pattern(a, MIB, 1);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 10 * MIB + 512, MIB, a), 0);
    assert_int_equal(run(&w, BLOCK_ZERO, 0, 10 * MIB + 65536, 65536, NULL), 0);
    assert_int_equal(run(&w, BLOCK_FLUSH, 0, 0, 0, NULL), 0);
    image_close(&w);
    assert_int_equal(PROGRAM(&w, "qemu-img", "check", "-q", w.socket), 0);
    image_open(&w);
    memset(a + 65536 - 512, 0, 65536);
    assert_int_equal(run(&w, BLOCK_READ, 0, 10 * MIB + 512, MIB, b), 0);
    assert_memory_equal(a, b, MIB);
    image_close(&w);
    world_end(&w);
}

static bool count_data(void *ctx, const struct block_extent *e)
{
    if (!e->hole)
        *(int64_t *)ctx += e->length;
    return true;
}

static void test_extents(void **state)
{
    struct world w;
    AUTO_FREE uint8_t *a = xcalloc(1, MIB);
    int64_t data = 0;

    if (!image_make(&w, "disk", "64M"))
        return;
    image_open(&w);
    pattern(a, MIB, 1);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 20 * MIB, MIB, a), 0);
    assert_int_equal(block_extents(w.block, 0, w.block->size, false, count_data, &data), 0);
    assert_int_equal(data, MIB);
    image_close(&w);
    world_end(&w);
}

/* Killed between writes and under them: all that was acknowledged is there, nobody notices. */
static void test_daemon_killed(void **state)
{
    struct world w;
    AUTO_FREE uint8_t *a = xcalloc(32, 65536), *b = xcalloc(1, 65536);
    struct block_request r[32];
    bool done[32];

    if (!image_make(&w, "disk", "64M"))
        return;
    image_open(&w);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 32; i++) {
            done[i] = false;
            pattern(a + i * 65536, 65536, round * 100 + i);
            r[i] = (struct block_request) { .op = BLOCK_WRITE, .offset = (round * 32 + i) * 3 * 65536ll, .length = 65536, .buffer = a + i * 65536, .done = request_done, .owner = &done[i] };
            block_submit(w.block, &r[i]);
        }
        if (round > 0)
            loop_turn(w.loop, 10);
        assert_int_equal(kill(daemon_pid(&w), SIGKILL), 0);
        for (unsigned i = 0; i < 32; i++) {
            turn_until(&w, &done[i]);
            assert_int_equal(r[i].result, 0);
        }
        for (unsigned i = 0; i < 32; i++) {
            assert_int_equal(run(&w, BLOCK_READ, 0, (round * 32 + i) * 3 * 65536ll, 65536, b), 0);
            assert_memory_equal(a + i * 65536, b, 65536);
        }
    }
    image_close(&w);
    assert_int_equal(PROGRAM(&w, "qemu-img", "check", "-q", "-r", "leaks", w.socket), 0);
    world_end(&w);
}

static void test_refused(void **state)
{
    struct world w;
    struct block *other = NULL;
    struct error *e;
    const char *junk;

    if (!image_make(&w, "disk", "64M"))
        return;
    e = image_try(&w, tempdir_file(&w.dir, "absent"), false, &other);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    assert_non_null(strstr(e->params[2], "No such file"));
    junk = tempdir_write(&w.dir, "junk", "this is no qcow2 image, though a file of some length");
    e = image_try(&w, junk, false, &other);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    if (strstr(e->params[2], "qcow2") == NULL)
        fail_msg("%s", e->params[2]);
    image_open(&w);
    e = image_try(&w, w.socket, false, &other);
    assert_true(error_is(e, "SR_BACKEND_FAILURE"));
    assert_non_null(strstr(e->params[2], "in use"));
    image_close(&w);
    world_end(&w);
}

static void test_resize(void **state)
{
    struct world w;
    AUTO_FREE uint8_t *a = xcalloc(1, 65536), *b = xcalloc(1, 65536);

    if (!image_make(&w, "disk", "64M"))
        return;
    image_open(&w);
    pattern(a, 65536, 5);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 64 * MIB - 65536, 65536, a), 0);
    assert_int_equal(w.block->ops->resized(w.block, 128 * MIB), 0);
    assert_int_equal(w.block->size, 128 * MIB);
    assert_int_equal(run(&w, BLOCK_READ, 0, 64 * MIB - 65536, 65536, b), 0);
    assert_memory_equal(a, b, 65536);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, 128 * MIB - 65536, 65536, a), 0);
    image_close(&w);
    assert_int_equal(PROGRAM(&w, "qemu-img", "check", "-q", w.socket), 0);
    world_end(&w);
}

static void test_backing_chain(void **state)
{
    struct world w;
    AUTO_FREE uint8_t *a = xcalloc(1, 65536), *b = xcalloc(1, 65536);

    if (!image_make(&w, "base", "64M"))
        return;
    image_open(&w);
    pattern(a, 65536, 9);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, MIB, 65536, a), 0);
    image_close(&w);
    w.socket = tempdir_file(&w.dir, "leaf");
    assert_int_equal(PROGRAM(&w, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", tempdir_file(&w.dir, "base"), w.socket), 0);
    image_open(&w);
    assert_int_equal(run(&w, BLOCK_READ, 0, MIB, 65536, b), 0);
    assert_memory_equal(a, b, 65536);
    assert_int_equal(run(&w, BLOCK_WRITE, 0, MIB, 512, b + 512), 0);
    image_close(&w);
    world_end(&w);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_extents), cmocka_unit_test(test_daemon_killed),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_resize),  cmocka_unit_test(test_backing_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
