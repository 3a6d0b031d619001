/* Where an NBD server is: the URIs of the NBD project's doc/uri.md, with the parameters we use.
 *
 *   nbd+unix:///NAME?socket=/path        nbd://host:port/NAME        nbds://host:port/NAME?fingerprint=SHA256...
 *   nbds+tls-first is not a standard scheme: tls=first as a parameter means TLS from the first byte, with
 *   server name 'sni' (how hosts reach a tapd through port 443). */
#ifndef RPC_NBD_NBD_URI_H
#define RPC_NBD_NBD_URI_H

#include <stdbool.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"

struct nbd_uri {
    const char *socket;         /* unix path, or NULL */
    const char *host;           /* else name or address, without brackets */
    unsigned port;              /* 10809 when not said */
    const char *name;           /* export; "" the default one */
    bool tls, tls_first;
    const char *fingerprint;    /* NULL: unverified */
    const char *sni;            /* NULL: host */
};

/* False when malformed or of a foreign scheme; strings in the arena. */
NODISCARD bool nbd_uri_parse(struct arena *, const char *text, struct nbd_uri *);
bool nbd_uri_is(const char *text); /* has one of our schemes */
const char *nbd_uri_unix(struct arena *, const char *socket); /* "nbd+unix:///?socket=…", escaped */

#endif
