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
struct taps;
struct storage *storage_new(struct taps *); /* borrowed; NULL (tests): no VDI is served by a tapd */
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
/* --- data: attach (a tapd stands ready, nothing is opened) -> activate (it serves) -> deactivate (drained,
 * flushed, closed; clients wait) -> detach. 'user' is a word that names who needs it ("vbd-<uuid>", "export-<id>");
 * the last one to detach ends it. All are idempotent. -------------------------------------------------------- */
struct vdi_use {
    const char *user;
    bool read_only;
    bool direct;   /* where_r is what the driver says, open at once, with no tapd between (suspend images) */
    bool cached;   /* through the page cache, also where the driver does not ask for it */
};
/* where_r->path: an NBD URI, format "nbd", unless direct. */
NODISCARD struct error *vdi_attach(struct call *, struct storage *, const char *sr, const char *location, const struct vdi_use *, struct vdi_where *);
NODISCARD struct error *vdi_activate(struct call *, struct storage *, const char *sr, const char *location);
NODISCARD struct error *vdi_deactivate(struct call *, struct storage *, const char *sr, const char *location);
NODISCARD struct error *vdi_detach(struct call *, struct storage *, const char *sr, const char *location, const char *user); /* unknown is fine */
bool vdi_is_served(struct storage *, const char *sr, const char *location); /* a tapd stands ready for it here */
/* Hands a connected socket (borrowed) to the VDI's tapd, which speaks NBD on it (tls: TLS first, with the certificate). */
NODISCARD struct error *vdi_adopt(struct call *, struct storage *, const char *sr, const char *location, int fd, bool read_only, const char *certificate);

/* Makes 'to' in another or the same SR (it exists, reads as zeros, is at least as large) equal to 'location', which
 * is not written to meanwhile. Same SR and file system: shared or moved by the kernel where it can. Proven by hashes
 * of both media. Progress; cancel leaves 'to' undefined. */
NODISCARD struct error *vdi_copy(struct call *, struct storage *, const char *sr, const char *location, const char *to_sr, const char *to);
NODISCARD struct error *vdi_revert(struct call *, struct storage *, const char *sr, const char *location, const char *snapshot, struct vdi_stat *);
NODISCARD struct error *vdi_cbt(struct call *, struct storage *, const char *sr, const char *location, bool on);
NODISCARD struct error *vdi_data_destroy(struct call *, struct storage *, const char *sr, const char *location);
NODISCARD struct error *vdi_changed_blocks(struct call *, struct storage *, const char *sr, const char *from, const char *to, uint8_t **bitmap_r, size_t *len_r);

/* --- mirror: a VDI in use moves to another one (storage/tapd/mirror.h) ------------------------------------------
 * It goes on when this process ends, and is found again. Nobody here gives it up: whoever started it remembers that
 * and asks (vdi_mirror_status), then switches or aborts. After a switch the old VDI's status says "switched" for as
 * long as the tapd lives, and both may be repeated. */
struct vdi_mirror_spec {
    const char *to_sr, *to;       /* a fresh VDI on this host, or NULL: */
    const char *uri;              /* an NBD server */
    int64_t bandwidth, budget_us, silence_us; /* bytes/s, 0: the defaults */
    const char *mode;             /* "mirror" (NULL, ""), or "copy" of one nobody writes: ends as "done" by itself */
    int64_t reconnect_us;         /* how long a lost server is tried again; 0: the default */
    int streams;                  /* connections to a server that allows several; 0: the default */
};
NODISCARD struct error *vdi_mirror_start(struct call *, struct storage *, const char *sr, const char *location, const struct vdi_mirror_spec *);
/* The mirror_* words of status, as a map; also "mirror" itself. */
NODISCARD struct error *vdi_mirror_status(struct call *, struct storage *, const char *sr, const char *location, struct value *status_r);
NODISCARD struct error *vdi_mirror_set(struct call *, struct storage *, const char *sr, const char *location, int64_t bandwidth, int64_t budget_us);
/* Asks for the switch; waits until it is done, or the mirror failed (SR_BACKEND_FAILURE with its reason). After it
 * the tapd belongs to the target VDI (to_sr, to). */
NODISCARD struct error *vdi_mirror_switch(struct call *, struct storage *, const char *sr, const char *location);
/* Nobody writes to the VDI any more: drains, copies and proves the rest, flushes the target; then the mirror is "done" and
 * the tapd, still on the old image, holds requests. vdi_deactivate closes it; vdi_activate instead is the way back and
 * forgets the target. Waits; SR_BACKEND_FAILURE with the mirror's reason, or TASK_CANCELLED: then it may still end as done.
 * Repeating is fine, also after the tapd died in the middle. */
NODISCARD struct error *vdi_mirror_hand_over(struct call *, struct storage *, const char *sr, const char *location);
/* Waits until a mirror is "following" with its target at hand (or handed over), at most timeout_ms: SR_BACKEND_FAILURE when it is not by then, has failed,
 * or there is none. TASK_CANCELLED. */
NODISCARD struct error *vdi_mirror_ready(struct call *, struct storage *, const char *sr, const char *location, int64_t timeout_ms);
/* Breaks every connection that came by vdi_adopt, waits until nothing of theirs is under way, and takes no more of them for
 * as long as the VDI is attached. No tapd is fine. */
NODISCARD struct error *vdi_cut(struct call *, struct storage *, const char *sr, const char *location);
/* Ends a mirror that has not switched; none is fine. The source goes on. */
NODISCARD struct error *vdi_mirror_abort(struct call *, struct storage *, const char *sr, const char *location);

/* Clears up one SR for as long as there is something to do (coalescing); waits for its turn. */
NODISCARD struct error *sr_clean(struct call *, struct storage *, const char *sr);
/* The tapds of this host, for xapi-ctl: a set of maps. */
struct value storage_taps(struct storage *, struct arena *);

#endif
