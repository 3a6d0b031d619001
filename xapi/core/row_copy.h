/* A new object with the fields of another: clones of VMs and their devices. */
#ifndef XAPI_CORE_ROW_COPY_H
#define XAPI_CORE_ROW_COPY_H

#include "xapi/core/api_call.h"

/* The source's fields except uuid, inverse sets, current and allowed operations and those in 'skip'
 * (indices, ending with 0, which is uuid anyway); 'changes' come on top. The new ref in c's arena. */
NODISCARD struct error *row_copy(struct api_call *c, struct txn *, const struct row *source, const unsigned *skip,
                                 const struct field_value *changes, unsigned n_changes, const char **ref_r);

#endif
