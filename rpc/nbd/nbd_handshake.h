/* The client's side of the negotiation, without a socket: bytes in, bytes out.
 *
 * For the blocking client and for tapd's asynchronous one. Use:
 *
 *   nbd_handshake_init(&h, &wish);
 *   for (;;) switch (nbd_handshake_step(&h)) {
 *     NBD_SHAKE_SEND   send all of h.out, h.out_len bytes, then step again
 *     NBD_SHAKE_RECV   receive exactly h.want bytes into h.in, then step again
 *     NBD_SHAKE_TLS    the server agreed to STARTTLS: turn the connection into TLS, then step again
 *     NBD_SHAKE_DONE   h.result holds the export; transmission begins
 *     NBD_SHAKE_FAILED h.error is -errno: -EPROTO no NBD, -ENOENT no such export, -EACCES policy,
 *                      -EKEYREJECTED no TLS where it was wished, -ENOTSUP no fixed newstyle, -EOVERFLOW size } */
#ifndef RPC_NBD_NBD_HANDSHAKE_H
#define RPC_NBD_NBD_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/nbd/nbd_protocol.h"

#define NBD_SHAKE_CONTEXTS 4u

struct nbd_wish {
    const char *name;                          /* export; borrowed until the end; at most NBD_NAME_MAX bytes */
    bool starttls;
    bool structured;                           /* ask for structured replies (needed for contexts) */
    const char *contexts[NBD_SHAKE_CONTEXTS];  /* NULL: none */
};
struct nbd_shaken {
    uint64_t size;
    unsigned flags;                            /* NBD_TFLAG_… */
    bool structured;
    bool has_context[NBD_SHAKE_CONTEXTS];
    uint32_t context_id[NBD_SHAKE_CONTEXTS];
    uint32_t block_min, block_preferred, block_max; /* 1, 4096, NBD_REQUEST_MAX where the server is silent */
};
enum nbd_shake { NBD_SHAKE_SEND, NBD_SHAKE_RECV, NBD_SHAKE_TLS, NBD_SHAKE_DONE, NBD_SHAKE_FAILED };

struct nbd_handshake {
    struct nbd_wish wish;
    struct nbd_shaken result;
    int error;
    size_t want, out_len;
    unsigned char in[NBD_NAME_MAX + 64];
    unsigned char out[NBD_NAME_MAX + 512];
    /* ours */
    unsigned state, option, replies, context;
    uint32_t reply_type, reply_len, skip;
    bool no_zeroes, got_export;
};

void nbd_handshake_init(struct nbd_handshake *, const struct nbd_wish *);
enum nbd_shake nbd_handshake_step(struct nbd_handshake *);

#endif
