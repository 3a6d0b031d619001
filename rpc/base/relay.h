/* Carries bytes both ways between two streams. */
#ifndef RPC_BASE_RELAY_H
#define RPC_BASE_RELAY_H

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"

/* Until one of them ends or fails, or 'cancel' is raised (which this does too at its end); both are aborted then, not closed.
 * Two threads, the caller's is one of them. Blocks. */
void relay_run(struct byte_stream *, struct byte_stream *, struct cancel *);

#endif
