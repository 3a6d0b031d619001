/* The vhd format of tapd and others' tools: what either writes, the other reads. */
#include "tests/unit/tapd/vhd_world.h"

#include <fcntl.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"

static bool qemu(struct world *w, const char *const *argv)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    int status = -1;
    char *output = NULL;

    spec.argv = argv;
    if (child_run(w->c->arena, &spec, 60000, 65536, &status, &output) == -2)
        return false;
    if (status != 0)
        fail_msg("%s %s: %s", argv[0], argv[1], output);
    return true;
}
#define QEMU(w, ...) qemu(w, (const char *const[]) { "qemu-img", __VA_ARGS__, NULL })

static void write_model(struct world *w, const char *path, int64_t size)
{
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_int_equal(fd_pwrite_all(fd, w->model, (size_t)size, 0), 0);
}

static void test_qemu_reads_ours(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "q.vhd"), *raw = path_of(w, "q.raw");

    ok(image_vhd.create(w->c, path, SIZE, NULL, NULL));
    open_image(w, path, false);
    for (unsigned i = 0; i < 4; i++)
        random_batch(w);
    close_image(w);
    write_model(w, raw, SIZE);
    if (!QEMU(w, "compare", "-f", "raw", "-F", "vpc", raw, path))
        skip();
    ok(image_vhd.resize(w->c, path, 16 * MIB));
    open_image(w, path, false);
    random_batch(w);
    close_image(w);
    write_model(w, raw, 16 * MIB);
    QEMU(w, "compare", "-f", "raw", "-F", "vpc", raw, path);
}

static void test_we_read_qemus(void **state)
{
    struct world *w = *state;
    static const char *const options[] = { "force_size=on", "force_size=on,subformat=fixed" };
    const char *raw = path_of(w, "o.raw");

    for (unsigned i = 0; i < 4096; i++)
        memset(w->model + next_random(w, (uint32_t)(SIZE / 512)) * 512, (int)next_random(w, 256), 512);
    for (unsigned k = 0; k < ARRAY_LEN(options); k++) {
        const char *path = path_of(w, arena_printf(w->c->arena, "o%u.vhd", k));

        write_model(w, raw, SIZE);
        if (!QEMU(w, "convert", "-f", "raw", "-O", "vpc", "-o", options[k], raw, path))
            skip();
        open_image(w, path, false);
        assert_int_equal(w->block->size, SIZE);
        compare_all(w);
        for (unsigned i = 0; i < 4; i++)
            random_batch(w);
        compare_all(w);
        close_image(w);
        ok(image_vhd.check(w->c, path));
        write_model(w, raw, SIZE);
        QEMU(w, "compare", "-f", "raw", "-F", "vpc", raw, path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_qemu_reads_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_we_read_qemus, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
