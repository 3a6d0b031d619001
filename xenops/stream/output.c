#include "xenops/stream/output.h"

#include <endian.h>
#include <string.h>

#include "rpc/base/check.h"

/* We run on little-endian machines only; the stream is little-endian. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte order");

#define PARTS (LIBXC_BATCH + 2) /* vectors a call: a whole record, so that who splits it sees it whole */

void output_init(struct stream_output *o, struct byte_stream *s, const uint8_t *memory)
{
    *o = (struct stream_output){ .stream = s, .memory = memory, .batch_max = LIBXC_BATCH, .started_bytes = s->bytes_out };
}

uint64_t output_bytes(const struct stream_output *o) { return o->stream->bytes_out - o->started_bytes; }

static struct error *put_parts(struct call *c, struct stream_output *o, struct iovec *parts, int n)
{
    int rc = bytes_writev(o->stream, parts, n);

    return rc < 0 ? err_internal(c->arena, "stream: cannot send: %s", strerror(-rc)) : NULL;
}

static struct error *put(struct call *c, struct stream_output *o, const void *bytes, size_t n)
{
    struct iovec part = { .iov_base = (void *)bytes, .iov_len = n };

    return put_parts(c, o, &part, 1);
}

/* One libxc record: head, body, zeroes up to a multiple of 8. */
static struct error *put_record(struct call *c, struct stream_output *o, enum libxc_record type, const void *body, size_t len)
{
    static const char zeroes[8];
    struct libxc_record_head head = { .type = type, .length = (uint32_t)len };
    struct iovec parts[] = {
        { .iov_base = &head, .iov_len = sizeof(head) },
        { .iov_base = (void *)body, .iov_len = len },
        { .iov_base = (void *)zeroes, .iov_len = (8 - len % 8) % 8 },
    };

    CHECK(len <= LIBXC_RECORD_MAX);
    return put_parts(c, o, parts, ARRAY_LEN(parts));
}

static struct error *put_frame(struct call *c, struct stream_output *o, int64_t type, const void *payload, size_t len)
{
    struct image_record_head head = { .type = type, .length = (int64_t)len };
    struct iovec parts[] = { { .iov_base = &head, .iov_len = sizeof(head) }, { .iov_base = (void *)payload, .iov_len = len } };

    return put_parts(c, o, parts, ARRAY_LEN(parts));
}

/* The smallest policies that say something true: vendor and basic leaves of nothing in particular. */
static const struct libxc_cpuid_leaf cpuid_leaves[] = {
    { .leaf = 0, .subleaf = UINT32_MAX, .a = 1, .b = 0x756e6547, .c = 0x6c65746e, .d = 0x49656e69 },
    { .leaf = 1, .subleaf = UINT32_MAX },
};
static const struct libxc_msr msrs[] = { { .index = 0xce /* MSR_INTEL_PLATFORM_INFO */ } };

struct error *output_begin(struct call *c, struct stream_output *o, const char *state, size_t state_len)
{
    const struct libxc_image_head image = { .marker = UINT64_MAX, .id = htobe32(LIBXC_ID), .version = htobe32(LIBXC_VERSION) };
    const struct libxc_domain_head domain = { .type = LIBXC_TYPE_HVM, .page_shift = LIBXC_PAGE_SHIFT, .xen_major = 4, .xen_minor = 17 };

    CHECK(state_len <= IMAGE_STATE_MAX);
    TRY(put(c, o, IMAGE_SIGNATURE, IMAGE_SIGNATURE_LEN));
    TRY(put_frame(c, o, IMAGE_XENOPS, state, state_len));
    TRY(put_frame(c, o, IMAGE_LIBXC, NULL, 0));
    TRY(put(c, o, &image, sizeof(image)));
    TRY(put(c, o, &domain, sizeof(domain)));
    TRY(put_record(c, o, LIBXC_CPUID_POLICY, cpuid_leaves, sizeof(cpuid_leaves)));
    TRY(put_record(c, o, LIBXC_MSR_POLICY, msrs, sizeof(msrs)));
    return put_record(c, o, LIBXC_STATIC_DATA_END, NULL, 0);
}

struct error *output_flush(struct call *c, struct stream_output *o)
{
    struct { struct libxc_record_head record; struct libxc_page_head page; } head = {
        .record = { .type = LIBXC_PAGE_DATA, .length = (uint32_t)(sizeof(head.page) + o->n_pfns * 8 + o->n_data * LIBXC_PAGE) },
        .page = { .count = o->n_pfns },
    };
    struct iovec parts[PARTS] = {
        { .iov_base = &head, .iov_len = sizeof(head) },
        { .iov_base = o->pfns, .iov_len = o->n_pfns * 8 },
    };
    int n = 2;

    if (o->n_pfns == 0)
        return NULL;
    if (call_cancelled(c))
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    for (unsigned i = 0; i < o->n_pfns; i++) {
        if (LIBXC_PFN_TYPE(o->pfns[i]) != LIBXC_PFN_NORMAL)
            continue;
        const uint8_t *page = o->instead != NULL ? o->instead : o->memory + (o->pfns[i] & LIBXC_PFN_MASK) * LIBXC_PAGE;
        if (n > 2 && page == (uint8_t *)parts[n - 1].iov_base + parts[n - 1].iov_len) {
            parts[n - 1].iov_len += LIBXC_PAGE;
            continue;
        }
        if (n == PARTS) {
            TRY(put_parts(c, o, parts, n));
            n = 0;
        }
        parts[n++] = (struct iovec){ .iov_base = (void *)page, .iov_len = LIBXC_PAGE };
    }
    TRY(put_parts(c, o, parts, n));
    o->pages_sent += o->n_data;
    o->zero_pages += o->n_pfns - o->n_data;
    o->n_pfns = o->n_data = 0;
    return NULL;
}

struct error *output_finish(struct call *c, struct stream_output *o, const void *context, size_t len)
{
    const struct libxc_tsc_info tsc = { .khz = 1000000 };
    const struct { uint32_t count, reserved; struct libxc_hvm_param params[1]; } params = {
        .count = 1, .params = { { .index = 4 /* HVM_PARAM_PAE_ENABLED */, .value = 1 } },
    };

    CHECK(len > 0 && len <= LIBXC_CONTEXT_MAX);
    TRY(output_flush(c, o));
    TRY(put_record(c, o, LIBXC_TSC_INFO, &tsc, sizeof(tsc)));
    TRY(put_record(c, o, LIBXC_HVM_PARAMS, &params, sizeof(params)));
    TRY(put_record(c, o, LIBXC_HVM_CONTEXT, context, len));
    TRY(put_record(c, o, LIBXC_END, NULL, 0));
    return put_frame(c, o, IMAGE_END, NULL, 0);
}
