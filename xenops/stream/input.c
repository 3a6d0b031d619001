#include "xenops/stream/input.h"

#include <endian.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "xenops/stream/input_bytes.h"
#include "xenops/stream/postcopy.h"

/* What has been seen of the libxc stream. */
struct progress {
    bool static_done, tsc, params, context;
};

/* --- framing --- */

static struct error *read_frame(struct call *c, struct input *in, struct image_record_head *h)
{
    TRY(input_exact(c, in, h, sizeof(*h)));
    if (h->length < 0)
        return input_bad(c, in, "record %#llx of negative length", (unsigned long long)h->type);
    return NULL;
}

static struct error *read_state(struct call *c, struct input *in)
{
    char signature[IMAGE_SIGNATURE_LEN];
    struct image_record_head h;

    TRY(input_exact(c, in, signature, sizeof(signature)));
    if (memcmp(signature, IMAGE_SIGNATURE, sizeof(signature)) != 0)
        return input_bad(c, in, "no \"XenSavedDomv2-\" signature");
    TRY(read_frame(c, in, &h));
    if (h.type != IMAGE_XENOPS)
        return input_bad(c, in, "record %#llx instead of the Xenops record", (unsigned long long)h.type);
    if (h.length > IMAGE_STATE_MAX)
        return input_bad(c, in, "the Xenops record has %lld bytes", (long long)h.length);
    char *state = arena_alloc(c->arena, (size_t)h.length + 1);
    TRY(input_exact(c, in, state, (size_t)h.length));
    in->result->state = state;
    in->result->state_len = (size_t)h.length;
    if (in->target->accept != NULL)
        return in->target->accept(in->target->ctx, c, state, (size_t)h.length);
    return NULL;
}

/* What may stand between the libxc stream and End: emulators' records, which this host has no use for. */
static struct error *read_end(struct call *c, struct input *in)
{
    struct image_record_head h;

    for (;;) {
        TRY(read_frame(c, in, &h));
        if (h.type == IMAGE_END)
            return h.length == 0 ? NULL : input_bad(c, in, "an End record of %lld bytes", (long long)h.length);
        if (h.type != IMAGE_QEMU_XEN && h.type != IMAGE_VARSTORED && h.type != IMAGE_SWTPM && h.type != IMAGE_SWTPM0)
            return input_bad(c, in, "record %#llx instead of End", (unsigned long long)h.type);
        if (h.length > IMAGE_DEVICE_MAX)
            return input_bad(c, in, "record %#llx has %lld bytes", (unsigned long long)h.type, (long long)h.length);
        in->left = (uint64_t)h.length;
        TRY(input_skip(c, in, in->left));
    }
}

/* --- libxc --- */

static struct error *read_heads(struct call *c, struct input *in)
{
    struct libxc_image_head image;
    struct libxc_domain_head domain;

    TRY(input_exact(c, in, &image, sizeof(image)));
    if (image.marker != UINT64_MAX || be32toh(image.id) != LIBXC_ID)
        return input_bad(c, in, "no libxc image header");
    if (be32toh(image.version) != LIBXC_VERSION)
        return input_bad(c, in, "libxc stream version %u", be32toh(image.version));
    if (image.options != 0)
        return input_bad(c, in, "libxc options %#x (a big-endian stream?)", be16toh(image.options));
    if (image.reserved[0] != 0 || image.reserved[1] != 0 || image.reserved[2] != 0)
        return input_bad(c, in, "reserved bits in the libxc image header");
    TRY(input_exact(c, in, &domain, sizeof(domain)));
    if (domain.type != LIBXC_TYPE_HVM)
        return input_bad(c, in, "domain type %u", domain.type);
    if (domain.page_shift != LIBXC_PAGE_SHIFT || domain.reserved != 0)
        return input_bad(c, in, "page shift %u", domain.page_shift);
    if (domain.xen_major == 0)
        return input_bad(c, in, "a converted legacy stream");
    return NULL;
}

/* Length rules of the fixed and table-shaped records. */
static struct error *check_table(struct call *c, struct input *in, const char *name, size_t entry)
{
    if (in->left == 0 || in->left % entry != 0)
        return input_bad(c, in, "%s of %llu bytes", name, (unsigned long long)in->left);
    return input_skip(c, in, in->left);
}

static struct error *read_tsc(struct call *c, struct input *in)
{
    struct libxc_tsc_info tsc;

    if (in->left != sizeof(tsc))
        return input_bad(c, in, "TSC_INFO of %llu bytes", (unsigned long long)in->left);
    TRY(input_body(c, in, &tsc, sizeof(tsc)));
    return tsc.reserved == 0 ? NULL : input_bad(c, in, "reserved bits in TSC_INFO");
}

static struct error *read_params(struct call *c, struct input *in)
{
    struct { uint32_t count, reserved; } head;

    TRY(input_body(c, in, &head, sizeof(head)));
    if (head.reserved != 0 || in->left != (uint64_t)head.count * sizeof(struct libxc_hvm_param))
        return input_bad(c, in, "%u HVM_PARAMS in %llu bytes", head.count, (unsigned long long)in->left);
    return input_skip(c, in, in->left);
}

static struct error *read_context(struct call *c, struct input *in)
{
    if (in->left == 0 || in->left > LIBXC_CONTEXT_MAX)
        return input_bad(c, in, "HVM_CONTEXT of %llu bytes", (unsigned long long)in->left);
    size_t len = (size_t)in->left;
    uint8_t *context = arena_alloc(c->arena, len);
    TRY(input_body(c, in, context, len));
    in->result->context = context;
    in->result->context_len = len;
    return NULL;
}

static struct error *once(struct call *c, const struct input *in, bool *seen, bool allowed, const char *name)
{
    if (*seen || !allowed)
        return input_bad(c, in, *seen ? "a second %s" : "%s in the wrong place", name);
    *seen = true;
    return NULL;
}

static struct error *read_body(struct call *c, struct input *in, uint32_t type, struct progress *p)
{
    switch ((enum libxc_record)type) {
    case LIBXC_CPUID_POLICY:
    case LIBXC_MSR_POLICY:
        if (p->static_done)
            return input_bad(c, in, "a CPU policy after STATIC_DATA_END");
        return check_table(c, in, "CPU policy", type == LIBXC_MSR_POLICY ? sizeof(struct libxc_msr) : sizeof(struct libxc_cpuid_leaf));
    case LIBXC_STATIC_DATA_END:
        TRY(once(c, in, &p->static_done, true, "STATIC_DATA_END"));
        return in->left == 0 ? NULL : input_bad(c, in, "STATIC_DATA_END has a body");
    case LIBXC_PAGE_DATA:
        if (!p->static_done || p->context || in->result->outstanding != NULL)
            return input_bad(c, in, "PAGE_DATA in the wrong place");
        return input_pages(c, in);
    case LIBXC_TSC_INFO:
        TRY(once(c, in, &p->tsc, p->static_done, "TSC_INFO"));
        return read_tsc(c, in);
    case LIBXC_HVM_PARAMS:
        TRY(once(c, in, &p->params, p->static_done, "HVM_PARAMS"));
        return read_params(c, in);
    case LIBXC_HVM_CONTEXT:
        TRY(once(c, in, &p->context, p->static_done, "HVM_CONTEXT"));
        return read_context(c, in);
    case LIBXC_END:
        return in->left == 0 ? NULL : input_bad(c, in, "END has a body");
    }
    if (type == LIBXC_OUTSTANDING && p->static_done && in->result->outstanding == NULL)
        return input_outstanding(c, in);
    if ((type & LIBXC_OPTIONAL) == 0)
        return input_bad(c, in, "a record of unknown type %#x", type);
    return input_skip(c, in, in->left);
}

static struct error *read_padding(struct call *c, struct input *in, uint32_t length)
{
    uint64_t zeroes = 0;

    TRY(input_exact(c, in, &zeroes, (8 - length % 8) % 8));
    return zeroes == 0 ? NULL : input_bad(c, in, "padding that is not zero");
}

static struct error *read_libxc(struct call *c, struct input *in)
{
    struct progress seen = { .static_done = false };
    struct libxc_record_head h;

    TRY(read_heads(c, in));
    do {
        TRY(input_exact(c, in, &h, sizeof(h)));
        if (h.length > LIBXC_RECORD_MAX)
            return input_bad(c, in, "a record of %u bytes", h.length);
        in->left = h.length;
        TRY(read_body(c, in, h.type, &seen));
        TRY(read_padding(c, in, h.length));
    } while (h.type != LIBXC_END);
    if (!seen.static_done || !seen.context)
        return input_bad(c, in, "END before %s", seen.static_done ? "HVM_CONTEXT" : "STATIC_DATA_END");
    return NULL;
}

struct error *input_read(struct call *c, struct byte_stream *s, const struct input_target *target, struct input_result *r)
{
    AUTO_FREE uint8_t *buffer = xcalloc(1, INPUT_BUFFER);
    struct input in = { .stream = s, .target = target, .result = r, .buffer = buffer };
    struct image_record_head h;

    *r = (struct input_result){ .state = "" };
    struct error *e = read_state(c, &in);
    if (e == NULL)
        e = read_frame(c, &in, &h);
    if (e == NULL && h.type != IMAGE_LIBXC)
        e = input_bad(c, &in, "record %#llx instead of Libxc", (unsigned long long)h.type);
    if (e == NULL)
        e = read_libxc(c, &in);
    if (e == NULL)
        e = read_end(c, &in);
    xfree(in.pfns);
    return e;
}
