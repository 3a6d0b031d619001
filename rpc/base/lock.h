/* Mutexes with a class, and the order of classes checked in debug and sanitizer builds.
 *
 * The order is the order of lines in lock_classes.def: while holding a lock of one class only locks
 * of classes further down may be taken. Never do I/O, RPC or wait under a lock (condition waits on
 * that same lock are what conditions are for; no other lock may be held then, which is checked too). */
#ifndef RPC_BASE_LOCK_H
#define RPC_BASE_LOCK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/attributes.h"

enum lock_class {
#define LOCK_CLASS(name, what) LOCK_##name,
#include "rpc/base/lock_classes.def"
#undef LOCK_CLASS
    LOCK_CLASSES
};

struct lock { pthread_mutex_t mutex; enum lock_class class; };
/* Writers go first, and reading is not recursive. */
struct rwlock { pthread_rwlock_t rwlock; enum lock_class class; };
struct cond { pthread_cond_t cond; }; /* on CLOCK_MONOTONIC */

void lock_init(struct lock *, enum lock_class);
void lock_release(struct lock *);
void lock_take(struct lock *);
void lock_drop(struct lock *);

void rwlock_init(struct rwlock *, enum lock_class);
void rwlock_release(struct rwlock *);
void rwlock_read(struct rwlock *);
void rwlock_write(struct rwlock *);
void rwlock_drop(struct rwlock *);

void cond_init(struct cond *);
void cond_release(struct cond *);
void cond_wait(struct cond *, struct lock *);
bool cond_wait_ms(struct cond *, struct lock *, int64_t ms); /* false after ms without a signal */
void cond_signal(struct cond *);
void cond_broadcast(struct cond *);

/* Take for the rest of the scope: LOCK_SCOPE(&db->lock); */
static inline void lock_scope_drop_(struct lock **l) { lock_drop(*l); }
#define LOCK_SCOPE_CAT_(a, b) a##b
#define LOCK_SCOPE_NAME_(n) LOCK_SCOPE_CAT_(lock_scope_, n)
#define LOCK_SCOPE(l) \
    CLEANUP(lock_scope_drop_) __attribute__((unused)) struct lock *LOCK_SCOPE_NAME_(__LINE__) = (lock_take(l), (l))

#endif
