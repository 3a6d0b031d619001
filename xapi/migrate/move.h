/* One engine for every move of a VM: memory, disks or both; in a host, in a pool, to another pool; running, suspended or
 * halted. This is the part that runs on the coordinator of the VM's pool.
 *
 * move_run goes through a table of steps, each with its undo (move.c):
 *   note      the move is in the ledger (ledger.h): from here a crash is recovered from (move_recovery.c)
 *   open      the destination has made the disks and listens for their bytes
 *   preflight both ways, before a byte of the guest moves (preflight.h)
 *   copy      disks nobody writes (snapshots, suspend images, read-only ones) are copied and proven
 *   mirror    the others are mirrored and follow
 *   admit     the destination knows the VM (cross-pool: its metadata) and has reserved room
 *   send      running: the source host's "migrate.send" (sender.c) with the two-phase switch; else the mirrors are handed over
 *   commit    rows of the destination, then of the source
 *   clean     what the source no longer needs
 * Up to and including 'send' a failure undoes what was done and the VM is where and what it was. After it nothing fails:
 * what cannot be done at once is done later by recovery.
 *
 * Where it goes is behind a vtable: this pool (destination_local.c) or another one (destination_remote.c). */
#ifndef XAPI_MIGRATE_MOVE_H
#define XAPI_MIGRATE_MOVE_H

#include "rpc/http/client.h"
#include "xapi/core/api_call.h"
#include "xapi/migrate/move_options.h"
#include "xapi/migrate/peer_pool.h"

enum move_guest { MOVE_RUNNING, MOVE_SUSPENDED, MOVE_HALTED };

enum move_disk_how {
    MOVE_DISK_STAYS,  /* the destination sees it where it is */
    MOVE_DISK_MIRROR, /* the guest may write it while it moves */
    MOVE_DISK_COPY,   /* nobody writes it */
};
struct move_disk {
    /* at the source */
    const char *vdi, *uuid;          /* ref and uuid */
    const char *sr, *sr_uuid, *location;
    int64_t size;                    /* virtual, bytes */
    enum move_disk_how how;
    bool is_suspend_image, is_snapshot; /* a suspend image (of the VM or a snapshot); a disk of a snapshot of the VM */
    /* at the destination: wished for */
    const char *target_sr;           /* ref there; of a disk that stays: the ref of its SR there */
    const char *format;              /* "", "raw", "vhd", "qcow2" */
    /* made by destination.open; of a disk that stays: the VDI that is there already */
    const char *target, *target_uuid, *target_sr_uuid, *target_location;
    const char *uri;                 /* NBD URI by which the source host's tapd reaches it (disk_sink.h) */
};
/* The format to make it in: hosts read suspend images as they are (storage/sr.h: direct). */
static inline const char *move_disk_format(const struct move_disk *d)
{
    return d->is_suspend_image ? "raw" : d->format != NULL ? d->format : "";
}
struct move_vif { const char *vif, *network; }; /* ref at the source; ref of a network at the destination */
struct move_vgpu { const char *vgpu, *group; };

struct move;
struct destination_ops {
    const char *name; /* "local", "remote" */
    /* Makes the disks (fills target*, uri) and gets the destination host ready to take bytes with move->key. */
    struct error *(*open)(struct api_call *, struct move *);
    /* Metadata and reservation. Fills move->spec, final_uuid, destination_disks, vm_there. */
    struct error *(*admit)(struct api_call *, struct move *);
    /* After the switch: the VM is there for good, its rows say so; idempotent. power: "Running", "Paused", "Suspended",
     * "Halted". Of a destination in this pool also what the source's rows said. */
    struct error *(*commit)(struct api_call *, struct move *, const char *power, int domid);
    /* Undoes open and admit; idempotent. The first error, when something is left that has to be tried again. */
    struct error *(*abort)(struct api_call *, struct move *);
};
extern const struct destination_ops destination_local, destination_remote;

struct destination {
    const struct destination_ops *ops;
    const char *host;              /* ref of the host, in its own pool */
    const char *host_uuid, *host_name;
    struct http_target target;     /* its front, as the source host reaches it; cookie: the migration's key */
    struct peer_pool *peer;        /* another pool: peer_pool.h; NULL: this one (or after a restart: master is enough) */
    struct http_target master;     /* another pool's coordinator; cookie: the migration's key */
};

struct move {
    const char *id, *key;          /* uuids: names the migration; lets its hosts talk to each other (credentials.h) */
    const char *vm, *vm_uuid;      /* ref and uuid at the source */
    enum move_guest guest;
    const char *from;              /* ref of the host that has the VM, or has its disks */
    struct destination destination;
    struct move_options options;
    const char *kind;              /* "pool_migrate" or "migrate_send", for the ledger */
    struct move_disk *disks;
    unsigned n_disks;
    struct move_vif *vifs;
    unsigned n_vifs;
    struct move_vgpu *vgpus;
    unsigned n_vgpus;
    /* filled on the way */
    const char *attempt;           /* what the hosts know it by: a new one each time the memory is sent */
    const char *final_uuid;        /* of the VM there: its own, but for a copy */
    const char *vm_there;          /* ref */
    struct value spec;             /* vm_spec for migrate.prepare */
    struct value destination_disks; /* set of { sr, location }: what the destination opens once it has committed */
    struct value result;           /* of migrate.send */
    const char *cause;             /* of a move that failed, while it is being undone */
    const char *final_power;       /* once committed: as of destination_ops.commit */
    int final_domid;
};

/* The caller has marked the VM's operation and checked everything (send_checks.h). Blocks for as long as it takes.
 * *vm_ref_r: the VM's ref at the destination. */
NODISCARD struct error *move_run(struct api_call *, struct move *, const char **vm_ref_r);

/* Before hosts report and clients come in (the ledger is open): VMs in mid-migration are marked. moves_close frees. */
void moves_open(struct xapi *);
void moves_close(struct xapi *);
/* Coordinator: finishes or rolls back what an earlier life left unfinished; again every 15 s and whenever a host comes up. */
void moves_start(struct xapi *);
void moves_host_up(struct xapi *, const char *host_ref);

#endif
