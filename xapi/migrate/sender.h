/* One migration at its source, as the files sender*.c share it. Private to xapi/migrate.
 *
 * A sender lives on the stack of migrate.send and belongs to its thread. Others reach it only through the table of
 * outgoing migrations, under the MIGRATE lock, and touch only what is marked 'any thread'. */
#ifndef XAPI_MIGRATE_SENDER_H
#define XAPI_MIGRATE_SENDER_H

#include <stdatomic.h>

#include "rpc/base/uuid.h"
#include "xapi/migrate/disks.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/wire.h"
#include "xenops/stream/fan.h"

#define HANDSHAKE_MS 60000    /* for the peer's answer where it has little to do */
#define RESTORE_MS 600000     /* for READY of a peer that does not say that it is alive */
#define COMMIT_MS 10000       /* for COMMITTED before asking on a new connection */
#define SENDER_STEPS_MAX 16

/* What the destination's answer to migrate.prepare offers; an old peer offers nothing. */
struct sender_offer {
    unsigned streams; /* at least 1 */
    bool zstd, confirm, alive, report;
};

struct sender {
    struct call *c;
    struct call steady; /* the same without deadline or cancel: for undo and from GO on */
    struct migrations *m;
    struct migration_claim claim;
    struct sender *next;  /* MIGRATE lock */
    const char *id, *vm_uuid, *final_uuid, *key;
    char source_temp[UUID_LEN + 1], destination_temp[UUID_LEN + 1];
    const struct value *spec;
    struct value disks, destination_disks, vifs; /* sets */
    struct http_target target;
    struct save_policy policy;
    struct save_control control; /* any thread */
    atomic_bool paused;          /* any thread: the guest stays paused there */
    atomic_uint step;            /* any thread: of the table */
    /* the streams */
    struct sender_offer offer;
    unsigned wanted_streams, n_streams;
    enum fan_compress compress;
    struct migration_worker worker;
    struct byte_stream *vm;
    struct byte_stream *raw[FAN_MAX]; /* the connections; also in 'worker' while open */
    struct byte_stream *confirmed[FAN_MAX], *fan; /* wrappers round them, or NULL */
    struct byte_stream *mem;          /* what the image is written to: the last wrapper, or raw[0] */
    int done_fd; /* readable once the image is sent: ends the watch */
    int64_t silence_ms;
    /* what came of it */
    struct lock lock;                 /* class LEAF: 'progress' */
    struct save_progress progress;    /* lock */
    struct save_result saved;
    uint64_t wire_bytes;
    struct value report;              /* of the destination; void: none */
    const char *postcopy_error;
    int64_t postcopy_bytes;
    int64_t began_us, running_us, step_us[SENDER_STEPS_MAX];
    int64_t last_us[2]; /* when the last pages began and ended, mono */
};

/* sender.c */
const char *sender_step_name(const struct sender *);
unsigned sender_step_count(void);
const char *sender_step_name_at(unsigned i);

/* sender_args.c */
NODISCARD struct error *sender_init(struct sender *, const struct value *args);
void sender_read_offer(struct sender *, const struct value *answer);

/* sender_connect.c: the vm stream, the memory streams, what is said on them */
NODISCARD struct error *sender_open_vm(struct sender *);
void sender_close_vm(struct sender *);
NODISCARD struct error *sender_open_memory(struct sender *); /* all of them, and the wrappers */
void sender_close_memory(struct sender *);
NODISCARD struct error *sender_contact_failed(struct sender *, const char *what, int r);
NODISCARD struct error *sender_transport_failed(struct sender *, const char *what, int r);
/* The next message on the vm stream that is not a sign of life: the peer's error, or NULL. 'watch': cancelling ends it. */
NODISCARD struct error *sender_expect(struct sender *, struct byte_stream *, const char *what, int timeout_ms, bool watch);
/* -errno, or 0 with *peer_r. Skips signs of life; each of them starts timeout_ms again. */
NODISCARD int sender_hear(struct sender *, struct byte_stream *, int stop_fd, int timeout_ms, struct error **peer_r);

/* sender_steps.c */
typedef struct error *sender_step_fn(struct sender *);
typedef void sender_undo_fn(struct sender *);
sender_step_fn sender_step_journal, sender_step_prepare, sender_step_connect, sender_step_memory, sender_step_stream, sender_step_ready,
    sender_step_rename, sender_step_go, sender_step_running, sender_step_pages, sender_step_finish;
sender_undo_fn sender_undo_journal, sender_undo_prepare, sender_undo_connect, sender_undo_memory, sender_undo_stream, sender_undo_rename;
NODISCARD struct error *sender_note(struct sender *, enum journal_state);

/* sender_image.c: the image, live, watched */
NODISCARD struct error *sender_save(struct sender *);

/* sender_control.c: the table, migrate.status and migrate.control; the result */
NODISCARD struct error *sender_enter(struct sender *);
void sender_leave(struct sender *);
struct value sender_result(struct sender *);

#endif
