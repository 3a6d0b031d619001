#include <string.h>

#include "xapi/core/event.h"
#include "xapi/core/event_internal.h"
#include "xapi/core/event_legacy.h"
#include "xapi/core/session.h"
#include "xapi/core/xapi.h"

#define NEXT_SLICE_MS 200

/* The front parks this call instead; here it waits on its thread. */
struct error *api_event_from(struct api_call *c, const struct api_event_from_args *a, struct value *result_r)
{
    struct event_query q;

    TRY(event_query_make(c, a->classes, a->token, a->timeout, &q));
    return event_from_wait(c, &q, result_r);
}

/* Class names are exact here ("VM", not "vm"). */
struct error *api_event_inject(struct api_call *c, const struct api_event_inject_args *a, struct value *result_r)
{
    const struct class_info *class = model_class(a->class);
    uint64_t generation;

    if (class == NULL || (class->flags & CLASS_NOT_STORED) || !event_class(class))
        return err_handle_invalid(c->arena, a->class, a->ref);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_touch(txn, class->id, a->ref));
    TRY(txn_commit(txn, &generation));
    *result_r = value_string(event_token(c->arena, generation - 1, generation - 1));
    return NULL;
}

struct error *api_event_get_current_id(struct api_call *c, const struct api_event_get_current_id_args *a, struct value *result_r)
{
    *result_r = value_int(event_log_current_id(c->xapi->events->log));
    return NULL;
}

struct error *api_event_register(struct api_call *c, const struct api_event_register_args *a, struct value *result_r)
{
    event_log_register(c->xapi->events->log, c->session != NULL ? c->session : "", a->classes);
    return NULL;
}

struct error *api_event_unregister(struct api_call *c, const struct api_event_unregister_args *a, struct value *result_r)
{
    event_log_unregister(c->xapi->events->log, c->session != NULL ? c->session : "", a->classes);
    return NULL;
}

static bool session_gone(struct api_call *c)
{
    struct session *s = c->session != NULL ? session_find(c->xapi->sessions, c->session) : NULL;
    bool gone = c->session != NULL && s == NULL;

    session_unref(s);
    return gone;
}

/* Waits for ever, as it always did. */
struct error *api_event_next(struct api_call *c, const struct api_event_next_args *a, struct value *result_r)
{
    const struct class_set all = { { ~0ull, ~0ull } };
    unsigned n = 0;

    for (;;) {
        uint64_t seen = db_generation(c->db);
        if (session_gone(c))
            return err_session_invalid(c->arena, c->session);
        TRY(event_log_take(c->xapi->events->log, c, result_r, &n));
        if (n > 0)
            return NULL;
        if (!atomic_load(&c->xapi->serving))
            return NULL; /* the daemon stops */
        change_log_wait(c->db, &c->call, seen, &all, NEXT_SLICE_MS);
    }
}
