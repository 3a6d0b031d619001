/* The writing side of a fan: follows the image, hands every page to its lane. The lanes write at the same time, and a write
 * returns when all have done: so nothing is copied where nothing is compressed. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "xenops/stream/confirm.h"
#include "xenops/stream/fan_auto.h"
#include "xenops/stream/fan_lane.h"
#include "xenops/stream/fan_private.h"

#define SAMPLE_BYTES (128u << 10)

enum place {
    AT_SIGNATURE, AT_FRAME, AT_PAYLOAD, AT_HEADS, AT_RECORD, AT_BODY, AT_PAGE_HEAD, AT_PFNS, AT_DATA, AT_THE_END,
};

struct fan_out {
    struct byte_stream stream; /* first member */
    struct fan_lanes lanes;
    const struct clock *clock;
    enum fan_compress compress;
    struct fan_auto choice;
    struct fan_stats stats;
    /* where we are in the image */
    enum place place;
    uint8_t head[sizeof(struct libxc_image_head) + sizeof(struct libxc_domain_head)];
    size_t held, want;     /* of head, or of pfns in bytes */
    uint64_t left;         /* of a payload or a body, padding counted */
    bool in_libxc;         /* the body's record ends with END */
    uint32_t record_length;
    uint32_t count, n_data, data_at, page_at; /* of the PAGE_DATA record: pfns, pages, page and byte in it that come next */
    uint64_t pfns[FAN_PFNS_MAX];
    uint8_t lane_of[FAN_PFNS_MAX]; /* of each page of data */
    bool packing;
    /* what goes at a barrier */
    bool at_barrier;
    uint32_t barrier;
    size_t n_raw;
    uint8_t raw[FAN_RAW_MAX];
};

const char *fan_compress_name(enum fan_compress c)
{
    static const char *const names[] = { [FAN_OFF] = "off", [FAN_ON] = "on", [FAN_AUTO] = "auto" };

    return names[c];
}

/* --- barriers and what is between them --- */

static int put_raw(struct fan_out *f)
{
    const struct fan_head head = { .kind = FAN_RAW, .length = (uint32_t)f->n_raw, .plain = (uint32_t)f->n_raw };
    struct iovec parts[] = { { (void *)&head, sizeof(head) }, { f->raw, f->n_raw } };

    if (f->n_raw == 0)
        return 0;
    f->n_raw = 0;
    return bytes_writev(f->lanes.lane[0].to, parts, ARRAY_LEN(parts));
}

static int put_everywhere(struct fan_out *f, enum fan_kind kind, uint32_t number)
{
    const struct fan_head head = { .kind = kind, .plain = number };
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < f->lanes.n; i++)
        rc = bytes_write(f->lanes.lane[i].to, &head, sizeof(head));
    return rc;
}

static int add_raw(struct fan_out *f, const uint8_t *bytes, size_t n)
{
    int rc = 0;

    if (!f->at_barrier) {
        f->at_barrier = true;
        rc = put_everywhere(f, FAN_BARRIER, ++f->barrier);
    }
    while (rc == 0 && n > 0) {
        size_t room = sizeof(f->raw) - f->n_raw, part = n < room ? n : room;
        memcpy(f->raw + f->n_raw, bytes, part);
        f->n_raw += part;
        bytes += part;
        n -= part;
        if (f->n_raw == sizeof(f->raw))
            rc = put_raw(f);
    }
    return rc;
}

static int leave_barrier(struct fan_out *f)
{
    const struct fan_head head = { .kind = FAN_RELEASE };
    int rc;

    if (!f->at_barrier)
        return 0;
    f->at_barrier = false;
    rc = put_raw(f);
    return rc != 0 ? rc : bytes_write(f->lanes.lane[0].to, &head, sizeof(head));
}

static int end_image(struct fan_out *f)
{
    int rc = put_raw(f);

    f->place = AT_THE_END;
    return rc != 0 ? rc : put_everywhere(f, FAN_END, 0);
}

/* --- pages --- */

static int run_lanes(struct fan_out *f)
{
    int64_t began = clock_us(f->clock), pack_us = 0;
    uint64_t plain = 0;
    int rc = fan_lanes_run(&f->lanes, f->packing, &plain, &pack_us);

    if (f->compress == FAN_AUTO && plain > 0)
        fan_auto_moved(&f->choice, clock_us(f->clock), plain, clock_us(f->clock) - began, pack_us);
    return rc;
}

/* All pfns are here: every lane gets the head of its own record. */
static int split_record(struct fan_out *f)
{
    f->n_data = 0;
    for (unsigned i = 0; i < f->lanes.n; i++)
        fan_lane_begin(&f->lanes.lane[i]);
    for (uint32_t i = 0; i < f->count; i++) {
        unsigned type = LIBXC_PFN_TYPE(f->pfns[i]), lane = fan_stripe(f->pfns[i] & LIBXC_PFN_MASK, f->lanes.n);
        bool data = type < LIBXC_PFN_BROKEN;
        fan_lane_pfn(&f->lanes.lane[lane], f->pfns[i], data);
        if (data)
            f->lane_of[f->n_data++] = (uint8_t)lane;
    }
    if (f->record_length != sizeof(struct libxc_page_head) + f->count * 8 + (uint64_t)f->n_data * LIBXC_PAGE)
        return -EPROTO;
    f->packing = f->compress == FAN_ON || (f->compress == FAN_AUTO && f->choice.packing);
    f->stats.blocks++;
    f->stats.zstd_blocks += f->packing;
    f->stats.plain_bytes += f->record_length;
    for (unsigned i = 0; i < f->lanes.n; i++)
        fan_lane_head(&f->lanes.lane[i], f->packing);
    f->data_at = f->page_at = 0;
    f->place = AT_DATA;
    return 0;
}

static void sample(struct fan_out *f, const uint8_t *bytes, size_t n)
{
    int64_t began = clock_us(f->clock);
    size_t packed;

    n = n < SAMPLE_BYTES ? n : SAMPLE_BYTES;
    packed = fan_lane_sample(&f->lanes.lane[0], bytes, n);
    if (packed > 0)
        fan_auto_sample(&f->choice, clock_us(f->clock), n, packed, clock_us(f->clock) - began);
}

/* Takes of the pages; *n_r: so many bytes. */
static int add_data(struct fan_out *f, const uint8_t *bytes, size_t n, size_t *n_r)
{
    size_t done = 0;
    int rc = 0;

    if (f->compress == FAN_AUTO && n >= SAMPLE_BYTES / 2 && fan_auto_wants_sample(&f->choice, clock_us(f->clock)))
        sample(f, bytes, n);
    while (rc == 0 && done < n && f->data_at < f->n_data) {
        size_t part = LIBXC_PAGE - f->page_at < n - done ? LIBXC_PAGE - f->page_at : n - done;
        struct fan_lane *lane = &f->lanes.lane[f->lane_of[f->data_at]];
        if (!fan_lane_data(lane, bytes + done, part, f->packing))
            rc = run_lanes(f); /* no room for more parts: what there is goes, then it fits */
        else {
            done += part;
            f->page_at = (f->page_at + (uint32_t)part) % LIBXC_PAGE;
            f->data_at += f->page_at == 0;
        }
    }
    *n_r = done;
    return rc;
}

static int end_record(struct fan_out *f)
{
    for (unsigned i = 0; i < f->lanes.n; i++)
        fan_lane_complete(&f->lanes.lane[i]);
    int rc = run_lanes(f);

    f->place = AT_RECORD;
    return rc;
}

/* --- following the image --- */

static size_t wanted(const struct fan_out *f)
{
    switch (f->place) {
    case AT_SIGNATURE:
        return IMAGE_SIGNATURE_LEN;
    case AT_FRAME:
        return sizeof(struct image_record_head);
    case AT_HEADS:
        return sizeof(struct libxc_image_head) + sizeof(struct libxc_domain_head);
    case AT_RECORD:
        return sizeof(struct libxc_record_head);
    case AT_PAGE_HEAD:
        return sizeof(struct libxc_page_head);
    case AT_PFNS:
        return f->count * sizeof(uint64_t);
    case AT_PAYLOAD:
    case AT_BODY:
    case AT_DATA:
    case AT_THE_END:
        break;
    }
    return 0;
}

static int frame(struct fan_out *f)
{
    struct image_record_head h;

    memcpy(&h, f->head, sizeof(h));
    int rc = add_raw(f, f->head, sizeof(h));
    if (rc != 0)
        return rc;
    if (h.type == IMAGE_END)
        return end_image(f);
    if (h.type == IMAGE_LIBXC) {
        f->place = AT_HEADS;
        return 0;
    }
    if (h.length < 0 || h.length > (int64_t)IMAGE_STATE_MAX + IMAGE_DEVICE_MAX)
        return -EPROTO;
    f->left = (uint64_t)h.length;
    f->in_libxc = false;
    f->place = f->left > 0 ? AT_PAYLOAD : AT_FRAME;
    return 0;
}

static int record(struct fan_out *f)
{
    struct libxc_record_head h;

    memcpy(&h, f->head, sizeof(h));
    if (h.length > LIBXC_RECORD_MAX)
        return -EPROTO;
    if (h.type == LIBXC_PAGE_DATA) {
        f->record_length = h.length;
        f->place = AT_PAGE_HEAD;
        return leave_barrier(f);
    }
    f->left = ((uint64_t)h.length + 7) / 8 * 8;
    f->place = h.type == LIBXC_END ? AT_FRAME : f->left > 0 ? AT_BODY : AT_RECORD;
    return h.type == LIBXC_END && h.length != 0 ? -EPROTO : add_raw(f, f->head, sizeof(h));
}

static int page_head(struct fan_out *f)
{
    struct libxc_page_head h;

    memcpy(&h, f->head, sizeof(h));
    if (h.count == 0 || h.count > FAN_PFNS_MAX || h.reserved != 0)
        return -EPROTO;
    f->count = h.count;
    f->place = AT_PFNS;
    return 0;
}

/* A head is complete. */
static int got_head(struct fan_out *f)
{
    size_t n = f->held;

    f->held = 0;
    switch (f->place) {
    case AT_SIGNATURE:
        f->place = AT_FRAME;
        return memcmp(f->head, IMAGE_SIGNATURE, n) == 0 ? add_raw(f, f->head, n) : -EPROTO;
    case AT_FRAME:
        return frame(f);
    case AT_HEADS:
        f->place = AT_RECORD;
        return add_raw(f, f->head, n);
    case AT_RECORD:
        return record(f);
    case AT_PAGE_HEAD:
        return page_head(f);
    case AT_PFNS:
        return split_record(f);
    case AT_PAYLOAD:
    case AT_BODY:
    case AT_DATA:
    case AT_THE_END:
        break;
    }
    return -EPROTO;
}

static int take_head(struct fan_out *f, const uint8_t *bytes, size_t n, size_t *n_r)
{
    size_t want = wanted(f) - f->held, part = n < want ? n : want;
    uint8_t *to = f->place == AT_PFNS ? (uint8_t *)f->pfns : f->head;

    memcpy(to + f->held, bytes, part);
    f->held += part;
    *n_r = part;
    if (part < want)
        return 0;
    int rc = got_head(f);
    return rc == 0 && f->place == AT_DATA && f->n_data == 0 ? end_record(f) : rc;
}

static int take_body(struct fan_out *f, const uint8_t *bytes, size_t n, size_t *n_r)
{
    *n_r = f->left < n ? (size_t)f->left : n;
    f->left -= *n_r;
    if (f->left == 0)
        f->place = f->place == AT_PAYLOAD ? AT_FRAME : AT_RECORD;
    return add_raw(f, bytes, *n_r);
}

static int feed(struct fan_out *f, const uint8_t *bytes, size_t n)
{
    int rc = 0;

    for (size_t done = 0; rc == 0 && n > 0; bytes += done, n -= done) {
        done = 0;
        if (f->place == AT_THE_END)
            return -EPROTO;
        if (f->place == AT_PAYLOAD || f->place == AT_BODY)
            rc = take_body(f, bytes, n, &done);
        else if (f->place != AT_DATA)
            rc = take_head(f, bytes, n, &done);
        else {
            rc = add_data(f, bytes, n, &done);
            if (rc == 0 && f->data_at == f->n_data)
                rc = end_record(f);
        }
    }
    return rc;
}

/* --- the stream --- */

static int out_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    struct fan_out *f = (struct fan_out *)s;
    int rc = 0;

    for (int i = 0; rc == 0 && i < n; i++)
        rc = feed(f, parts[i].iov_base, parts[i].iov_len);
    if (rc == 0 && f->place == AT_DATA) /* the caller's memory is the caller's again */
        rc = run_lanes(f);
    return rc;
}

static ssize_t out_read(struct byte_stream *s, void *to, size_t n) { return -ENOTSUP; }
static int out_finish(struct byte_stream *s) { return 0; }
static int no_fd(const struct byte_stream *s) { return -1; }
static size_t nothing_pending(const struct byte_stream *s) { return 0; }

static void out_abort(struct byte_stream *s)
{
    struct fan_out *f = (struct fan_out *)s;

    for (unsigned i = 0; i < f->lanes.n; i++)
        bytes_abort(f->lanes.lane[i].to);
}

static void out_close(struct byte_stream *s)
{
    struct fan_out *f = (struct fan_out *)s;

    fan_lanes_end(&f->lanes);
    xfree(f);
}

const struct byte_stream_ops fan_out_ops = {
    .name = "fan-out",
    .read = out_read,
    .writev = out_writev,
    .finish = out_finish,
    .abort = out_abort,
    .close = out_close,
    .fd = no_fd,
    .pending = nothing_pending,
};

struct byte_stream *fan_out_new(struct byte_stream *const *connections, unsigned n, enum fan_compress compress, const struct clock *clock)
{
    struct fan_out *f = xcalloc(1, sizeof(*f));

    f->stream.ops = &fan_out_ops;
    f->clock = clock;
    f->compress = compress;
    f->at_barrier = true;
    fan_auto_init(&f->choice, fan_lanes_start(&f->lanes, connections, n, clock));
    return &f->stream;
}

void fan_out_stats(const struct byte_stream *s, struct fan_stats *stats_r)
{
    const struct fan_out *f = (const struct fan_out *)s;

    *stats_r = f->stats;
    for (unsigned i = 0; i < f->lanes.n; i++) {
        stats_r->zstd_plain += f->lanes.lane[i].packed_plain;
        stats_r->zstd_bytes += f->lanes.lane[i].packed_bytes;
    }
}

/* In bytes of the image: what is on its way was compressed like the rest. */
bool fan_out_unread(struct byte_stream *s, uint64_t *unread_r)
{
    struct fan_out *f = (struct fan_out *)s;
    uint64_t unread = 0, wire = 0, one;

    for (unsigned i = 0; i < f->lanes.n; i++) {
        if (!confirm_unread(f->lanes.lane[i].to, &one))
            return false;
        unread += one;
        wire += f->lanes.lane[i].to->bytes_out;
    }
    *unread_r = wire > 0 && f->compress != FAN_OFF ? (uint64_t)((double)unread * (double)s->bytes_out / (double)wire) : unread;
    return true;
}

int fan_out_wait(struct byte_stream *s, uint64_t at_most, int cancel_fd, int timeout_ms)
{
    struct fan_out *f = (struct fan_out *)s;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < f->lanes.n; i++)
        rc = confirm_wait(f->lanes.lane[i].to, at_most / f->lanes.n, cancel_fd, timeout_ms);
    return rc;
}
