/* "tapd list" and "tapd stats" of the control socket: the processes that serve this host's disks. */
#ifndef XAPI_CORE_TAPD_COMMAND_H
#define XAPI_CORE_TAPD_COMMAND_H

#include "xapi/core/control_socket.h"

/* A line a tapd. list: pid, state, key, what it serves, users. stats: key, then name=value words. */
control_command_fn tapd_command;

#endif
