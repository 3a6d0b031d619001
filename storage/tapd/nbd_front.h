/* The HTTP/1.1 exchange before NBD on a connection through a front (nbd_client.h): the request's text, and a strict
 * reader of the answer's head (RFC 9112 §4, §5), byte by byte, so that nothing behind it is taken. No I/O, no allocation. */
#ifndef STORAGE_TAPD_NBD_FRONT_H
#define STORAGE_TAPD_NBD_FRONT_H

#include <stddef.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"
#include "rpc/nbd/nbd_uri.h"

#define NBD_FRONT_HEAD_MAX 8192u

struct nbd_front {
    size_t len;
    char head[NBD_FRONT_HEAD_MAX + 1];
};

/* "PUT <put> HTTP/1.1" with Host, Cookie and an empty line, of a URI that has 'put'. In the arena. */
const char *nbd_front_request(struct arena *, const struct nbd_uri *);

/* One byte more; len must be 0 before the first. 0: more is wanted. 1: that was the last one of a head, and it says 200.
 * -EPROTO: no head of HTTP/1.x, or too long. -EACCES, -ENOENT, -ECONNREFUSED: it says something else. */
NODISCARD int nbd_front_byte(struct nbd_front *, char byte);
/* Its status line as far as it came, printable, for error texts: "HTTP/1.1 403 Forbidden". At most 'size' - 1 bytes. */
void nbd_front_line(const struct nbd_front *, char *to, size_t size);

#endif
