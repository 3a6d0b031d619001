/* Coalescing as a driver sees it: vdi_live.merge. Private to storage/. */
#ifndef STORAGE_SR_MERGE_H
#define STORAGE_SR_MERGE_H

#include "storage/sr_live.h"

/* As vdi_live.merge says. pause and resume are those of 'live'; no turn is held while the data are copied, so that
 * whoever wants the VDI can have it: the copying then ends with an error. */
NODISCARD struct error *merge_images(struct call *, struct live *, const char *location, const struct vdi_where *from, const struct vdi_where *to,
                                     bool *active_r);

#endif
