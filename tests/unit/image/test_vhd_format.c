/* The structures of a VHD: both ways, checksums, sizes, names. */
#include <string.h>

#include "storage/image/vhd_format.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)
#define GIB ((int64_t)1 << 30)

static const uint8_t id[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static void make_footer(enum vhd_type type, int64_t size, uint8_t bytes[VHD_FOOTER_SIZE])
{
    struct vhd_footer f;

    vhd_footer_init(&f, type, size, id, 1700000000);
    f.data_offset = 512;
    vhd_footer_encode(&f, bytes);
}

static void test_footer_both_ways(void **state)
{
    uint8_t bytes[VHD_FOOTER_SIZE], again[VHD_FOOTER_SIZE];
    struct vhd_footer f;

    make_footer(VHD_DYNAMIC, 5 * GIB + 512, bytes);
    assert_null(vhd_footer_decode(bytes, &f));
    assert_int_equal(f.type, VHD_DYNAMIC);
    assert_int_equal(f.current_size, 5 * GIB + 512);
    assert_int_equal(f.original_size, 5 * GIB + 512);
    assert_int_equal(f.timestamp, 1700000000 - 946684800);
    assert_int_equal(f.data_offset, 512);
    assert_memory_equal(f.id, id, 16);
    assert_memory_equal(f.creator, "tap", 4);
    assert_false(f.hidden);
    assert_int_equal(vhd_virtual_size(&f), 5 * GIB + 512);
    vhd_footer_encode(&f, again);
    assert_memory_equal(bytes, again, VHD_FOOTER_SIZE);
    f.hidden = true;
    vhd_footer_encode(&f, again);
    assert_int_equal(again[85], 1); /* where blktap looks */
    assert_null(vhd_footer_decode(again, &f));
    assert_true(f.hidden);
}

/* What is in fields we do not know stays. */
static void test_footer_keeps_unknown(void **state)
{
    uint8_t bytes[VHD_FOOTER_SIZE], again[VHD_FOOTER_SIZE];
    uint32_t sum;
    struct vhd_footer f;

    make_footer(VHD_DYNAMIC, 5 * GIB, bytes);
    bytes[300] = 0x5a;
    sum = vhd_checksum(bytes, VHD_FOOTER_SIZE, 64);
    for (unsigned i = 0; i < 4; i++)
        bytes[64 + i] = (uint8_t)(sum >> (24 - 8 * i));
    assert_null(vhd_footer_decode(bytes, &f));
    vhd_footer_encode(&f, again);
    assert_memory_equal(bytes, again, VHD_FOOTER_SIZE);
}

/* Every changed byte is noticed. */
static void test_footer_damage(void **state)
{
    uint8_t bytes[VHD_FOOTER_SIZE];
    struct vhd_footer f;

    make_footer(VHD_FIXED, GIB, bytes);
    for (unsigned i = 0; i < VHD_FOOTER_SIZE; i++) {
        bytes[i] ^= 0x10;
        assert_non_null(vhd_footer_decode(bytes, &f));
        bytes[i] ^= 0x10;
    }
    assert_null(vhd_footer_decode(bytes, &f));
}

static void refused(void (*change)(struct vhd_footer *), const char *why)
{
    uint8_t bytes[VHD_FOOTER_SIZE];
    const char *wrong;
    struct vhd_footer f;

    vhd_footer_init(&f, VHD_DYNAMIC, GIB, id, 0);
    f.data_offset = 512;
    change(&f);
    vhd_footer_encode(&f, bytes);
    wrong = vhd_footer_decode(bytes, &f);
    assert_non_null(wrong);
    if (strstr(wrong, why) == NULL)
        fail_msg("'%s' does not say '%s'", wrong, why);
}

static void no_size(struct vhd_footer *f) { f->current_size = 0; }
static void huge(struct vhd_footer *f) { f->current_size = VHD_SIZE_MAX + 1; }
static void negative(struct vhd_footer *f) { f->current_size = -1; }
static void odd_type(struct vhd_footer *f) { f->type = (enum vhd_type)5; }
static void in_footer(struct vhd_footer *f) { f->data_offset = 256; }
static void far_away(struct vhd_footer *f) { f->data_offset = INT64_MIN; }
static void little_endian(struct vhd_footer *f) { f->creator_version = 1; }
static void no_geometry(struct vhd_footer *f) { memcpy(f->creator, "vpc ", 4); f->heads = 0; }

static void test_footer_limits(void **state)
{
    refused(no_size, "size");
    refused(huge, "size");
    refused(negative, "size");
    refused(odd_type, "type");
    refused(in_footer, "place");
    refused(far_away, "place");
    refused(little_endian, "order");
    refused(no_geometry, "geometry");
}

/* The specification's own rule, by its borders. */
static void test_geometry(void **state)
{
    static const struct { int64_t size; uint16_t cylinders; uint8_t heads, sectors; } cases[] = {
        { 512, 0, 4, 17 },
        { 10 * MIB, 301, 4, 17 },
        { GIB, 2080, 16, 63 },
        { 128 * GIB, 65535, 16, 255 },
        { 2040 * GIB, 65535, 16, 255 },
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct vhd_footer f;

        vhd_footer_init(&f, VHD_DYNAMIC, cases[i].size, id, 0);
        assert_int_equal(f.cylinders, cases[i].cylinders);
        assert_int_equal(f.heads, cases[i].heads);
        assert_int_equal(f.sectors, cases[i].sectors);
        assert_true((int64_t)f.cylinders * f.heads * f.sectors * 512 <= cases[i].size);
    }
}

static void test_virtual_size(void **state)
{
    struct vhd_footer f;

    vhd_footer_init(&f, VHD_DYNAMIC, 10 * MIB, id, 0);
    assert_int_equal(vhd_virtual_size(&f), 10 * MIB);
    memcpy(f.creator, "vpc ", 4);
    assert_int_equal(vhd_virtual_size(&f), (int64_t)301 * 4 * 17 * 512);
    memcpy(f.creator, "qem2", 4);
    assert_int_equal(vhd_virtual_size(&f), 10 * MIB);
    memcpy(f.creator, "qemu", 4);
    vhd_set_size(&f, 300 * GIB); /* more than the geometry can say */
    assert_int_equal(vhd_virtual_size(&f), 300 * GIB);
}

static void test_header_both_ways(void **state)
{
    uint8_t bytes[VHD_HEADER_SIZE], again[VHD_HEADER_SIZE];
    struct vhd_header h, read;

    vhd_header_init(&h);
    h.table_offset = 28672;
    h.entries = 77;
    h.parent_timestamp = 5;
    memcpy(h.parent_id, id, 16);
    h.locators[2] = (struct vhd_locator) { .code = VHD_LOCATOR_W2RU, .space = 2560, .length = 20, .offset = 4096 };
    vhd_header_encode(&h, bytes);
    assert_null(vhd_header_decode(bytes, &read));
    assert_int_equal(read.table_offset, 28672);
    assert_int_equal(read.entries, 77);
    assert_int_equal(read.block_size, VHD_BLOCK_SIZE);
    assert_memory_equal(read.parent_id, id, 16);
    assert_int_equal(read.locators[2].space, 2560);
    assert_int_equal(read.locators[2].offset, 4096);
    vhd_header_encode(&read, again);
    assert_memory_equal(bytes, again, VHD_HEADER_SIZE);
    for (unsigned i = 0; i < VHD_HEADER_SIZE; i += 7) {
        bytes[i] ^= 1;
        assert_non_null(vhd_header_decode(bytes, &read));
        bytes[i] ^= 1;
    }
}

static const char *header_with(uint32_t entries, uint32_t block_size, int64_t table, struct vhd_locator locator)
{
    uint8_t bytes[VHD_HEADER_SIZE];
    struct vhd_header h;

    vhd_header_init(&h);
    h.entries = entries;
    h.block_size = block_size;
    h.table_offset = table;
    h.locators[0] = locator;
    vhd_header_encode(&h, bytes);
    return vhd_header_decode(bytes, &h);
}

static void test_header_limits(void **state)
{
    const struct vhd_locator none = { 0 };

    assert_null(header_with(1, VHD_BLOCK_MIN, 1536, none));
    assert_null(header_with(VHD_ENTRIES_MAX, VHD_BLOCK_MAX, 1536, none));
    assert_non_null(header_with(0, VHD_BLOCK_SIZE, 1536, none));
    assert_non_null(header_with(VHD_ENTRIES_MAX + 1, VHD_BLOCK_SIZE, 1536, none));
    assert_non_null(header_with(1, VHD_BLOCK_MIN / 2, 1536, none));
    assert_non_null(header_with(1, VHD_BLOCK_MAX * 2, 1536, none));
    assert_non_null(header_with(1, 3 << 20, 1536, none));
    assert_non_null(header_with(1, VHD_BLOCK_SIZE, 1537, none));
    assert_non_null(header_with(1, VHD_BLOCK_SIZE, -512, none));
    assert_non_null(header_with(1, VHD_BLOCK_SIZE, 1536, (struct vhd_locator) { .code = VHD_LOCATOR_MACX, .space = 512, .length = 513 }));
    assert_non_null(header_with(1, VHD_BLOCK_SIZE, 1536, (struct vhd_locator) { .code = VHD_LOCATOR_MACX, .space = 512, .length = 1, .offset = -5 }));
}

static void test_bitmap_size(void **state)
{
    assert_int_equal(vhd_bitmap_size(VHD_BLOCK_MIN), 512);
    assert_int_equal(vhd_bitmap_size(VHD_BLOCK_SIZE), 512);
    assert_int_equal(vhd_bitmap_size(VHD_BLOCK_MAX), 16384);
    assert_int_equal(vhd_timestamp(0), 0);
    assert_int_equal(vhd_timestamp(946684801), 1);
}

static void test_names(void **state)
{
    static const char *const good[] = { "", "a.vhd", "Zürich.vhd", "\xe6\xbc\xa2", "\xf0\x9f\x92\xbe.vhd" };
    static const char *const bad[] = { "\x80", "\xc3", "\xe6\xbc", "\xed\xa0\x80", "\xf8\x88\x80\x80\x80", "\xc0\x80" };
    uint8_t units[64];
    char text[64];
    uint32_t n;

    for (unsigned i = 0; i < ARRAY_LEN(good); i++)
        for (unsigned big = 0; big < 2; big++) {
            assert_true(vhd_utf16_encode(good[i], big != 0, units, sizeof(units), &n));
            assert_true(vhd_utf16_decode(units, n, big != 0, text, sizeof(text)));
            assert_string_equal(text, good[i]);
        }
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(vhd_utf16_encode(bad[i], false, units, sizeof(units), &n));
    assert_false(vhd_utf16_encode("0123456789", false, units, 12, &n));
    assert_false(vhd_utf16_decode((const uint8_t *)"\0\xd8" "a\0", 4, false, text, sizeof(text))); /* half a pair */
    assert_false(vhd_utf16_decode((const uint8_t *)"\0\xdc", 2, false, text, sizeof(text)));
    assert_false(vhd_utf16_decode((const uint8_t *)"\0\xd8", 2, false, text, sizeof(text)));
    assert_false(vhd_utf16_decode((const uint8_t *)"a\0b\0c\0", 6, false, text, 3));
    assert_true(vhd_utf16_decode((const uint8_t *)"a\0\0\0b\0", 6, false, text, sizeof(text)));
    assert_string_equal(text, "a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_footer_both_ways), cmocka_unit_test(test_footer_keeps_unknown), cmocka_unit_test(test_footer_damage),
        cmocka_unit_test(test_footer_limits),    cmocka_unit_test(test_geometry),             cmocka_unit_test(test_virtual_size),
        cmocka_unit_test(test_header_both_ways), cmocka_unit_test(test_header_limits),        cmocka_unit_test(test_bitmap_size),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
