/* One simulated guest: the whole process.
 *
 * Threads: main (the control socket), one for each vCPU (at most GUEST_VCPUS), one for each writable
 * disk. The gate stands between them: whoever changes what the vCPU and disk threads use closes it
 * first. Only the main thread opens and closes it. */
#ifndef XENOPS_SIM_GUEST_GUEST_H
#define XENOPS_SIM_GUEST_GUEST_H

#include <pthread.h>

#include "rpc/base/clock.h"
#include "xenops/sim/guest/disk_medium.h"
#include "xenops/sim/guest/gate.h"
#include "xenops/sim/guest/settings.h"
#include "xenops/sim/guest/witness.h"

struct guest;

struct vcpu {
    struct guest *guest;
    unsigned id;
    pthread_t thread;
    int64_t last_us; /* when it last counted what it owes; 0: start anew */
    double owed;     /* pages */
    struct guest_vcpu state;
};

struct disk {
    struct guest *guest;
    struct disk_setting setting;
    struct disk_medium medium; /* closed: suspended, an empty drive */
    bool has_thread;
    pthread_t thread;
    atomic_bool stop;
    bool unverified; /* since a restore: it was not open yet */
    uint64_t seq, rng;
    int64_t last_us;
    double owed;
    uint64_t n_blocks;          /* in its working set */
    _Atomic uint32_t *witness; /* n_blocks of them, or NULL */
    unsigned unflushed;         /* writes since the last flush */
    struct guest_page *buffer;  /* settings.disk_write_blocks pages in room, aligned for O_DIRECT */
    char *room;
};

struct guest {
    struct settings settings;
    struct arena *arena;
    const struct clock *clock;
    int ram_fd, shared_fd, event_fd;
    char *ram;
    struct guest_control *control;
    _Atomic uint64_t *dirty;
    uint64_t boot;
    struct witness witness;
    struct gate gate;
    atomic_bool stop; /* never raised: vCPUs end with the process */
    struct vcpu vcpus[GUEST_VCPUS];
    struct disk disks[GUEST_DISKS];
    bool tracking;        /* vCPU 0: as it last saw it */
    atomic_bool keep_tick; /* the next gap spans a suspension: it counts */
    _Atomic int64_t last_tick_us; /* of vCPU 0, or of the image's source; 0: none */
    int64_t ran_us;
    int end_fd; /* eventfd: ended is set */
    _Atomic int ended; /* enum guest_end */
    const char *verify; /* published as sim/verify; "" before */
    int faults_fd;                 /* post-copy: our userfaultfd; -1: memory is whole */
    _Atomic uint64_t *unverified; /* post-copy: one bit a page; NULL: not in it. Freed with the gate closed */
    _Atomic uint64_t bad_page;     /* found by a vCPU; UINT64_MAX: none */
    _Atomic uint64_t looked_at;    /* by the main thread now; UINT64_MAX: none */
    bool adopt;                    /* post-copy: the witness is to learn from the memory when that is whole */
};

static inline struct guest_page *guest_page_at(const struct guest *g, uint64_t page)
{
    return (struct guest_page *)(void *)(g->ram + page * GUEST_PAGE);
}

/* The first whole page within room, which has one more than is needed. */
static inline struct guest_page *guest_page_in(char *room)
{
    return (struct guest_page *)(void *)(room + (GUEST_PAGE - (uintptr_t)room % GUEST_PAGE) % GUEST_PAGE);
}

/* ram.c: false, with a line on stderr, without memory. */
bool ram_create(struct guest *);
/* Page 'page' gets its next version; by the vCPU whose stripe it is in. */
void ram_store(struct guest *, uint64_t page);
/* Gate closed: gives up or takes back memory; the working set is cut to what is left. */
void ram_balloon(struct guest *, uint64_t target_pages);

/* faults.c */
bool faults_begin(struct guest *, const char **why_r); /* before anything touches memory */
bool faults_pending(const struct guest *);
bool faults_lost(const struct guest *); /* somebody may stand at a page that never comes */
bool faults_take(struct guest *, uint64_t page); /* is it still to be verified? Not a second time */
void faults_check(struct guest *, uint64_t page); /* before it is written: the guest crashes when it is not as it was */
/* By the main thread, the gate as 'running' says. False as verify_all. */
bool faults_end(struct guest *, bool running, bool verify, char failed_r[64]);

/* vcpu.c */
void vcpus_boot(struct guest *);  /* gate closed: state of a fresh boot */
void vcpus_start(struct guest *); /* the threads, once */

/* disk.c; all with the gate closed */
bool disk_add(struct guest *, const struct disk_setting *, bool fresh); /* fresh: what the witness knew is void */
bool disk_remove(struct guest *, const char *device);
void disks_open(struct guest *);
/* Flushed; waits for servers that are away, but not when the peer of 'watch' (a socket, or -1) hangs up: then false. */
bool disks_close(struct guest *, int watch);
/* For a disk that goes, or a guest that ends: its requests wait for at most DISK_LAST_MS more. From any state of the gate. */
#define DISK_LAST_MS 5000
void disk_give_up(struct guest *, const char *device);
void disks_give_up(struct guest *);

/* context.c; gate closed */
void context_save(struct guest *, struct guest_context *);
bool context_load(struct guest *, const void *, size_t, const char **why_r);

/* verify.c; gate closed. False with the page (or "disk:<device>:<block>") in failed_r, a line on stderr. */
bool verify_all(struct guest *, char failed_r[64]);
/* The disks that verify_all could not open. must_be_open: it is an error if they still are not. */
bool verify_disks(struct guest *, bool must_be_open, char failed_r[64]);
bool verify_page(struct guest *, uint64_t page);
/* All that are to be verified (faults_take), also while the guest runs. False with the first bad one. */
bool verify_pages(struct guest *, uint64_t *failed_r);
/* Writes what the memory holds into an empty witness. */
void verify_adopt(struct guest *);

/* publish.c: what a guest agent would write to xenstore; tells the toolstack. */
void publish(struct guest *);

/* control.c: serves until the guest ends. */
void control_serve(struct guest *, int listen_fd);

/* main.c: from any thread; the main thread ends the process soon after. */
void guest_end(struct guest *, enum guest_end);

#endif
