/* One API call on its way through the dispatcher: what every handler gets as its first argument.
 *
 * session -> role -> arguments -> task -> operation -> run here or forward (dispatch.c). A handler
 * finds all of that done: its args are typed, its refs exist, its session may do it. */
#ifndef XAPI_CORE_API_CALL_H
#define XAPI_CORE_API_CALL_H

#include "db/change_log.h"
#include "db/txn.h"
#include "gen/api_proto.h"
#include "gen/errors.h"
#include "gen/model_ids.h"
#include "rpc/base/call.h"

struct xapi; /* the daemon: xapi.h */

enum session_kind { SESSION_NONE, SESSION_NORMAL, SESSION_POOL /* a peer with the pool secret */, SESSION_LOCAL /* emergency */ };

struct api_call {
    struct call call;        /* first: &c->call is what lower levels take */
    struct arena *arena;     /* == call.arena */
    struct xapi *xapi;
    struct db *db;           /* of the coordinator; a member's handlers must not use it */
    const struct message_info *message;
    const char *wire_name;   /* as the client spelt it, "Async." and all */
    enum session_kind session_kind;
    const char *session;     /* ref, or NULL */
    bool superuser;          /* local root, pool peer: no role check */
    unsigned roles;          /* ROLE_* mask of the session's subject */
    const char *user;        /* for the log and audit */
    const char *task;        /* ref of the task row, or NULL where the message makes none */
    bool is_async;
    bool trusted;            /* came by local root's socket or with the pool secret */
    const char *peer;        /* "127.0.1.2", "unix"; NULL for calls of our own */
    const char *originator;  /* User-Agent, or NULL */
    const char *subtask_of;  /* header subtask-of, or NULL */
};

/* Ends the wait of the client early? Never. Long handlers: call_progress(&c->call, x) writes the
 * task's progress (at most ten times a second, never backwards); call_cancelled(&c->call) is the
 * task's cancel flag, err_task_cancelled(c->arena, c->task) the answer to it. */

/* Runs another message as part of this call, with this call's session and rights but no new task and
 * no role check: VM.clone inside VM.copy and the like. args: the generated struct. */
NODISCARD struct error *api_run(struct api_call *c, unsigned message_id, const void *args, struct value *result_r);

#endif
