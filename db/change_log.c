#include "db/change_log.h"

#include <stdlib.h>
#include <string.h>

#include "db/store.h"
#include "rpc/base/call.h"
#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define TOMBSTONES_MAX 512u
#define TOMBSTONES_KEPT 256u
#define WAIT_SLICE_MS 50 /* how long a cancelled wait may go on */

/* --- what the store keeps ------------------------------------------------------------------------------ */

void change_log_gone_locked(struct class_store *cs, struct slot *slot)
{
    if (cs->last_changed == slot)
        cs->last_changed = slot->older;
    if (slot->older != NULL)
        slot->older->newer = slot->newer;
    if (slot->newer != NULL)
        slot->newer->older = slot->older;
    slot->older = slot->newer = NULL;
}

void change_log_moved_locked(struct class_store *cs, struct slot *slot)
{
    if (cs->last_changed == slot)
        return;
    change_log_gone_locked(cs, slot);
    slot->older = cs->last_changed;
    if (slot->older != NULL)
        slot->older->newer = slot;
    cs->last_changed = slot;
}

void change_log_deleted_locked(struct class_store *cs, const struct row *row, uint64_t generation)
{
    if (cs->tombstones == NULL)
        cs->tombstones = xcalloc(TOMBSTONES_MAX, sizeof(*cs->tombstones));
    if (cs->n_tombstones == TOMBSTONES_MAX) {
        unsigned cut = TOMBSTONES_MAX - TOMBSTONES_KEPT;
        for (unsigned i = 0; i < cut; i++)
            xfree(cs->tombstones[i].ref);
        memmove(cs->tombstones, cs->tombstones + cut, TOMBSTONES_KEPT * sizeof(*cs->tombstones));
        cs->n_tombstones = TOMBSTONES_KEPT;
    }
    cs->tombstones[cs->n_tombstones++] = (struct tombstone){ .ref = xstrdup(row->ref),
                                                             .created = row->created,
                                                             .generation = generation };
}

void change_log_release(struct class_store *cs)
{
    for (unsigned i = 0; i < cs->n_tombstones; i++)
        xfree(cs->tombstones[i].ref);
    xfree(cs->tombstones);
}

/* --- reading it ---------------------------------------------------------------------------------------- */

static bool class_newer(struct db *db, uint64_t since, const struct class_set *classes, unsigned id)
{
    return class_set_has(classes, id) &&
           atomic_load_explicit(&db->classes[id].changed_at, memory_order_acquire) > since;
}

bool change_log_newer(struct db *db, uint64_t since, const struct class_set *classes)
{
    if (atomic_load_explicit(&db->generation, memory_order_acquire) <= since)
        return false;
    for (unsigned id = 0; id < model_n_classes; id++)
        if (class_newer(db, since, classes, id))
            return true;
    return false;
}

/* Changes under collection; arrays grow in the arena. */
struct collector {
    struct arena *arena;
    struct change *changes;
    struct row **rows;
    unsigned n, n_rows, cap;
};

static struct change *collector_next(struct collector *c)
{
    if (c->n == c->cap) {
        unsigned cap = c->cap != 0 ? c->cap * 2 : 32;
        struct change *changes = arena_calloc(c->arena, cap, sizeof(*changes));
        struct row **rows = arena_calloc(c->arena, cap, sizeof(*rows));
        if (c->n > 0) {
            memcpy(changes, c->changes, c->n * sizeof(*changes));
            memcpy(rows, c->rows, c->n_rows * sizeof(*rows));
        }
        c->changes = changes;
        c->rows = rows;
        c->cap = cap;
    }
    return &c->changes[c->n++];
}

static void collect_class(struct collector *c, const struct class_store *cs, uint64_t since)
{
    for (struct slot *s = cs->last_changed; s != NULL && s->visible->generation > since; s = s->older) {
        struct row *row = row_ref(s->visible);
        *collector_next(c) = (struct change){
            .kind = row->created > since ? CHANGE_ADD : CHANGE_MOD,
            .generation = row->generation,
            .class = cs->class,
            .ref = row->ref,
            .row = row,
        };
        c->rows[c->n_rows++] = row;
    }
    for (unsigned i = cs->n_tombstones; i > 0 && cs->tombstones[i - 1].generation > since; i--) {
        const struct tombstone *t = &cs->tombstones[i - 1];
        if (since == 0 || t->created > since)
            continue;
        *collector_next(c) = (struct change){
            .kind = CHANGE_DEL,
            .generation = t->generation,
            .class = cs->class,
            .ref = arena_strdup(c->arena, t->ref),
        };
    }
}

/* Adds, mods, dels; each by generation. */
static int change_order(const struct change *a, const struct change *b)
{
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    return (a->generation > b->generation) - (a->generation < b->generation);
}

static void merge(struct change *from, struct change *to, unsigned low, unsigned middle, unsigned high)
{
    unsigned left = low, right = middle;
    for (unsigned i = low; i < high; i++) {
        bool take_left = left < middle && (right >= high || change_order(&from[left], &from[right]) <= 0);
        to[i] = from[take_left ? left++ : right++];
    }
}

/* Stable, so that what one commit changed keeps the order in which the class lists had it. */
static struct change *sort(struct arena *arena, struct change *changes, unsigned n)
{
    unsigned i = 1;
    while (i < n && change_order(&changes[i - 1], &changes[i]) <= 0)
        i++;
    if (i >= n)
        return changes;
    struct change *other = arena_calloc(arena, n, sizeof(*other));
    for (unsigned width = 1; width < n; width *= 2) {
        for (unsigned low = 0; low < n; low += 2 * width) {
            unsigned middle = low + width < n ? low + width : n;
            unsigned high = middle + width < n ? middle + width : n;
            merge(changes, other, low, middle, high);
        }
        struct change *swap = changes;
        changes = other;
        other = swap;
    }
    return changes;
}

/* The lists give the newest first. */
static void reverse(struct change *changes, unsigned from, unsigned to)
{
    while (from + 1 < to) {
        struct change swap = changes[from];
        changes[from++] = changes[--to];
        changes[to] = swap;
    }
}

void change_log_since(struct db *db, struct arena *arena, uint64_t since, const struct class_set *classes,
                      struct change_list *list)
{
    struct collector c = { .arena = arena };

    rwlock_read(&db->store_lock);
    list->generation = atomic_load_explicit(&db->generation, memory_order_relaxed);
    for (unsigned id = 0; id < model_n_classes; id++) {
        unsigned first = c.n;
        if (class_newer(db, since, classes, id) || (since == 0 && class_set_has(classes, id)))
            collect_class(&c, &db->classes[id], since);
        reverse(c.changes, first, c.n);
    }
    rwlock_drop(&db->store_lock);

    row_hold_list(arena, c.rows, c.n_rows);
    list->changes = sort(arena, c.changes, c.n);
    list->n = c.n;
}

/* --- being told ---------------------------------------------------------------------------------------- */

void change_log_watch(struct db *db, change_log_fn *fn, void *ctx)
{
    LOCK_SCOPE(&db->watch_lock);
    CHECK(db->n_watchers < DB_MAX_WATCHERS);
    db->watchers[db->n_watchers++] = (struct watcher){ .fn = fn, .ctx = ctx };
}

void change_log_unwatch(struct db *db, change_log_fn *fn, void *ctx)
{
    LOCK_SCOPE(&db->watch_lock);
    for (unsigned i = 0; i < db->n_watchers; i++) {
        if (db->watchers[i].fn == fn && db->watchers[i].ctx == ctx) {
            memmove(&db->watchers[i], &db->watchers[i + 1], (db->n_watchers - i - 1) * sizeof(struct watcher));
            db->n_watchers--;
            break;
        }
    }
    while (db->calling)
        cond_wait(&db->watch_moved, &db->watch_lock);
}

void change_log_tell(struct db *db, uint64_t generation, const struct class_set *classes,
                     const struct commit_change *changes, unsigned n)
{
    struct watcher watchers[DB_MAX_WATCHERS];

    lock_take(&db->watch_lock);
    unsigned n_watchers = db->n_watchers;
    memcpy(watchers, db->watchers, n_watchers * sizeof(*watchers));
    db->calling = true;
    lock_drop(&db->watch_lock);

    for (unsigned i = 0; i < n_watchers; i++)
        watchers[i].fn(watchers[i].ctx, generation, classes, changes, n);

    lock_take(&db->watch_lock);
    db->calling = false;
    cond_broadcast(&db->watch_moved);
    lock_drop(&db->watch_lock);
}

bool change_log_watched(struct db *db)
{
    LOCK_SCOPE(&db->watch_lock);
    return db->n_watchers > 0;
}

void change_log_wake(struct db *db)
{
    LOCK_SCOPE(&db->watch_lock);
    if (db->n_waiting > 0)
        cond_broadcast(&db->watch_moved);
}

bool change_log_wait(struct db *db, struct call *call, uint64_t since, const struct class_set *classes, int64_t ms)
{
    int64_t until = clock_ms(call->clock) + ms;
    bool newer;

    LOCK_SCOPE(&db->watch_lock);
    db->n_waiting++;
    while (!(newer = change_log_newer(db, since, classes)) && !call_cancelled(call)) {
        int64_t left = until - clock_ms(call->clock);
        if (left <= 0)
            break;
        cond_wait_ms(&db->watch_moved, &db->watch_lock, left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS);
    }
    db->n_waiting--;
    return newer;
}
