/* Byte streams as objects, so that a plain socket, TLS, compression, throttles and faults stack.
 *
 * All calls block, return 0 or -errno, and belong to one thread at a time per direction. */
#ifndef RPC_BASE_BYTES_H
#define RPC_BASE_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "rpc/base/attributes.h"

struct byte_stream;
struct byte_stream_ops {
    const char *name;
    /* At least 1 byte, 0 at end of stream, or -errno. */
    ssize_t (*read)(struct byte_stream *, void *, size_t);
    /* All of the vectors or -errno. May change the vectors. */
    int (*writev)(struct byte_stream *, struct iovec *, int n);
    /* Ends the sending side (TCP shutdown, TLS close_notify). */
    int (*finish)(struct byte_stream *);
    /* Makes blocked and later calls fail with -ECONNABORTED; from any thread. */
    void (*abort)(struct byte_stream *);
    void (*close)(struct byte_stream *); /* frees */
    int (*fd)(const struct byte_stream *); /* for poll only; -1 if there is none */
    size_t (*pending)(const struct byte_stream *); /* bytes already readable without waiting on fd */
    /* Optional, where abort does not wake a poll on fd (a pipe): readable once aborted; -1 if none. */
    int (*abort_fd)(const struct byte_stream *);
};
struct byte_stream {
    const struct byte_stream_ops *ops;
    uint64_t bytes_in, bytes_out; /* kept by the wrappers below: payload bytes */
};

NODISCARD ssize_t bytes_read(struct byte_stream *, void *, size_t);
NODISCARD int bytes_read_all(struct byte_stream *, void *, size_t); /* -EPIPE on early end */
NODISCARD int bytes_write(struct byte_stream *, const void *, size_t);
NODISCARD int bytes_writev(struct byte_stream *, struct iovec *, int n);
NODISCARD int bytes_finish(struct byte_stream *);
void bytes_abort(struct byte_stream *);
void bytes_close(struct byte_stream *); /* NULL is fine */
/* Waits until readable: 1, 0 after timeout_ms (-1 = for ever), -errno; cancel_fd may be -1 (-ECANCELED). */
NODISCARD int bytes_wait(struct byte_stream *, int cancel_fd, int timeout_ms);

/* Over a descriptor (socket, pipe, file); takes the descriptor. */
struct byte_stream *bytes_from_fd(int fd);

#endif
