/* VDI rows, and the host verbs behind them. */
#ifndef XAPI_POOL_VDI_ROWS_H
#define XAPI_POOL_VDI_ROWS_H

#include "xapi/core/api_call.h"

/* A VDI's row from what the host's verb returned ("stat") and the fields a client may choose, a map by
 * field names (name_label, type, sharable, read_only, other_config, xenstore_data, sm_config, tags …). */
NODISCARD struct error *vdi_row_create(struct api_call *c, struct txn *, const char *sr_ref, const struct value *stat,
                                       const struct value *chosen, const char **ref_r);
/* The row of something found on the medium: hidden images are "base copy", not managed, read-only. */
NODISCARD struct error *vdi_row_found(struct api_call *c, struct txn *, const struct row *sr, const struct value *stat, const char **ref_r);
/* What the medium says of a VDI goes into its row: sizes, parent, format, hidden, missing false. */
NODISCARD struct error *vdi_row_follow(struct api_call *c, struct txn *, const char *vdi_ref, const struct value *stat);
/* The fields of a VDI that a copy of it inherits, as 'chosen'. */
struct value vdi_row_chosen(struct arena *, const struct row *vdi);
/* Removes the row, the VBDs of disks that point at it (drives stay, empty), and what VMs say of it as their suspend image. */
NODISCARD struct error *vdi_row_destroy(struct txn *, const struct row *vdi);
/* The row of a location in an SR; NULL: none. */
const struct row *vdi_row_at(struct txn *, const struct row *sr, const char *location);

/* The host that works on a VDI: the one where a VM uses it (its tapd is there), else any with the SR plugged.
 * SR_HAS_NO_PBDS [sr]. */
NODISCARD struct error *vdi_host(struct api_call *c, const struct row *vdi, const char **host_ref_r);
/* Runs a vdi.* verb there, with "sr" and "location" added to 'more'. Errors carry references. */
NODISCARD struct error *vdi_verb(struct api_call *c, const struct row *vdi, const char *verb, const struct value *more, struct value *result_r);
/* vdi.stat, and the row follows; so does the row of the hidden image below it, made if there is none. Blocks. */
NODISCARD struct error *vdi_refresh(struct api_call *c, const char *vdi_ref);
/* The same after a change that stands whatever comes of this, with the SR's sizes: failures are logged. */
void vdi_changed(struct api_call *c, const char *vdi_ref /* or NULL */, const char *sr_ref);
/* VDI_NOT_MANAGED [vdi] for a hidden image. */
NODISCARD struct error *vdi_must_be_managed(struct api_call *c, const struct row *vdi);

#endif
