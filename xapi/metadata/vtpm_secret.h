/* What a virtual trusted platform module holds: base64, in a secret that the VTPM row names. */
#ifndef XAPI_METADATA_VTPM_SECRET_H
#define XAPI_METADATA_VTPM_SECRET_H

#include "xapi/core/api_call.h"

#define VTPM_CONTENT "content" /* member of an exported VTPM */

const char *vtpm_secret_read(struct api_call *, const struct row *vtpm); /* "" where there is none */
NODISCARD struct error *vtpm_secret_make(struct txn *, const char *content, const char **secret_r);
/* The row and its secret. */
NODISCARD struct error *vtpm_delete(struct txn *, const struct row *vtpm);

#endif
