#include <errno.h>
#include <string.h>

#include "storage/tapd/mirror_private.h"

#define WINDOW ((int64_t)256 << 20)
#define TIME_US 500 /* at a time: the guest waits for it */

struct scan { struct mirror *m; int64_t at, until_us; };

/* Blocks of a hole need no copying, but for those a guest is writing this moment. */
static void skip(struct mirror *m, int64_t offset, int64_t length)
{
    bool merge = m->options.mode == MIRROR_MERGE;

    while (length > 0) {
        uint32_t part = length < (1 << 30) ? (uint32_t)length : 1u << 30;
        int64_t past;
        if (mirror_guests_clear_of(m, offset, &part, &past)) {
            mirror_map_skip(m->map, offset, part, merge);
            past = offset + part;
        }
        length -= past - offset;
        offset = past;
    }
}

static bool extent(void *ctx, const struct block_extent *e)
{
    struct scan *s = ctx;
    bool merge = s->m->options.mode == MIRROR_MERGE;

    if (merge ? e->hole : e->hole || e->zero)
        skip(s->m, e->offset, e->length);
    s->at = e->offset + e->length;
    return mirror_now(s->m) < s->until_us;
}

void mirror_scan(struct mirror *m)
{
    struct scan s = { .m = m, .at = mirror_map_scanned(m->map), .until_us = mirror_now(m) + TIME_US };
    int64_t size = m->block.size;

    while (m->scanning && s.at < size) {
        int64_t from = s.at, length = size - from < WINDOW ? size - from : WINDOW;
        int rc = block_extents(m->source, from, length, m->options.mode == MIRROR_MERGE, extent, &s);
        if (rc == -EAGAIN)
            return;
        if (rc < 0) {
            mirror_fail(m, "the source's extents: %s", strerror(-rc));
            return;
        }
        if (s.at <= from || s.at > size)
            s.at = from + length; /* it said nothing: all is data */
        mirror_map_set_scanned(m->map, s.at);
        if (mirror_now(m) >= s.until_us)
            break;
    }
    m->scanning = s.at < size;
    if (m->scanning)
        mirror_kick(m);
}
