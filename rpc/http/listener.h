/* Listening sockets, shared by all loops (EPOLLEXCLUSIVE), that can be closed at run time. */
#ifndef RPC_HTTP_LISTENER_H
#define RPC_HTTP_LISTENER_H

#include "rpc/http/front.h"

/* A listening socket; counted by the server's list and by each loop that polls it. */
struct listener {
    struct source source;
    struct listener *next;
    int fd, id;
    atomic_uint refs;
    atomic_bool shut;
    bool unix_socket;
    char *unix_path;
    struct tls_context *tls; /* a reference, or NULL */
};

void listener_unref(struct listener *); /* the last one closes it */
/* New clients are refused from here on; the socket is closed with the last reference. */
void listener_shut(struct listener *);
void listener_accept(struct loop *, struct listener *);

#endif
