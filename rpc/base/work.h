/* Bounded pools of threads for work that blocks. Threads start on demand and end when idle. */
#ifndef RPC_BASE_WORK_H
#define RPC_BASE_WORK_H

#include <stdbool.h>

struct work_pool;

/* 'name' is for thread names; at most max_threads threads and max_queued waiting items. */
struct work_pool *work_pool_new(const char *name, unsigned max_threads, unsigned max_queued);
/* Runs fn(arg) on a thread of the pool. False (and fn is not called) when the queue is full or the pool ends. */
bool work_pool_post(struct work_pool *, void (*fn)(void *), void *arg);
/* Refuses new work, waits for queued and running work, joins all threads, frees. NULL is fine. */
void work_pool_free(struct work_pool *);
unsigned work_pool_busy(struct work_pool *); /* queued and running */

/* One named detached-free thread with a modest stack; aborts when it cannot be made. */
#include <pthread.h>
pthread_t thread_start(const char *name, void *(*fn)(void *), void *arg);

#endif
