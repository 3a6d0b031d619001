/* Events: telling clients what changed (specs §4).
 *
 * event.from is stateless: a token says where the client stands, the change log says what came after.
 * A call that finds nothing is parked: what stays is a small struct without thread or arena, woken by
 * the classes its filter names. Waiters with the same filter and token share one reply, made once.
 *
 * Replies to a first change come at once; while changes rain, wakes are event-from-delay-ms apart.
 *
 * event.next (deprecated) is a log of changes, kept only while somebody is registered. */
#ifndef XAPI_CORE_EVENT_H
#define XAPI_CORE_EVENT_H

#include "rpc/http/server.h"
#include "rpc/wire/envelope.h"
#include "xapi/core/api_call.h"
#include "xapi/core/event_filter.h"

struct events;
struct events *events_new(struct xapi *); /* the database must exist */
void events_free(struct events *);        /* after the front is gone */
/* The front whose parked calls are to be woken; NULL before it goes. */
void events_attach(struct events *, struct http_server *);

/* A session ended: its waiters answer SESSION_INVALID, its registration goes. NULL events: nothing. */
void events_session_gone(struct events *, const char *session_ref);

/* What event.from asks for. */
struct event_query {
    struct event_filter *filter; /* counted */
    uint64_t since, since_messages;
    int64_t deadline_ms;         /* mono */
};
/* EVENT_FROM_TOKEN_PARSE_FAILURE [token]. The filter is the caller's then (event_filter_unref). */
NODISCARD struct error *event_query_make(struct api_call *c, const struct value *classes, const char *token, double timeout,
                                         struct event_query *query_r);
/* The batch as a value in c's arena; *n_r events. Moves the query's tokens on when there are none. */
struct value event_batch(struct api_call *c, struct event_query *, unsigned *n_r);
/* event.from without a connection to park: waits on this thread. */
NODISCARD struct error *event_from_wait(struct api_call *c, struct event_query *, struct value *result_r);

/* event.from from the front: gives the exchange up and answers it later. Takes the query's filter. */
void event_park(struct api_call *c, struct http_exchange *, const struct wire_call *, struct event_query *);
/* True while a reply now would come too soon after the last one: better park and let others gather. */
bool event_must_pace(struct events *, const struct event_query *);

/* event.inject's token: just before 'generation'. */
char *event_token(struct arena *, uint64_t generation, uint64_t message_generation);

#endif
