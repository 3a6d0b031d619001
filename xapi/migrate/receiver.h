/* One migration at its destination, as the files receiver*.c share it. Private to xapi/migrate.
 *
 * Its phase is guarded by the MIGRATE lock; nobody waits for the disk under it: who decides takes the phase DECIDING, writes
 * the journal unlocked, then publishes the outcome.
 *
 *   PREPARED -> RESTORING -> READY -> COMMITTED | ABORTED, through DECIDING while the journal is written
 *
 * READY, GO and ask/abort race for DECIDING; whoever loses waits for the outcome. ABORTED is for ever. */
#ifndef XAPI_MIGRATE_RECEIVER_H
#define XAPI_MIGRATE_RECEIVER_H

#include "rpc/base/memory.h"
#include "xapi/migrate/disks.h"
#include "xapi/migrate/migrations.h"

enum phase { PHASE_PREPARED, PHASE_RESTORING, PHASE_READY, PHASE_DECIDING, PHASE_COMMITTED, PHASE_ABORTED };

struct incoming {
    struct incoming *next;
    unsigned refs;       /* the list's, and one for each thread that works on it */
    char *id, *vm_uuid, *temp;
    struct arena *arena; /* owns spec and what it points to */
    struct vm_spec spec;
    const char *key;     /* "": none */
    struct value disks, vifs; /* sets, in 'arena' (disks.h, announce.h) */
    int64_t prepared_ms; /* mono */
    /* MIGRATE lock */
    enum phase phase;
    bool paused;         /* the guest stays paused here */
    bool vm_connected, image_done;
    unsigned n_streams;  /* as the source says on stream 0; 0: not yet */
    struct error *image_error; /* in 'arena' */
    bool released;       /* the conversation is over: threads that keep a mem stream may close it */
    unsigned mem_threads;
    struct byte_stream *vm, *mem[FAN_MAX]; /* for waking the threads that read them; borrowed from those threads */
    struct byte_stream *reading; /* what the restore reads: a wrapper, or mem[0] */
};

/* What the cookies of a PUT say of it. */
struct put_words {
    bool mem, fan, confirm, alive, report;
    unsigned stream, streams;
};

/* receiver_table.c */
struct incoming *incoming_new(const char *id, const char *vm, const char *temp);
struct incoming *incoming_ref(struct migrations *, const char *id); /* a reference, or NULL */
struct incoming *incoming_find_locked(struct migrations *, const char *id); /* no reference */
void incoming_unref(struct migrations *, struct incoming *);
void incoming_unref_locked(struct incoming *);
void incoming_remove_locked(struct migrations *, struct incoming *);
void incoming_free_all(struct migrations *);
NODISCARD struct error *incoming_note(struct arena *, struct migrations *, struct incoming *, enum journal_state);
/* False when it is not known, or has been switched already. */
bool incoming_set_paused(struct migrations *, const char *id, bool paused);
/* Thread, with the struct migrations: gives up what was prepared and whose source never came. */
void *incoming_patience(void *migrations);

/* receiver_decide.c: exactly one of COMMITTED and ABORTED, durable before anyone hears of it */
enum phase incoming_decide(struct arena *, struct migrations *, struct incoming *, enum phase wish);
struct error *incoming_refused(struct arena *, const char *id);

/* receiver_streams.c: a mem stream's thread, until the conversation is over */
void receive_mem(struct call *, struct migrations *, struct incoming *, const struct put_words *, struct byte_stream *);
/* Waits until the image is complete; says that it is alive on 'vm' meanwhile (NULL: silently). */
NODISCARD struct error *receive_wait_image(struct call *, struct migrations *, struct incoming *, struct byte_stream *vm);

/* receiver.c: the vm stream's thread */
void receive_vm(struct call *, struct migrations *, struct incoming *, const struct put_words *, struct byte_stream *);

#endif
