/* The xapi.conf keys of the pool part: one line each for the daemon's table of options (and for tests).
 *
 *   static const struct config_option options[] = { …, POOL_OPTIONS, { 0 } }; */
#ifndef XAPI_POOL_POOL_OPTIONS_H
#define XAPI_POOL_POOL_OPTIONS_H

#include "rpc/base/config.h"

/* clang-format off */
#define POOL_OPTIONS \
    { "product-brand", CONFIG_STRING, "XCP-ng", "software_version.product_brand; XenCenter insists on its own", 0, 0 }, \
    { "product-version", CONFIG_STRING, "8.3.0", "software_version.product_version", 0, 0 }, \
    { "platform-name", CONFIG_STRING, "XCP", "software_version.platform_name", 0, 0 }, \
    { "platform-version", CONFIG_STRING, "3.4.0", "software_version.platform_version: what version checks compare", 0, 0 }, \
    { "build-number", CONFIG_STRING, "cloud", "software_version.build_number", 0, 0 }, \
    { "build-date", CONFIG_STRING, "2024-10-07", "software_version.date", 0, 0 }, \
    { "xapi-version", CONFIG_STRING, "24.16.0", "software_version.xapi", 0, 0 }, \
    { "xen-version", CONFIG_STRING, "4.17.4", "software_version.xen where the hypervisor does not say", 0, 0 }, \
    { "network-backend", CONFIG_STRING, "openvswitch", "software_version.network_backend: bridge or openvswitch", 0, 0 }, \
    { "host-nics", CONFIG_INT, "2", "network interfaces of a simulated host", 1, 16 }, \
    { "local-sr", CONFIG_BOOL, "true", "a fresh host gets a local SR under <dir>/sr/local", 0, 0 }, \
    { "local-sr-path", CONFIG_STRING, "", "directory of that SR instead", 0, 0 }, \
    { "sr-watch-interval-ms", CONFIG_INT, "2000", "how soon SRs are cleared up after disks were destroyed", 10, 3600000 }, \
    { "sr-refresh-interval-ms", CONFIG_INT, "30000", "how often sizes are read, and SRs with auto-scan=true scanned", 10, 86400000 }, \
    { "sr-room-copy-factor", CONFIG_INT, "3", "room wanted on the target of a copy, times the disk; less is a warning while it fits once", 1, 100 }, \
    { "sr-room-convert-factor", CONFIG_INT, "2", "the same where the image format changes", 1, 100 }, \
    { "sr-room-snapshot-factor", CONFIG_INT, "2", "room wanted on a thick source SR for temporary snapshots", 1, 100 }, \
    { "sr-room-strict", CONFIG_BOOL, "false", "refuse where the wanted room is missing instead of warning", 0, 0 }, \
    { "plugins-dir", CONFIG_STRING, "/etc/xapi.d/plugins", "programs for host.call_plugin", 0, 0 }, \
    { "host-heartbeat-interval-ms", CONFIG_INT, "30000", "how often a member reports to its coordinator", 20, 3600000 }, \
    { "host-assumed-dead-interval-ms", CONFIG_INT, "600000", "a host silent for so long is not live", 50, 86400000 }, \
    { "fuse-time-ms", CONFIG_INT, "10000", "delay of restarts, so that the reply can leave", 0, 600000 }, \
    { "reboot-command", CONFIG_STRING, "/sbin/reboot", "host.reboot on real hardware", 0, 0 }, \
    { "shutdown-command", CONFIG_STRING, "/sbin/poweroff", "host.shutdown on real hardware", 0, 0 }
/* clang-format on */

#endif
