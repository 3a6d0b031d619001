/* The control socket: lines in, answers out, in order on each connection. Contract: control_protocol.h.
 *
 * Loop thread only. While a connection's request is not answered its next line is not looked at. */
#ifndef STORAGE_TAPD_CONTROL_H
#define STORAGE_TAPD_CONTROL_H

#include "rpc/base/arena.h"
#include "rpc/base/error.h"
#include "rpc/base/value.h"
#include "storage/tapd/loop.h"

#define CONTROL_CLIENTS_MAX 32u

struct control;
struct control_conn;
struct control_call {
    struct control_conn *conn; /* NULL: nobody waits for the answer */
    struct arena *arena;       /* lives until the answer */
    const char *verb;
    struct value arguments;    /* a map */
    int fd;                    /* came with the line; -1: none. Whoever wants it takes it (fd_steal) */
    struct control_call *next; /* of whoever holds it */
};
/* handle: answers at once or later with control_answer. */
NODISCARD int control_new(struct loop *, const char *path, void (*handle)(void *ctx, struct control_call *), void *ctx, struct control **control_r);
/* "ok" and the words of result (NULL: none), or the error. Frees the call. Tries to send at once. */
void control_answer(struct control_call *, const struct error *, const struct value *result);
/* A request from inside, with nobody to answer. */
struct control_call *control_call_new(const char *verb);
/* Drops the connections. No call of theirs may be unanswered. NULL is fine. */
void control_free(struct control *);

#endif
