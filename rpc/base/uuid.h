/* UUIDs (RFC 9562, version 4) and opaque references, from the kernel's random source. */
#ifndef RPC_BASE_UUID_H
#define RPC_BASE_UUID_H

#include <stdbool.h>

#include "rpc/base/arena.h"

#define UUID_LEN 36
#define REF_LEN 46 /* "OpaqueRef:" and a uuid */
#define REF_NULL "OpaqueRef:NULL"

void uuid_new(char out[UUID_LEN + 1]);
void ref_new(char out[REF_LEN + 1]);
char *uuid_make(struct arena *);
char *ref_make(struct arena *);
bool uuid_valid(const char *); /* 8-4-4-4-12 hexadecimal digits */
bool ref_is_null(const char *); /* "OpaqueRef:NULL", "" or NULL */

#endif
