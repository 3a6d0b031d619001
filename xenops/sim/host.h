/* The simulated host: its domains, its memory, its watch thread.
 *
 * state_dir/
 *   next_domid            the last domid given out
 *   domains/<domid>/      one guest's directory (guest_protocol.h)
 *   witness/              unless sim-witness-dir says otherwise
 *
 * A domain's struct is counted: the table holds one reference, whoever works on it another. What the
 * lock guards is marked; the rest of a domain is set once, before it enters the table, or atomic.
 * Lock class XENOPS; nobody waits or does I/O under it except in its own condition. */
#ifndef XENOPS_SIM_HOST_H
#define XENOPS_SIM_HOST_H

#include <stdatomic.h>

#include "rpc/base/lock.h"
#include "rpc/base/text.h"
#include "xenops/backend.h"
#include "xenops/sim/guest_memory.h"
#include "xenops/sim/guest_protocol.h"

struct sim_options {
    const char *guest_program, *witness_dir;
    int64_t memory; /* bytes */
    unsigned cpus, sockets;
    const char *cpu_vendor, *cpu_model, *cpu_flags, *cpu_features, *capabilities;
    double cpu_mhz;
    int64_t suspend_ack_ms, suspend_ms, start_ms;
    bool verify;
};

struct sim_busy;
struct sim_domain {
    atomic_uint refs;
    struct sim_domain *next; /* lock */
    char *uuid;              /* lock: rename */
    int domid;
    char *dir;
    pid_t pid;
    unsigned long long start_time;
    int pidfd, ram_fd, event_fd; /* -1: ended before we found it */
    struct guest_control *control; /* mapped; NULL likewise */
    size_t control_size;
    uint64_t n_pages;
    int64_t memory_static_max;
    bool ready;              /* lock: its process is up; until then nobody finds it */
    int64_t reserved;        /* lock: bytes counted against the host */
    unsigned vcpus;
    int64_t started_at;      /* wall seconds */
    atomic_int end;          /* enum guest_end; NONE while it lives */
    char *spec;              /* state text of its vm_spec */
    struct sim_busy *busy;   /* lock: the save or post-copy that goes on; NULL: none */
    _Atomic(uint8_t *) memory; /* our mapping of its RAM since a save or restore, until it runs; or NULL. Taken by exchange */
    uint64_t *missing;       /* post-copy: one bit a page to come; belongs to restore, then to receive */
    int faults_fd;           /* post-copy: the guest's userfaultfd, or -1 */
    uint64_t guest_ram;      /* where the guest has its RAM */
};

struct sim_host {
    struct arena *arena; /* options */
    char *state_dir;
    const struct clock *clock;
    struct sim_options options;
    xenops_watch_fn *watch;
    void *watch_ctx;
    struct lock lock;
    struct cond changed;        /* a domain ended */
    struct sim_domain *domains; /* lock */
    int next_domid;             /* lock */
    bool domid_writing;         /* lock: next_domid is being made durable */
    int epoll_fd, stop_fd;
    pthread_t watcher;
};

/* options.c */
void sim_options_read(struct sim_host *, const struct value *options);
struct error *sim_facts(struct call *, void *host, struct host_facts *);

/* domain.c */
struct sim_domain *sim_domain_new(const char *uuid, int domid, const char *dir);
struct sim_domain *sim_domain_ref(struct sim_domain *);
void sim_domain_unref(struct sim_domain *); /* NULL is fine */
/* A reference, or DOMAIN_NOT_FOUND. */
NODISCARD struct error *sim_domain_find(struct call *, struct sim_host *, const char *uuid, struct sim_domain **);
/* The same, and it must not have ended. */
NODISCARD struct error *sim_domain_find_alive(struct call *, struct sim_host *, const char *uuid, struct sim_domain **);
/* From now on it is found and listed. */
void sim_domain_ready(struct sim_host *, struct sim_domain *);
/* Enters the table and reserves memory: HOST_NOT_ENOUGH_FREE_MEMORY, VM_BAD_POWER_STATE when the uuid is taken. */
NODISCARD struct error *sim_domain_insert(struct call *, struct sim_host *, struct sim_domain *, int64_t reserve);
void sim_domain_remove(struct sim_host *, struct sim_domain *);
/* Changes what it has reserved; the same error. */
NODISCARD struct error *sim_domain_reserve(struct call *, struct sim_host *, struct sim_domain *, int64_t bytes);
NODISCARD struct error *sim_domid_next(struct call *, struct sim_host *, int *domid_r);
int64_t sim_memory_free(struct sim_host *);
struct error *sim_bad_state(struct call *, const char *expected, const char *actual);
enum domain_state sim_domain_state(const struct sim_domain *);
/* Waits for the end until 'until_ms' on the host's clock (0: for ever): false when that passed or on cancellation. */
bool sim_domain_wait_end(struct call *, struct sim_host *, struct sim_domain *, int64_t until_ms);
void sim_memory_unmap(struct sim_domain *); /* what a save or restore mapped, if it still is */
#define AUTO_DOMAIN CLEANUP(sim_domain_cleanup) struct sim_domain
static inline void sim_domain_cleanup(struct sim_domain **d) { sim_domain_unref(*d); }

/* domain_record.c: domain.json and "end" in the domain's directory. */
NODISCARD struct error *sim_record_write(struct call *, const struct sim_domain *, const char *uuid);
/* A domain from its directory; NULL with *why_r when it holds none. pid 0: it never came to life. */
struct sim_domain *sim_record_read(struct arena *, const char *dir, const char **why_r);
void sim_end_write(const struct sim_domain *, enum guest_end);
enum guest_end sim_end_read(const struct sim_domain *); /* NONE: no record */
void sim_dir_remove(const char *dir);

/* spawn.c */
NODISCARD struct error *sim_guest_start(struct call *, struct sim_host *, const struct vm_spec *, struct sim_domain *);
/* Takes descriptors and memory of a running guest: after a start, and when found again. */
NODISCARD struct error *sim_guest_attach(struct call *, struct sim_host *, struct sim_domain *);
void sim_guest_kill(struct sim_domain *);
/* "disk.<device>=rw <size> <path>", in a settings file and for PLUG. */
void sim_disk_line(struct text *, const struct disk_spec *);

/* watch.c */
int sim_watch_start(struct sim_host *); /* 0 or -errno */
void sim_watch_stop(struct sim_host *);
void sim_watch_add(struct sim_host *, struct sim_domain *);
void sim_watch_remove(struct sim_host *, struct sim_domain *);
/* sim_busy_cancel once 'fd' is readable. The fd is the watcher's alone; removed before it is closed. */
int sim_watch_cancel(struct sim_host *, struct sim_domain *, int fd);
void sim_watch_cancel_remove(struct sim_host *, int fd);
void sim_watch_tell(struct sim_host *, struct sim_domain *); /* something changed: calls the watch function */

/* busy.c: what goes on for long with a domain, on a stream, and is broken off when the guest ends or is destroyed.
 * 'call' is c with a cancel flag of its own: raised with c's, and when it is broken off; either way the stream is aborted. */
struct sim_busy {
    struct sim_host *host;
    struct sim_domain *domain;
    struct byte_stream *stream;
    struct call call;
    bool outlives;      /* the end of the guest's process is no reason to break it off */
    bool broken;        /* lock: it was */
    int cancel_copy_fd; /* c's, for the watcher; or -1 */
};
/* VM_BAD_POWER_STATE [running; postcopy] when something else goes on. */
NODISCARD struct error *sim_busy_begin(struct call *, struct sim_host *, struct sim_domain *, struct byte_stream *, bool outlives,
                                       struct sim_busy *);
/* e, or what it comes from: VM_BAD_POWER_STATE [running; halted] when the guest has ended, TASK_CANCELLED only for c's cancel. */
struct error *sim_busy_end(struct call *, struct sim_busy *, struct error *e);
void sim_busy_break(struct sim_host *, struct sim_domain *, bool by_guest); /* its process ended */
void sim_busy_cancel(struct sim_host *, struct sim_domain *);            /* the watcher: c was cancelled */

/* postcopy.c */
/* "… cannot now": VM_BAD_POWER_STATE [running; postcopy] of a domain that is in the middle of it. */
NODISCARD struct error *sim_postcopy_refuse(struct call *, const struct sim_domain *, const char *expected);
/* Before LOAD: keeps a copy of the bitmap. */
void sim_postcopy_prepare(struct sim_domain *, const uint64_t *missing, uint64_t n_missing);
/* After LOAD: the guest's userfaultfd. */
NODISCARD struct error *sim_postcopy_attach(struct call *, struct sim_domain *);
/* VERIFY or FILLED, with the guest's own words when it finds something else than it wrote. */
NODISCARD struct error *sim_verify(struct call *, struct sim_host *, struct sim_domain *, enum guest_verb);
bool sim_postcopy_ready(void *host);

/* guest_call.c: one request, one answer. FAILED gives INTERNAL_ERROR, STATE gives VM_BAD_POWER_STATE. */
struct guest_answered { enum guest_answer answer; const uint8_t *payload; size_t len; };
NODISCARD struct error *sim_guest_call(struct call *, struct sim_domain *, enum guest_verb, int64_t number, const void *payload,
                                       size_t len, const char *expected);
/* A request answered with n descriptors and, where payload is wanted, exactly len bytes. 0 or -errno. */
int sim_guest_call_fds(const struct sim_domain *, enum guest_verb, int *fds, unsigned n, void *payload, size_t len);
/* The parts of it, for the verbs with two answers. Waits until until_ms on c's clock; -ETIMEDOUT, -ECANCELED. */
int sim_guest_connect(const struct sim_domain *);
int sim_guest_send(int fd, enum guest_verb, int64_t number, const void *payload, size_t len);
int sim_guest_receive(struct call *, int fd, int64_t until_ms, struct guest_answered *);

/* lifecycle.c, list.c, save.c, restore.c: the vtable's functions */
void sim_info_fill(struct call *, const struct sim_domain *, const char *uuid, struct domain_info *);
/* Sets the reservation to what the guest has or is to have. */
void sim_reserve_actual(struct call *, struct sim_host *, struct sim_domain *);
xenops_create_fn sim_create;
xenops_build_fn sim_build;
xenops_domain_fn sim_unpause, sim_pause, sim_destroy, sim_resume;
xenops_shutdown_fn sim_shutdown;
xenops_rename_fn sim_rename;
xenops_balloon_fn sim_balloon;
xenops_save_fn sim_save;
xenops_restore_fn sim_restore;
xenops_disk_fn sim_disk_plug, sim_disk_unplug;
xenops_list_fn sim_list;
xenops_throttle_fn sim_throttle;
xenops_postcopy_fn sim_postcopy_send, sim_postcopy_receive;

#endif
