/* The image format: its bytes, and what the reader refuses. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"
#include "tests/unit/xenops/memory_stream.h"
#include "xenops/stream/input.h"
#include "xenops/stream/output.h"

#define PAGES 4u

/* Pages 0 and 1 hold data, 2 is empty, 3 is not mentioned. */
static uint8_t source[PAGES * LIBXC_PAGE] __attribute__((aligned(8)));

static void image_write(struct call *c, struct memory_stream *m)
{
    struct stream_output o;

    memory_stream_init(m);
    memset(source, 0x11, LIBXC_PAGE);
    memset(source + LIBXC_PAGE, 0x22, LIBXC_PAGE);
    output_init(&o, &m->stream, source);
    assert_null(output_begin(c, &o, "{}", 2));
    output_page(&o, 0);
    output_page(&o, 1);
    output_zero_page(&o, 2);
    assert_null(output_finish(c, &o, "context", 7));
    assert_int_equal(o.pages_sent, 2);
    assert_int_equal(output_bytes(&o), m->kept.len);
}

static struct error *image_read(struct call *c, struct memory_stream *m, uint8_t *memory, uint64_t n_pages, struct input_result *r)
{
    const struct input_target target = { .memory = memory, .n_pages = n_pages, .memory_fd = -1 };

    memset(memory, 0, n_pages * LIBXC_PAGE);
    m->at = 0;
    return input_read(c, &m->stream, &target, r);
}

/* --- golden bytes: the whole image but for the two pages of data --- */

static const struct piece { const char *what, *hex; unsigned repeat; } golden[] = {
    { "signature", "58656e5361766564446f6d76322d0a", 1 },
    { "Xenops record", "0f00000000000000 0200000000000000 7b7d", 1 },
    { "Libxc record", "f000000000000000 0000000000000000", 1 },
    { "image header", "ffffffffffffffff 58454e46 00000003 0000 000000000000", 1 },
    { "domain header", "02000000 0c00 0000 04000000 11000000", 1 },
    { "CPUID policy", "11000000 30000000 00000000 ffffffff 01000000 47656e75 6e74656c 696e6549"
                      "01000000 ffffffff 00000000 00000000 00000000 00000000", 1 },
    { "MSR policy", "12000000 10000000 ce000000 00000000 0000000000000000", 1 },
    { "STATIC_DATA_END", "10000000 00000000", 1 },
    { "PAGE_DATA", "01000000 20200000 03000000 00000000 0000000000000000 0100000000000000 02000000000000e0", 1 },
    { "page 0", "11", 4096 },
    { "page 1", "22", 4096 },
    { "TSC_INFO", "08000000 18000000 00000000 40420f00 0000000000000000 00000000 00000000", 1 },
    { "HVM_PARAMS", "0a000000 18000000 01000000 00000000 0400000000000000 0100000000000000", 1 },
    { "HVM_CONTEXT", "09000000 07000000 636f6e74657874 00", 1 },
    { "END", "00000000 00000000", 1 },
    { "End record", "ffff000000000000 0000000000000000", 1 },
};

static void add_hex(struct text *t, const char *hex)
{
    for (const char *p = hex; *p != '\0'; p += 2) {
        unsigned byte;
        while (*p == ' ')
            p++;
        assert_int_equal(sscanf(p, "%2x", &byte), 1);
        text_add_byte(t, (char)byte);
    }
}

static void test_golden_bytes(void **state)
{
    AUTO_FAKECALL f;
    AUTO_TEXT expected = TEXT_INIT;
    struct memory_stream m;

    fakecall_init(&f);
    image_write(&f.call, &m);
    for (unsigned i = 0; i < ARRAY_LEN(golden); i++) {
        size_t from = expected.len;
        for (unsigned k = 0; k < golden[i].repeat; k++)
            add_hex(&expected, golden[i].hex);
        assert_true(m.kept.len >= expected.len);
        if (memcmp(m.kept.bytes + from, expected.bytes + from, expected.len - from) != 0)
            fail_msg("%s differs", golden[i].what);
    }
    assert_int_equal(m.kept.len, expected.len);
    memory_stream_release(&m);
}

static void test_round_trip(void **state)
{
    static const size_t steps[] = { 0, 1, 7, 4095 };
    static uint8_t memory[PAGES * LIBXC_PAGE];
    struct input_result r;
    struct memory_stream m;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    image_write(&f.call, &m);
    text_add(&m.kept, "what follows"); /* is left alone */
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        m.step = steps[i];
        assert_null(image_read(&f.call, &m, memory, PAGES, &r));
        assert_memory_equal(memory, source, sizeof(source));
        assert_string_equal(r.state, "{}");
        assert_int_equal(r.context_len, 7);
        assert_memory_equal(r.context, "context", 7);
        assert_int_equal(r.pages_read, 2);
        assert_int_equal(r.pages_allocated, 1);
        assert_int_equal(r.bytes, m.kept.len - 12);
        assert_int_equal(m.at, m.kept.len - 12);
    }
    memory_stream_release(&m);
}

/* --- what is refused --- */

/* Offsets in the image above. */
enum {
    AT_SIGNATURE = 0, AT_XENOPS = 15, AT_LIBXC = 33, AT_IMAGE = 49, AT_DOMAIN = 73, AT_CPUID = 89, AT_MSR = 145, AT_STATIC = 169,
    AT_PAGES = 177, AT_PFNS = 193, AT_TSC = 8409, AT_PARAMS = 8441, AT_CONTEXT = 8473, AT_END = 8489, AT_TAIL = 8497,
};

static const struct damage { const char *what; size_t at; const char *hex; } damages[] = {
    { "no \"XenSavedDomv2-\" signature", AT_SIGNATURE, "59" },
    { "instead of the Xenops record", AT_XENOPS, "f0" },
    { "the Xenops record has", AT_XENOPS + 8, "0000200000000000" },
    { "negative length", AT_XENOPS + 8, "ffffffffffffffff" },
    { "instead of Libxc", AT_LIBXC, "f1" },
    { "no libxc image header", AT_IMAGE, "7f" },
    { "no libxc image header", AT_IMAGE + 8, "59" },
    { "libxc stream version 2", AT_IMAGE + 12, "00000002" },
    { "libxc options 0x1", AT_IMAGE + 16, "0001" },
    { "reserved bits in the libxc image header", AT_IMAGE + 20, "01" },
    { "domain type 1", AT_DOMAIN, "01" },
    { "page shift 13", AT_DOMAIN + 4, "0d" },
    { "page shift", AT_DOMAIN + 6, "01" },
    { "a converted legacy stream", AT_DOMAIN + 8, "00000000" },
    { "CPU policy of 47 bytes", AT_CPUID + 4, "2f" },
    { "CPU policy of 0 bytes", AT_CPUID + 4, "00" },
    { "unknown type 0x13", AT_CPUID, "13" },
    { "unknown type 0x2", AT_CPUID, "02" },
    { "END before STATIC_DATA_END", AT_STATIC, "00" },
    { "PAGE_DATA in the wrong place", AT_STATIC, "77000080" },
    { "a record of 134217729 bytes", AT_PAGES + 4, "01000008" },
    { "PAGE_DATA of 2 pages has 16785408 bytes", AT_PAGES + 4, "20200001" },
    { "the stream ends too early", AT_CONTEXT + 4, "00001000" },
    { "PAGE_DATA of 0 pages", AT_PAGES + 8, "00000000" },
    { "PAGE_DATA of 32769 pages", AT_PAGES + 8, "01800000" },
    { "PAGE_DATA of 3 pages", AT_PAGES + 12, "01" },
    { "PAGE_DATA of 2000 pages has only", AT_PAGES + 8, "d0070000" },
    { "too short", AT_PAGES + 4, "07000000" },
    { "PAGE_DATA of 2 pages has 8184 bytes", AT_PAGES + 4, "1820" },
    { "PAGE_DATA of 2 pages has 8200 bytes", AT_PAGES + 8, "02" },
    { "pfn 4 is outside the domain", AT_PFNS, "04" },
    { "is outside the domain", AT_PFNS + 6, "0f" },
    { "reserved bits in pfn word", AT_PFNS + 6, "10" },
    { "page type 0x5 of pfn", AT_PFNS + 7, "50" },
    { "page type 0x1 of pfn", AT_PFNS + 7, "10" },
    { "page type 0xc of pfn", AT_PFNS + 7, "c0" },
    { "is a broken page", AT_PFNS + 7, "d0" },
    { "PAGE_DATA of 1 pages has 8192 bytes", AT_PFNS + 7, "f0" },
    { "TSC_INFO of 23 bytes", AT_TSC + 4, "17" },
    { "reserved bits in TSC_INFO", AT_TSC + 28, "01" },
    { "2 HVM_PARAMS in 16 bytes", AT_PARAMS + 8, "02" },
    { "4294967295 HVM_PARAMS in", AT_PARAMS + 8, "ffffffff" },
    { "HVM_PARAMS in", AT_PARAMS + 12, "01" },
    { "a second TSC_INFO", AT_PARAMS, "08" },
    { "HVM_CONTEXT of 0 bytes", AT_CONTEXT + 4, "00" },
    { "HVM_CONTEXT of 2097152 bytes", AT_CONTEXT + 4, "00002000" },
    { "padding that is not zero", AT_CONTEXT + 15, "01" },
    { "END before HVM_CONTEXT", AT_CONTEXT, "00000000 00000000" },
    { "END has a body", AT_END + 4, "01" },
    { "PAGE_DATA in the wrong place", AT_END, "01" },
    { "a second HVM_CONTEXT", AT_END, "09" },
    { "instead of End", AT_TAIL, "0f00" },
    { "an End record of 1 bytes", AT_TAIL + 8, "01" },
    { "negative length", AT_TAIL + 15, "80" },
};

static void test_refusals(void **state)
{
    static uint8_t memory[PAGES * LIBXC_PAGE];
    struct memory_stream m;
    struct input_result r;

    for (unsigned i = 0; i < ARRAY_LEN(damages); i++) {
        AUTO_FAKECALL f;
        AUTO_TEXT bytes = TEXT_INIT;
        fakecall_init(&f);
        image_write(&f.call, &m);
        add_hex(&bytes, damages[i].hex);
        memcpy(m.kept.bytes + damages[i].at, bytes.bytes, bytes.len);
        struct error *e = image_read(&f.call, &m, memory, PAGES, &r);
        if (e == NULL || strstr(e->params[0], damages[i].what) == NULL)
            fail_msg("case %u: \"%s\" gave \"%s\"", i, damages[i].what, e != NULL ? e->params[0] : "no error");
        memory_stream_release(&m);
    }
}

static void test_every_truncation_is_refused(void **state)
{
    static uint8_t memory[PAGES * LIBXC_PAGE];
    struct memory_stream m;
    struct input_result r;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    image_write(&f.call, &m);
    for (size_t len = m.kept.len - 1; len > 0; len -= len > AT_PFNS + 100 && len < AT_TSC - 100 ? 97 : 1) {
        m.kept.len = len;
        struct error *e = image_read(&f.call, &m, memory, PAGES, &r);
        assert_non_null(e);
        assert_non_null(strstr(e->params[0], "the stream ends too early"));
    }
    memory_stream_release(&m);
}

static void test_optional_and_emulator_records(void **state)
{
    static uint8_t memory[PAGES * LIBXC_PAGE];
    AUTO_TEXT with = TEXT_INIT;
    struct memory_stream m;
    struct input_result r;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    image_write(&f.call, &m);
    text_add_len(&with, m.kept.bytes, AT_TSC);
    add_hex(&with, "77000080 03000000 616263 0000000000"); /* optional: skipped with its padding */
    text_add_len(&with, m.kept.bytes + AT_TSC, AT_TAIL - AT_TSC);
    add_hex(&with, "010f000000000000 0300000000000000 616263"); /* Qemu_xen */
    text_add_len(&with, m.kept.bytes + AT_TAIL, m.kept.len - AT_TAIL);
    text_release(&m.kept);
    m.kept = with;
    with = (struct text)TEXT_INIT;
    assert_null(image_read(&f.call, &m, memory, PAGES, &r));
    assert_memory_equal(memory, source, sizeof(source));
    memory_stream_release(&m);
}

static struct error *refuse(void *ctx, struct call *c, const char *text, size_t len)
{
    assert_string_equal(text, "{}");
    return err_internal(c->arena, "not mine");
}

static void test_accept_may_refuse(void **state)
{
    static uint8_t memory[PAGES * LIBXC_PAGE];
    const struct input_target target = { .memory = memory, .n_pages = PAGES, .memory_fd = -1, .accept = refuse };
    struct memory_stream m;
    struct input_result r;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    image_write(&f.call, &m);
    struct error *e = input_read(&f.call, &m.stream, &target, &r);
    assert_true(error_is(e, "INTERNAL_ERROR"));
    assert_int_equal(m.at, AT_LIBXC);
    cancel_raise(f.call.cancel);
    m.at = 0;
    assert_true(error_is(image_read(&f.call, &m, memory, PAGES, &r), "TASK_CANCELLED"));
    memory_stream_release(&m);
}

/* A large batch of scattered pages: more runs than vectors, pages through the buffer and past it. */
static void test_scattered_pages(void **state)
{
    enum { N = 3000 };
    uint8_t *from = xcalloc(N, LIBXC_PAGE), *to = xcalloc(N, LIBXC_PAGE);
    struct memory_stream m;
    struct stream_output o;
    struct input_result r;
    AUTO_FAKECALL f;

    fakecall_init(&f);
    memory_stream_init(&m);
    output_init(&o, &m.stream, from);
    assert_null(output_begin(&f.call, &o, "{}", 2));
    for (unsigned i = 0; i < N; i++)
        memset(from + i * LIBXC_PAGE, (int)(i % 251) + 1, LIBXC_PAGE);
    for (unsigned i = 0; i < N; i += i < 2000 ? 2 : 1) { /* every second, then a long run */
        if (output_is_full(&o))
            assert_null(output_flush(&f.call, &o));
        output_page(&o, i);
    }
    for (unsigned i = 1; i < 2000; i += 2)
        memset(from + i * LIBXC_PAGE, 0, LIBXC_PAGE);
    assert_null(output_finish(&f.call, &o, "c", 1));
    assert_null(image_read(&f.call, &m, to, N, &r));
    assert_memory_equal(from, to, N * LIBXC_PAGE);
    memory_stream_release(&m);
    xfree(from);
    xfree(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_bytes), cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_every_truncation_is_refused), cmocka_unit_test(test_optional_and_emulator_records),
        cmocka_unit_test(test_accept_may_refuse), cmocka_unit_test(test_scattered_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
