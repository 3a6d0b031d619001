/* Asking the running daemon through its control socket. */
#ifndef XAPI_CTL_DAEMON_H
#define XAPI_CTL_DAEMON_H

#include "xapi/core/options.h"

/* One command of n words. True: *text_r is the answer. False: what is wrong was said on stderr. */
bool ctl_ask(struct arena *, const struct options *, const char *const *words, int n, const char **text_r);

#endif
