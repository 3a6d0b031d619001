/* How many connections each address has. Any thread. */
#ifndef RPC_HTTP_QUOTA_H
#define RPC_HTTP_QUOTA_H

#include <stdbool.h>

#include "rpc/base/attributes.h"

struct quota;
struct quota *quota_new(void);
void quota_free(struct quota *); /* NULL is fine */
/* Counts one more, unless the address has 'max' already. */
NODISCARD bool quota_take(struct quota *, const char *address, unsigned max);
void quota_release(struct quota *, const char *address); /* the counterpart of a take that was granted */

#endif
