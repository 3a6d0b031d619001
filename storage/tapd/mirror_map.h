/* What a mirror knows about each 4,096 bytes of the disk, in one mapped file that survives the process.
 *
 * Planes of bits, each transition made so that a kill -9 between any two stores loses nothing:
 *   dirty      the target lacks it. Set before a guest's write is submitted and again when it is done
 *   copying    being copied: set, then dirty is cleared, then the source is read. Found again it is dirty
 *   unproven   the two media were not yet seen to be equal. Dirty or copying is always unproven too
 *   proving    being proven: set, then unproven is cleared, then both media are read. Found again: unproven
 *   unflushed, flushing   written to the target since it last was stable, or while it is being made so.
 *              Found again, or when the target was lost: unproven
 * The kernel keeps the pages of a killed process; a map of another boot is not believed, nor is one that
 * says other than the spec.
 *
 * Ranges are bytes, any multiples of 512 inside the disk; they count as the whole blocks they touch. Byte
 * counts are of whole blocks, but at most the size. */
#ifndef STORAGE_TAPD_MIRROR_MAP_H
#define STORAGE_TAPD_MIRROR_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/attributes.h"

#define MIRROR_MAP_BLOCK 4096u
#define MIRROR_MAP_SIZE_MAX ((int64_t)1 << 46) /* 64 TiB */

struct mirror_map;

struct mirror_map_spec {
    const char *path;      /* NULL: in memory only */
    int64_t size;          /* of the disk */
    const char *identity;  /* mode, source and target; cut at 2,000 bytes */
    const char *boot;      /* NULL: this boot of the kernel */
    bool proof;            /* false: nothing is ever unproven */
    bool once;             /* mode point: what was copied cannot be compared again, so nothing of it becomes unproven again */
};
enum mirror_map_found {
    MIRROR_MAP_FRESH,      /* nothing was there: all is dirty and unproven, nothing is scanned */
    MIRROR_MAP_RESUMED,
    MIRROR_MAP_DOUBTFUL,   /* what was there is no map of this mirror: as fresh, but nobody knows what the target holds */
};
/* 0 or -errno. Blocks. */
NODISCARD int mirror_map_open(const struct mirror_map_spec *, struct mirror_map **map_r, enum mirror_map_found *found_r);
void mirror_map_close(struct mirror_map *, bool remove); /* NULL is fine */
void mirror_map_forget(struct mirror_map *); /* the mirror is over, the file goes now. The bits stay until close */
void mirror_map_spoil(struct mirror_map *);  /* nobody must resume from it: found again it is doubtful */

int64_t mirror_map_dirty(const struct mirror_map *);    /* bytes dirty or copying */
int64_t mirror_map_unproven(const struct mirror_map *); /* bytes unproven or proving */
int64_t mirror_map_unflushed(const struct mirror_map *);

/* Up to where the source's extents were looked at; kept in the map. What lies beyond is dirty. */
int64_t mirror_map_scanned(const struct mirror_map *);
void mirror_map_set_scanned(struct mirror_map *, int64_t);
/* Nothing to copy in whole blocks of the range; proven: nor to prove. */
void mirror_map_skip(struct mirror_map *, int64_t offset, int64_t length, bool proven);

/* Written by the guest, or to be repaired. Bytes that were not dirty before. */
int64_t mirror_map_written(struct mirror_map *, int64_t offset, int64_t length);
bool mirror_map_is_dirty(const struct mirror_map *, int64_t offset, int64_t length); /* any of it dirty or copying */
bool mirror_map_is_unproven(const struct mirror_map *, int64_t offset, int64_t length); /* any of it unproven or proving */

/* The next run that is dirty and not being copied, in [from, end), of at most max bytes (a multiple of 4,096) and
 * not across a multiple of max. False: none. */
bool mirror_map_next_dirty(const struct mirror_map *, int64_t from, int64_t end, uint32_t max, int64_t *offset_r, uint32_t *length_r);
void mirror_map_copy_begin(struct mirror_map *, int64_t offset, uint32_t length);
void mirror_map_copy_end(struct mirror_map *, int64_t offset, uint32_t length, bool copied); /* false: dirty again */

/* The next run to prove: unproven, neither dirty nor copying nor proving; small gaps that are proven already may be
 * in it (not in mode point). Looks only so far in one call: false with *offset_r where to go on, the size when there is nothing more. */
bool mirror_map_next_unproven(const struct mirror_map *, int64_t from, uint32_t max, int64_t *offset_r, uint32_t *length_r);
/* The same, without gaps and of any length up to max: for what is proven at once. */
bool mirror_map_next_unproven_run(const struct mirror_map *, int64_t from, int64_t end, int64_t max, int64_t *offset_r, int64_t *length_r);
void mirror_map_proven(struct mirror_map *, int64_t offset, int64_t length); /* at once, nothing in between */
void mirror_map_prove_begin(struct mirror_map *, int64_t offset, uint32_t length);
/* Was any of it written (or is it being copied) since prove_begin? Then what was read means nothing. */
bool mirror_map_touched(const struct mirror_map *, int64_t offset, uint32_t length);
void mirror_map_prove_end(struct mirror_map *, int64_t offset, uint32_t length, bool proven); /* false: unproven again */

/* The target is made stable: between begin and end(true) copies may go on, they count for the next time. */
void mirror_map_flush_begin(struct mirror_map *);
void mirror_map_flush_end(struct mirror_map *, bool flushed);
/* The target was away: what it had not made stable is unproven. No flush is under way. */
void mirror_map_target_lost(struct mirror_map *);

#endif
