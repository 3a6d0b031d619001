/* The witness: what the guest has written, kept outside the memory and the disks that are moved.
 *
 * A shared file of latest versions, one for each page and each tracked disk block, updated after the
 * store (../guest_memory.h). After a move the guest must stand at or beyond it: a consistent but old
 * image is caught this way. A boot from scratch makes a new file; a restore keeps the one it finds. */
#ifndef XENOPS_SIM_GUEST_WITNESS_H
#define XENOPS_SIM_GUEST_WITNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xenops/sim/guest_protocol.h"

#define WITNESS_BLOCKS 16384u /* tracked blocks of a disk */

struct witness_header;
struct witness {
    struct witness_header *header; /* NULL: no witness is kept */
    _Atomic uint32_t *pages;
    _Atomic uint32_t *blocks; /* GUEST_DISKS × WITNESS_BLOCKS */
    uint64_t n_pages;
    size_t size;
};

/* A fresh one for this boot. False, with a line on stderr, when it cannot be made. path "": none. */
bool witness_create(struct witness *, const char *path, const char *uuid, uint64_t boot, uint64_t n_pages);
/* The one that is there. *found_r false when there is none. False when it belongs to another boot or shape. */
bool witness_open(struct witness *, const char *path, const char *uuid, uint64_t boot, uint64_t n_pages, bool *found_r);
void witness_close(struct witness *);

static inline void witness_page(struct witness *w, uint64_t page, uint32_t version)
{
    if (w->header != NULL)
        atomic_store_explicit(&w->pages[page], version, memory_order_release);
}
static inline uint32_t witness_page_at(const struct witness *w, uint64_t page)
{
    return w->header != NULL ? atomic_load_explicit(&w->pages[page], memory_order_acquire) : 0;
}
/* The place of a disk's blocks, by device name; NULL when there is no witness or no room. */
_Atomic uint32_t *witness_disk(struct witness *, const char *device);

#endif
