/* The lanes of a fan_out: one for each connection, with a thread, a record under construction and its compressor. Private to
 * fan_out.c. Between two fan_lanes_run only the fan's own thread touches them. */
#ifndef XENOPS_STREAM_FAN_LANE_H
#define XENOPS_STREAM_FAN_LANE_H

#include <pthread.h>
#include <stdbool.h>

#include "rpc/base/clock.h"
#include "rpc/base/lock.h"
#include "xenops/stream/fan.h"
#include "xenops/stream/pack.h"

#define LANE_PARTS (FAN_PFNS_MAX + 16)

struct fan_lanes;
struct fan_lane {
    struct fan_lanes *all;
    struct byte_stream *to;
    pthread_t thread;
    bool threaded, job; /* job: lock */
    int rc;
    /* the record */
    struct { struct fan_head fan; struct libxc_record_head record; struct libxc_page_head page; } head;
    uint64_t pfns[FAN_PFNS_MAX];
    uint32_t n_pfns, n_data;
    bool complete;      /* of a packed one: all data is staged */
    struct iovec parts[LANE_PARTS];
    int n_parts;
    uint64_t plain;     /* bytes in parts, or staged and complete */
    /* compressing */
    struct packer *packer;
    uint8_t *staged, *packed; /* FAN_RECORD_MAX, packer_room of it; made when first needed */
    size_t n_staged;
    int64_t pack_us;
    uint64_t packed_plain, packed_bytes;
};

struct fan_lanes {
    struct fan_lane lane[FAN_MAX];
    unsigned n;
    const struct clock *clock;
    bool packing;       /* of this run */
    struct lock lock;
    struct cond work, done;
    unsigned busy;      /* lock: jobs not done */
    bool ending;        /* lock */
};

/* How many can compress at once. */
unsigned fan_lanes_start(struct fan_lanes *, struct byte_stream *const *connections, unsigned n, const struct clock *);
void fan_lanes_end(struct fan_lanes *);
/* Writes what every lane has, at the same time; the first error. */
NODISCARD int fan_lanes_run(struct fan_lanes *, bool packing, uint64_t *plain_r, int64_t *pack_us_r);

void fan_lane_begin(struct fan_lane *);
void fan_lane_pfn(struct fan_lane *, uint64_t word, bool data);
void fan_lane_head(struct fan_lane *, bool packing);
bool fan_lane_data(struct fan_lane *, const uint8_t *, size_t n, bool packing); /* false: no room before a run */
void fan_lane_complete(struct fan_lane *);
size_t fan_lane_sample(struct fan_lane *, const uint8_t *, size_t n); /* what n bytes would become */

#endif
