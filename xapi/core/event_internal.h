/* Inside of events: shared by event.c (waking) and event_waiter.c (parked calls). */
#ifndef XAPI_CORE_EVENT_INTERNAL_H
#define XAPI_CORE_EVENT_INTERNAL_H

#include "rpc/base/lock.h"
#include "xapi/core/event.h"

#define EVENT_CACHE 8u /* replies kept to be shared by the waiters of one wake */

struct shared_reply; /* event_waiter.c */

struct cached_reply {
    struct event_filter *filter;
    uint64_t since, since_messages, generation;
    enum wire_format format;
    struct shared_reply *reply;
};

struct events {
    struct xapi *xapi;
    int64_t delay_ms;
    _Atomic int64_t answered_ms; /* when a waiter last got events, mono */

    struct lock lock;            /* guards down to 'stopping' */
    struct cond moved;
    struct http_server *http;    /* NULL while there is no front */
    struct class_set pending;    /* changed since, to be woken by the pacer */
    bool stopping;
    pthread_t pacer;

    struct lock cache_lock;      /* guards the cache */
    struct cached_reply cache[EVENT_CACHE];
    unsigned next_cached;

    struct event_log *log;       /* event_legacy.h */
};

/* Wakes waiters of these classes, now or when it is time. */
void events_wake(struct events *, const struct class_set *);
void event_cache_release(struct events *);

#endif
