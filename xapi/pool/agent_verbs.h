/* The verbs of a host's agent: their arguments and results, as values.
 *
 * Called through agent_call() with a map of the arguments named here. Every verb is idempotent: done
 * twice it leaves what doing it once leaves. Numbers may arrive as decimal strings (value_get_int).
 * Errors of lower levels keep their codes and carry uuids; vm_run_error and storage_error map them.
 *
 * Domains (agent_vm.c; "domain" is the map made by domain_value)
 *   vm.start     spec (vm_spec_to_value), paused        -> domain; one that runs already is left alone
 *   vm.unpause   uuid     vm.pause  uuid     vm.destroy uuid (any state, absent is fine)
 *   vm.shutdown  uuid, timeout_ms                       clean: waits for the guest, then destroys what is left
 *   vm.reboot    spec, hard, timeout_ms                 -> domain
 *   vm.suspend   uuid, path                             saves to the file and destroys the domain; on error it runs on
 *   vm.resume    spec, path, paused                     -> domain; restores from the file
 *   vm.balloon   uuid, target                           bytes
 *   vm.disk_plug uuid, disk     vm.disk_unplug uuid, disk   (disk_to_value)
 *   vm.list                                             -> set of domains
 *   vm.find      uuid                                   -> domain; DOMAIN_NOT_FOUND [uuid]
 *
 * Storage (agent_storage.c; "sr" is the map uuid, type, device_config, shared; "stat" is the map
 * location, uuid, name, format, virtual_size, physical_utilisation, read_only, is_a_snapshot, parent, hidden,
 * cbt_metadata). In vdi.* verbs sr is the uuid.
 *   sr.create  sr, size    sr.destroy sr    sr.attach sr -> sizes    sr.detach uuid
 *   sr.stat    uuid                         -> physical_size, physical_utilisation, virtual_allocation
 *   sr.scan    uuid                         -> set of stats
 *   sr.probe   type, device_config          -> set of maps
 *   sr.clean   uuid                            coalesces what can be; long
 *   vdi.create sr, uuid, size, format -> stat            vdi.destroy sr, location
 *   vdi.resize sr, location, size -> stat                vdi.stat sr, location -> stat
 *   vdi.clone  sr, location, uuid -> stat                vdi.snapshot sr, location, uuid -> stat
 *   vdi.revert sr, location, snapshot -> stat            (location of the snapshot)
 *   vdi.copy   sr, location, to_sr, to                   into a VDI that exists
 *   vdi.cbt    sr, location, on     vdi.data_destroy sr, location
 *   vdi.changed_blocks sr, from, to -> bitmap (base64), granularity
 *   vdi.attach sr, location, user, read_only, direct, cached, activate -> format, path      vdi.detach sr, location, user
 *   vdi.activate sr, location       vdi.deactivate sr, location
 *   vdi.mirror_start sr, location, to_sr, to, uri, bandwidth, budget_us, silence_us, mode ("mirror", "copy"), reconnect_us, streams
 *   vdi.mirror_status sr, location -> mirror, mirror_* (storage/tapd/control_protocol.h)
 *   vdi.mirror_set sr, location, bandwidth, budget_us (-1: as it is)
 *   vdi.mirror_switch sr, location   vdi.mirror_abort sr, location   vdi.hand_over sr, location (nobody writes any more)
 *   tap.list                                -> set of maps
 *
 * Hosts (agent_host.c)
 *   host.facts                              -> memory_total, memory_free, cpu_*, hypervisor, capabilities
 *   host.describe                           -> what a host row says of itself (host_record.h)
 *   host.certificate                        -> PEM of the certificate that its servers show
 *   host.time                               -> utc, local (seconds), local_text
 *   host.plugin plugin, fn, args            -> its output
 *   host.log -> text, host.dmesg clear -> text, host.hostname name, host.plain_http on, host.restart_agent,
 *   host.power how ("reboot", "shutdown"), pool.leave (forgets the pool and restarts as a fresh one)
 *
 * For members to call on the coordinator (coordinator.c, admit.c)
 *   coordinator.hello, coordinator.host_state, coordinator.admit_host
 *
 * Transfers, also for members to call on the coordinator: coordinator.transfer_begin, _note, _end (xapi/transfer/transfer.h)
 *
 * Migration: migrate.* (xapi/migrate/migrate.h); coordinator.migration_key (xapi/migrate/credentials.h) */
#ifndef XAPI_POOL_AGENT_VERBS_H
#define XAPI_POOL_AGENT_VERBS_H

#include "xapi/core/agent.h"

/* agent_vm.c */
agent_verb_fn agent_vm_start, agent_vm_unpause, agent_vm_pause, agent_vm_shutdown, agent_vm_reboot, agent_vm_destroy, agent_vm_suspend,
    agent_vm_resume, agent_vm_balloon, agent_vm_disk_plug, agent_vm_disk_unplug, agent_vm_list, agent_vm_find;
/* agent_storage.c */
agent_verb_fn agent_sr_create, agent_sr_destroy, agent_sr_attach, agent_sr_detach, agent_sr_stat, agent_sr_scan, agent_sr_probe,
    agent_sr_clean, agent_vdi_create, agent_vdi_destroy, agent_vdi_resize, agent_vdi_stat, agent_vdi_clone, agent_vdi_snapshot,
    agent_vdi_revert, agent_vdi_copy, agent_vdi_cbt, agent_vdi_data_destroy, agent_vdi_changed_blocks, agent_vdi_attach, agent_vdi_detach,
    agent_vdi_activate, agent_vdi_deactivate, agent_vdi_mirror_start, agent_vdi_mirror_status, agent_vdi_mirror_set,
    agent_vdi_mirror_switch, agent_vdi_mirror_abort, agent_vdi_hand_over, agent_tap_list;
/* agent_host.c */
agent_verb_fn agent_host_facts, agent_host_describe, agent_host_time, agent_host_plugin, agent_host_log, agent_host_dmesg, agent_host_hostname,
    agent_host_plain_http, agent_host_restart_agent, agent_host_certificate, agent_host_power, agent_pool_leave;
/* xapi/migrate/migrate.h, which stands above */
agent_verb_fn migrate_verb_prepare, migrate_verb_send, migrate_verb_ask, migrate_verb_abort, migrate_verb_list, migrate_verb_outcome,
    migrate_verb_settled, migrate_verb_status, migrate_verb_control;
/* xapi/migrate/credentials.h, which stands above */
agent_verb_fn credentials_verb_check;
/* xapi/migrate/preflight.h, which stands above */
agent_verb_fn preflight_verb_preflight, preflight_verb_echo, preflight_verb_probe, preflight_verb_try_disks;
/* xapi/transfer/transfer.h, which stands above */
agent_verb_fn transfer_verb_begin, transfer_verb_note, transfer_verb_end;
/* xapi/migrate/incoming.h, likewise */
agent_verb_fn incoming_verb_open, incoming_verb_admit, incoming_verb_commit, incoming_verb_abort, incoming_verb_ask;
/* coordinator.c, admit.c */
agent_verb_fn coordinator_hello, coordinator_host_state, coordinator_admit_host;

/* "domain": uuid, domid, state ("running", "paused", "suspended", "ended"), end ("", "poweroff", "reboot", "crash",
 * "killed"), memory_actual, memory_target, vcpus, started_at, guest (map of strings). */
struct domain_info;
struct value domain_value(struct arena *, const struct domain_info *);
/* All domains of this host as a set of "domain" maps: what vm_reconcile() takes. */
NODISCARD struct error *domains_value(struct call *, struct xapi *, struct value *set_r);

/* device, vdi_uuid, path, size, read_only, cdrom */
struct disk_spec;
struct value disk_to_value(struct arena *, const struct disk_spec *);
void disk_from_value(struct arena *, const struct value *, struct disk_spec *);

/* A string argument; INTERNAL_ERROR naming verb and argument when it is absent or empty. */
NODISCARD struct error *agent_need(struct call *, const struct value *args, const char *name, const char **value_r);

#endif
