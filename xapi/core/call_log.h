/* One line per API call: who, what, with what, result, milliseconds. Secrets are ***, sessions hashed.
 * Reads are logged at debug, everything else at info. */
#ifndef XAPI_CORE_CALL_LOG_H
#define XAPI_CORE_CALL_LOG_H

#include "xapi/core/dispatch.h"

void call_log(const struct api_call *c, const struct request *, const struct error *, int64_t us);

#endif
