/* The conversation between the simulator's backend and one guest, over <directory>/control.
 *
 * One request a connection: struct guest_request, then 'len' bytes of payload. The answer is struct
 * guest_reply and 'len' bytes: the reason as text, or what was asked for. SUSPEND and SHUTDOWN are
 * answered twice: ACK at once, then the result (for SHUTDOWN the end of the process). A guest told to
 * play dead (sim-no-…-ack) does not answer at all. Everything is in host byte order: one machine.
 *
 * The guest's directory (its working directory):
 *   settings     "key=value" lines, written before it starts (guest_text.h)
 *   domain.json  the backend's record of it
 *   control      this socket
 *   end          written when it ends of its own accord: one word of guest_end_names
 *   guest.log    its standard error */
#ifndef XENOPS_SIM_GUEST_PROTOCOL_H
#define XENOPS_SIM_GUEST_PROTOCOL_H

#include <stdint.h>

#define GUEST_REQUEST_MAGIC 0x51455247u
#define GUEST_PAYLOAD_MAX 65536u
#define GUEST_ADOPT_FD 3 /* inherited: the guest says 'R' when it listens and ends unless it hears 'A' */

enum guest_verb {
    GUEST_VERB_STATUS = 1, /* OK: nothing */
    GUEST_VERB_FDS,      /* OK with 3 descriptors: RAM, shared, eventfd (counts published changes) */
    GUEST_VERB_BUILD,    /* boots from scratch: empty memory, fresh witness; paused */
    GUEST_VERB_UNPAUSE,
    GUEST_VERB_PAUSE,
    GUEST_VERB_SUSPEND,  /* ACK, then OK with struct guest_context; its disks are closed */
    GUEST_VERB_RESUME,   /* in place, disks opened again */
    GUEST_VERB_SHUTDOWN, /* number: enum guest_end; ACK, then the process ends */
    GUEST_VERB_BALLOON,  /* number: target in bytes */
    GUEST_VERB_LOAD,     /* payload: struct guest_context; memory is in place; number 1: not all of it (post-copy); paused */
    GUEST_VERB_VERIFY,   /* OK, or FAILED with "<page>": then it ends as crashed */
    GUEST_VERB_PLUG,     /* payload: one settings line "disk.<device>=…" */
    GUEST_VERB_UNPLUG,   /* payload: the device */
    GUEST_VERB_FAULTS,   /* after LOAD 1: OK with 1 descriptor, the userfaultfd, and the address of its RAM (u64) as payload */
    GUEST_VERB_FILLED,   /* post-copy is over; number 1: as VERIFY, while it runs on, of all that was not verified before its use */
};

enum guest_answer {
    GUEST_ANSWER_OK,
    GUEST_ANSWER_ACK,
    GUEST_ANSWER_STATE,  /* not in this state; the reason says which */
    GUEST_ANSWER_FAILED, /* the reason says why */
};

enum guest_end { GUEST_END_NONE, GUEST_END_POWEROFF, GUEST_END_REBOOT, GUEST_END_CRASH, GUEST_END_KILLED };
#define GUEST_END_NAMES { "none", "poweroff", "reboot", "crash", "killed" }

struct guest_request {
    uint32_t magic, verb;
    int64_t number;
    uint32_t len, zero;
};
struct guest_reply {
    uint32_t magic, answer;
    uint32_t len, zero;
};

/* --- the vCPU state that travels in HVM_CONTEXT --------------------------------------------------- */

#define GUEST_CONTEXT_MAGIC 0x31545854435f4d53ull
#define GUEST_CONTEXT_VERSION 2u
#define GUEST_VCPUS 4u /* threads; more vCPUs than this share them */
#define GUEST_DISKS 16u
#define GUEST_DEVICE_LEN 16u

struct guest_vcpu {
    uint64_t registers[16]; /* change with every store; checked with the context */
    uint64_t rip, rflags;
    uint64_t rng;
    uint64_t fill_next; /* first page of its stripe that boot has not filled yet */
    uint64_t stores;
};

struct guest_context {
    uint64_t magic;
    uint32_t size, version;
    char uuid[40];
    uint64_t boot;
    uint64_t n_pages, actual_pages, target_pages;
    uint32_t n_vcpus, zero;
    uint64_t pages_written, blocks_written, ticks;
    int64_t ran_ms;          /* running time since boot */
    int64_t last_tick_us;    /* CLOCK_MONOTONIC: same machine */
    uint64_t blackout_us;
    int64_t clock_offset_us; /* CLOCK_REALTIME less CLOCK_MONOTONIC */
    struct guest_vcpu vcpus[GUEST_VCPUS];
    struct { char device[GUEST_DEVICE_LEN]; uint64_t seq; } disks[GUEST_DISKS];
    uint64_t checksum; /* guest_checksum of all before */
};

#endif
