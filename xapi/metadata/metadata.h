/* A VM's records as a file: what GET /export_metadata gives and PUT /import_metadata takes, in the form of an XVA without
 * disks: a tar with one member "ova.xml", an XML-RPC value
 *   { version: { hostname, date, product_version, product_brand, build_number, xapi_major "1", xapi_minor "20", export_vsn "2" },
 *     objects: [ { class, id: "Ref:n", snapshot: the record with references written as "Ref:n" } … ] }
 * (xapi's export.ml and importexport.ml; what genuine xe and XenCenter read and write). Order of objects: host, SR, VDI, VM,
 * network, GPU_group, VBD, VIF, VGPU, VTPM, VM_guest_metrics, …
 *
 * Export takes a consistent snapshot of the database and never blocks it. Import is strict about what it needs and tolerant
 * about classes and fields that it does not know. */
#ifndef XAPI_METADATA_METADATA_H
#define XAPI_METADATA_METADATA_H

#include "rpc/base/text.h"
#include "rpc/http/server.h"
#include "xapi/core/api_call.h"

/* Keys of other_config that a migration uses on the way: what a VDI, VIF or VGPU is there (in the file only); the migration
 * that a VM here belongs to until it commits; "true" or "false": the VM's ha_always_run, which is false until then. Whoever
 * commits removes the last two and puts the flag back. */
#define METADATA_MAPS_TO "maps_to"
#define METADATA_INCOMING "incoming"
#define METADATA_INCOMING_HA "incoming_ha"

struct metadata_export {
    const char *const *vms; unsigned n_vms; /* refs */
    bool snapshots;               /* with their snapshots */
    bool preserve_power_state;    /* else they are Halted, without suspend image, their devices unplugged */
    bool include_vhd_parents;     /* also the disks that others are stored as a difference to (sm_config:vhd-parent) */
    const char *excluded;         /* "VIF,VGPU": device classes left out; NULL: none */
    /* Of a migration: "maps_to" in other_config of VDI, VIF and VGPU records (ref there), by ref here; maps of strings or NULL. */
    const struct value *maps_to;
};
/* The tar, appended. */
NODISCARD struct error *metadata_write(struct api_call *, const struct metadata_export *, struct text *tar);

struct metadata_import {
    bool restore;                 /* keep uuid, MACs; else a new VM */
    bool force;                   /* missing disks, networks and SRs are left out, errors of parts tolerated */
    bool dry_run, live, check_cpu, snapshots;
    const char *host;             /* ref: live imports are checked against this host (specs §1.6, last paragraph); NULL: none */
    const char *incoming;         /* the migration's id: VMs stay Halted and marked until it commits; NULL: none */
    const struct value *vdi_map;  /* "vdi:<uuid or key>=ref" parameters; NULL */
};
/* All rows in one transaction. *vms_r: refs of the VMs made (VMs first, then snapshots), empty for a dry run.
 *
 * What objects become: host: by uuid, else none. SR: by uuid, else the pool's default SR (to look for disks in). VDI: by
 * maps_to or vdi_map, uuid, SR and location; of ISOs by location or name, else the drive is empty. Network: maps_to of the VIF,
 * uuid, name, bridge. GPU group: maps_to of the VGPU, uuid, GPU types. Appliance, schedules, policies: none. affinity: 'host'
 * when given. Default templates and control domains are those of this pool, never made.
 * restore: uuids and MACs stay; a halted older VM of that uuid (or one left by the same 'incoming') is replaced, its blobs
 * stay. Otherwise uuids, MACs, MAC seeds and generation ids are new.
 * Without 'incoming' a VM is Halted, or Suspended where it was and its image is here; with it the VM is Halted (snapshots
 * keep their state), suspend_VDI and currently_attached of its devices are as sent: the commit sets the power state.
 *
 * IMPORT_ERROR_PREMATURE_EOF, IMPORT_ERROR_UNEXPECTED_FILE, IMPORT_INCOMPATIBLE_VERSION, IMPORT_ERROR [text],
 * IMPORT_ERROR_FAILED_TO_FIND_OBJECT [id] for a disk, VM_REQUIRES_NETWORK [vm; id], VM_REQUIRES_GPU [vm; id],
 * VM_BAD_POWER_STATE [vm; Halted; actual], OTHER_OPERATION_IN_PROGRESS, VM_TO_IMPORT_IS_NOT_NEWER_VERSION [vm; existing;
 * incoming], DUPLICATE_MAC_SEED [seed]; with live and host: HOST_NOT_ENOUGH_FREE_MEMORY [needed; available],
 * VM_INCOMPATIBLE_WITH_THIS_HOST ["OpaqueRef:NULL"; host; text]. force: objects that are not found are left out (unless
 * maps_to promised them), an equal or older version is taken; of no effect with
 * 'incoming'. A dry run forgives disks that do not exist yet. Fault point: metadata.import.rows. */
NODISCARD struct error *metadata_read(struct api_call *, const struct metadata_import *, const void *tar, size_t len, const char *const **vms_r, unsigned *n_r);

/* Removes what an import made: the VM with its snapshots, their devices, metrics and modules, but no disks. One transaction;
 * a VM that is gone is fine. For a migration that was given up, and for the sender's rows after one that succeeded. */
NODISCARD struct error *metadata_remove(struct api_call *, const char *vm_ref);

/* Routes, on the coordinator (a member answers 302; 'live' imports then carry host=). Session by query, cookie or Basic; with
 * task_id that task is taken on and ends with the result (set of VM refs as XML-RPC) or the error, which is the body, too: 400 for
 * IMPORT_*, 401, 403, 404, else 500. Clients of HTTP/1.0 hear 200 before they send.
 *   GET /export_metadata  vm-admin: ref, uuid (each several times) or all; include_dom0 (default true), export_snapshots (true),
 *                         include_vhd_parents, excluded_device_types. The power state is always that of the VM, as xapi does.
 *   PUT /import_metadata  vm-admin: restore, force, dry_run, live, check_cpu, export_snapshots (true), host (ref or uuid; live
 *                         without it means this one), vdi:<uuid or Ref:n>=<VDI, or SR to look in>; incoming: vm-power-admin.
 *   PUT /messages         vm-power-admin: cls, uuid; an XML-RPC array of message records. One known by its uuid is left alone.
 *   PUT /rrd              vm-power-admin (xapi: pool-admin): uuid of a VM. GET /vm_rrd: any session.
 *   PUT /blob             vm-power-admin: ref or uuid. GET /blob: any session; a public one: anybody.
 * ctx: struct xapi. */
http_handler_fn metadata_http_export, metadata_http_import, metadata_http_messages, metadata_http_rrd_put, metadata_http_rrd_get,
    metadata_http_blob_put, metadata_http_blob_get;

/* --- the sending side of a migration between pools ------------------------------------------------------------ */
/* PUTs the VM's metadata to another coordinator with a task made there, and waits: refs of the VMs there. The other pool's own
 * error; FIELD_TYPE_ERROR [text], TLS_CONNECTION_FAILED [address; port], CANNOT_CONTACT_HOST [address], TASK_CANCELLED. Blocks. */
struct http_target;
NODISCARD struct error *metadata_send(struct api_call *, const struct http_target *master, const char *session, const struct metadata_export *,
                                      const struct metadata_import *, const char *const **vms_r, unsigned *n_r);
/* After the switch, before the VM's rows go here: RRD, messages, blobs; each is removed here once it is there. Failures are
 * logged. Deaf to cancelling. */
void metadata_send_rest(struct api_call *, const struct http_target *master, const char *session, const char *vm_ref);

#endif
