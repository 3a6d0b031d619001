/* Putting the daemon together, and taking it apart again. */
#ifndef XAPI_CORE_STARTUP_H
#define XAPI_CORE_STARTUP_H

#include "xapi/core/options.h"
#include "xapi/core/xapi.h"

/* Everything main.c owns. */
struct daemon_state {
    struct xapi xapi;            /* first */
    struct options *options;
    struct arena *arena;         /* what lives as long as the daemon */
    unsigned n_started;          /* stages */
    struct control_socket *control;
    int wake_fd;                 /* eventfd: the main thread has something to look at */
    _Atomic int64_t restart_at_ms; /* mono; 0: no restart wanted */
};

/* Runs the boot stages in order; when one fails those before it are undone. */
NODISCARD struct error *startup(struct daemon_state *, struct options *, const struct clock *);
/* Undoes all stages in reverse order. Guests live on. */
void shutdown_all(struct daemon_state *);

#endif
