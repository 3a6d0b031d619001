/* A plain blocking NBD client over a Unix or TCP socket or a given stream: for guests of the simulator,
 * imports and exports. (tapd has an asynchronous one of its own.)
 *
 * One thread at a time, one request at a time. Structured replies where the server has them. After anything
 * but a server's error the connection is gone: every call then says -ECONNRESET until nbd_client_reconnect. */
#ifndef RPC_NBD_NBD_CLIENT_H
#define RPC_NBD_NBD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/bytes.h"
#include "rpc/nbd/nbd_uri.h"

struct nbd_client;
struct nbd_export { int64_t size; unsigned flags; /* NBD_TFLAG_… */ bool has_status; };

/* Connects (no TLS here: give a stream for that) and negotiates GO. 0 or -errno: -EPROTO for a peer that
 * does not speak the protocol, -ENOENT for an unknown export, -EKEYREJECTED for one that wants TLS. stop_fd
 * (or -1): readable = give up, -ECANCELED; it is watched by the calls below too, until nbd_client_reconnect
 * names another. */
NODISCARD int nbd_client_open(const struct nbd_uri *, int stop_fd, struct nbd_client **client_r, struct nbd_export *export_r);
/* Over a stream, which is taken (also on failure). */
NODISCARD int nbd_client_on(struct byte_stream *, const char *name, int stop_fd, struct nbd_client **client_r, struct nbd_export *export_r);
/* After -ECONNRESET, -EPIPE, …: connects again until it works or stop_fd is readable, so that the caller
 * can repeat what was not answered. Waits between tries as a server's restart needs. For nbd_client_open only. */
NODISCARD int nbd_client_reconnect(struct nbd_client *, int stop_fd);

bool nbd_client_gone(const struct nbd_client *); /* only reconnecting helps */

/* All bytes or -errno. A server's error keeps its number (-EIO, -ENOSPC, …); -ECONNRESET: the connection is gone
 * (a server that is shutting down counts as gone); -EPROTO: and its last bytes made no sense; -ECANCELED.
 * What a server does not offer is done otherwise: zeros are written, FUA becomes a flush, trim is only a hint. */
NODISCARD int nbd_read(struct nbd_client *, void *, uint32_t length, uint64_t offset);
NODISCARD int nbd_write(struct nbd_client *, const void *, uint32_t length, uint64_t offset, bool fua);
NODISCARD int nbd_flush(struct nbd_client *);
NODISCARD int nbd_trim(struct nbd_client *, uint32_t length, uint64_t offset);
NODISCARD int nbd_zero(struct nbd_client *, uint32_t length, uint64_t offset, bool no_hole);
/* base:allocation from 'offset' on: calls back for ranges until 'length' is covered. zero: reads as zeros. */
NODISCARD int nbd_status(struct nbd_client *, uint64_t offset, uint64_t length, void (*range)(void *ctx, uint64_t offset, uint64_t length, bool zero), void *ctx);
void nbd_client_close(struct nbd_client *); /* says DISC; NULL is fine */

#endif
