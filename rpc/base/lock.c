#include "rpc/base/lock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "rpc/base/check.h"

#if defined(SANITIZED) || defined(LOCK_CHECK)

static const char *const class_names[] = {
#define LOCK_CLASS(name, what) #name,
#include "rpc/base/lock_classes.def"
#undef LOCK_CLASS
};

/* What this thread holds, oldest first. */
#define HELD_MAX 32u
static _Thread_local struct {
    const void *lock;
    enum lock_class class;
} held[HELD_MAX];
static _Thread_local unsigned n_held;

static void order_broken(const char *what, enum lock_class class, enum lock_class holding)
{
    char text[128];

    snprintf(text, sizeof(text), "%s %s while holding %s", what, class_names[class], class_names[holding]);
    BUG(text);
}

static void order_take(const void *lock, enum lock_class class)
{
    for (unsigned i = 0; i < n_held; i++)
        if (held[i].class >= class)
            order_broken("takes lock", class, held[i].class);
    CHECK(n_held < HELD_MAX);
    held[n_held].lock = lock;
    held[n_held++].class = class;
}

static void order_drop(const void *lock)
{
    unsigned i = n_held;

    do
        CHECK(i > 0); /* dropped by a thread that does not hold it */
    while (held[--i].lock != lock);
    for (n_held--; i < n_held; i++)
        held[i] = held[i + 1];
}

/* A condition wait gives up its own lock, and no other may be held. */
static void order_wait(const struct lock *lock)
{
    CHECK(n_held > 0 && held[n_held - 1].lock == lock);
    if (n_held > 1)
        order_broken("waits on", lock->class, held[n_held - 2].class);
}

#else

static inline void order_take(const void *lock, enum lock_class class) {}
static inline void order_drop(const void *lock) {}
static inline void order_wait(const struct lock *lock) {}

#endif

void lock_init(struct lock *l, enum lock_class class)
{
    l->class = class;
    CHECK(pthread_mutex_init(&l->mutex, NULL) == 0);
}

void lock_release(struct lock *l) { CHECK(pthread_mutex_destroy(&l->mutex) == 0); }

void lock_take(struct lock *l)
{
    order_take(l, l->class);
    CHECK(pthread_mutex_lock(&l->mutex) == 0);
}

void lock_drop(struct lock *l)
{
    order_drop(l);
    CHECK(pthread_mutex_unlock(&l->mutex) == 0);
}

/* Writers go first: a steady stream of readers must not starve a commit. Safe because the order check
 * forbids taking the same class twice, so nobody reads recursively. */
void rwlock_init(struct rwlock *l, enum lock_class class)
{
    pthread_rwlockattr_t attributes;

    l->class = class;
    CHECK(pthread_rwlockattr_init(&attributes) == 0);
    CHECK(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
    CHECK(pthread_rwlock_init(&l->rwlock, &attributes) == 0);
    pthread_rwlockattr_destroy(&attributes);
}

void rwlock_release(struct rwlock *l) { CHECK(pthread_rwlock_destroy(&l->rwlock) == 0); }

void rwlock_read(struct rwlock *l)
{
    order_take(l, l->class);
    CHECK(pthread_rwlock_rdlock(&l->rwlock) == 0);
}

void rwlock_write(struct rwlock *l)
{
    order_take(l, l->class);
    CHECK(pthread_rwlock_wrlock(&l->rwlock) == 0);
}

void rwlock_drop(struct rwlock *l)
{
    order_drop(l);
    CHECK(pthread_rwlock_unlock(&l->rwlock) == 0);
}

void cond_init(struct cond *c)
{
    pthread_condattr_t attributes;

    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&c->cond, &attributes) == 0);
    pthread_condattr_destroy(&attributes);
}

void cond_release(struct cond *c) { CHECK(pthread_cond_destroy(&c->cond) == 0); }

void cond_wait(struct cond *c, struct lock *l)
{
    order_wait(l);
    CHECK(pthread_cond_wait(&c->cond, &l->mutex) == 0);
}

bool cond_wait_ms(struct cond *c, struct lock *l, int64_t ms)
{
    const int64_t year_ms = INT64_C(365) * 86400 * 1000;
    struct timespec until;

    order_wait(l);
    if (ms < 0)
        ms = 0;
    if (ms > year_ms)
        ms = year_ms;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    int rc = pthread_cond_timedwait(&c->cond, &l->mutex, &until);
    CHECK(rc == 0 || rc == ETIMEDOUT);
    return rc == 0;
}

void cond_signal(struct cond *c) { CHECK(pthread_cond_signal(&c->cond) == 0); }
void cond_broadcast(struct cond *c) { CHECK(pthread_cond_broadcast(&c->cond) == 0); }
