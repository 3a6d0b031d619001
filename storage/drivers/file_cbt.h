/* Changed block tracking of the file drivers: one log a VDI, "<uuid>.cbtlog" (storage/image/cbt_log.h).
 *
 * The log of a VDI says what changed since the snapshot before it, which it names as its parent. A snapshot takes the
 * log of its VDI, and the VDI begins a new one: so the logs on the way from a VDI back to an older one of its line,
 * joined, say what differs. The log of a VDI that is gone goes into the log after it; while a tapd has that one open
 * it waits as a ghost, "<uuid>.cbtghost". Nobody but its tapd ever changes a log that is open.
 *
 * With the turn held, but for file_cbt_path and file_cbt_exists. */
#ifndef STORAGE_DRIVERS_FILE_CBT_H
#define STORAGE_DRIVERS_FILE_CBT_H

#include "storage/drivers/file_sr.h"

const char *file_cbt_path(struct call *, const char *dir, const char *location);
bool file_cbt_exists(struct call *, const char *dir, const char *location);
/* The log of a VDI that is there, or the ghost of one that is not; NULL: neither. */
const char *file_cbt_log_of(struct call *, const char *dir, const char *location);
/* The locations that have a log. */
NODISCARD struct error *file_cbt_list(struct call *, const char *dir, const char ***locations_r, unsigned *n_r);
/* A VDI of which nothing but the log is left. */
NODISCARD struct error *file_cbt_stat(struct call *, const char *dir, const char *location, struct vdi_stat *);
/* The VDI is gone, or is not to be tracked any more; no log is fine. */
NODISCARD struct error *file_cbt_remove(struct call *, const char *dir, const char *location);
/* Gives up a log that was open when its host went down. */
NODISCARD struct error *file_cbt_check(struct call *, const char *dir, const char *location);
/* One that is open grows by its tapd. */
NODISCARD struct error *file_cbt_resize(struct call *, const char *dir, const char *location, int64_t size);
/* All of it may have changed; nothing where there is no log. Not while it is open. */
NODISCARD struct error *file_cbt_fill(struct call *, const char *dir, const char *location, int64_t size);
/* Joins ghosts with the logs after them, where those are closed. */
NODISCARD struct error *file_cbt_tidy(struct call *, const char *dir);

/* Around the commit of a snapshot (image_fork.c); nothing where leaf has no log. commit and undo may be repeated. */
NODISCARD struct error *file_cbt_fork_prepare(struct call *, const char *dir, const char *leaf, const char *snapshot);
NODISCARD struct error *file_cbt_fork_commit(struct call *, const char *dir, const char *leaf);
NODISCARD struct error *file_cbt_fork_undo(struct call *, const char *dir, const char *leaf, const char *snapshot);
/* The same where the leaf may have been written to since the commit. */
NODISCARD struct error *file_cbt_copy_undo(struct call *, const char *dir, const char *leaf, const char *snapshot);
/* What the log of 'from' says, which may be open, is said by that of 'to' as well. */
NODISCARD struct error *file_cbt_add(struct call *, const char *dir, const char *from, const char *to);

#endif
