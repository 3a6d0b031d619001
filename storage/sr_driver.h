/* The vtable under every storage repository, and its contract (design §9).
 *
 * A driver knows directories, volumes and files of one kind of SR on this host; it knows no database,
 * no VM and no reference. Only sr.c calls through the pointers: it checks capabilities and attach
 * state, serialises calls where said, hits the fault point "sr.<verb>", logs the duration.
 *
 * Life cycle of an SR: create (once, on one host) -> attach (on each host) ... detach -> destroy.
 * Life cycle of a VDI: create -> attach -> activate ... deactivate -> detach -> destroy. tapd opens
 * what attach names, between activate and deactivate only.
 *
 * A VDI is named by its location, unique in its SR ("<uuid>" for disks we make, a file name for ISOs).
 * Every call may block and must watch call_cancelled(). A failed call leaves nothing behind. Calls may
 * be repeated after a lost reply: create of what is there as asked, attach of what is attached, and
 * destroy or detach of what is gone succeed.
 *
 * Errors carry uuids and texts, no references: SR_BACKEND_FAILURE [status; stdout; stderr],
 * SR_FULL [requested; maximum], VDI_MISSING [sr uuid; location], VDI_TOO_SMALL, VDI_TOO_LARGE [location; limit],
 * SR_NOT_EMPTY [], UNIMPLEMENTED_IN_SM_BACKEND [message], TASK_CANCELLED []. */
#ifndef STORAGE_SR_DRIVER_H
#define STORAGE_SR_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/base/value.h"

/* One line each becomes a feature of the SM row (sr_driver_features). */
enum sr_cap {
    SR_CAP_PROBE = 1u << 0,
    SR_CAP_UPDATE = 1u << 1,
    SR_CAP_VDI_CREATE = 1u << 2,
    SR_CAP_VDI_DELETE = 1u << 3,
    SR_CAP_VDI_RESIZE = 1u << 4,
    SR_CAP_VDI_RESIZE_ONLINE = 1u << 5,
    SR_CAP_VDI_CLONE = 1u << 6,
    SR_CAP_VDI_SNAPSHOT = 1u << 7,
    SR_CAP_VDI_MIRROR = 1u << 8,
    SR_CAP_VDI_CONFIG_CBT = 1u << 9,
    SR_CAP_VDI_RESET_ON_BOOT = 1u << 10,
    SR_CAP_VDI_INTRODUCE = 1u << 11,
    SR_CAP_VDI_UPDATE = 1u << 12,
    SR_CAP_VDI_ATTACH = 1u << 13,
    SR_CAP_THIN = 1u << 14,
    SR_CAP_VDI_MIRROR_IN = 1u << 15,
    SR_CAP_VDI_REVERT = 1u << 16,
    SR_CAP_VDI_GENERATE_CONFIG = 1u << 17,
};

/* One key of device-config. */
struct config_key { const char *name; bool required, secret; const char *help; };

/* An SR as its driver sees it; lives as long as it is attached, or as one call of create, destroy. */
struct sr {
    const struct sr_driver *driver;
    const char *uuid;
    struct value device_config; /* map of strings */
    bool shared;
    void *state;                /* driver->state_size bytes, zeroed before attach; freed after detach */
    const struct vdi_live *live; /* never NULL inside a call */
};

struct sr_stat { int64_t physical_size, physical_utilisation, virtual_allocation; }; /* bytes */

struct vdi_stat {
    const char *location, *uuid; /* uuid "": the medium does not say (an ISO) */
    const char *name;            /* "" where the medium does not say */
    const char *format;          /* "raw", "vhd", "qcow2", "iso" */
    int64_t virtual_size, physical_utilisation;
    bool read_only, is_a_snapshot;
    const char *parent; /* location or "" */
    bool hidden;        /* a base image nobody may use by itself: VDI.managed is false */
    bool cbt_metadata;  /* the data is gone, only the list of changed blocks is left */
    bool cbt_enabled;   /* changed blocks are tracked (a log that a crash made useless is dropped when it is next attached) */
};

/* What tapd (or a reader) opens: see struct block_open in storage/tapd/block.h. parents: no one writes them. */
struct vdi_where {
    const char *format, *path;
    bool cached;          /* device-config or driver asks for the page cache */
    const char *cbt;      /* path of the log of changed blocks, "" where they are not tracked */
};

/* How a driver reaches the tapd of a VDI of this SR that is in use; given by sr.c for the time of one call.
 * Each is a no-op (and active false) where no tapd serves the VDI.
 * A tapd found paused after a restart of this process stays so until its SR is attached: sr_attach mends the tree
 * of images first and resumes, on the right chain, the VDIs its journals name; then sr.c resumes the other ones. */
struct vdi_live {
    void *ctx;
    /* Holds the guest's writes, drains and flushes; then resume lets them go on, on a new chain where 'where' is
     * not NULL. Every pause is followed by one resume, also on errors: the guest waits in between, so both and
     * what lies between them are quick. */
    struct error *(*pause)(void *ctx, struct call *, const char *location, bool *active_r);
    struct error *(*resume)(void *ctx, struct call *, const char *location, const struct vdi_where *where);
    /* The new size of a paused or active one. */
    struct error *(*resized)(void *ctx, struct call *, const char *location, int64_t size);
    /* Makes 'to' (which reads as zeros) what the VDI is at the moment of the call, while it is written to; runs a
     * tapd for it where none serves it. Reports progress. */
    struct error *(*copy_point)(void *ctx, struct call *, const char *location, const struct vdi_where *from, const struct vdi_where *to);
    /* Coalescing: what 'from' itself holds (not what its parents do) goes into its parent 'to' (mirror mode merge;
     * 'to' is opened for writing beside the chain that reads it). Served by a tapd: its writes are followed, and once
     * little is left it is paused as by pause and the rest copied: it returns paused with *active_r set, and the
     * driver ends that by resume, on 'to' under its final name. Not served: a tapd of its own reads 'from', which
     * nobody writes ('from' may be a hidden image), *active_r is false. 'to' is closed and stable on return.
     * On failure, also TASK_CANCELLED, nothing is paused; 'to' may hold a part, which no reader of 'from' can see.
     * Reports progress at least once a second. */
    struct error *(*merge)(void *ctx, struct call *, const char *location, const struct vdi_where *from, const struct vdi_where *to, bool *active_r);
};

struct vdi_create_spec {
    const char *uuid;
    int64_t virtual_size;
    const char *format; /* "" : the driver's own choice */
};

typedef struct error *sr_fn(struct call *, struct sr *);
typedef struct error *sr_create_fn(struct call *, struct sr *, int64_t size);
typedef struct error *sr_stat_fn(struct call *, struct sr *, struct sr_stat *);
typedef struct error *sr_scan_fn(struct call *, struct sr *, struct vdi_stat **vdis_r, unsigned *n_r);
typedef struct error *sr_probe_fn(struct call *, const struct value *device_config, struct value *srs_r);
typedef struct error *vdi_create_fn(struct call *, struct sr *, const struct vdi_create_spec *, struct vdi_stat *);
typedef struct error *vdi_fn(struct call *, struct sr *, const char *location);
typedef struct error *vdi_stat_fn(struct call *, struct sr *, const char *location, struct vdi_stat *);
typedef struct error *vdi_resize_fn(struct call *, struct sr *, const char *location, int64_t size, struct vdi_stat *);
typedef struct error *vdi_clone_fn(struct call *, struct sr *, const char *location, const char *uuid, struct vdi_stat *);
typedef struct error *vdi_changed_fn(struct call *, struct sr *, const char *from, const char *to, uint8_t **bitmap_r, size_t *len_r);
typedef struct error *sr_clean_fn(struct call *, struct sr *, bool *more_r);
typedef struct error *vdi_attach_fn(struct call *, struct sr *, const char *location, bool read_only, struct vdi_where *);

struct sr_driver {
    const char *type;                /* "file", "iso": SR.type */
    const char *name, *description;  /* of the SM row */
    unsigned caps;                   /* SR_CAP_* */
    size_t state_size;
    const struct config_key *config; /* device-config; ends { 0 } */
    /* Required. One call per SR at a time. */
    sr_create_fn *sr_create;   /* prepares the medium; leaves it detached */
    sr_fn *sr_destroy;         /* of a detached, empty SR */
    sr_fn *sr_attach;          /* idempotent */
    sr_fn *sr_detach;
    sr_stat_fn *sr_stat;
    sr_scan_fn *sr_scan;       /* in c's arena */
    /* Optional: NULL where the capability is missing. Calls for one VDI never overlap. */
    sr_probe_fn *sr_probe;     /* set of maps: what is there that could be introduced */
    vdi_create_fn *vdi_create;
    vdi_fn *vdi_destroy;
    vdi_resize_fn *vdi_resize;
    vdi_clone_fn *vdi_clone;
    vdi_clone_fn *vdi_snapshot; /* crash-consistent while the VDI is written to */
    /* The contents of 'location' become those of its snapshot 'uuid' (not while it is in use). */
    vdi_clone_fn *vdi_revert;
    /* Changed blocks (64 KiB each, as the field's). changed: a bitmap, most significant bit first, of the blocks
     * that differ between two VDIs of one line of snapshots, older first; in c's arena. */
    vdi_fn *vdi_enable_cbt, *vdi_disable_cbt, *vdi_data_destroy;
    vdi_changed_fn *vdi_changed_blocks;
    /* One step of clearing up: coalesces one base image, or removes one nobody needs; *more_r when there may be
     * more to do now. Called in the background, one at a time per SR; other verbs may run beside it: the driver keeps
     * them apart, and one that needs the image ends the step early. Leaves running guests undisturbed. */
    sr_clean_fn *sr_clean;
    /* Required. */
    vdi_stat_fn *vdi_stat;
    vdi_attach_fn *vdi_attach;  /* *where_r = what tapd opens; no I/O before vdi_activate */
    vdi_fn *vdi_activate, *vdi_deactivate, *vdi_detach; /* NULL: nothing to do */
};

/* Where SRs that need a mount point get one ("<dir>/<sr uuid>"), and dummy SRs their directory; "/run/sr-mount" until
 * called. Once, at startup, before any other call; the string is copied. (registry.c) */
void sr_drivers_base(const char *dir);
const char *sr_drivers_base_dir(void);

extern const struct sr_driver sr_driver_file, sr_driver_ext, sr_driver_nfs, sr_driver_gfs2, sr_driver_lvm, sr_driver_iso, sr_driver_dummy;

/* All drivers; NULL-terminated (registry.c). */
extern const struct sr_driver *const sr_drivers[];
const struct sr_driver *sr_driver_find(const char *type); /* NULL: unknown */
/* "VDI_CREATE" … of a mask, as a set of strings; and whether a mask has the named feature. */
struct value sr_driver_features(struct arena *, unsigned caps);

#endif
