/* What every piece of work carries: its memory, its clock, its deadline, how it is cancelled, its name.
 *
 * Everything below xapi/ that may block takes a struct call and must return soon after
 * call_cancelled() turns true. */
#ifndef RPC_BASE_CALL_H
#define RPC_BASE_CALL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/base/clock.h"

/* A flag that may be raised from another thread, with an fd to poll on. Counted: the task table and
 * the running call both hold it. */
struct cancel;
struct cancel *cancel_new(void);
struct cancel *cancel_ref(struct cancel *);
void cancel_unref(struct cancel *);      /* NULL is fine */
void cancel_raise(struct cancel *);      /* any thread; idempotent */
bool cancel_raised(const struct cancel *);
int cancel_fd(const struct cancel *);    /* readable once raised; owned by the cancel */

struct call {
    struct arena *arena;
    const struct clock *clock;
    int64_t deadline_ms;   /* on clock->mono_ms; 0 = none */
    struct cancel *cancel; /* NULL = cannot be cancelled; borrowed */
    const char *id;        /* request id for the log, "R:4f3a" */
    /* progress 0..1 reported by long work; may be NULL. Must be cheap and not block. */
    void (*progress)(struct call *, double);
    void *progress_ctx;
};

bool call_cancelled(const struct call *); /* cancelled or past its deadline */
void call_progress(struct call *, double fraction);

/* Makes c the thread's current call, so that log lines carry its id; returns the previous one. */
struct call *call_enter(struct call *c);
struct call *call_current(void); /* NULL outside any call */

#endif
