/* allowed_operations after a restart: volatile, so worked out anew for every object.
 *
 * Few objects are done before clients come in; a pool with tens of thousands starts serving first and
 * is worked through behind, a batch a transaction. Until its turn an object shows an empty list; the
 * calls themselves check for themselves, as ever. */
#ifndef XAPI_POOL_ALLOWED_REFRESH_H
#define XAPI_POOL_ALLOWED_REFRESH_H

#include "xapi/core/xapi.h"

struct allowed_refresh;

/* On the coordinator, once its rows are up to date. May block for the small part. */
struct allowed_refresh *allowed_refresh_start(struct xapi *);
void allowed_refresh_stop(struct allowed_refresh *); /* ends it early and joins; NULL is fine */

#endif
