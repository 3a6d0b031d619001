/* Inside of the database: slots (one for each object), what finds them, and who guards what.
 *
 *   readers       --> slot.visible            under store_lock, shared
 *   transactions  --> slot.change, .newest    under txn_lock
 *   writer thread --> swaps slot.visible      under store_lock, exclusive, after the disk
 *
 * (1) slot.newest is the outcome of all queued commits: equal to visible when nothing is queued.
 * (2) A slot is made by the transaction that creates its object and freed when the deletion of the
 *     object is published, or the creation fails. Nothing later refers to it then.
 * (3) Two slots may carry one ref or uuid: a deletion still queued, and the object made anew. At most
 *     one of them is visible, and at most one is newest. */
#ifndef DB_STORE_H
#define DB_STORE_H

#include "db/change_log.h"
#include "db/db.h"
#include "db/field_set.h"
#include "db/index.h"
#include "rpc/base/lock.h"

#define DB_MAX_CLASSES (CLASS_SET_WORDS * 64)
#define DB_MAX_WATCHERS 16u

#define DB_CEILING_STEP 1000000u /* generations reserved on disk at a time */

struct txn_change;
struct sqlite;

struct slot {
    struct index_node by_ref, by_uuid; /* store_lock; nodes are added and removed under txn_lock too */
    struct index_node by_name;         /* store_lock; linked when 'named' */
    const struct class_info *class;
    uint64_t id;                 /* primary key on disk; rises in order of creation */
    const char *ref, *uuid;      /* behind the struct */
    struct row *visible;         /* store_lock; NULL: not yet, or no longer */
    struct row *newest;          /* txn_lock; NULL: not yet queued, or deletion queued */
    struct txn_change *change;   /* txn_lock: what the open transaction does to it */
    struct slot *older, *newer;  /* store_lock: neighbours by last change; linked while visible */
    unsigned position;           /* store_lock: index in class_store.slots */
    unsigned write;              /* writer thread: 1 + index in the batch's writes; 0: none */
    bool named;
};

struct tombstone { char *ref; uint64_t created, generation; };

/* An inverse set that mirrors a field: VBD.VM is mirrored by VM.VBDs. */
struct mirror {
    const struct class_info *class; /* that has the set */
    unsigned field;                 /* the set */
    struct mirror *next;
};

struct class_store {
    const struct class_info *class;
    struct slot **slots;         /* store_lock: in order of creation, with holes */
    unsigned n_slots, cap, n_holes;
    struct slot *last_changed;   /* store_lock: newest change first, through 'older' */
    struct tombstone *tombstones; /* store_lock: oldest first */
    unsigned n_tombstones;
    atomic_uint n_visible;
    _Atomic uint64_t changed_at; /* generation of the newest change or deletion */
    struct mirror **mirrors;     /* const after open: by field; NULL entries: not mirrored */
};

struct watcher { change_log_fn *fn; void *ctx; };

struct db {
    const struct clock *clock;
    struct class_store *classes; /* model_n_classes */

    struct lock txn_lock;
    struct index dangling;       /* txn_lock: refs that mirrored fields name and no object carries */
    uint64_t next_id;            /* txn_lock */
    uint64_t assigned;           /* txn_lock: generation of the newest queued commit */

    struct lock queue_lock;
    struct cond queue_filled;
    struct commit *queue, **queue_end; /* queue_lock: waiting for the writer, oldest first */
    bool stopping;               /* queue_lock */

    struct rwlock store_lock;
    struct index by_ref, by_uuid, by_name; /* store_lock */
    _Atomic uint64_t generation; /* of the newest visible commit; written under store_lock */

    struct lock watch_lock;      /* LEAF */
    struct cond watch_moved;     /* a commit was published, or the watchers have been called */
    struct watcher watchers[DB_MAX_WATCHERS]; /* watch_lock */
    unsigned n_watchers, n_waiting;
    bool calling;                /* watch_lock: the writer is inside the watchers */

    int lock_fd;                 /* the file's lock; -1: memory only */
    char *path, *vfs;
    struct sqlite *disk;         /* writer thread after open; NULL: memory only */
    uint64_t ceiling;            /* writer thread: generations up to here are reserved on disk */
    pthread_t writer;
    bool has_writer;             /* const after open */
    atomic_ulong n_commits, n_batches, sqlite_us;
};

static inline struct class_store *db_class(struct db *db, const struct class_info *class)
{
    return &db->classes[class->id];
}

/* Whether rows of the class, and the field, are kept on disk. */
static inline bool class_is_stored(const struct class_info *c) { return (c->flags & (CLASS_VOLATILE | CLASS_NOT_STORED)) == 0; }
static inline bool field_is_stored(const struct field_info *f) { return (f->flags & (FIELD_VOLATILE | FIELD_INVERSE)) == 0; }

/* db.c: loads a file only to look at it: there is no writer, transactions are not possible. */
NODISCARD struct error *db_look(struct arena *, const char *path, struct db **db_r);

void store_init(struct db *);
void store_release(struct db *);

/* Looks among all slots of the ref (uuid) for one that 'fits'; needs store_lock or (for a slot whose
 * object exists for the open transaction) any share of it. */
typedef bool slot_fits_fn(const struct slot *);
struct slot *store_find_ref(const struct db *, const char *ref, slot_fits_fn *fits);
struct slot *store_find_uuid(const struct db *, const struct class_info *, const char *uuid, slot_fits_fn *fits);
bool slot_is_visible(const struct slot *);

/* Makes a slot that is found by ref and uuid but is not visible. Takes store_lock itself. */
struct slot *store_add(struct db *, const struct class_info *, uint64_t id, const char *ref, const char *uuid);
/* The same with store_lock held, and the opposite: unlinks from everything; slot_free() remains. */
struct slot *store_add_locked(struct db *, const struct class_info *, uint64_t id, const char *ref, const char *uuid);
void store_remove_locked(struct db *, struct slot *);
void slot_free(struct slot *); /* drops its rows */

/* Swaps the visible row: takes its own reference to 'row' (NULL: deleted), gives up the old one's.
 * Needs store_lock exclusively. */
void store_show_locked(struct db *, struct slot *, struct row *row, uint64_t generation);

/* change_log.c: the same for the list of last changes and the deletions. */
void change_log_moved_locked(struct class_store *, struct slot *);
void change_log_gone_locked(struct class_store *, struct slot *);
void change_log_deleted_locked(struct class_store *, const struct row *, uint64_t generation);
void change_log_release(struct class_store *);
/* Calls the watchers with one published commit; wakes change_log_wait. Writer thread, no locks held. */
void change_log_tell(struct db *, uint64_t generation, const struct class_set *, const struct commit_change *, unsigned n);
bool change_log_watched(struct db *);
void change_log_wake(struct db *);

#endif
