/* MAC addresses of virtual interfaces. */
#ifndef XAPI_CORE_MAC_H
#define XAPI_CORE_MAC_H

#include <stdbool.h>

#include "rpc/base/arena.h"

/* A random unicast, locally administered address "xx:xx:xx:xx:xx:xx". */
char *mac_make(struct arena *);
/* The same, always the same one for a seed (VM.other_config mac_seed) and a device. */
char *mac_from_seed(struct arena *, const char *seed, const char *device);
/* Six pairs of hexadecimal digits with colons, not multicast. */
bool mac_valid(const char *);

#endif
