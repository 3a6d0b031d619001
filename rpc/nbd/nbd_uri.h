/* Where an NBD server is: the URIs of the NBD project's doc/uri.md, with the parameters we use.
 *
 *   nbd+unix:///NAME?socket=/path        nbd://host:port/NAME        nbds://host:port/NAME?fingerprint=SHA256...
 *   nbds+tls-first is not a standard scheme: tls=first as a parameter means TLS from the first byte, with
 *   server name 'sni' (how hosts reach a tapd through port 443). put=<path> (percent-encoded) means: an HTTP front stands
 *   before it; "PUT <path> HTTP/1.1" with "Cookie: <cookie>" (parameter cookie, percent-encoded) comes first on the
 *   connection, and NBD begins behind the head of an answer 200. */
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
    const char *put;            /* path at an HTTP front, with its query, as it goes over the wire; NULL: there is none */
    const char *cookie;         /* for the front; a secret; NULL: none */
};

/* False when malformed or of a foreign scheme; strings in the arena. */
NODISCARD bool nbd_uri_parse(struct arena *, const char *text, struct nbd_uri *);
bool nbd_uri_is(const char *text); /* has one of our schemes */
const char *nbd_uri_shown(struct arena *, const char *text); /* for logs and status: without the cookie's value */
const char *nbd_uri_escape(struct arena *, const char *value); /* percent-encoded, for a parameter */
const char *nbd_uri_unix(struct arena *, const char *socket); /* "nbd+unix:///?socket=…", escaped */

#endif
