/* image_qcow2: with qemu-img where it is there; and heads that must not reach qemu-img. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "storage/image/image.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

static void ok(struct error *error)
{
    if (error != NULL)
        fail_msg("%s %s", error->code, error->n_params > 2 ? error->params[2] : "");
}

static void fails(struct error *error, const char *with)
{
    assert_non_null(error);
    assert_string_equal(error->code, "SR_BACKEND_FAILURE");
    if (strstr(error->params[2], with) == NULL)
        fail_msg("'%s' does not say '%s'", error->params[2], with);
}

static bool have_qemu(struct call *c)
{
    static const char *const argv[] = { "qemu-img", "--version", NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    int status;
    char *output;

    spec.argv = argv;
    return child_run(c->arena, &spec, 30000, 4096, &status, &output) == 0 && status == 0;
}

static void test_life(void **state)
{
    AUTO_FAKECALL fake;
    AUTO_TEMPDIR dir;
    struct call *c = &fake.call;
    struct image_info info;
    const char *a, *b, *raw;

    fakecall_init(&fake);
    tempdir_make(&dir);
    if (!have_qemu(c))
        skip();
    a = tempdir_file(&dir, "a.qcow2");
    b = tempdir_file(&dir, "b.qcow2");
    raw = tempdir_file(&dir, "base.raw");
    ok(image_qcow2.create(c, a, 10 * MIB + 1, NULL, NULL));
    fails(image_qcow2.create(c, a, 10 * MIB, NULL, NULL), "exists");
    ok(image_qcow2.info(c, a, &info));
    assert_string_equal(info.format, "qcow2");
    assert_int_equal(info.virtual_size, 10 * MIB + 512);
    assert_string_equal(info.parent, "");
    ok(image_qcow2.check(c, a));
    ok(image_qcow2.create(c, b, 12 * MIB, a, "qcow2"));
    ok(image_qcow2.info(c, b, &info));
    assert_string_equal(info.parent, a);
    assert_string_equal(info.parent_format, "qcow2");
    fails(image_qcow2.create(c, tempdir_file(&dir, "s.qcow2"), MIB, a, "qcow2"), "smaller");
    fails(image_qcow2.create(c, tempdir_file(&dir, "s.qcow2"), MIB, "/etc/passwd", "raw"), "outside");
    fails(image_qcow2.resize(c, b, MIB), "smaller");
    ok(image_qcow2.resize(c, b, 20 * MIB));
    ok(image_qcow2.info(c, b, &info));
    assert_int_equal(info.virtual_size, 20 * MIB);
    ok(image_raw.create(c, raw, MIB, NULL, NULL));
    ok(image_qcow2.set_parent(c, b, raw, "raw"));
    ok(image_qcow2.info(c, b, &info));
    assert_string_equal(info.parent, raw);
    assert_string_equal(info.parent_format, "raw");
    ok(image_qcow2.check(c, b));
    ok(image_qcow2.set_parent(c, b, NULL, NULL));
    ok(image_qcow2.info(c, b, &info));
    assert_string_equal(info.parent, "");
    ok(image_qcow2.check(c, b));
}

/* --- heads ---------------------------------------------------------------------------------------- */
struct head { uint32_t version, cluster_bits, crypt; uint64_t incompatible, size; const char *backing, *format; };

static void put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static const char *write_head(struct tempdir *dir, const struct head *h)
{
    uint8_t bytes[1024] = { 'Q', 'F', 'I', 0xfb };
    const char *path = tempdir_file(dir, "head.qcow2");
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    put(bytes + 4, h->version, 4);
    put(bytes + 20, h->cluster_bits, 4);
    put(bytes + 24, h->size, 8);
    put(bytes + 32, h->crypt, 4);
    put(bytes + 72, h->incompatible, 8);
    put(bytes + 100, 104, 4);
    if (h->format != NULL) {
        put(bytes + 104, 0xe2792aca, 4);
        put(bytes + 108, strlen(h->format), 4);
        memcpy(bytes + 112, h->format, strlen(h->format));
    }
    if (h->backing != NULL) {
        put(bytes + 8, 512, 8);
        put(bytes + 16, strlen(h->backing), 4);
        memcpy(bytes + 512, h->backing, strlen(h->backing));
    }
    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, bytes, sizeof(bytes)), 0);
    return path;
}

static void test_hostile_heads(void **state)
{
    static const struct { struct head head; const char *why; } cases[] = {
        { { 9, 16, 0, 0, 1 << 20, NULL, NULL }, "version" },
        { { 3, 30, 0, 0, 1 << 20, NULL, NULL }, "size" },
        { { 3, 16, 0, 0, UINT64_MAX, NULL, NULL }, "size" },
        { { 3, 16, 1, 0, 1 << 20, NULL, NULL }, "encrypted" },
        { { 3, 16, 0, 4, 1 << 20, NULL, NULL }, "external data file" },
        { { 3, 16, 0, 1ull << 40, 1 << 20, NULL, NULL }, "unknown features" },
        { { 3, 16, 0, 0, 1 << 20, "base.raw", NULL }, "format" },
        { { 3, 16, 0, 0, 1 << 20, "base.raw", "nbd" }, "format" },
        { { 3, 16, 0, 0, 1 << 20, "/etc/passwd", "raw" }, "directory" },
        { { 3, 16, 0, 0, 1 << 20, "../x", "raw" }, "directory" },
        { { 3, 16, 0, 0, 1 << 20, "a/../../x", "raw" }, "directory" },
        { { 3, 16, 0, 0, 1 << 20, "json:{}", "raw" }, "directory" },
        { { 3, 16, 0, 0, 1 << 20, "nbd://host/x", "raw" }, "directory" },
    };
    AUTO_FAKECALL fake;
    AUTO_TEMPDIR dir;
    struct image_info info;

    fakecall_init(&fake);
    tempdir_make(&dir);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        const char *path = write_head(&dir, &cases[i].head);

        fails(image_qcow2.info(&fake.call, path, &info), cases[i].why);
        fails(image_qcow2.check(&fake.call, path), cases[i].why);
        fails(image_qcow2.resize(&fake.call, path, 2 * MIB), cases[i].why);
    }
    ok(image_qcow2.info(&fake.call, write_head(&dir, &(struct head) { 3, 16, 0, 0, 1 << 20, "base.raw", "raw" }), &info));
    assert_string_equal(info.parent, tempdir_file(&dir, "base.raw"));
    fails(image_qcow2.info(&fake.call, tempdir_write(&dir, "short", "QFI\xfb"), &info), "no qcow2 head");
}

static void test_loop(void **state)
{
    AUTO_FAKECALL fake;
    AUTO_TEMPDIR dir;
    const char *path;

    fakecall_init(&fake);
    tempdir_make(&dir);
    path = write_head(&dir, &(struct head) { 3, 16, 0, 0, 1 << 20, "head.qcow2", "qcow2" });
    fails(image_qcow2.check(&fake.call, path), "loop");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_life), cmocka_unit_test(test_hostile_heads), cmocka_unit_test(test_loop) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
