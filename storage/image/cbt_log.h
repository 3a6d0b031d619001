/* A log of changed blocks: one bit for each 64 KiB of a disk, set when something was written there since the log
 * was made. One file beside each VDI that is tracked; tapd (storage/tapd/cbt.h) sets the bits, drivers chain
 * logs by the uuids in them and OR their bitmaps (VDI.list_changed_blocks).
 *
 * File: a header of 4,096 bytes (little-endian: "XAPICBT1", version, granularity, size, state, parent, child,
 * boot id), then the bitmap, most significant bit of a byte first, as list_changed_blocks hands it out.
 *
 * Is it to be believed? States: consistent (closed in order), open (somebody sets bits, or was killed), lost.
 * A set bit is in the page cache before the write it stands for begins: a killed tapd loses none, a host that
 * goes down does. So an open log is believed only on the boot that opened it; opened for writing on another
 * one it becomes lost, for ever. Who reads a log that is not believed must take every block as changed.
 *
 * Foreign input: magic, version, sizes and strings are checked; -EBADMSG for what is no log. Functions block
 * for file I/O and return 0 or -errno. One thread at a time for one open log. */
#ifndef STORAGE_IMAGE_CBT_LOG_H
#define STORAGE_IMAGE_CBT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/attributes.h"

#define CBT_BLOCK 65536
#define CBT_SIZE_MAX (1ll << 46) /* of a disk: 64 TiB, a bitmap of 128 MiB */

struct cbt_log_info {
    int64_t size;       /* of the disk, bytes */
    char parent[37];    /* uuid of the VDI whose log comes before; "" none */
    char child[37];     /* of the one after */
    bool believed;
};

/* Bytes of the bitmap of a disk. */
static inline size_t cbt_bitmap_size(int64_t size) { return (size_t)((size + CBT_BLOCK * 8ll - 1) / (CBT_BLOCK * 8ll)); }

/* A new log, nothing changed, its space allocated, durable. -EEXIST. Uuids or "". */
NODISCARD int cbt_log_create(const char *path, int64_t size, const char *parent, const char *child);
NODISCARD int cbt_log_info(const char *path, struct cbt_log_info *);
/* Links it anew; durable. Not while somebody writes it. NULL: as it is. */
NODISCARD int cbt_log_link(const char *path, const char *parent, const char *child);
/* The disk is larger now: what is new counts as changed. Not while somebody writes it. */
NODISCARD int cbt_log_resize(const char *path, int64_t size);
/* ORs its bitmap into 'bitmap' of 'len' bytes (a log of a smaller disk: the rest stays). -ESTALE: not believed. */
NODISCARD int cbt_log_or(const char *path, uint8_t *bitmap, size_t len);

/* --- for the one who sets bits ------------------------------------------------------------------------- */
struct cbt_log;
/* Takes an exclusive lock (-EBUSY), turns the state to open, durably. */
NODISCARD int cbt_log_open(const char *path, struct cbt_log **log_r);
/* Marks all blocks the range touches; nothing to do for those that are marked (and cheap then). When the log
 * cannot be written it becomes lost; an error only when not even that can be written. */
NODISCARD int cbt_log_mark(struct cbt_log *, int64_t offset, int64_t length);
/* The run of blocks of one kind that begins at 'offset' ends there, at most at 'end'. */
int64_t cbt_log_run(const struct cbt_log *, int64_t offset, int64_t end, bool *changed_r);
int64_t cbt_log_size(const struct cbt_log *);
NODISCARD int cbt_log_grow(struct cbt_log *, int64_t size);
/* All on the medium, state consistent (unless lost). Frees it; NULL is fine. */
int cbt_log_close(struct cbt_log *);

#endif
