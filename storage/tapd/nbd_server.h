/* The NBD server of a tapd: any number of clients over one block (the tap's gate), on the tapd's loop.
 *
 * Fixed newstyle negotiation with all options of rpc/nbd/nbd_protocol.h. Any export name is accepted: the
 * socket is the VDI. Contexts: base:allocation, xapi:hash, and qemu:dirty-bitmap:cbt with a dirty source.
 *
 * (1) Requests longer than BLOCK_REQUEST_MAX are split; a client's request is answered once. Offsets and
 *     lengths that are not multiples of 512 are EINVAL.
 * (2) Memory is taken at nbd_server_new and at accept, never for a request. Without a free buffer a
 *     connection's socket is not read. At most BLOCK_GUEST_DEPTH requests are below at any time.
 * (3) A flush covers everything acknowledged on any connection (so multi-conn is announced).
 * (4) While the gate holds requests clients wait; an inactive tap negotiates (its size is known) and waits.
 *     block_extents of a gate that is closed says -EAGAIN; the server then sends a small read through the gate
 *     and asks again when that is done, so block status waits too.
 * (5) Peers are not believed: every length is checked before use; negotiation ends within NBD_SERVER_HELLO_US
 *     and NBD_SERVER_OPTIONS_MAX options; whoever stalls inside a message while others wait for its buffers is
 *     dropped.
 *
 * All calls on the loop's thread. int results are 0 or -errno. */
#ifndef STORAGE_TAPD_NBD_SERVER_H
#define STORAGE_TAPD_NBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/tapd/block.h"
#include "storage/tapd/loop.h"

#define NBD_SERVER_CLIENTS_MAX 64u /* connections at once; more are closed at accept */
#define NBD_SERVER_HELLO_US 20000000
#define NBD_SERVER_STALL_US 30000000
#define NBD_SERVER_OPTIONS_MAX 64u

/* Which ranges of the disk were written since the tracked snapshot. NULL function: no such context. */
struct nbd_dirty_source {
    /* Covers [offset, offset + length) in order: extent.hole false means dirty. 0 or -errno. */
    int (*extents)(struct nbd_dirty_source *, int64_t offset, int64_t length, block_extent_fn *, void *ctx);
};

struct nbd_server;
/* The block is borrowed and must outlive the server; its size and read_only are looked at anew for each use. */
struct nbd_server *nbd_server_new(struct loop *, struct block *);
/* Another block from now on (both must have nothing of ours in flight). */
void nbd_server_block(struct nbd_server *, struct block *);
void nbd_server_dirty(struct nbd_server *, struct nbd_dirty_source *); /* borrowed; NULL: none. For later negotiations */

/* A Unix socket at path (replaced if one is there; mode 0600). */
NODISCARD int nbd_server_listen_unix(struct nbd_server *, const char *path, bool read_only);
/* certificate (PEM path) not NULL: STARTTLS is required before anything else. address "": all. port 0: any;
 * *port_r tells. One TCP listener at a time: the next one replaces it. */
NODISCARD int nbd_server_listen_tcp(struct nbd_server *, const char *address, unsigned port, const char *certificate, bool read_only, unsigned *port_r);
void nbd_server_unlisten_tcp(struct nbd_server *); /* its clients stay */
/* Serves NBD on a connected socket (taken, also on failure). certificate not NULL: TLS from the first byte. */
NODISCARD int nbd_server_adopt(struct nbd_server *, int fd, bool read_only, const char *certificate);
/* Drops all that were adopted; what they have below goes on. */
void nbd_server_cut(struct nbd_server *);

unsigned nbd_server_clients(const struct nbd_server *);   /* connections, also those that negotiate */
unsigned nbd_server_in_flight(const struct nbd_server *); /* requests below */

/* No new clients; new requests get ESHUTDOWN; when all that is below is answered (and sent, for peers that read)
 * the connections are closed and 'stopped' runs, once, perhaps at once. The gate must let requests through. */
void nbd_server_stop(struct nbd_server *, void (*stopped)(void *ctx), void *ctx);
/* Drops every connection. Nothing may be in flight below. NULL is fine. */
void nbd_server_free(struct nbd_server *);

#endif
