/* SRs, PBDs and VDIs as rows, and keeping them in step with what hosts find. */
#ifndef XAPI_POOL_SR_ROWS_H
#define XAPI_POOL_SR_ROWS_H

#include "xapi/core/api_call.h"

/* One SM row per driver of storage/: made, brought up to date, or removed. */
NODISCARD struct error *sm_rows_update(struct txn *, struct arena *);
/* The SM row of a type; NULL: unknown driver. */
const struct row *sm_of_type(struct txn *, const char *type);

/* Types are in small letters, however a client spells them. */
const char *sr_type_lower(struct arena *, const char *type);
/* SR_UNKNOWN_DRIVER [type]. */
NODISCARD struct error *sr_driver_known(struct api_call *c, const char *type);

struct sr_row_spec {
    const char *uuid, *name_label, *name_description, *type, *content_type;
    bool shared;
    struct value sm_config, other_config; /* maps of strings */
};
NODISCARD struct error *sr_row_create(struct txn *, const struct sr_row_spec *, const char **ref_r);
/* Removes it with its PBDs' and VDIs' rows; the pool's default SRs that name it are cleared. */
NODISCARD struct error *sr_row_destroy(struct txn *, const struct row *sr);
/* A PBD, unplugged. */
NODISCARD struct error *pbd_row_create(struct txn *, const char *host_ref, const char *sr_ref, const struct value *device_config, const char **ref_r);
/* The PBD of an SR on a host; NULL: none. */
const struct row *pbd_of(struct txn *, const struct row *sr, const char *host_ref);

/* "sr" argument of the agent's verbs. */
struct value sr_argument(struct arena *, const struct row *sr, const struct value *device_config);

/* Plugs: attaches on the PBD's host, then writes currently_attached and the SR's sizes. A plugged one
 * is left alone unless 'again' (the host restarted). Blocks. SR_ATTACH errors as the driver gives them. */
NODISCARD struct error *pbd_plug(struct api_call *c, const char *pbd_ref, bool again);
/* VDI_IN_USE [vdi …] while VMs of that host use disks of the SR. */
NODISCARD struct error *pbd_unplug(struct api_call *c, const char *pbd_ref);
/* All PBDs of a host that has (re)started: those that were to be plugged and those that are new. Failures are logged and
 * leave currently_attached false. */
void pbd_plug_all(struct api_call *c, const char *host_ref);

/* Has the host a plugged PBD of the SR? */
bool sr_plugged_on(struct api_call *c, const char *sr_ref, const char *host_ref);
/* Some host with a plugged PBD, this host first: where SR verbs run. SR_HAS_NO_PBDS [sr]. */
NODISCARD struct error *sr_host(struct api_call *c, const char *sr_ref, const char **host_ref_r);
bool sr_is_plugged(struct api_call *c, const char *sr_ref, const char *host_ref);
/* Does the driver of an SR have a feature ("VDI_SNAPSHOT", "THIN_PROVISIONING")? */
bool sr_has_feature(struct txn *, const struct row *sr, const char *feature);
/* Reads the sizes from a host and writes them. */
NODISCARD struct error *sr_sizes_refresh(struct api_call *c, const char *sr_ref);
/* Scans on a host: new contents become VDI rows (hidden images unmanaged ones), what has changed is written, VDIs
 * that are gone are forgotten, but marked missing where a VBD names them. */
NODISCARD struct error *sr_rescan(struct api_call *c, const char *sr_ref);

#endif
