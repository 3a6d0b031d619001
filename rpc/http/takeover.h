/* Connections that left the server: each has a thread and a blocking stream. */
#ifndef RPC_HTTP_TAKEOVER_H
#define RPC_HTTP_TAKEOVER_H

#include "rpc/http/front.h"

struct takeover_list;
struct takeover_list *takeover_list_new(void);
/* From here on every stream, also of a takeover that is yet to come, is aborted. */
void takeover_list_abort(struct takeover_list *);
void takeover_list_cut(struct takeover_list *, int listener_id); /* those that came through one listener */
/* Waits for the threads. Streams that outlive them stay closable. */
void takeover_list_free(struct takeover_list *); /* NULL is fine */

/* Moves the connection's socket, session and buffered bytes to a new thread, and the exchange with them. */
void takeover_begin(struct connection *, struct http_exchange *);

#endif
