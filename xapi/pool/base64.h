/* RFC 4648 base64 with padding, without line breaks. */
#ifndef XAPI_POOL_BASE64_H
#define XAPI_POOL_BASE64_H

#include <stdint.h>

#include "rpc/base/arena.h"

char *base64_encode(struct arena *, const uint8_t *bytes, size_t len);

#endif
