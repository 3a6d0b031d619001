/* VDI rows, and the host verbs behind them. */
#ifndef XAPI_POOL_VDI_ROWS_H
#define XAPI_POOL_VDI_ROWS_H

#include "xapi/core/api_call.h"

/* A VDI's row from what the host's verb returned ("stat") and the fields a client may choose, a map by
 * field names (name_label, type, sharable, read_only, other_config, xenstore_data, sm_config, tags …). */
NODISCARD struct error *vdi_row_create(struct api_call *c, struct txn *, const char *sr_ref, const struct value *stat,
                                       const struct value *chosen, const char **ref_r);
/* The fields of a VDI that a copy of it inherits, as 'chosen'. */
struct value vdi_row_chosen(struct arena *, const struct row *vdi);
/* Removes the row, and the VBDs that point at it. */
NODISCARD struct error *vdi_row_destroy(struct txn *, const struct row *vdi);

/* Runs a vdi.* verb on a host that has the VDI's SR, with "sr" and "location" added to 'more'. Errors
 * carry references. */
NODISCARD struct error *vdi_verb(struct api_call *c, const struct row *vdi, const char *verb, const struct value *more, struct value *result_r);

#endif
