/* What changed since a generation, and being told when something does.
 *
 * Every class keeps its objects ordered by last change, and its newest 512 deletions (cut to 256
 * when full). A reader asks for what came after its token: only newer objects are walked. */
#ifndef DB_CHANGE_LOG_H
#define DB_CHANGE_LOG_H

#include "db/db.h"

enum change_kind { CHANGE_ADD, CHANGE_MOD, CHANGE_DEL };

struct change {
    enum change_kind kind;
    uint64_t generation;      /* of the newest change folded into it */
    const struct class_info *class;
    const char *ref;
    const struct row *row;    /* the current version; NULL for CHANGE_DEL */
};

/* Which objects a reader wants: a bit per class id, plus single objects. */
#define CLASS_SET_WORDS 2
struct class_set { uint64_t bits[CLASS_SET_WORDS]; };
static inline void class_set_add(struct class_set *s, unsigned id) { s->bits[id / 64] |= 1ull << (id % 64); }
static inline bool class_set_has(const struct class_set *s, unsigned id) { return (s->bits[id / 64] >> (id % 64)) & 1; }
static inline bool class_set_meets(const struct class_set *a, const struct class_set *b)
{
    return ((a->bits[0] & b->bits[0]) | (a->bits[1] & b->bits[1])) != 0;
}

struct change_list {
    struct change *changes; /* all adds, then mods, then dels; each by generation */
    unsigned n;
    uint64_t generation;    /* the token to ask with next */
};
/* State-based: one change an object, with its current row; created and deleted since: nothing.
 * since = 0 gives every object as an add. Rows are held by the arena. Does not block. */
void change_log_since(struct db *, struct arena *, uint64_t since, const struct class_set *, struct change_list *);

/* True when something of these classes is newer than 'since': cheap, no arena. */
bool change_log_newer(struct db *, uint64_t since, const struct class_set *);

/* fn(ctx, classes touched, generation) after every commit, on the writer thread, in order: must not
 * block or call into the database. The list of changes with old and new rows is given too: for
 * event.next's history and the replicas. Register before clients connect; never removed but by free. */
struct commit_change { enum change_kind kind; const struct row *old_row, *new_row; };
typedef void change_log_fn(void *ctx, uint64_t generation, const struct class_set *, const struct commit_change *, unsigned n);
void change_log_watch(struct db *, change_log_fn *, void *ctx);
void change_log_unwatch(struct db *, change_log_fn *, void *ctx);

/* Blocks until something of 'classes' is newer than since, or ms passed, or cancelled: for internal
 * waiters (waiting for a task, for a host), not for event.from. */
struct call;
bool change_log_wait(struct db *, struct call *, uint64_t since, const struct class_set *, int64_t ms);

#endif
