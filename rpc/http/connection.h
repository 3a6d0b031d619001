/* One client connection: its states, its socket, its deadlines. See front.h for the picture. */
#ifndef RPC_HTTP_CONNECTION_H
#define RPC_HTTP_CONNECTION_H

#include <sys/uio.h>

#include "rpc/http/front.h"

enum step { STEP_AGAIN, STEP_WAIT };

/* Takes the descriptor (non-blocking). NULL when it could not be polled or encrypted; fd is closed then. */
struct connection *connection_new(struct loop *, const struct listener *, int fd, const char *peer);
void connection_event(struct connection *, uint32_t epoll_events);
void connection_timeout(struct connection *);
/* Does all that can be done without waiting. */
void connection_serve(struct connection *);
/* Ends it: exchange (unless a handler has it), parked object, reply. Freed at the end of the loop's turn. */
void connection_close(struct connection *);
/* Like that, but the socket and the session live on in *fd_r and *tls_r, and the connection still counts. */
void connection_detach(struct connection *, int *fd_r, struct tls_session **tls_r);
/* The counterpart of what connection_new counted, for a detached connection that ended. */
void connection_uncount(struct http_server *, const char *peer, bool in_quota);
void connection_free(struct connection *);

void connection_enter(struct connection *, enum connection_state);
/* Answers with a status and closes, without asking any handler. */
enum step connection_refuse(struct connection *, int status);
/* c->out is what to send. */
void connection_start_writing(struct connection *);
/* Takes up what the handler answered. */
void connection_answer(struct connection *, struct http_exchange *);

/* > 0, 0 at the end, -EAGAIN or -errno. */
ssize_t connection_read(struct connection *, void *, size_t);
ssize_t connection_writev(struct connection *, const struct iovec *, int n);

/* receive.c: the states HEAD and BODY. */
enum step receive_head(struct connection *);
enum step receive_body(struct connection *);
void exchange_free(struct http_exchange *); /* NULL is fine */

/* park.c */
void park_begin(struct connection *, struct http_parked *, bool poll_now);
void park_poll(struct connection *, bool expired);
void park_end(struct connection *); /* back to the open ones; the parked object is the caller's */

#endif
