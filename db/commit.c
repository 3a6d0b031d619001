/* Group commit: one writer thread makes queued transactions durable, shows them, and wakes their callers.
 *
 *   queue --> all of it is one batch --> one SQLite transaction --> rows swapped --> watchers --> callers
 *
 * If the disk fails, the batch and everything queued behind it fail, since they may build on it. To be
 * sure that no transaction under construction builds on it either, the writer takes txn_lock before it
 * drops the queue: whoever was under construction has then queued, and fails with the rest. */
#include "db/commit.h"

#include <errno.h>
#include <string.h>

#include "db/change_set.h"
#include "db/inverse.h"
#include "db/sqlite.h"
#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

LOG_MODULE(db);

/* --- the caller's side ------------------------------------------------------------------------------ */

/* Packs the drafts, drops what came to nothing, and says what the commit touches. */
static void commit_prepare(struct txn *txn, struct commit *commit)
{
    struct txn_change **at = &txn->changes;

    while (*at != NULL) {
        struct txn_change *c = *at;
        c->slot->change = NULL;
        if (c->nothing) {
            rwlock_write(&txn->db->store_lock);
            store_remove_locked(txn->db, c->slot);
            rwlock_drop(&txn->db->store_lock);
            slot_free(c->slot);
            row_unref(c->after);
            *at = c->next;
            continue;
        }
        if (!c->deleted && c->after == NULL)
            c->after = row_new(c->slot->class, c->slot->ref, 0, 0, c->draft);
        class_set_add(&commit->classes, c->slot->class->id);
        if (class_is_stored(c->slot->class) && (c->before == NULL || c->deleted || !field_set_empty(&c->dirty)))
            commit->persistent = true;
        commit->n++;
        at = &c->next;
    }
    commit->changes = txn->changes;
}

/* The rows are still this thread's alone. */
static void commit_stamp(struct commit *commit)
{
    for (struct txn_change *c = commit->changes; c != NULL; c = c->next) {
        struct slot *slot = c->slot;
        if (c->after != NULL) {
            c->after->generation = commit->generation;
            c->after->created = c->before != NULL ? c->before->created : commit->generation;
        }
        row_unref(slot->newest);
        slot->newest = c->after != NULL ? row_ref(c->after) : NULL;
    }
}

/* Tells the lock check of debug builds that this waits, which nobody may do under a lock. */
static void about_to_wait(struct db *db)
{
#if defined(SANITIZED) || defined(LOCK_CHECK)
    LOCK_SCOPE(&db->watch_lock);
    (void)cond_wait_ms(&db->watch_moved, &db->watch_lock, 0);
#endif
}

/* Queues, drops txn_lock, waits for the outcome. A semaphore, not a condition: 64 callers that are
 * woken together would all run into the condition's lock. */
static struct error *queue_and_wait(struct db *db, struct arena *arena, struct commit *commit)
{
    CHECK(sem_init(&commit->finished, 0, 0) == 0);
    lock_take(&db->queue_lock);
    *db->queue_end = commit;
    db->queue_end = &commit->next;
    cond_signal(&db->queue_filled);
    lock_drop(&db->queue_lock);
    lock_drop(&db->txn_lock);
    about_to_wait(db);
    while (sem_wait(&commit->finished) != 0)
        CHECK(errno == EINTR);

    CHECK(sem_destroy(&commit->finished) == 0);
    if (commit->failure == NULL)
        return NULL;
    AUTO_FREE char *failure = commit->failure;
    return err_internal(arena, "the database could not be written: %s", failure);
}

struct error *commit_and_wait(struct txn *txn, uint64_t *generation_r)
{
    struct db *db = txn->db;
    struct commit commit = { 0 };

    commit_prepare(txn, &commit);
    commit.generation = commit.n > 0 ? db->assigned + 1 : db->assigned;
    if (generation_r != NULL)
        *generation_r = commit.generation;
    if (commit.n == 0 && db->assigned == db_generation(db)) { /* else what it read may not be durable yet */
        lock_drop(&db->txn_lock);
        return NULL;
    }
    db->assigned = commit.generation;
    commit_stamp(&commit);
    return queue_and_wait(db, txn->arena, &commit);
}

struct error *db_skip_to(struct db *db, struct arena *arena, uint64_t generation)
{
    struct commit commit = { .generation = generation };

    lock_take(&db->txn_lock);
    if (db->assigned >= generation) {
        lock_drop(&db->txn_lock);
        return NULL;
    }
    db->assigned = generation;
    return queue_and_wait(db, arena, &commit);
}

/* --- to disk ------------------------------------------------------------------------------------------ */

struct batch {
    struct commit *commits;
    struct sqlite_write *writes;
    unsigned n_writes, cap;
};

static struct sqlite_write *batch_write(struct batch *b, struct slot *slot)
{
    if (slot->write != 0)
        return &b->writes[slot->write - 1];
    if (b->n_writes == b->cap) {
        b->cap = b->cap != 0 ? b->cap * 2 : 64;
        b->writes = xrealloc(b->writes, b->cap * sizeof(*b->writes));
    }
    struct sqlite_write *w = &b->writes[b->n_writes++];
    *w = (struct sqlite_write){ .class = slot->class, .id = slot->id, .slot = slot };
    slot->write = b->n_writes;
    return w;
}

/* Folds all changes of one object in the batch into one statement. */
static void batch_add(struct batch *b, const struct txn_change *c)
{
    bool touches_disk = c->before == NULL || c->deleted || !field_set_empty(&c->dirty);
    if (!class_is_stored(c->slot->class) || !touches_disk)
        return;
    struct sqlite_write *w = batch_write(b, c->slot);
    w->row = c->after;
    w->inserts = w->inserts || c->before == NULL;
    w->deletes = c->deleted;
    field_set_join(&w->fields, &c->dirty);
}

static void batch_collect(struct batch *b)
{
    for (struct commit *commit = b->commits; commit != NULL; commit = commit->next)
        for (struct txn_change *c = commit->persistent ? commit->changes : NULL; c != NULL; c = c->next)
            batch_add(b, c);
    for (unsigned i = 0; i < b->n_writes; i++)
        b->writes[i].slot->write = 0;
}

/* NULL, or why not (heap). */
static char *batch_store(struct db *db, struct batch *b)
{
    uint64_t newest = 0;

    if (db->disk == NULL)
        return NULL;
    b->n_writes = 0;
    batch_collect(b);
    for (struct commit *commit = b->commits; commit != NULL; commit = commit->next)
        newest = commit->generation;
    uint64_t ceiling = newest > db->ceiling ? newest + DB_CEILING_STEP : 0;
    if (b->n_writes == 0 && ceiling == 0)
        return NULL;

    int64_t began = clock_us(db->clock);
    if (fault_hit("db.before-sqlite") || fault_hit("db.disk"))
        return xstrdup("made to fail by a fault point");
    char *failure = sqlite_commit(db->disk, b->writes, b->n_writes, ceiling);
    if (failure != NULL)
        return failure;
    (void)fault_hit("db.after-sqlite");
    if (ceiling != 0)
        db->ceiling = ceiling;
    atomic_fetch_add(&db->sqlite_us, (unsigned long)(clock_us(db->clock) - began));
    atomic_fetch_add(&db->n_batches, 1);
    return NULL;
}

/* --- showing ------------------------------------------------------------------------------------------ */

/* Deleted slots are unlinked here and freed once no lock is held; returns them chained by 'older'. */
static struct slot *batch_show(struct db *db, const struct batch *b)
{
    struct slot *gone = NULL;

    rwlock_write(&db->store_lock);
    for (const struct commit *commit = b->commits; commit != NULL; commit = commit->next) {
        for (const struct txn_change *c = commit->changes; c != NULL; c = c->next) {
            store_show_locked(db, c->slot, c->after, commit->generation);
            if (c->after != NULL)
                continue;
            store_remove_locked(db, c->slot);
            c->slot->older = gone;
            gone = c->slot;
        }
        atomic_store_explicit(&db->generation, commit->generation, memory_order_release);
    }
    rwlock_drop(&db->store_lock);
    return gone;
}

static void commit_tell(struct db *db, const struct commit *commit)
{
    struct commit_change few[16], *changes = few;
    AUTO_FREE struct commit_change *many = NULL;
    unsigned n = 0;

    if (commit->n == 0 || !change_log_watched(db))
        return;
    if (commit->n > ARRAY_LEN(few))
        changes = many = xcalloc(commit->n, sizeof(*many));
    for (const struct txn_change *c = commit->changes; c != NULL; c = c->next)
        changes[n++] = (struct commit_change){
            .kind = c->deleted          ? CHANGE_DEL
                    : c->before == NULL ? CHANGE_ADD
                                        : CHANGE_MOD,
            .old_row = c->before,
            .new_row = c->after,
        };
    change_log_tell(db, commit->generation, &commit->classes, changes, n);
}

/* Wakes the callers; their commits are gone afterwards. failure NULL: done. */
static void batch_finish(struct commit *commits, const char *failure)
{
    for (struct commit *commit = commits, *next; commit != NULL; commit = next) {
        next = commit->next;
        commit->failure = failure != NULL ? xstrdup(failure) : NULL;
        CHECK(sem_post(&commit->finished) == 0);
    }
}

static void batch_publish(struct db *db, struct batch *b)
{
    (void)fault_hit("db.before-publish");
    struct slot *gone = batch_show(db, b);
    for (const struct commit *commit = b->commits; commit != NULL; commit = commit->next) {
        atomic_fetch_add_explicit(&db->n_commits, commit->n > 0, memory_order_relaxed);
        commit_tell(db, commit);
    }
    change_log_wake(db);
    batch_finish(b->commits, NULL);
    while (gone != NULL) {
        struct slot *next = gone->older;
        slot_free(gone);
        gone = next;
    }
}

/* --- failing ------------------------------------------------------------------------------------------ */

/* Everything queued goes back to what is visible. Needs txn_lock. */
static void queue_forget(struct db *db, struct commit *commits)
{
    struct slot *unborn = NULL;

    rwlock_write(&db->store_lock);
    for (struct commit *commit = commits; commit != NULL; commit = commit->next) {
        for (struct txn_change *c = commit->changes; c != NULL; c = c->next) {
            struct slot *slot = c->slot;
            row_unref(slot->newest);
            slot->newest = slot->visible != NULL ? row_ref(slot->visible) : NULL;
            if (c->before != NULL)
                continue;
            slot->older = unborn;
            unborn = slot;
        }
    }
    for (struct slot *slot = unborn; slot != NULL; slot = slot->older)
        store_remove_locked(db, slot);
    rwlock_drop(&db->store_lock);
    while (unborn != NULL) {
        struct slot *next = unborn->older;
        slot_free(unborn);
        unborn = next;
    }
    inverse_recount(db);
}

static void batch_fail(struct db *db, struct batch *b, const char *failure)
{
    log_err("a commit failed: %s", failure);
    lock_take(&db->txn_lock);
    lock_take(&db->queue_lock);
    struct commit *commits = b->commits, *last = commits;
    while (last->next != NULL)
        last = last->next;
    last->next = db->queue;
    db->queue = NULL;
    db->queue_end = &db->queue;
    db->assigned = db_generation(db);
    lock_drop(&db->queue_lock);
    queue_forget(db, commits);
    lock_drop(&db->txn_lock);
    batch_finish(commits, failure);
}

/* --- the thread --------------------------------------------------------------------------------------- */

static struct commit *queue_take(struct db *db)
{
    LOCK_SCOPE(&db->queue_lock);
    while (db->queue == NULL && !db->stopping)
        cond_wait(&db->queue_filled, &db->queue_lock);
    struct commit *commits = db->queue;
    db->queue = NULL;
    db->queue_end = &db->queue;
    return commits;
}

static void *writer_run(void *arg)
{
    struct db *db = arg;
    struct batch b = { 0 };

    while ((b.commits = queue_take(db)) != NULL) {
        AUTO_FREE char *failure = batch_store(db, &b);
        if (failure == NULL)
            batch_publish(db, &b);
        else
            batch_fail(db, &b, failure);
    }
    xfree(b.writes);
    return NULL;
}

void commit_writer_start(struct db *db) { db->writer = thread_start("db-writer", writer_run, db); }

void commit_writer_join(struct db *db)
{
    lock_take(&db->queue_lock);
    db->stopping = true;
    cond_signal(&db->queue_filled);
    lock_drop(&db->queue_lock);
    CHECK(pthread_join(db->writer, NULL) == 0);
}
