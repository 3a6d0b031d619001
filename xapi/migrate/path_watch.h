/* Looks after one connection from a thread of its own and breaks it (bytes_abort) when nothing moves for too long, when the
 * call is cancelled or past its deadline, or when it lasts too long: whoever is blocked on it wakes up.
 *
 * "Moves" is what the kernel says: bytes the peer has acknowledged and bytes that came (TCP_INFO). What lies unsent or
 * unacknowledged (SIOCOUTQ) does not count, so a path that swallows packets is noticed while writes still succeed. */
#ifndef XAPI_MIGRATE_PATH_WATCH_H
#define XAPI_MIGRATE_PATH_WATCH_H

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"

enum path_verdict { PATH_FINE, PATH_STALLED, PATH_CANCELLED };

struct path_watch;
/* Borrows the call (its clock, deadline and cancel) and the stream until path_watch_stop. most_ms 0: no limit. NULL when no
 * thread can be had: then nothing is watched. */
struct path_watch *path_watch_start(struct call *, struct byte_stream *, int64_t patience_ms, int64_t most_ms);
/* Ends the watch; why it broke the stream, if it did. NULL is fine. Before the stream is closed. */
enum path_verdict path_watch_stop(struct path_watch *);

#endif
