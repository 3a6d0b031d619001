/* Which handler answers: the longest matching path prefix among the routes of a method. */
#ifndef RPC_HTTP_ROUTE_H
#define RPC_HTTP_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/http/server.h"

struct route_entry {
    const struct http_route *route;
    size_t len; /* of the path without '$' */
    bool exact;
};
struct route_table { struct route_entry *entries; unsigned n; }; /* longest path first */

/* The routes must outlive the table. */
void route_table_init(struct route_table *, const struct http_route *routes);
void route_table_release(struct route_table *);
/* *status_r when there is none: 501 for a method nobody knows, 405 for HEAD of a route that takes the
 * connection over, else 404. HEAD falls back on GET routes with buffered bodies. */
const struct http_route *route_find(const struct route_table *, const char *method, const char *path, int *status_r);

#endif
