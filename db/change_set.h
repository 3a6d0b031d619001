/* What one transaction does: its changes while it is under construction, and as a queued commit.
 *
 * A change is made of a draft (a copy of the row's field values, in the transaction's arena) that
 * becomes one packed row when somebody reads it or at commit. Everything lives in the arena of the
 * caller, who waits until the writer is done with it. */
#ifndef DB_CHANGE_SET_H
#define DB_CHANGE_SET_H

#include <semaphore.h>

#include "db/store.h"
#include "db/txn.h"

/* An inverse set that grows in place: adding a thousand VDIs to an SR must not copy a thousand sets. */
struct grown_set { unsigned field; struct value_list list; struct grown_set *next; };

struct txn_change {
    struct slot *slot;
    struct row *before;      /* held; NULL: the transaction made the object */
    struct row *after;       /* held; NULL: deleted, or the draft was not packed since its last change */
    struct value *draft;     /* class->n_fields; NULL: deleted */
    struct field_set dirty;  /* stored fields that were written */
    struct grown_set *grown;
    bool deleted;
    bool nothing;            /* made and deleted within the transaction */
    struct txn_change *next; /* in the order of the first touch */
};

/* One step of the count of references to absent objects, to be taken back by an abort. */
struct dangling_step { char *ref; int delta; struct dangling_step *next; };

struct old_rows { struct row *row; struct old_rows *next; };

struct txn {
    struct db *db;
    struct arena *arena;
    struct txn_change *changes, **changes_end;
    struct dangling_step *steps; /* newest first */
    struct old_rows *old;        /* packed drafts that were overtaken; handed out, so kept to the end */
    bool finished;
};

struct commit {
    struct commit *next;
    struct txn_change *changes; /* without 'nothing' */
    unsigned n;                 /* 0: only waits for those before it */
    uint64_t generation;
    struct class_set classes;
    bool persistent;            /* some change reaches the disk */
    char *failure;              /* why it failed, or NULL; heap, the committer's */
    sem_t finished;             /* posted by the writer, which then forgets the commit */
};

void txn_release_rows(struct txn *); /* once nobody can read them any more */

/* txn.c, for inverse.c: the change of an object that exists for the transaction; made if needed. */
struct txn_change *txn_touch_slot(struct txn *, struct slot *);
void txn_draft_changed(struct txn *, struct txn_change *); /* before writing into change->draft */
bool txn_slot_exists(const struct slot *);                 /* for the open transaction */
/* The values of a slot that exists, changes included. */
const struct value *txn_slot_fields(const struct slot *);

#endif
