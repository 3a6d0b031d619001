/* Where a guest's tracked blocks stand on a disk. */
#ifndef XENOPS_SIM_GUEST_DISK_BLOCKS_H
#define XENOPS_SIM_GUEST_DISK_BLOCKS_H

#include "xenops/sim/guest/settings.h"
#include "xenops/sim/guest/witness.h"

#define DISK_CLUSTER 64u /* neighbouring blocks */

static inline uint64_t disk_hash(const char *device)
{
    uint64_t h = 0xcbf29ce484222325ull;

    for (; *device != '\0'; device++)
        h = (h ^ (unsigned char)*device) * 0x100000001b3ull;
    return h;
}

/* So that a block of one disk does not pass for one of another. */
static inline uint64_t disk_boot(uint64_t boot, const char *device) { return guest_mix(boot ^ disk_hash(device)); }

static inline uint64_t disk_n_blocks(const struct disk_setting *d, uint64_t wanted)
{
    uint64_t all = (uint64_t)d->size / GUEST_PAGE;

    wanted = wanted < WITNESS_BLOCKS ? wanted : WITNESS_BLOCKS;
    return wanted < all ? wanted : all;
}

/* The i-th tracked block: clusters lie evenly over the disk. */
static inline uint64_t disk_block_of(const struct disk_setting *d, uint64_t n_blocks, uint64_t i)
{
    uint64_t clusters = (n_blocks + DISK_CLUSTER - 1) / DISK_CLUSTER;
    uint64_t stride = (uint64_t)d->size / GUEST_PAGE / clusters;

    if (stride < DISK_CLUSTER)
        return i;
    return i / DISK_CLUSTER * stride + i % DISK_CLUSTER;
}

#endif
