/* The storage of this host: which SRs are attached, and the public verbs on them and their VDIs.
 *
 * The only caller of the drivers' pointers. Used by the agent's sr.* and vdi.* verbs
 * (xapi/pool/agent_storage.c); everything is named by uuid and location, results are plain.
 *
 * (1) An SR must be attached for every verb but create, destroy and probe: SR_NOT_ATTACHED [uuid].
 * (2) Calls of the SR itself run one at a time per SR; calls for one VDI (uuid, location) too; calls
 *     for different VDIs run beside each other. Waiting for one's turn ends with the call's cancel.
 * (3) What is attached is not kept on disk: the coordinator attaches again after a restart.
 *
 * Errors: those of sr_driver.h; SR_UNKNOWN_DRIVER [type]; SR_NOT_ATTACHED [uuid]; a capability the
 * driver lacks is SR_OPERATION_NOT_SUPPORTED [uuid]; a missing key of device-config is
 * SR_BACKEND_FAILURE. All may block. Lock class STORAGE; never held over I/O. */
#ifndef STORAGE_SR_H
#define STORAGE_SR_H

#include "storage/sr_driver.h"

struct storage; /* one per host */
struct storage *storage_new(void);
void storage_free(struct storage *); /* detaches what is attached; NULL is fine */

/* An SR as the caller describes it. */
struct sr_spec { const char *uuid, *type; struct value device_config; bool shared; };

NODISCARD struct error *sr_create(struct call *, struct storage *, const struct sr_spec *, int64_t size);
NODISCARD struct error *sr_destroy(struct call *, struct storage *, const struct sr_spec *); /* attached or not */
NODISCARD struct error *sr_attach(struct call *, struct storage *, const struct sr_spec *);
NODISCARD struct error *sr_detach(struct call *, struct storage *, const char *uuid); /* unknown is fine */
bool sr_is_attached(struct storage *, const char *uuid);
NODISCARD struct error *sr_stat(struct call *, struct storage *, const char *uuid, struct sr_stat *);
NODISCARD struct error *sr_scan(struct call *, struct storage *, const char *uuid, struct vdi_stat **vdis_r, unsigned *n_r);
NODISCARD struct error *sr_probe(struct call *, const char *type, const struct value *device_config, struct value *srs_r);

NODISCARD struct error *vdi_create(struct call *, struct storage *, const char *sr, const struct vdi_create_spec *, struct vdi_stat *);
NODISCARD struct error *vdi_destroy(struct call *, struct storage *, const char *sr, const char *location);
NODISCARD struct error *vdi_resize(struct call *, struct storage *, const char *sr, const char *location, int64_t size, struct vdi_stat *);
NODISCARD struct error *vdi_clone(struct call *, struct storage *, const char *sr, const char *location, const char *uuid, struct vdi_stat *);
NODISCARD struct error *vdi_snapshot(struct call *, struct storage *, const char *sr, const char *location, const char *uuid, struct vdi_stat *);
NODISCARD struct error *vdi_stat(struct call *, struct storage *, const char *sr, const char *location, struct vdi_stat *);
NODISCARD struct error *vdi_attach(struct call *, struct storage *, const char *sr, const char *location, bool read_only, struct vdi_where *);
NODISCARD struct error *vdi_detach(struct call *, struct storage *, const char *sr, const char *location);
/* Makes a VDI of the same size in another SR of this host and copies the contents. */
NODISCARD struct error *vdi_copy(struct call *, struct storage *, const char *sr, const char *location, const char *to_sr, const char *uuid,
                                 struct vdi_stat *);

#endif
