/* vm_spec to a value and back, what is refused, and the text form of values. */
#include "xenops/vm_spec.h"

#include <stdio.h>
#include <string.h>

#include "tests/lib/unit.h"
#include "xenops/state_text.h"

static const struct disk_spec disks[] = {
    { .device = "0", .vdi_uuid = "v", .path = "/dev/x \"quoted\"", .size = 1ll << 40 },
    { .device = "3", .vdi_uuid = "", .path = "", .read_only = true, .cdrom = true },
};
static const struct nic_spec nics[] = { { .device = "0", .mac = "aa:bb:cc:dd:ee:ff", .bridge = "xenbr0", .mtu = 1500 } };

static struct vm_spec sample(struct arena *a)
{
    struct value_dict platform = { 0 };

    value_dict_add(a, &platform, "sim-dirty-mib-s", value_string("2"));
    value_dict_add(a, &platform, "note", value_string("line\nand \\ \"quote\" \xc3\xa9\x01"));
    return (struct vm_spec){ .uuid = "u", .name = "n", .kind = VM_KIND_PVH, .memory_static_max = 1 << 30, .memory_dynamic_max = 1 << 29,
                             .memory_dynamic_min = 1 << 28, .vcpus_max = 4, .vcpus = 2, .kernel = "/k", .cmdline = "c",
                             .platform = value_dict_value(&platform), .xenstore_data = value_map(NULL, 0), .disks = disks,
                             .n_disks = 2, .nics = nics, .n_nics = 1, .on_poweroff = "destroy", .on_reboot = "restart", .on_crash = "restart" };
}

static void test_round_trip(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    struct vm_spec in = sample(a), out;
    struct value v = vm_spec_to_value(a, &in), read;
    const char *why;

    state_text_add(&t, &v);
    assert_true(state_text_read(a, t.bytes, t.len, &read, &why));
    assert_true(value_equal(&v, &read));
    assert_null(vm_spec_from_value(a, &read, &out));
    struct value again = vm_spec_to_value(a, &out);
    assert_true(value_equal(&v, &again));
    assert_int_equal(out.kind, VM_KIND_PVH);
    assert_int_equal(out.disks[0].size, 1ll << 40);
    assert_true(out.disks[1].cdrom);
    assert_string_equal(out.ramdisk, ""); /* NULL travels as the empty string */
}

/* Every member is needed, and of its kind. */
static void test_missing_and_wrong_members(void **state)
{
    AUTO_ARENA a = arena_new();
    struct vm_spec in = sample(a), out;
    struct value v = vm_spec_to_value(a, &in);
    struct member *members = arena_memdup(a, v.members, v.len * sizeof(*members));
    struct value changed = value_map(members, v.len);

    assert_null(vm_spec_from_value(a, &changed, &out));
    for (uint32_t i = 0; i < v.len; i++) {
        members[i].value = value_bool(true);
        assert_non_null(vm_spec_from_value(a, &changed, &out));
        members[i] = member_of("other", v.members[i].value);
        assert_non_null(vm_spec_from_value(a, &changed, &out));
        members[i] = v.members[i];
    }
    struct value text = value_string("x");
    assert_non_null(vm_spec_from_value(a, &text, &out));
}

static void test_ranges(void **state)
{
    static const struct { const char *name, *value; bool good; } cases[] = {
        { "vcpus", "4", true }, { "vcpus", "-1", false }, { "vcpus", "4097", false }, { "vcpus", "many", false },
        { "memory_static_max", "9223372036854775807", true }, { "memory_static_max", "-5", false }, { "kind", "xen", false }, { "kind", "hvm", true },
    };
    AUTO_ARENA a = arena_new();
    struct vm_spec in = sample(a), out;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct value v = vm_spec_to_value(a, &in);
        struct member *members = (struct member *)v.members;
        for (uint32_t k = 0; k < v.len; k++)
            if (strcmp(members[k].name, cases[i].name) == 0)
                members[k].value = value_string(cases[i].value);
        struct error *e = vm_spec_from_value(a, &v, &out);
        if ((e == NULL) != cases[i].good)
            fail_msg("%s=%s", cases[i].name, cases[i].value);
    }
}

static void test_texts(void **state)
{
    static const struct { const char *in, *out; } cases[] = { /* out NULL: refused */
        { "{}", "{}" }, { " [ 1 , -2 , true , false , \"x\" ] ", "[1,-2,true,false,\"x\"]" }, { "1.5", "1.5" },
        { "\"\\u0041\\u00e9\\u20ac\\n\\/\"", "\"A\xc3\xa9\xe2\x82\xac\\u000a/\"" }, { "{\"a\":{\"b\":[]}}", "{\"a\":{\"b\":[]}}" },
        { "", NULL }, { "{", NULL }, { "[1,]", NULL }, { "{\"a\"}", NULL }, { "{a:1}", NULL }, { "1 2", NULL }, { "tru", NULL },
        { "\"", NULL }, { "\"\\", NULL }, { "\"\\u00\"", NULL }, { "\"\\u0000\"", NULL }, { "\"\\ud800\"", NULL }, { "\"\\x\"", NULL },
        { "\"a\nb\"", NULL }, { "99999999999999999999", NULL }, { "--1", NULL }, { "null", NULL }, { "[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", NULL },
    };
    AUTO_ARENA a = arena_new();
    const char *why;
    struct value v;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        AUTO_TEXT t = TEXT_INIT;
        bool good = state_text_read(a, cases[i].in, strlen(cases[i].in), &v, &why);
        if (good != (cases[i].out != NULL) || (!good && why == NULL))
            fail_msg("%s: %s", cases[i].in, good ? "accepted" : why);
        if (!good)
            continue;
        state_text_add(&t, &v);
        assert_string_equal(t.bytes, cases[i].out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_missing_and_wrong_members), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
