/* image_raw, and finding formats. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

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
    if (strstr(error->params[2], with) == NULL)
        fail_msg("'%s' does not say '%s'", error->params[2], with);
}

static void test_raw(void **state)
{
    AUTO_FAKECALL fake;
    AUTO_TEMPDIR dir;
    struct image_info info;
    const char *path;

    fakecall_init(&fake);
    tempdir_make(&dir);
    path = tempdir_file(&dir, "a.raw");
    ok(image_raw.create(&fake.call, path, 10 * MIB + 1, NULL, NULL));
    ok(image_raw.info(&fake.call, path, &info));
    assert_int_equal(info.virtual_size, 10 * MIB + 512);
    assert_int_equal(info.physical_size, 0);
    assert_string_equal(info.format, "raw");
    assert_string_equal(info.parent, "");
    fails(image_raw.create(&fake.call, path, MIB, NULL, NULL), "exists");
    fails(image_raw.create(&fake.call, tempdir_file(&dir, "b.raw"), MIB, path, "raw"), "no parent");
    fails(image_raw.create(&fake.call, tempdir_file(&dir, "b.raw"), 0, NULL, NULL), "not possible");
    fails(image_raw.resize(&fake.call, path, MIB), "smaller");
    ok(image_raw.resize(&fake.call, path, 20 * MIB));
    ok(image_raw.info(&fake.call, path, &info));
    assert_int_equal(info.virtual_size, 20 * MIB);
    ok(image_raw.check(&fake.call, path));
    ok(image_raw.set_parent(&fake.call, path, NULL, NULL));
    fails(image_raw.set_parent(&fake.call, path, "x", "raw"), "no parent");
    fails(image_raw.info(&fake.call, dir.path, &info), "neither");
    assert_null(image_raw.set_hidden);
}

static void test_find(void **state)
{
    assert_ptr_equal(image_ops_find("raw"), &image_raw);
    assert_ptr_equal(image_ops_find("vhd"), &image_vhd);
    assert_ptr_equal(image_ops_find("qcow2"), &image_qcow2);
    assert_null(image_ops_find("vmdk"));
}

static void test_detect(void **state)
{
    AUTO_FAKECALL fake;
    AUTO_TEMPDIR dir;
    const struct image_ops *ops;

    fakecall_init(&fake);
    tempdir_make(&dir);
    ok(image_detect(&fake.call, tempdir_write(&dir, "text", "abc"), &ops));
    assert_ptr_equal(ops, &image_raw);
    ok(image_detect(&fake.call, tempdir_write(&dir, "none", ""), &ops));
    assert_ptr_equal(ops, &image_raw);
    ok(image_detect(&fake.call, tempdir_write(&dir, "q", "QFI\xfb and more"), &ops));
    assert_ptr_equal(ops, &image_qcow2);
    ok(image_vhd.create(&fake.call, tempdir_file(&dir, "v"), MIB, NULL, NULL));
    ok(image_detect(&fake.call, tempdir_file(&dir, "v"), &ops));
    assert_ptr_equal(ops, &image_vhd);
    fails(image_detect(&fake.call, tempdir_file(&dir, "nobody"), &ops), "No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_raw), cmocka_unit_test(test_find), cmocka_unit_test(test_detect) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
