#include "xenops/stream/fan_lane.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"

/* --- the record --- */

void fan_lane_begin(struct fan_lane *l)
{
    l->n_pfns = l->n_data = 0;
    l->complete = false;
}

void fan_lane_pfn(struct fan_lane *l, uint64_t word, bool data)
{
    l->pfns[l->n_pfns++] = word;
    l->n_data += data;
}

static void make_room(struct fan_lane *l)
{
    if (l->packer != NULL)
        return;
    l->packer = packer_new();
    l->staged = xcalloc(1, FAN_RECORD_MAX);
    l->packed = xcalloc(1, packer_room(FAN_RECORD_MAX));
}

void fan_lane_head(struct fan_lane *l, bool packing)
{
    uint32_t length = (uint32_t)(sizeof(l->head.page) + l->n_pfns * 8 + l->n_data * LIBXC_PAGE);
    uint32_t whole = (uint32_t)sizeof(l->head.record) + length;

    if (l->n_pfns == 0)
        return;
    l->head.fan = (struct fan_head){ .kind = FAN_PAGES, .length = whole, .plain = whole };
    l->head.record = (struct libxc_record_head){ .type = LIBXC_PAGE_DATA, .length = length };
    l->head.page = (struct libxc_page_head){ .count = l->n_pfns };
    l->plain = whole;
    if (packing) {
        make_room(l);
        memcpy(l->staged, &l->head.record, sizeof(l->head.record) + sizeof(l->head.page));
        l->n_staged = sizeof(l->head.record) + sizeof(l->head.page);
        memcpy(l->staged + l->n_staged, l->pfns, l->n_pfns * 8);
        l->n_staged += l->n_pfns * 8;
        return;
    }
    l->parts[0] = (struct iovec){ &l->head, sizeof(l->head) };
    l->parts[1] = (struct iovec){ l->pfns, l->n_pfns * 8 };
    l->n_parts = 2;
}

bool fan_lane_data(struct fan_lane *l, const uint8_t *bytes, size_t n, bool packing)
{
    struct iovec *last = l->n_parts > 2 ? &l->parts[l->n_parts - 1] : NULL;

    if (packing) { /* also because a page that changes while it is compressed would spoil its neighbours */
        memcpy(l->staged + l->n_staged, bytes, n);
        l->n_staged += n;
        return true;
    }
    if (last != NULL && (const uint8_t *)last->iov_base + last->iov_len == bytes) {
        last->iov_len += n;
        return true;
    }
    if (l->n_parts == LANE_PARTS)
        return false;
    l->parts[l->n_parts++] = (struct iovec){ (void *)bytes, n };
    return true;
}

void fan_lane_complete(struct fan_lane *l) { l->complete = l->n_pfns > 0; }

size_t fan_lane_sample(struct fan_lane *l, const uint8_t *bytes, size_t n)
{
    make_room(l);
    memcpy(l->staged, bytes, n);
    return pack(l->packer, l->packed, packer_room(FAN_RECORD_MAX), l->staged, n);
}

/* --- running --- */

static bool has_work(const struct fan_lane *l, bool packing) { return packing ? l->complete && l->n_staged > 0 : l->n_parts > 0; }

static int write_packed(struct fan_lane *l)
{
    int64_t began = clock_us(l->all->clock);
    size_t len = pack(l->packer, l->packed, packer_room(FAN_RECORD_MAX), l->staged, l->n_staged), whole = l->n_staged;
    bool gains = len > 0 && len < whole;
    struct fan_head head = { .kind = gains ? FAN_ZSTD : FAN_PAGES, .length = (uint32_t)(gains ? len : whole), .plain = (uint32_t)whole };
    struct iovec parts[] = { { &head, sizeof(head) }, { gains ? l->packed : l->staged, gains ? len : whole } };

    l->pack_us = clock_us(l->all->clock) - began;
    l->packed_plain += whole;
    l->packed_bytes += head.length;
    l->n_staged = 0;
    return bytes_writev(l->to, parts, ARRAY_LEN(parts));
}

static int run(struct fan_lane *l)
{
    int n = l->n_parts;

    if (l->all->packing)
        return write_packed(l);
    l->n_parts = 0;
    return bytes_writev(l->to, l->parts, n);
}

static void *lane_run(void *arg)
{
    struct fan_lane *l = arg;
    struct fan_lanes *all = l->all;

    lock_take(&all->lock);
    for (;;) {
        while (!l->job && !all->ending)
            cond_wait(&all->work, &all->lock);
        if (!l->job)
            break;
        lock_drop(&all->lock);
        int rc = run(l);
        lock_take(&all->lock);
        l->rc = rc;
        l->job = false;
        if (--all->busy == 0)
            cond_signal(&all->done);
    }
    lock_drop(&all->lock);
    return NULL;
}

/* The last lane with work is the caller's own: it would only wait. Stopped jobs stand after a failure, too. */
static struct fan_lane *share_out(struct fan_lanes *all, bool packing)
{
    struct fan_lane *own = NULL;

    LOCK_SCOPE(&all->lock);
    all->packing = packing;
    for (unsigned i = 0; i < all->n; i++) {
        struct fan_lane *l = &all->lane[i];
        if (!has_work(l, packing))
            continue;
        if (own != NULL && own->threaded) {
            own->job = true;
            all->busy++;
        }
        own = l;
    }
    if (all->busy > 0)
        cond_broadcast(&all->work);
    return own;
}

int fan_lanes_run(struct fan_lanes *all, bool packing, uint64_t *plain_r, int64_t *pack_us_r)
{
    struct fan_lane *own;
    int rc = 0;

    for (unsigned i = 0; i < all->n; i++) {
        struct fan_lane *l = &all->lane[i];
        l->rc = 0;
        l->pack_us = 0;
        if (has_work(l, packing)) {
            *plain_r += l->plain;
            l->plain = 0;
        }
    }
    own = share_out(all, packing);
    if (own != NULL)
        rc = run(own);
    lock_take(&all->lock);
    while (all->busy > 0)
        cond_wait(&all->done, &all->lock);
    lock_drop(&all->lock);
    for (unsigned i = 0; i < all->n; i++) {
        rc = rc != 0 ? rc : all->lane[i].rc;
        *pack_us_r = all->lane[i].pack_us > *pack_us_r ? all->lane[i].pack_us : *pack_us_r;
    }
    return rc;
}

unsigned fan_lanes_start(struct fan_lanes *all, struct byte_stream *const *connections, unsigned n, const struct clock *clock)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    all->n = n;
    all->clock = clock;
    lock_init(&all->lock, LOCK_LEAF);
    cond_init(&all->work);
    cond_init(&all->done);
    for (unsigned i = 0; i < n; i++) {
        struct fan_lane *l = &all->lane[i];
        l->all = all;
        l->to = connections[i];
        l->threaded = n > 1;
        if (l->threaded)
            l->thread = thread_start("migrate-lane", lane_run, l);
    }
    return cores > 0 && (unsigned)cores < n ? (unsigned)cores : n;
}

void fan_lanes_end(struct fan_lanes *all)
{
    lock_take(&all->lock);
    all->ending = true;
    cond_broadcast(&all->work);
    lock_drop(&all->lock);
    for (unsigned i = 0; i < all->n; i++) {
        struct fan_lane *l = &all->lane[i];
        if (l->threaded)
            pthread_join(l->thread, NULL);
        packer_free(l->packer);
        xfree(l->staged);
        xfree(l->packed);
    }
    cond_release(&all->done);
    cond_release(&all->work);
    lock_release(&all->lock);
}
