/* The image files of one directory, by their names.
 *
 *   <uuid>.vhd|.raw|.qcow2        an image; of a VHD the footer says whether it is hidden
 *   hide_<uuid>.raw|.qcow2        a hidden one of a format that cannot say so itself
 *   <uuid>.cbtlog                 which blocks changed since the last snapshot; .cbtghost: file_cbt.h
 *   .journal-<uuid>               what is being done to the tree (image_journal.h)
 *   .lock                         image_turn.h
 *   *.part                        half made; removed when the SR is attached
 * Everything else is none of ours. A snapshot has the extended attribute "user.xapi.snapshot", where the file system
 * keeps such.
 *
 * All block. Results in c's arena. */
#ifndef STORAGE_DRIVERS_IMAGE_DIR_H
#define STORAGE_DRIVERS_IMAGE_DIR_H

#include <sys/types.h>

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "storage/image/image.h"

#define JOURNAL_PREFIX ".journal-"
#define LOG_SUFFIX ".cbtlog"

struct image {
    const char *location, *name, *path;
    const struct image_ops *ops;
    bool hidden, snapshot;
    int64_t virtual_size, physical_size;
    const char *parent;      /* location, "" for none or one outside the directory */
    const char *parent_path; /* as the image says, "" for none */
    ino_t inode;
};
/* damaged: some file could not be read; what it needs is not known. */
struct image_list { struct image *images; unsigned n; bool damaged; };

const char *image_path(struct call *, const char *dir, const char *name);
/* "<dir>/<location><suffix>", of a hidden one "<dir>/hide_…" where the format needs it. */
const char *image_path_of(struct call *, const char *dir, const char *location, const struct image_ops *, bool hidden);
bool image_exists(const char *path, ino_t *inode_r); /* inode_r may be NULL */
const char *part_path(struct call *, const char *path); /* "<path>.part" */

/* VDI_MISSING [sr uuid; location]. */
NODISCARD struct error *image_find(struct call *, const char *dir, const char *sr_uuid, const char *location, struct image *);
/* Removes the files of a location that is not hidden, without reading them; none is fine. */
NODISCARD struct error *image_unlink(struct call *, const char *dir, const char *location);
NODISCARD struct error *image_list_read(struct call *, const char *dir, struct image_list *);
const struct image *image_list_find(const struct image_list *, const char *location); /* NULL */
unsigned image_list_children(const struct image_list *, const char *location, const struct image **first_r); /* first_r may be NULL */

/* Somebody has it open as a leaf, or (writing) writes to it: by the lock tapd has on its first byte. */
bool image_is_locked(const struct image *, bool writing);
void image_mark_snapshot(const char *path); /* as well as the file system can */
void image_unmark_snapshot(const char *path);
/* Removes what is half made and held by nobody. */
NODISCARD struct error *dir_parts_remove(struct call *, const char *dir);
/* Keeps other hosts from taking the file for a leftover, until the descriptor is closed; -1 where it cannot. */
int part_hold(const char *path);
NODISCARD struct error *dir_flush(struct call *, const char *dir);
/* Calls fn for each name in it. Also those that begin with a dot. */
NODISCARD struct error *dir_each(struct call *, const char *dir, struct error *(*fn)(struct call *, const char *name, void *), void *ctx);
NODISCARD struct error *dir_sizes(struct call *, const char *dir, int64_t *size_r, int64_t *used_r, int64_t *free_r);

#endif
