/* The log behind event.register and event.next: every change in order, kept while somebody is
 * registered and at most so many bytes of it; who falls behind gets EVENTS_LOST. */
#ifndef XAPI_CORE_EVENT_LEGACY_H
#define XAPI_CORE_EVENT_LEGACY_H

#include "xapi/core/api_call.h"

struct event_log;
struct event_log *event_log_new(struct xapi *);
void event_log_free(struct event_log *);

/* On the writer thread, after each commit. */
void event_log_append(struct event_log *, uint64_t generation, const struct commit_change *, unsigned n);

/* Adds filters to a session's subscription. */
void event_log_register(struct event_log *, const char *session, const struct value *names);
/* Removes textually equal filters; names NULL: the whole subscription. */
void event_log_unregister(struct event_log *, const char *session, const struct value *names);
bool event_log_has_readers(struct event_log *);

/* What a session has not seen yet; *n_r may be 0. SESSION_NOT_REGISTERED [track id], EVENTS_LOST []
 * (then it stands at the newest event). */
NODISCARD struct error *event_log_take(struct event_log *, struct api_call *c, struct value *events_r, unsigned *n_r);
int64_t event_log_current_id(struct event_log *);

#endif
