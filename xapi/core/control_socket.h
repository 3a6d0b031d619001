/* <dir>/xapi-ctl.sock: root's way to look inside the running daemon. One command line in, text out.
 *
 *   status                   who we are, connections, sessions, tasks, queues
 *   log set MODULE LEVEL     MODULE "all": every one
 *   fault arm SPEC, fault disarm [NAME]    with allow-faults only (rpc/base/fault.h)
 *   migrations               what is under way on this host
 *
 * The first word of an answer is "ok" or "error". Commands run on the socket's own thread, one at a time. */
#ifndef XAPI_CORE_CONTROL_SOCKET_H
#define XAPI_CORE_CONTROL_SOCKET_H

#include "xapi/core/xapi.h"

#define CONTROL_SOCKET_NAME "xapi-ctl.sock"

struct control_socket;
NODISCARD struct error *control_socket_start(struct arena *, struct xapi *, struct control_socket **socket_r);
void control_socket_stop(struct control_socket *); /* NULL is fine */

#endif
