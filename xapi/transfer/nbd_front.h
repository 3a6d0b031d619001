/* The NBD server of a host for clients from outside: disks over TLS, named "/<vdi uuid>?session_id=<session>".
 *
 * TLS is forced (STARTTLS before anything that names a disk). The export's name is the way in: session, role and disk
 * are checked as for an export over HTTP, and the disk is read through its tapd, which sees what the guest wrote.
 * Read-only. From then on bytes are relayed; the tapd speaks the protocol. */
#ifndef XAPI_TRANSFER_NBD_FRONT_H
#define XAPI_TRANSFER_NBD_FRONT_H

#include "xapi/core/xapi.h"

struct nbd_front;
/* Listens on address:nbd-port (0: any; -1: not at all). A port that is taken is logged, and nothing is served. */
struct nbd_front *nbd_front_start(struct arena *, struct xapi *);
void nbd_front_stop(struct nbd_front *); /* ends all connections and waits; NULL is fine */
int nbd_front_port(const struct nbd_front *); /* 0: not served */

#endif
