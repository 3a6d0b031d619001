/* The inside of the mirror: what its files share. Contract: mirror.h.
 *
 *   mirror.c          the layer, the states, status
 *   mirror_guest.c    the guest's requests: bits, holding, waiting for a copy (mode point)
 *   mirror_scan.c     which parts of the source are holes
 *   mirror_copier.c   source to target
 *   proof.c           source against target
 *   mirror_switch.c   going over
 *   mirror_target.c   errors, loss, silence
 *   mirror_map, mirror_bits, mirror_pace, mirror_zeros, proof_hash    know nothing of the others
 *
 * Whatever happens sets mirror_kick; mirror_pump then gives everyone a turn, once before the loop waits. All
 * requests are embedded or pooled at the start. */
#ifndef STORAGE_TAPD_MIRROR_PRIVATE_H
#define STORAGE_TAPD_MIRROR_PRIVATE_H

#include "rpc/nbd/nbd_protocol.h"
#include "storage/tapd/mirror.h"
#include "storage/tapd/mirror_map.h"
#include "storage/tapd/mirror_pace.h"
#include "storage/tapd/mirror_target.h"
#include "storage/tapd/proof_hash.h"

#define COPY_LARGE_MAX (512u << 10)
#define COPY_SMALL (64u << 10)
#define COPY_LARGE_SLOTS 8u
#define COPY_SMALL_SLOTS 32u
#define COPY_SLOTS (COPY_LARGE_SLOTS + COPY_SMALL_SLOTS)
#define PROOF_LARGE (512u << 10)
#define PROOF_SMALL (64u << 10)
#define PROOF_LARGE_SLOTS 4u
#define PROOF_SMALL_SLOTS 24u
#define PROOF_SLOTS (PROOF_LARGE_SLOTS + PROOF_SMALL_SLOTS)
#define DIGESTS_MAX (COPY_LARGE_MAX / NBD_HASH_BLOCK)
#define GUEST_SLOTS BLOCK_GUEST_DEPTH
#define WRONG_MAX 3u /* differences in a row in one place */

/* Mapped memory, cut up at the start; pages come with their first use. */
struct mirror_buffers { uint8_t *bytes; size_t size, used; };

/* A run on its way from the source to the target. */
struct mirror_copy {
    struct mirror *m;
    struct block_request request;
    uint8_t *buffer;
    bool large;
    int64_t offset;
    uint32_t length, at, piece;      /* at: written so far; piece: the write under way */
    unsigned wrong;                  /* mode point: differences so far */
    struct block_request back;       /* mode point: reads back what was written */
    uint8_t *back_buffer;
    struct nbd_hash hash;
    uint8_t mine[DIGESTS_MAX][PROOF_DIGEST], theirs[DIGESTS_MAX][PROOF_DIGEST];
    struct mirror_copy *next;
};
struct mirror_copier {
    struct mirror_buffers buffers;
    struct mirror_copy slots[COPY_SLOTS];
    struct mirror_copy *free_large, *free_small;
    unsigned active, active_large;
    uint32_t large;                  /* longest run taken */
    int64_t cursor;                  /* of the pass */
    unsigned passes;
    bool copied_in_pass;
    struct loop_timer cap;           /* the bandwidth cap lets go then */
};

/* A range whose two sides are being read and hashed. */
struct proof {
    struct mirror *m;
    struct block_request source, target;
    uint8_t *source_buffer, *target_buffer;
    bool large, zeros, mend;         /* zeros: compared with zeros, not with the source; mend: they are to be written */
    int64_t offset;
    uint32_t length;
    unsigned pending;
    int source_result, target_result;
    struct nbd_hash hash;
    uint8_t mine[DIGESTS_MAX][PROOF_DIGEST], theirs[DIGESTS_MAX][PROOF_DIGEST];
    struct proof *next;
};
struct prover {
    struct mirror_buffers buffers;
    struct proof slots[PROOF_SLOTS];
    struct proof *free_large, *free_small;
    unsigned active, active_large;
    int64_t cursor, holes_until;     /* holes before it were looked for in this round */
    unsigned repaired;
    uint64_t *wrong_words[2];        /* places that differed once, twice in a row */
    struct mirror_bits *wrong;
};

/* A request of the guest that is below. */
struct mirror_guest {
    struct mirror *m;
    struct block_request *r;
    int64_t offset, length;
    bool writes;
    unsigned index;                  /* in 'writing' */
    struct mirror_guest *next;
};
struct request_queue { struct block_request *first, **last; };
struct mirror_guests {
    struct mirror_guest slots[GUEST_SLOTS], *free;
    unsigned in_flight;
    struct mirror_guest *writing[GUEST_SLOTS]; /* those that change the disk */
    unsigned n_writing;
    struct request_queue held;       /* the switch holds them, or all slots are out */
    struct request_queue waiting;    /* mode point: for a copy of what they overwrite */
    unsigned retries;                /* how often the waiting ones were looked at */
    bool holding, releasing;
    int64_t active_us;               /* last time one came */
};

enum switch_stage { SWITCH_NO, SWITCH_FLUSH_AHEAD, SWITCH_REST, SWITCH_FLUSH };
struct mirror_switching {
    bool wanted;
    int64_t wanted_us; /* since when, and it could have been: it follows; 0: not yet */
    int (*commit)(void *ctx);
    void *ctx;
    enum switch_stage stage;
    unsigned attempts;
    int64_t held_us, flushed_us;
    struct loop_timer deadline;
    struct block_request source_flush;
    bool source_flushing, target_flushed, source_flushed;
};

struct mirror_handing { bool wanted; int64_t since_us; int (*commit)(void *ctx); void *ctx; };

struct mirror {
    struct block block;              /* first member; .below is where the guest's requests go */
    struct block *source, *target;
    struct mirror_options options;
    const struct mirror_remote *remote;
    void (*changed)(void *ctx);
    void *changed_ctx;
    enum mirror_state state;
    char error[256];
    struct mirror_map *map;
    bool scanning;
    struct mirror_pace pace;
    struct mirror_guests guests;
    struct mirror_copier copier;
    struct prover prover;
    struct mirror_switching switching;
    struct mirror_handing handing;
    unsigned jobs;                   /* copies, proofs and flushes of ours in flight */
    struct loop_idle pump_later;
    struct loop_timer tick;
    bool pumping;

    /* mirror_target.c */
    bool lost;                       /* connecting again */
    int64_t lost_at_us, heard_us;
    unsigned target_in_flight;
    struct loop_timer retry;
    bool reconnecting;
    struct block_request flush;
    bool flushing;
    void (*flushed)(struct mirror *, int result);
    int64_t stable_us;               /* last flush */

    /* status */
    int64_t copied_most, pause_us, lost_us, sent;
    double fraction_most;
    struct pace_forecast forecast;
    int64_t unfit_since_us;

    bool stopping, taken, finishing;
    void (*ended)(void *ctx);
    void *ended_ctx;
};

/* mirror.c */
bool mirror_runs(const struct mirror *); /* copying goes on */
bool mirror_over(const struct mirror *); /* the target is the disk */
void mirror_kick(struct mirror *);
void mirror_set_state(struct mirror *, enum mirror_state);
void mirror_fail(struct mirror *, const char *fmt, ...) PRINTF(2, 3); /* the end of it, unless it is over already */
void mirror_job_done(struct mirror *);
bool mirror_is_clean(const struct mirror *); /* all is scanned, copied and proven, nothing is under way */
int64_t mirror_now(const struct mirror *); /* by the clock, not of the turn */
void mirror_buffers_map(struct mirror_buffers *, size_t size);
uint8_t *mirror_buffers_take(struct mirror_buffers *, size_t);
void mirror_buffers_unmap(struct mirror_buffers *);

/* mirror_guest.c */
void mirror_guests_init(struct mirror *);
void mirror_guest_submit(struct block *, struct block_request *);
/* Cuts [offset, *length_r) before the first block a guest is writing now; false when that is its beginning, then
 * *past_r is where to go on. */
bool mirror_guests_clear_of(const struct mirror *, int64_t offset, uint32_t *length_r, int64_t *past_r);
void mirror_guests_hold(struct mirror *);
void mirror_guests_release(struct mirror *);       /* held ones and, when there is nothing to wait for, waiting ones */
void mirror_guests_retry_waiting(struct mirror *); /* mode point: something was copied */

/* mirror_scan.c */
void mirror_scan(struct mirror *); /* a piece of it */

/* mirror_copier.c */
void mirror_copier_init(struct mirror *);
void mirror_copier_release(struct mirror *);
void mirror_copier_pump(struct mirror *);

/* proof.c */
void prover_init(struct mirror *);
void prover_release(struct mirror *);
void prover_pump(struct mirror *);
/* Two digests of the same: true unless they differ. Has the fault point. */
bool proof_equal(uint8_t (*mine)[PROOF_DIGEST], uint8_t (*theirs)[PROOF_DIGEST], unsigned i);

/* mirror_switch.c */
int64_t mirror_budget(const struct mirror *); /* now: it grows while the switch is wanted */
void mirror_switch_init(struct mirror *);
void mirror_switch_step(struct mirror *);
void mirror_switch_give_up(struct mirror *); /* for now: the guest goes on, on the source */

#endif
