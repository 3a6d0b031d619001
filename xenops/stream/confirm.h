/* A reader that tells how far it is: the writer then knows what is still on its way, so that it can measure the link and not
 * the sockets' buffers, and can tell a slow peer from one that has gone.
 *
 * The reader writes, on the same duplex stream, 8 bytes (little-endian): how many bytes it has read since the wrapper was made;
 * at least every CONFIRM_EVERY bytes, and whenever nothing more is there to be read at once. Both sides wrap the stream at the
 * same byte of the conversation. Wrappers do not own what they wrap: closing one frees the wrapper alone. */
#ifndef XENOPS_STREAM_CONFIRM_H
#define XENOPS_STREAM_CONFIRM_H

#include <stdbool.h>

#include "rpc/base/bytes.h"

#define CONFIRM_EVERY (256u << 10)

struct byte_stream *confirm_out_new(struct byte_stream *under); /* for writing */
struct byte_stream *confirm_in_new(struct byte_stream *under);  /* for reading */

/* Of a confirm_out, from any thread; NULL gives zeroes. writing: a write is going on. */
struct confirm_state { uint64_t written, confirmed; bool writing; };
void confirm_look(const struct byte_stream *, struct confirm_state *);
/* Of a confirm_in or a fan_in, from any thread: its reader waits for bytes. Of any other stream: true. */
bool confirm_waits(const struct byte_stream *);

/* For who writes a confirm_out or a fan_out. False where nobody confirms. unread: written bytes that are not confirmed yet. */
bool confirm_unread(struct byte_stream *, uint64_t *unread_r);
/* Until at most so many are unread: 0, -ETIMEDOUT, -ECANCELED (cancel_fd, may be -1), -errno. 0 where nobody confirms. */
NODISCARD int confirm_wait(struct byte_stream *, uint64_t at_most, int cancel_fd, int timeout_ms);

/* For fan.c: the raw confirmation of a stream whose bytes the caller counts. */
NODISCARD int confirm_send(struct byte_stream *, uint64_t total);

#endif
