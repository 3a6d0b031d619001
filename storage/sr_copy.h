/* Copies by a tapd that exists only for them. Private to storage/. */
#ifndef STORAGE_SR_COPY_H
#define STORAGE_SR_COPY_H

#include "storage/sr_table.h"

/* 'to' becomes what 'from' is now, proven. key: of the VDI; where its tapd is active the copy follows the guest's
 * writes (mode "point"), else a tapd of its own reads 'from'. Progress; TASK_CANCELLED leaves 'to' undefined. */
NODISCARD struct error *copy_point(struct call *, struct storage *, const char *key, const struct vdi_where *from, const struct vdi_where *to);

/* The tapds made for one copy have keys of their own and one user. */
#define COPY_USER "copy"
bool copy_key_is(const char *key);

/* Waits until a mirror is 'done' or 'switched' (whichever is given) and ends it in the tapd. When it fails, or the call is
 * cancelled, it is still there for the caller to abort. Progress is mirror_copied of mirror_total. */
NODISCARD struct error *mirror_await(struct call *, struct storage *, const char *key, const char *state);
/* Why a mirror of this status is not under way any more. */
struct error *mirror_failure(struct call *, const char *key, const struct value *status);

#endif
