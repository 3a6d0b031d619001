/* Is there room on an SR for what is about to be written to it? Asked before a copy begins.
 *
 * Two amounts count. What must be written at least (plain) has to fit: else the copy could only fail half-way.
 * What the documents ask for in the worst case is a multiple of it: three times on the target of a copy
 * (sr-room-copy-factor), twice where the image format changes (sr-room-convert-factor), twice the disks on a thick
 * source SR for temporary snapshots (sr-room-snapshot-factor). Falling short of the multiple is a warning in the log,
 * since xapi copies all the same; with sr-room-strict=true it is refused.
 *
 * Errors: SR_FULL [needed; available] for targets, SR_SOURCE_SPACE_INSUFFICIENT [sr] for sources. An SR that does not
 * know its size is taken to have room. May block (the sizes are read afresh). */
#ifndef XAPI_POOL_SR_ROOM_H
#define XAPI_POOL_SR_ROOM_H

#include "xapi/core/api_call.h"

enum sr_room_use { SR_ROOM_COPY, SR_ROOM_CONVERT, SR_ROOM_SNAPSHOT };

struct sr_room {
    int64_t plain, wanted, available; /* bytes */
    bool fits, comfortable;           /* plain, wanted <= available */
};
/* Only looks. */
NODISCARD struct error *sr_room_look(struct api_call *c, const char *sr_ref, enum sr_room_use, int64_t plain, struct sr_room *room_r);
/* Looks and answers as above. */
NODISCARD struct error *sr_room_check(struct api_call *c, const char *sr_ref, enum sr_room_use, int64_t plain);

/* What a copy of the VDI takes there at least: on a thin SR what it takes now, on a thick one its size. */
int64_t sr_room_plain(struct api_call *c, const char *sr_ref, const struct row *vdi);
/* COPY, or CONVERT where the image will be of another format than the source's. format "": the SR's own choice. */
enum sr_room_use sr_room_use_of(const struct row *vdi, const char *format);

#endif
