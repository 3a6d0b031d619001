/* The container of VM metadata: archives, the frame of ova.xml, and members as fields. */
#include <math.h>
#include <string.h>

#include "gen/model_ids.h"
#include "tests/lib/unit.h"
#include "xapi/metadata/ova.h"

static struct arena *arena;

static int setup(void **state)
{
    arena = arena_new();
    return 0;
}

static int teardown(void **state)
{
    arena_free(arena);
    return 0;
}

static void archives_of_any_length(void **state)
{
    static char bytes[1537];

    memset(bytes, 'x', sizeof(bytes));
    for (size_t n = 0; n <= sizeof(bytes); n += 1 + 100 * (n > 2 && n < 400)) {
        AUTO_TEXT tar = TEXT_INIT;
        const char *xml;
        size_t len;
        ova_tar_write(&tar, bytes, n, 1700000000);
        assert_int_equal(tar.len, 512 + (n + 511) / 512 * 512 + 1024);
        assert_memory_equal(tar.bytes + 257, "ustar\00000", 8);
        assert_null(ova_tar_xml(arena, tar.bytes, tar.len, &xml, &len));
        assert_int_equal(len, n);
        if (n > 0) {
            struct error *e = ova_tar_xml(arena, tar.bytes, 512 + n - 1, &xml, &len);
            assert_true(error_is(e, "IMPORT_ERROR_PREMATURE_EOF"));
            tar.bytes[124] ^= 1; /* one bit of the size */
            assert_true(error_is(ova_tar_xml(arena, tar.bytes, tar.len, &xml, &len), "IMPORT_ERROR"));
        }
    }
}

static struct error *read_text(const char *xml, struct ova *o) { return ova_read(arena, xml, strlen(xml), o); }

static void frames(void **state)
{
    struct ova o;

    assert_null(read_text("<?xml version='1.0'?>\n<value><struct><member><name>objects</name><value><array><data/></array></value></member></struct></value>", &o));
    assert_int_equal(o.n, 0);
    assert_null(ova_find(&o, "Ref:0"));
    assert_null(ova_find(&o, ""));
    assert_true(error_is(read_text("<value><struct/></value>", &o), "IMPORT_ERROR"));
    assert_true(error_is(read_text("", &o), "IMPORT_ERROR"));
    assert_true(error_is(read_text("<?xml", &o), "IMPORT_ERROR"));
    assert_true(error_is(read_text("<value>text</value>", &o), "IMPORT_ERROR"));
}

#define M(name, value) "<member><name>" name "</name><value>" value "</value></member>"

static bool field(const struct ova *o, unsigned index, struct value *v) { return ova_field(arena, &o->objects[0], &model_classes[CLASS_VM].fields[index], v); }

static void members_as_fields(void **state)
{
    struct ova o;
    struct value v;

    assert_null(read_text("<value><struct>" M("objects", "<array><data><value><struct>" M("class", "VM") M("id", "Ref:7") M("snapshot", "<struct>"
        M("VCPUs_max", "12") M("memory_static_max", "lots") M("HVM_shadow_multiplier", "1.5") M("is_a_snapshot", "<boolean>1</boolean>")
        M("snapshot_time", "<dateTime.iso8601>20200102T03:04:05Z</dateTime.iso8601>") M("power_state", "Dreaming") M("domain_type", "hvm")
        M("tags", "<array><data><value>a</value><value><struct/></value></data></array>")
        M("blocked_operations", "<struct>" M("start", "no") M("fly", "no") "</struct>") M("other_config", "<struct>" M("k", "v") "</struct>")
        "</struct>") "</struct></value></data></array>") "</struct></value>", &o));
    assert_ptr_equal(ova_find(&o, "Ref:7"), &o.objects[0]);
    assert_true(field(&o, F_VM_VCPUs_max, &v) && v.kind == VALUE_INT && v.i == 12);
    assert_false(field(&o, F_VM_memory_static_max, &v));
    assert_true(field(&o, F_VM_HVM_shadow_multiplier, &v) && fabs(v.f - 1.5) < 1e-9);
    assert_true(field(&o, F_VM_is_a_snapshot, &v) && v.i == 1);
    assert_true(field(&o, F_VM_snapshot_time, &v) && v.kind == VALUE_DATETIME && v.i == 1577934245);
    assert_false(field(&o, F_VM_power_state, &v)); /* no such state */
    assert_true(field(&o, F_VM_domain_type, &v));
    assert_true(field(&o, F_VM_tags, &v) && v.len == 1);
    assert_true(field(&o, F_VM_blocked_operations, &v) && v.len == 1);
    assert_false(field(&o, F_VM_NVRAM, &v)); /* an older xapi */
    assert_string_equal(ova_map(&o.objects[0], "other_config", "k", ""), "v");
    assert_string_equal(ova_map(&o.objects[0], "tags", "k", "-"), "-");
}

static void many_names(void **state)
{
    struct name_index x;
    unsigned n;

    name_index_init(&x, arena);
    for (unsigned i = 0; i < 5000; i++)
        assert_true(name_index_add(&x, arena_printf(arena, "Ref:%u", i), i));
    assert_false(name_index_add(&x, "Ref:77", 1));
    assert_true(name_index_find(&x, "Ref:4999", &n) && n == 4999);
    assert_true(name_index_find(&x, "Ref:77", &n) && n == 77);
    assert_false(name_index_find(&x, "Ref:5000", &n));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(archives_of_any_length), cmocka_unit_test(frames), cmocka_unit_test(members_as_fields),
                                        cmocka_unit_test(many_names) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
