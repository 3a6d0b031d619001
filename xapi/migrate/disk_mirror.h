/* One mirror in a tapd of some host, as the coordinator drives it by vdi.* verbs: what moves within a host (disk_move.c) and to
 * another one (disk_send.c) have in common. Private to xapi/migrate. */
#ifndef XAPI_MIGRATE_DISK_MIRROR_H
#define XAPI_MIGRATE_DISK_MIRROR_H

#include "xapi/core/api_call.h"

struct disk_mirror {
    const char *host, *vdi, *sr;      /* refs, of the disk that is mirrored */
    const char *sr_uuid, *location;
    int64_t bandwidth;                /* bytes/s, as it was set last; 0: unlimited */
    double progress;                  /* 0..1; never goes back */
    unsigned lost;                    /* how often in a row the host did not answer */
    bool unknown;                     /* it has not answered for too long */
    struct value status;              /* void: none yet, or the host did not answer */
};

/* A verb about the disk: sr and location are added unless 'more' has them. Blocks. */
NODISCARD struct error *disk_mirror_verb(struct api_call *, const struct disk_mirror *, const char *name, const struct member *more, unsigned n,
                                         struct value *result_r);
/* Asks the host; one that does not answer (its tapd goes on by itself) is an error only after many times: then 'unknown'. */
NODISCARD struct error *disk_mirror_look(struct api_call *calm, struct disk_mirror *);
const char *disk_mirror_state(const struct disk_mirror *); /* "" while the host does not answer */
/* MIRROR_FAILED [vdi], with the cause in the error and the task. */
struct error *disk_mirror_failed(struct api_call *, const struct disk_mirror *, const char *why);
/* For one that has failed or is gone: the same, with its own reason. */
struct error *disk_mirror_cause(struct api_call *, const struct disk_mirror *);

/* What the task's other_config "bandwidth" asks for now; 'fallback' where it says nothing that is understood. */
int64_t disk_mirror_wanted_bandwidth(struct api_call *, int64_t fallback);
/* Tells the tapd, when it is another one than was set. Failures are logged. */
void disk_mirror_limit(struct api_call *, struct disk_mirror *, int64_t bandwidth);
/* Into the task: migrate:eta_ms, and migrate:will_not_converge with what would stay behind. */
void disk_mirror_tell(struct api_call *, int64_t eta_ms, int64_t left);
/* A moment between two looks; an error when the call is cancelled or the daemon stops. */
NODISCARD struct error *disk_mirror_rest(struct api_call *);

#endif
