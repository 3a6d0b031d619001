/* image_vhd: what it makes, grows and links, and what others make of that. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/image/image.h"
#include "storage/image/vhd_file.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)
#define GIB ((int64_t)1 << 30)

struct world {
    struct fakecall fake;
    struct tempdir dir;
    struct call *c;
};

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
    w->c = &w->fake.call;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
    xfree(w);
    return 0;
}

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

static const char *path_of(struct world *w, const char *name) { return tempdir_file(&w->dir, name); }

static bool have_qemu(struct world *w)
{
    static const char *const argv[] = { "qemu-img", "--version", NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    int status;
    char *output;

    spec.argv = argv;
    return child_run(w->c->arena, &spec, 30000, 4096, &status, &output) == 0 && status == 0;
}

/* Runs qemu-img; its output, and its exit code where wanted. */
static const char *qemu(struct world *w, int *exit_r, const char *const *argv)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    int status = -1;
    char *output = NULL;

    spec.argv = argv;
    assert_int_equal(child_run(w->c->arena, &spec, 60000, 65536, &status, &output), 0);
    if (exit_r != NULL)
        *exit_r = WEXITSTATUS(status);
    else if (status != 0)
        fail_msg("%s %s: %s", argv[0], argv[1], output);
    return output;
}
#define QEMU(w, exit_r, ...) qemu(w, exit_r, (const char *const[]) { "qemu-img", __VA_ARGS__, NULL })

static struct image_info info_of(struct world *w, const char *path)
{
    struct image_info info;

    ok(image_vhd.info(w->c, path, &info));
    return info;
}

static struct vhd_file read_file(struct world *w, const char *path)
{
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC);
    struct vhd_file f;

    assert_true(fd >= 0);
    ok(vhd_file_read(w->c->arena, fd, path, true, &f));
    return f;
}

/* --- create, info -------------------------------------------------------------------------------- */
static void test_create(void **state)
{
    struct world *w = *state;
    const int64_t sizes[] = { 512, 2 * MIB, 2 * MIB + 512, 10 * MIB, 127 * GIB + 4096 + 512, 2040 * GIB };

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        const char *path = path_of(w, "a.vhd");
        struct image_info info;
        struct stat st;

        ok(image_vhd.create(w->c, path, sizes[i], NULL, NULL));
        ok(image_vhd.check(w->c, path));
        info = info_of(w, path);
        assert_int_equal(info.virtual_size, sizes[i]);
        assert_string_equal(info.parent, "");
        assert_false(info.hidden);
        assert_int_equal(strlen(info.uuid), 36);
        assert_true(info.physical_size < 5 * MIB);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, 28672 + VHD_TABLE_ROOM + 512);
        fails(image_vhd.create(w->c, path, sizes[i], NULL, NULL), "exists");
        assert_int_equal(unlink(path), 0);
    }
    ok(image_vhd.create(w->c, path_of(w, "odd.vhd"), 1000, NULL, NULL));
    assert_int_equal(info_of(w, path_of(w, "odd.vhd")).virtual_size, 1024);
    fails(image_vhd.create(w->c, path_of(w, "big.vhd"), 2040 * GIB + 1, NULL, NULL), "not possible");
    fails(image_vhd.create(w->c, path_of(w, "none.vhd"), 0, NULL, NULL), "not possible");
}

static void test_qemu_opens_ours(void **state)
{
    struct world *w = *state;
    const int64_t sizes[] = { 512, 10 * MIB + 512, 2040 * GIB };

    if (!have_qemu(w))
        skip();
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        const char *path = path_of(w, arena_printf(w->c->arena, "q%u.vhd", i));
        char wanted[64];

        ok(image_vhd.create(w->c, path, sizes[i], NULL, NULL));
        snprintf(wanted, sizeof(wanted), "\"virtual-size\": %lld", (long long)sizes[i]);
        assert_non_null(strstr(QEMU(w, NULL, "info", "--output=json", "-f", "vpc", path), wanted));
    }
}

static void test_opens_qemus(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "qemu.vhd"), *forced = path_of(w, "forced.vhd"), *fixed = path_of(w, "fixed.vhd");
    const struct image_ops *ops;
    int64_t by_qemu = 0;
    const char *text;

    if (!have_qemu(w))
        skip();
    QEMU(w, NULL, "create", "-q", "-f", "vpc", path, "100M");
    ok(image_vhd.check(w->c, path));
    text = strstr(QEMU(w, NULL, "info", "--output=json", "-f", "vpc", path), "\"virtual-size\": ");
    assert_non_null(text);
    by_qemu = strtoll(text + strlen("\"virtual-size\": "), NULL, 10);
    assert_int_equal(info_of(w, path).virtual_size, by_qemu);
    QEMU(w, NULL, "create", "-q", "-f", "vpc", "-o", "force_size=on", forced, "104857600");
    ok(image_vhd.check(w->c, forced));
    assert_int_equal(info_of(w, forced).virtual_size, 100 * MIB);
    QEMU(w, NULL, "create", "-q", "-f", "vpc", "-o", "force_size=on,subformat=fixed", fixed, "4M");
    ok(image_vhd.check(w->c, fixed));
    assert_int_equal(info_of(w, fixed).virtual_size, 4 * MIB);
    fails(image_vhd.resize(w->c, fixed, 8 * MIB), "fixed");
    ok(image_detect(w->c, fixed, &ops));
    assert_ptr_equal(ops, &image_vhd);
    ok(image_detect(w->c, path, &ops));
    assert_ptr_equal(ops, &image_vhd);
}

/* --- growing -------------------------------------------------------------------------------------- */
static void test_resize(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "r.vhd");
    struct vhd_file before, after;

    ok(image_vhd.create(w->c, path, 10 * MIB, NULL, NULL));
    before = read_file(w, path);
    fails(image_vhd.resize(w->c, path, 8 * MIB), "smaller");
    ok(image_vhd.resize(w->c, path, 2040 * GIB));
    after = read_file(w, path);
    assert_int_equal(after.size, 2040 * GIB);
    assert_int_equal(after.header.table_offset, before.header.table_offset); /* there was room */
    assert_int_equal(after.file_size, before.file_size);
    assert_int_not_equal(after.footer.data_offset, before.footer.data_offset);
    assert_memory_equal(after.footer.id, before.footer.id, 16);
    assert_true(after.end_valid && after.copy_valid && !after.copy_differs);
    ok(image_vhd.check(w->c, path));
}

/* qemu leaves no room: header and BAT go behind the data. */
static void test_resize_moves_table(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "q.vhd"), *raw = path_of(w, "q.raw"), *back = path_of(w, "back.raw");
    AUTO_FD fd = -1;
    struct vhd_file f;

    if (!have_qemu(w))
        skip();
    fd = open(raw, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 16 * MIB), 0);
    assert_int_equal(fd_pwrite_all(fd, "first", 5, 0), 0);
    assert_int_equal(fd_pwrite_all(fd, "last", 4, 16 * MIB - 4), 0);
    QEMU(w, NULL, "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, path);
    ok(image_vhd.resize(w->c, path, 16 * MIB + 512)); /* the BAT's padding will do */
    ok(image_vhd.check(w->c, path));
    ok(image_vhd.resize(w->c, path, 3 * GIB));
    ok(image_vhd.check(w->c, path));
    f = read_file(w, path);
    assert_true(f.header.table_offset > 4 * MIB);
    assert_int_equal(f.n_allocated, 2);
    ok(image_vhd.resize(w->c, path, 1000 * GIB)); /* where it is now there is room */
    ok(image_vhd.check(w->c, path));
    assert_int_equal(read_file(w, path).header.table_offset, f.header.table_offset);
    ok(image_vhd.resize(w->c, path, 1000 * GIB));
    assert_int_equal(truncate(raw, 1000 * GIB), 0);
    QEMU(w, NULL, "convert", "-f", "vpc", "-O", "raw", path, back);
    assert_int_equal(truncate(back, 1000 * GIB), 0);
    QEMU(w, NULL, "compare", "-f", "raw", "-F", "vpc", raw, path);
}

static void scribble(const char *path, int64_t at, const void *bytes, size_t n)
{
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fd_pwrite_all(fd, bytes, n, at), 0);
}

/* blktap's batmap: goes when the BAT grows, and the version says so. */
static void test_batmap(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "m.vhd");
    uint8_t bytes[1024] = "tdbatmap", footer[VHD_FOOTER_SIZE];
    struct vhd_file f;
    int64_t at;

    ok(image_vhd.create(w->c, path, 10 * MIB, NULL, NULL));
    f = read_file(w, path);
    at = f.header.table_offset + 512;
    for (unsigned i = 0; i < 8; i++)
        bytes[8 + i] = (uint8_t)((uint64_t)(at + 512) >> (56 - 8 * i));
    bytes[19] = 1; /* sector */
    scribble(path, at, bytes, sizeof(bytes));
    assert_int_equal(read_file(w, path).batmap_header, at);
    f.footer.creator_version = 0x00010003;
    vhd_footer_encode(&f.footer, footer);
    scribble(path, 0, footer, sizeof(footer));
    scribble(path, f.file_size - 512, footer, sizeof(footer));
    f = read_file(w, path);
    assert_int_equal(f.batmap_header, at);
    assert_true(f.data_end >= at + 1024);
    ok(image_vhd.set_hidden(w->c, path, true));
    ok(image_vhd.resize(w->c, path, 12 * MIB)); /* more entries, no more room needed */
    f = read_file(w, path);
    assert_int_equal(f.footer.creator_version, 0x00010001);
    assert_int_equal(f.batmap_header, 0);
    ok(image_vhd.resize(w->c, path, 10 * GIB));
    ok(image_vhd.check(w->c, path));
}

/* --- parents -------------------------------------------------------------------------------------- */
static void test_parents(void **state)
{
    struct world *w = *state;
    const char *base = path_of(w, "base.vhd"), *child = path_of(w, "child.vhd"), *leaf = path_of(w, "leaf.vhd");
    const char *raw = path_of(w, "base.raw"), *other = path_of(w, "other.vhd");
    struct image_info info;

    ok(image_vhd.create(w->c, base, 10 * MIB, NULL, NULL));
    ok(image_vhd.create(w->c, other, 10 * MIB, NULL, NULL));
    ok(image_vhd.create(w->c, child, 12 * MIB, base, "vhd"));
    ok(image_vhd.create(w->c, leaf, 12 * MIB, child, "vhd"));
    info = info_of(w, leaf);
    assert_string_equal(info.parent, child);
    assert_string_equal(info.parent_format, "vhd");
    ok(image_vhd.check(w->c, leaf));
    fails(image_vhd.create(w->c, path_of(w, "small.vhd"), 8 * MIB, child, "vhd"), "smaller than its parent");
    assert_int_not_equal(access(path_of(w, "small.vhd"), F_OK), 0);
    fails(image_vhd.create(w->c, path_of(w, "x.vhd"), 12 * MIB, path_of(w, "nobody.vhd"), "vhd"), "opening the parent");
    fails(image_vhd.create(w->c, path_of(w, "x.vhd"), 12 * MIB, "/etc/passwd", "raw"), "outside");
    ok(image_raw.create(w->c, raw, 10 * MIB, NULL, NULL));
    ok(image_vhd.set_parent(w->c, child, raw, "raw"));
    info = info_of(w, child);
    assert_string_equal(info.parent, raw);
    assert_string_equal(info.parent_format, "raw");
    for (unsigned i = 0; i < 5; i++) { /* places are used in turn, the file does not grow */
        struct vhd_file before = read_file(w, child);

        ok(image_vhd.set_parent(w->c, child, i % 2 == 0 ? base : other, "vhd"));
        ok(image_vhd.check(w->c, leaf));
        assert_string_equal(info_of(w, child).parent, i % 2 == 0 ? base : other);
        assert_int_equal(read_file(w, child).file_size, before.file_size);
    }
    ok(image_vhd.set_parent(w->c, child, NULL, NULL));
    assert_string_equal(info_of(w, child).parent, "");
    ok(image_vhd.check(w->c, leaf));
    /* another image under the parent's name is not the parent */
    assert_int_equal(rename(other, child), 0);
    fails(image_vhd.check(w->c, leaf), "another id");
}

/* The parent's names are rewritten in the file, as a foreign tool might have written them. */
static void put_name(const char *path, const struct vhd_file *f, uint32_t code, const char *name)
{
    uint8_t bytes[2560] = { 0 };
    uint32_t n = (uint32_t)strlen(name);

    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        if (f->header.locators[i].code != code)
            continue;
        if (code == VHD_LOCATOR_MACX)
            memcpy(bytes, name, n);
        else
            assert_true(vhd_utf16_encode(name, false, bytes, sizeof(bytes), &n));
        scribble(path, f->header.locators[i].offset, bytes, sizeof(bytes));
    }
}

static void test_foreign_names(void **state)
{
    struct world *w = *state;
    static const struct { const char *relative, *uri, *absolute; bool found; } cases[] = {
        { ".\\base.vhd", "file://./nobody.vhd", "C:\\nobody.vhd", true },
        { "nobody.vhd", "file://./base.vhd", "", true },
        { "nobody.vhd", "file://./b%61se.vhd", "", true },
        { "nobody.vhd", "file://nobody.vhd", "C:\\images\\base.vhd", true },
        { "..\\..\\base.vhd", "", "", true }, /* of that name, but here */
        { "nobody.vhd", "file:///etc/passwd", "\\etc\\passwd", false },
        { "..", "file://", "C:\\", false },
    };
    const char *base = path_of(w, "base.vhd"), *leaf = path_of(w, "leaf.vhd");
    struct image_info info;
    struct vhd_file f;
    uint8_t bytes[VHD_HEADER_SIZE];

    ok(image_vhd.create(w->c, base, 10 * MIB, NULL, NULL));
    ok(image_vhd.create(w->c, leaf, 12 * MIB, base, "vhd"));
    f = read_file(w, leaf);
    memset(f.header.parent_name, 0, sizeof(f.header.parent_name));
    for (unsigned i = 0; i < VHD_LOCATORS; i++)
        f.header.locators[i].length = f.header.locators[i].code != 0 ? 256 : 0;
    vhd_header_encode(&f.header, bytes);
    scribble(leaf, f.footer.data_offset, bytes, sizeof(bytes));
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        put_name(leaf, &f, VHD_LOCATOR_W2RU, cases[i].relative);
        put_name(leaf, &f, VHD_LOCATOR_MACX, cases[i].uri);
        put_name(leaf, &f, VHD_LOCATOR_W2KU, cases[i].absolute);
        if (cases[i].found) {
            ok(image_vhd.info(w->c, leaf, &info));
            assert_string_equal(info.parent, base);
            ok(image_vhd.check(w->c, leaf));
        } else
            fails(image_vhd.check(w->c, leaf), "damaged image");
    }
}

static void test_loop_and_depth(void **state)
{
    struct world *w = *state;
    const char *a = path_of(w, "a.vhd"), *b = path_of(w, "b.vhd"), *last = NULL;

    ok(image_vhd.create(w->c, a, MIB, NULL, NULL));
    ok(image_vhd.create(w->c, b, MIB, a, "vhd"));
    ok(image_vhd.set_parent(w->c, a, b, "vhd"));
    fails(image_vhd.check(w->c, a), "loop");
    ok(image_vhd.set_parent(w->c, a, NULL, NULL));
    last = a;
    for (unsigned i = 0; i < VHD_CHAIN_MAX + 1; i++) {
        const char *next = path_of(w, arena_printf(w->c->arena, "d%u.vhd", i));

        ok(image_vhd.create(w->c, next, MIB, last, "vhd"));
        last = next;
        if (i == VHD_CHAIN_MAX - 1)
            ok(image_vhd.check(w->c, last));
    }
    fails(image_vhd.check(w->c, last), "more than 64");
}

static void test_hidden(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "h.vhd");

    ok(image_vhd.create(w->c, path, 10 * MIB, NULL, NULL));
    ok(image_vhd.set_hidden(w->c, path, true));
    assert_true(info_of(w, path).hidden);
    ok(image_vhd.set_hidden(w->c, path, true));
    ok(image_vhd.check(w->c, path));
    ok(image_vhd.set_hidden(w->c, path, false));
    assert_false(info_of(w, path).hidden);
}

/* --- damage --------------------------------------------------------------------------------------- */
static void test_either_footer_is_enough(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "f.vhd");
    struct vhd_file f;

    ok(image_vhd.create(w->c, path, 10 * MIB, NULL, NULL));
    ok(image_vhd.set_hidden(w->c, path, true));
    f = read_file(w, path);
    scribble(path, f.file_size - 512, "x", 1);
    assert_true(info_of(w, path).hidden);
    assert_int_equal(truncate(path, f.file_size - 512), 0);
    assert_true(info_of(w, path).hidden);
    ok(image_vhd.set_hidden(w->c, path, true)); /* puts it back */
    assert_true(read_file(w, path).end_valid);
    scribble(path, 0, "x", 1);
    assert_true(info_of(w, path).hidden);
    assert_false(read_file(w, path).copy_valid);
    scribble(path, read_file(w, path).file_size - 512, "x", 1);
    fails(image_vhd.check(w->c, path), "damaged image");
}

static void test_damaged(void **state)
{
    struct world *w = *state;
    const char *path = path_of(w, "d.vhd");
    static const uint8_t entry[4] = { 0, 0, 0, 3 }, far[4] = { 0x7f, 0, 0, 0 };
    struct vhd_file f;

    ok(image_vhd.create(w->c, path, 10 * MIB, NULL, NULL));
    f = read_file(w, path);
    scribble(path, f.header.table_offset, entry, 4);
    fails(image_vhd.check(w->c, path), "damaged image");
    scribble(path, f.header.table_offset, far, 4);
    fails(image_vhd.check(w->c, path), "beyond the end");
    scribble(path, f.footer.data_offset, "y", 1);
    fails(image_vhd.check(w->c, path), "no dynamic header");
    assert_int_equal(truncate(path, 600), 0);
    fails(image_vhd.check(w->c, path), "beyond the end");
    assert_int_equal(truncate(path, 0), 0);
    fails(image_vhd.check(w->c, path), "no footer");
    fails(image_vhd.info(w->c, path_of(w, "nobody"), &(struct image_info) { 0 }), "No such file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_qemu_opens_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_opens_qemus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resize, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resize_moves_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_batmap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loop_and_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hidden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_either_footer_is_enough, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
