/* The pure parts under VMs: positions of disks, MAC addresses, versions, memory. */
#include <string.h>

#include "tests/lib/unit.h"
#include "xapi/core/mac.h"
#include "xapi/core/vbd_device.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_memory.h"

#define MIB (1ll << 20)

static void test_device_numbers(void **state)
{
    static const struct { const char *device; int number; } cases[] = {
        { "0", 0 },      { "15", 15 },    { "255", 255 },   { "256", -1 },  { "-1", -1 },    { "", -1 },      { "autodetect", -1 },
        { "xvda", 0 },   { "xvdb", 1 },   { "xvdz", 25 },   { "xvdaa", 26 }, { "xvdab", 27 }, { "xvdba", 52 }, { "xvdiv", 255 },
        { "xvdiw", -1 }, { "xvdaaa", -1 }, { "xvda1", 0 },  { "xvd", -1 },  { "xvd1", -1 },  { "hdc", 2 },    { "sdd", 3 },
        { "fda", 1000 }, { "fdb", 1001 }, { "fdc", -1 },    { "xvdA", -1 }, { "01", 1 },
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        unsigned number;
        bool ok = vbd_device_number(cases[i].device, &number);
        if (ok != (cases[i].number >= 0) || (ok && (int)number != cases[i].number))
            fail_msg("'%s': %s %u", cases[i].device, ok ? "taken as" : "refused", ok ? number : 0);
    }
}

static void test_device_names(void **state)
{
    static const char *const names[][2] = { { "0", "xvda" }, { "25", "xvdz" }, { "26", "xvdaa" }, { "255", "xvdiv" }, { "hdb", "xvdb" }, { "fdb", "fdb" }, { "x", "" } };
    AUTO_ARENA a = arena_new();
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        assert_string_equal(vbd_device_name(a, names[i][0]), names[i][1]);
}

static void test_macs(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *mac = mac_make(a), *seeded = mac_from_seed(a, "a seed", "0");

    assert_true(mac_valid(mac) && mac_valid(seeded));
    assert_string_not_equal(mac, mac_make(a));
    assert_string_equal(seeded, mac_from_seed(a, "a seed", "0"));
    assert_string_not_equal(seeded, mac_from_seed(a, "a seed", "1"));
    assert_string_not_equal(seeded, mac_from_seed(a, "another seed", "0"));
    assert_true(strchr("2367abef", seeded[1]) != NULL); /* local */
    assert_true(mac_valid("00:11:22:aA:bB:cC"));
    assert_false(mac_valid("00:11:22:aa:bb"));
    assert_false(mac_valid("00-11-22-aa-bb-cc"));
    assert_false(mac_valid("01:11:22:aa:bb:cc")); /* multicast */
    assert_false(mac_valid("0g:11:22:aa:bb:cc"));
    assert_false(mac_valid(""));
}

static void test_versions(void **state)
{
    static const struct { const char *a, *b; int order; } cases[] = {
        { "3.4.0", "3.4.0", 0 }, { "3.4", "3.4.0", 0 },     { "3.4.1", "3.4.0", 1 },  { "3.10.0", "3.9.9", 1 },
        { "4.17.3-1", "4.17.3-2", -1 }, { "", "0.0.0", 0 }, { "26.14.0-wip", "26.14.0", 0 }, { "1.249.3", "23.1", -1 },
    };
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(version_compare(cases[i].a, cases[i].b), cases[i].order);
        assert_int_equal(version_compare(cases[i].b, cases[i].a), -cases[i].order);
    }
}

static void test_memory(void **state)
{
    struct vm_memory m = { 4, 2, 20, 16 };

    assert_false(vm_memory_in_order(&m));
    assert_true(vm_memory_coerce(&m)); /* the dynamic range moves in between */
    assert_int_equal(m.dynamic_min, 4);
    assert_int_equal(m.dynamic_max, 16);
    m = (struct vm_memory){ 16, 16, 16, 8 };
    assert_false(vm_memory_coerce(&m));
    m = (struct vm_memory){ 0, 8, 4, 16 };
    assert_false(vm_memory_coerce(&m));
    assert_int_equal(vm_memory_overhead_for(false, 1024 * MIB, 4, 1), MIB);
    assert_int_equal(vm_memory_overhead_for(true, 1024 * MIB, 1, 1), (1 + 8 + 5) * MIB);
    assert_int_equal(vm_memory_overhead_for(true, 1024 * MIB, 1, 4), (36 + 5) * MIB);
    assert_int_equal(vm_memory_overhead_for(true, 1024 * MIB, 1, 0), (1 + 8 + 5) * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device_numbers), cmocka_unit_test(test_device_names), cmocka_unit_test(test_macs),
        cmocka_unit_test(test_versions),       cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
