/* Which events a client wants: "*", class names in any case, "class/OpaqueRef:…" for single objects.
 *
 * Immutable and counted. Anything else in a filter names nothing and matches nothing (specs §4.1). */
#ifndef XAPI_CORE_EVENT_FILTER_H
#define XAPI_CORE_EVENT_FILTER_H

#include "db/change_log.h"

struct event_object { const struct class_info *class; char *ref; };

struct event_filter {
    atomic_uint refs;
    struct class_set classes; /* all objects of these */
    struct class_set touched; /* these, and the classes of single objects: worth a look when they change */
    struct event_object *objects;
    unsigned n_objects;
};

/* 'names': a set of strings. Never fails. */
struct event_filter *event_filter_new(const struct value *names);
struct event_filter *event_filter_ref(struct event_filter *);
void event_filter_unref(struct event_filter *); /* NULL is fine */

bool event_filter_wants(const struct event_filter *, const struct class_info *, const char *ref);
bool event_filter_equal(const struct event_filter *, const struct event_filter *);
/* May objects of this class have events at all? Not sessions, users and secrets. */
bool event_class(const struct class_info *);

#endif
