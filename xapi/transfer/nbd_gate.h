/* One client of a host's NBD server: greeting, TLS, the name of the disk, then a relay to the disk's tapd. */
#ifndef XAPI_TRANSFER_NBD_GATE_H
#define XAPI_TRANSFER_NBD_GATE_H

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/http/tls.h"
#include "xapi/core/xapi.h"
#include "xapi/transfer/transfer.h"

struct nbd_gate {
    struct xapi *xapi;
    struct tls_context *tls;
    int fd;                     /* ours until it is a stream's */
    struct call call;
    struct cancel *cancel;
    struct byte_stream *client, *tapd;
    bool no_zeroes, structured, encrypted;
    struct transfer transfer;
    bool open;                  /* the transfer is under way */
};

void nbd_gate_init(struct nbd_gate *, struct xapi *, struct tls_context *, int fd); /* takes fd; borrows the context */
void nbd_gate_serve(struct nbd_gate *);   /* to its end; blocks */
void nbd_gate_abort(struct nbd_gate *);   /* from another thread: makes serve end */
void nbd_gate_release(struct nbd_gate *); /* after serve */

#endif
