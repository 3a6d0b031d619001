/* The public verbs on domains of this host: the only caller of a backend's pointers.
 *
 * Each verb waits for its turn on the domain (one operation at a time per uuid), checks the state,
 * hits the fault point "xenops.<verb>", calls the backend, logs the duration. Same errors as backend.h.
 * facts, list and find wait for nobody. The callbacks of a save must not call verbs on that domain:
 * it is the save's turn. unpause, pause and resume of a domain that is so already do nothing.
 *
 * A save lasts long: what ends a guest does not wait for it. destroy and a hard reboot kill at once; shutdown and a clean
 * reboot reach the guest while it still runs. Either way the save fails with VM_BAD_POWER_STATE [running; halted], and
 * these verbs return after it has. Once the guest is suspended, shutdown and a clean reboot wait for the outcome: running
 * again, or VM_BAD_POWER_STATE [running; suspended]. throttle and postcopy_… take no turn: everything goes on beside
 * them, but a save or resume of a domain in post-copy is refused: VM_BAD_POWER_STATE [running; postcopy]. */
#ifndef XENOPS_XENOPS_H
#define XENOPS_XENOPS_H

#include "xenops/backend.h"

/* backend: "sim" or "xen". Blocks while running guests are found again. */
NODISCARD struct error *xenops_open(struct arena *, const char *backend, const char *state_dir, const struct value *options,
                                    const struct clock *, xenops_watch_fn *, void *watch_ctx, struct xenops **);
void xenops_close(struct xenops *);

NODISCARD struct error *xenops_facts(struct call *, struct xenops *, struct host_facts *);
/* create + build (+ unpause unless paused); undone on error. */
NODISCARD struct error *xenops_start(struct call *, struct xenops *, const struct vm_spec *, bool paused, struct domain_info *);
NODISCARD struct error *xenops_unpause(struct call *, struct xenops *, const char *uuid);
NODISCARD struct error *xenops_pause(struct call *, struct xenops *, const char *uuid);
/* Clean: waits for the guest, then destroys what is left. */
NODISCARD struct error *xenops_shutdown(struct call *, struct xenops *, const char *uuid, int64_t timeout_ms);
/* Clean or hard reboot: ends with a freshly built running domain of the same uuid. */
NODISCARD struct error *xenops_reboot(struct call *, struct xenops *, const struct vm_spec *, bool hard, int64_t timeout_ms, struct domain_info *);
NODISCARD struct error *xenops_destroy(struct call *, struct xenops *, const char *uuid);
NODISCARD struct error *xenops_rename(struct call *, struct xenops *, const char *from, const char *to);
NODISCARD struct error *xenops_balloon(struct call *, struct xenops *, const char *uuid, int64_t target);
/* create (memory reservation) under a temporary uuid, for an incoming migration or a resume. */
NODISCARD struct error *xenops_create(struct call *, struct xenops *, const struct vm_spec *, const char *uuid, struct domain_info *);
NODISCARD struct error *xenops_restore(struct call *, struct xenops *, const char *uuid, const struct vm_spec *, struct byte_stream *);
NODISCARD struct error *xenops_save(struct call *, struct xenops *, const char *uuid, struct byte_stream *, const struct save_policy *,
                                    const struct save_callbacks *, struct save_result *);
/* See backend.h. INTERNAL_ERROR where the backend has none (xenops_can). postcopy_send: of a domain whose save said
 * result.postcopy; destroying it breaks the stream. postcopy_receive: of a restored one, before or after it is unpaused. */
NODISCARD struct error *xenops_throttle(struct call *, struct xenops *, const char *uuid, unsigned percent);
NODISCARD struct error *xenops_postcopy_send(struct call *, struct xenops *, const char *uuid, struct byte_stream *, int64_t *bytes_r);
NODISCARD struct error *xenops_postcopy_receive(struct call *, struct xenops *, const char *uuid, struct byte_stream *, int64_t *bytes_r);
enum xenops_ability { XENOPS_THROTTLE, XENOPS_POSTCOPY };
bool xenops_can(struct xenops *, enum xenops_ability);
NODISCARD struct error *xenops_resume(struct call *, struct xenops *, const char *uuid);
NODISCARD struct error *xenops_disk_plug(struct call *, struct xenops *, const char *uuid, const struct disk_spec *);
NODISCARD struct error *xenops_disk_unplug(struct call *, struct xenops *, const char *uuid, const struct disk_spec *);
NODISCARD struct error *xenops_list(struct call *, struct xenops *, struct domain_info **infos_r, unsigned *n_r);
NODISCARD struct error *xenops_find(struct call *, struct xenops *, const char *uuid, struct domain_info *info_r); /* DOMAIN_NOT_FOUND */

#endif
