/* The vtable under every domain, and its contract (design §8).
 *
 * Implementations: xenops/sim/ (guests are xapi-guest processes), xenops/xen/. Only xenops.c calls
 * through the pointers: it checks state, logs durations, and holds the fault hooks.
 *
 * Life cycle: create (memory reserved, paused, empty) -> build or restore -> unpause ... destroy.
 * A domain is named by a uuid that the toolstack chooses (the VM's, or a temporary one while two
 * copies exist); xenops_rename changes it. Calls for one domain never overlap (xenops.c queues them), but shutdown and
 * destroy come in the middle of a save, which then fails soon with VM_BAD_POWER_STATE [running; halted], and throttle and
 * the post-copy ones beside anything; calls for different domains do. A failed call leaves the domain as it was, unless said otherwise.
 * All may block and must watch call_cancelled(). Errors carry codes without references; xapi/ maps
 * them (vm_run_error in xapi/core/vm_run.h): HOST_NOT_ENOUGH_FREE_MEMORY [needed; available], TASK_CANCELLED [],
 * VM_FAILED_SUSPEND_ACKNOWLEDGMENT [], VM_SUSPEND_TIMEOUT [seconds], VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT [],
 * VM_SHUTDOWN_TIMEOUT [seconds], VM_BAD_POWER_STATE [expected; actual] ("halted": no such life yet, or ended),
 * DOMAIN_NOT_FOUND [uuid] (internal), INTERNAL_ERROR [text]. */
#ifndef XENOPS_BACKEND_H
#define XENOPS_BACKEND_H

#include <stdatomic.h>

#include "rpc/base/bytes.h"
#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "xenops/vm_spec.h"

enum domain_state { DOMAIN_PAUSED, DOMAIN_RUNNING, DOMAIN_SUSPENDED /* saved, may resume */, DOMAIN_ENDED };
enum domain_end { DOMAIN_END_NONE, DOMAIN_END_POWEROFF, DOMAIN_END_REBOOT, DOMAIN_END_CRASH, DOMAIN_END_KILLED };

struct domain_info {
    const char *uuid;
    int domid;
    enum domain_state state;
    enum domain_end end;          /* with DOMAIN_ENDED */
    int64_t memory_actual, memory_target; /* bytes */
    unsigned vcpus;
    int64_t started_at;           /* wall seconds */
    /* What the guest itself published, as a guest agent would in xenstore: "control/feature-suspend",
     * "attr/os/name", "attr/vif/0/ip", and for sim guests "sim/…" (pages, verify results, rounds).
     * A map of strings. */
    struct value guest;
};

struct host_facts {
    int64_t memory_total, memory_free; /* bytes; free excludes what is reserved */
    unsigned cpu_count, socket_count;
    const char *cpu_vendor, *cpu_model, *cpu_flags, *cpu_features; /* features: "%08x-%08x-…" */
    double cpu_mhz;
    const char *hypervisor;    /* "sim", "xen-4.17" */
    const char *capabilities;  /* space-separated: "xen-3.0-x86_64 hvm-3.0-x86_64 …" */
};

/* What may be changed while a save goes on, from any thread. */
struct save_control {
    _Atomic int64_t bandwidth;         /* bytes/s; 0: unlimited; -1: as the policy says */
    _Atomic int64_t max_downtime_ms;   /* -1: as the policy says */
    atomic_bool finish;                /* no more pre-copy: suspend now and send the rest (a move turned non-live) */
    atomic_bool yield;                 /* end with SAVE_YIELDED [] while the guest still runs: something else wants it */
    atomic_bool hold;                  /* go on with pre-copy, gently, and do not suspend while this is set */
    atomic_bool postcopy;              /* switch to post-copy now, where the policy allows it */
};
#define SAVE_CONTROL_INIT { .bandwidth = -1, .max_downtime_ms = -1 }
#define SAVE_YIELDED "SAVE_YIELDED"       /* internal codes, without parameters */
#define SAVE_NO_CONVERGENCE "SAVE_NO_CONVERGENCE" /* the goals cannot be kept: cause says the figures */
#define SAVE_TIMEOUT "SAVE_TIMEOUT"       /* deadline passed and on_deadline is SAVE_DEADLINE_ABORT */

/* When to stop pre-copy, and how fast to go. */
enum save_deadline { SAVE_DEADLINE_CONTINUE, SAVE_DEADLINE_ABORT, SAVE_DEADLINE_SUSPEND, SAVE_DEADLINE_POSTCOPY };
struct save_policy {
    bool live;              /* false: suspend first, one pass */
    unsigned max_downtime_ms; /* stop when the rest fits (0: 300, and then a guest that does not converge is stopped anyway) */
    unsigned max_rounds;    /* give up converging after this many (0: 30) */
    int64_t bandwidth;      /* bytes/s; 0: unlimited */
    bool localhost;
    int64_t deadline_ms;    /* mono; 0: none */
    enum save_deadline on_deadline;
    bool fallback_stop;     /* goals cannot be kept: suspend and send the rest instead of SAVE_NO_CONVERGENCE */
    bool auto_converge;     /* goals cannot be kept: first slow the guest down, step by step, within bounds */
    bool postcopy;          /* goals cannot be kept: post-copy is allowed (and wanted before slowing down) */
    int64_t postcopy_after_ms; /* and is begun after this long anyway; 0: not */
    struct save_control *control; /* NULL: none */
};
struct save_progress {
    unsigned round;
    int64_t pages_sent, pages_total, pages_dirty; /* dirty: after the last round */
    int64_t bytes_sent;
    double dirty_rate;      /* pages/s */
    double link_rate;       /* bytes/s, measured */
    double fraction;        /* 0..1, never goes back */
    int64_t predicted_blackout_us, predicted_total_us; /* once the first dirty round is over; -1 before */
    bool will_not_converge; /* said within two rounds */
    unsigned throttle;      /* percent taken from the guest */
    bool suspended, postcopy;
};
struct save_callbacks {
    void *ctx;
    void (*progress)(void *ctx, const struct save_progress *); /* may be NULL; a few times a second */
    /* Just before the guest is asked to suspend: the last moment to refuse (error: it runs on). */
    struct error *(*before_suspend)(void *ctx, struct call *);
    /* After it is suspended and before the last pages: drain and close its disks. */
    struct error *(*after_suspend)(void *ctx, struct call *);
    /* Once after_suspend was called, before a guest is resumed because the save failed: open its disks again.
     * Whatever comes of it, the guest is resumed. Deaf to cancelling. */
    void (*before_resume)(void *ctx, struct call *);
};
struct save_result {
    unsigned rounds;
    int64_t pages_sent, bytes_sent, zero_pages;
    int64_t suspended_at_us; /* mono */
    int64_t predicted_blackout_us, predicted_total_us; /* as first said; -1: never */
    double dirty_rate, link_rate; /* pages/s, bytes/s, of the last live round */
    unsigned throttle;       /* the most that was taken from the guest, percent */
    bool will_not_converge;
    bool postcopy;           /* the rest follows after the switch: postcopy_send, postcopy_receive */
    int64_t pages_left;      /* of that rest */
};

struct xenops; /* one host's backend instance with its queues; see xenops.h */

typedef struct error *xenops_facts_fn(struct call *, void *host, struct host_facts *);
typedef struct error *xenops_create_fn(struct call *, void *host, const struct vm_spec *, const char *uuid, struct domain_info *);
typedef struct error *xenops_build_fn(struct call *, void *host, const char *uuid, const struct vm_spec *);
typedef struct error *xenops_domain_fn(struct call *, void *host, const char *uuid);
typedef struct error *xenops_shutdown_fn(struct call *, void *host, const char *uuid, enum domain_end how, int64_t timeout_ms);
typedef struct error *xenops_rename_fn(struct call *, void *host, const char *from, const char *to);
typedef struct error *xenops_balloon_fn(struct call *, void *host, const char *uuid, int64_t target);
typedef struct error *xenops_save_fn(struct call *, void *host, const char *uuid, struct byte_stream *, const struct save_policy *,
                                     const struct save_callbacks *, struct save_result *);
typedef struct error *xenops_restore_fn(struct call *, void *host, const char *uuid, const struct vm_spec *, struct byte_stream *);
typedef struct error *xenops_disk_fn(struct call *, void *host, const char *uuid, const struct disk_spec *);
typedef struct error *xenops_throttle_fn(struct call *, void *host, const char *uuid, unsigned percent);
/* Post-copy, after the destination has committed: 'stream' is the connection on which the image came. send pushes what is
 * missing and serves what the guest there asks for first; ends when all is there. receive fills the memory while the guest
 * runs. Lost streams: INTERNAL_ERROR; the guest then waits for pages until it is destroyed (the stated exception). */
typedef struct error *xenops_postcopy_fn(struct call *, void *host, const char *uuid, struct byte_stream *, int64_t *bytes_r);
typedef struct error *xenops_list_fn(struct call *, void *host, struct domain_info **infos_r, unsigned *n_r);
/* Called whenever a domain's state or published data changed: from a thread of the backend. It must
 * return soon and call no verb but list. */
typedef void xenops_watch_fn(void *ctx, const char *uuid);

struct xenops_backend {
    const char *name; /* "sim", "xen": value of hypervisor= in xapi.conf */
    /* Finds running guests again after a restart. state_dir exists. options: map of strings (sim-*). */
    struct error *(*open)(struct arena *, const char *state_dir, const struct value *options, const struct clock *,
                          xenops_watch_fn *, void *watch_ctx, void **host_r);
    void (*close)(void *host);       /* guests live on */
    xenops_facts_fn *facts;
    xenops_create_fn *create;        /* reserves memory; HOST_NOT_ENOUGH_FREE_MEMORY; nothing left behind on error */
    xenops_build_fn *build;          /* boots from scratch; left paused */
    xenops_domain_fn *unpause, *pause;
    xenops_shutdown_fn *shutdown;    /* asks the guest; waits for the ack, then for the end */
    xenops_domain_fn *destroy;       /* any state; absent is fine */
    xenops_rename_fn *rename;
    xenops_balloon_fn *balloon;      /* returns at once */
    xenops_save_fn *save;            /* writes libxc v3 in XenSavedDomv2 framing; ends SUSPENDED; on error RUNNING again
                                      * (the guest was resumed) unless it is gone */
    xenops_domain_fn *resume;        /* SUSPENDED -> RUNNING, in place */
    xenops_restore_fn *restore;      /* into a created domain; left paused, complete */
    xenops_disk_fn *disk_plug, *disk_unplug; /* also insert/eject of media */
    xenops_list_fn *list;            /* all domains, in c's arena */
    xenops_throttle_fn *throttle;    /* of a running domain: this part of its CPU time is taken away; 0: none. May be NULL */
    xenops_postcopy_fn *postcopy_send, *postcopy_receive; /* NULL: no post-copy here */
    bool (*postcopy_ready)(void *host); /* this machine can do it; NULL: it can */
};

extern const struct xenops_backend xenops_sim;

#endif
