/* <dir>/xapi-ctl.sock: root's way to look inside the running daemon. One command line in, text out.
 *
 *   status                   who we are, connections, sessions, tasks, queues
 *   log set MODULE LEVEL     MODULE "all": every one
 *   fault arm SPEC, fault disarm [NAME]    with allow-faults only (rpc/base/fault.h)
 *   and what startup.c adds (migrations …: xapi/migrate/migrations_command.h; tapd list, tapd stats)
 *
 * The first word of an answer is "ok" or "error". Commands run on the socket's own thread, one at a time. */
#ifndef XAPI_CORE_CONTROL_SOCKET_H
#define XAPI_CORE_CONTROL_SOCKET_H

#include "xapi/core/xapi.h"

#define CONTROL_SOCKET_NAME "xapi-ctl.sock"

/* words[0] is the command; the answer's text is added to 'answer'. True: "ok". */
typedef bool control_command_fn(struct xapi *, unsigned n, char **words, struct text *answer);
struct control_command { const char *name; unsigned min_words, max_words; control_command_fn *run; };

struct control_socket;
/* more: commands beside the core's, ended by a NULL name; borrowed. NULL: none. */
NODISCARD struct error *control_socket_start(struct arena *, struct xapi *, const struct control_command *more,
                                             struct control_socket **socket_r);
void control_socket_stop(struct control_socket *); /* NULL is fine */

#endif
