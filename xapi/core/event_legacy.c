#include "xapi/core/event_legacy.h"

#include <inttypes.h>
#include <string.h>

#include "db/index.h"
#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "xapi/core/event_filter.h"
#include "xapi/core/xapi.h"

#define ENTRY_OVERHEAD 256u /* bytes an event has besides its values */

struct entry {
    struct entry *next;
    uint64_t id;
    enum change_kind kind;
    struct row *row; /* held: the new one, of a deletion the last one */
    int64_t at;      /* wall */
    size_t size;
};

struct subscription {
    struct subscription *next;
    char *session;
    char **names;
    unsigned n_names;
    struct event_filter *filter;
    uint64_t seen; /* id of the newest event it was given or stood behind */
};

struct event_log {
    struct xapi *xapi;
    size_t max_size;
    struct lock lock; /* guards all below */
    struct entry *first, **last_next;
    size_t size;
    uint64_t last_id, dropped_id; /* of the newest event, and of the newest that was dropped */
    struct subscription *subscriptions;
};

struct event_log *event_log_new(struct xapi *xapi)
{
    struct event_log *l = xcalloc(1, sizeof(*l));

    l->xapi = xapi;
    l->max_size = (size_t)config_int(xapi->config, "event-next-queue-bytes");
    l->last_next = &l->first;
    lock_init(&l->lock, LOCK_EVENT);
    return l;
}

static void drop_first_locked(struct event_log *l)
{
    struct entry *e = l->first;

    l->first = e->next;
    if (l->first == NULL)
        l->last_next = &l->first;
    l->size -= e->size;
    l->dropped_id = e->id;
    row_unref(e->row);
    xfree(e);
}

static void subscription_free(struct subscription *s)
{
    for (unsigned i = 0; i < s->n_names; i++)
        xfree(s->names[i]);
    xfree(s->names);
    xfree(s->session);
    event_filter_unref(s->filter);
    xfree(s);
}

void event_log_free(struct event_log *l)
{
    if (l == NULL)
        return;
    while (l->first != NULL)
        drop_first_locked(l);
    while (l->subscriptions != NULL) {
        struct subscription *s = l->subscriptions;
        l->subscriptions = s->next;
        subscription_free(s);
    }
    lock_release(&l->lock);
    xfree(l);
}

static size_t row_size(const struct row *row)
{
    size_t size = ENTRY_OVERHEAD;

    for (unsigned i = 0; i < row->class->n_fields; i++)
        size += value_pack_size(&row->fields[i]) + strlen(row->class->fields[i].name) + 8;
    return size;
}

static void append_locked(struct event_log *l, uint64_t generation, const struct commit_change *change, int64_t at)
{
    const struct row *row = change->new_row != NULL ? change->new_row : change->old_row;

    l->last_id = l->last_id + 1 > generation ? l->last_id + 1 : generation;
    if (l->subscriptions == NULL || row == NULL || !event_class(row->class))
        return;
    struct entry *e = xcalloc(1, sizeof(*e));
    *e = (struct entry){ .id = l->last_id, .kind = change->kind, .row = row_ref((struct row *)(uintptr_t)row), .at = at, .size = row_size(row) };
    *l->last_next = e;
    l->last_next = &e->next;
    l->size += e->size;
    while (l->size > l->max_size && l->first != NULL)
        drop_first_locked(l);
}

void event_log_append(struct event_log *l, uint64_t generation, const struct commit_change *changes, unsigned n)
{
    int64_t at = clock_wall(l->xapi->clock);
    LOCK_SCOPE(&l->lock);

    for (unsigned i = 0; i < n; i++)
        append_locked(l, generation, &changes[i], at);
}

/* --- subscriptions ---------------------------------------------------------------------------------------- */

static struct subscription **find_locked(struct event_log *l, const char *session)
{
    struct subscription **at = &l->subscriptions;

    while (*at != NULL && strcmp((*at)->session, session) != 0)
        at = &(*at)->next;
    return at;
}

static bool is_one_of(const struct value *names, const char *name)
{
    return names == NULL || value_set_has(names, name);
}

static void filter_renew(struct subscription *s)
{
    AUTO_ARENA a = arena_new();
    struct value_list list = { 0 };

    for (unsigned i = 0; i < s->n_names; i++)
        value_list_add(a, &list, value_string(s->names[i]));
    struct value names = value_list_value(&list);
    event_filter_unref(s->filter);
    s->filter = event_filter_new(&names);
}

void event_log_register(struct event_log *l, const char *session, const struct value *names)
{
    LOCK_SCOPE(&l->lock);
    struct subscription **at = find_locked(l, session), *s = *at;

    if (s == NULL) {
        s = *at = xcalloc(1, sizeof(*s));
        s->session = xstrdup(session);
        s->seen = l->last_id;
    }
    s->names = xrealloc(s->names, (s->n_names + names->len + 1u) * sizeof(*s->names));
    for (uint32_t i = 0; i < names->len; i++)
        s->names[s->n_names++] = xstrdup(names->items[i].s);
    filter_renew(s);
}

void event_log_unregister(struct event_log *l, const char *session, const struct value *names)
{
    LOCK_SCOPE(&l->lock);
    struct subscription **at = find_locked(l, session), *s = *at;
    unsigned kept = 0;

    if (s == NULL)
        return;
    for (unsigned i = 0; i < s->n_names; i++) {
        if (is_one_of(names, s->names[i]))
            xfree(s->names[i]);
        else
            s->names[kept++] = s->names[i];
    }
    s->n_names = kept;
    filter_renew(s);
    if (names == NULL) {
        *at = s->next;
        subscription_free(s);
    }
    while (l->subscriptions == NULL && l->first != NULL)
        drop_first_locked(l);
}

bool event_log_has_readers(struct event_log *l)
{
    LOCK_SCOPE(&l->lock);

    return l->subscriptions != NULL;
}

int64_t event_log_current_id(struct event_log *l)
{
    LOCK_SCOPE(&l->lock);

    return (int64_t)l->last_id;
}

/* --- reading ------------------------------------------------------------------------------------------------- */

static struct value entry_value(struct arena *a, const struct entry *e)
{
    static const char *const kinds[] = { [CHANGE_ADD] = "add", [CHANGE_MOD] = "mod", [CHANGE_DEL] = "del" };
    const struct row *row = row_hold(a, e->row);
    struct value_dict d = { 0 };

    value_dict_add(a, &d, "id", value_string(arena_printf(a, "%" PRIu64, e->id)));
    value_dict_add(a, &d, "timestamp", value_string(arena_printf(a, "%" PRId64 ".", e->at)));
    value_dict_add(a, &d, "class", value_string(row->class->lower));
    value_dict_add(a, &d, "operation", value_string(kinds[e->kind]));
    value_dict_add(a, &d, "ref", value_string(row->ref));
    value_dict_add(a, &d, "obj_uuid", row->fields[0]);
    value_dict_add(a, &d, "snapshot", value_record(&row->record));
    return value_dict_value(&d);
}

static struct error *not_registered(struct api_call *c)
{
    const char *s = c->session != NULL ? c->session : "";

    return err_session_not_registered(c->arena, arena_printf(c->arena, "trackid=%016" PRIx64, index_hash(s, strlen(s))));
}

struct error *event_log_take(struct event_log *l, struct api_call *c, struct value *events_r, unsigned *n_r)
{
    struct value_list list = { 0 };
    LOCK_SCOPE(&l->lock);
    struct subscription *s = *find_locked(l, c->session != NULL ? c->session : "");

    if (s == NULL || s->n_names == 0)
        return not_registered(c);
    bool lost = s->seen < l->dropped_id;
    for (const struct entry *e = lost ? NULL : l->first; e != NULL; e = e->next)
        if (e->id > s->seen && event_filter_wants(s->filter, e->row->class, e->row->ref))
            value_list_add(c->arena, &list, entry_value(c->arena, e));
    s->seen = l->last_id;
    *events_r = value_list_value(&list);
    *n_r = list.n;
    return lost ? err_events_lost(c->arena) : NULL;
}
