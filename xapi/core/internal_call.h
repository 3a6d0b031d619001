/* Work that no client asked for (reconciling, alerts, timers) as an api_call, so that it uses the same
 * functions as handlers do; and the part of a client's call that must not be cut short. */
#ifndef XAPI_CORE_INTERNAL_CALL_H
#define XAPI_CORE_INTERNAL_CALL_H

#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

/* A superuser's call without session, task or deadline, living in 'arena'; 'id' is for the log. */
static inline void internal_call_init(struct api_call *c, struct xapi *xapi, struct arena *arena, const char *id)
{
    *c = (struct api_call){
        .call = { .arena = arena, .clock = xapi->clock, .id = id },
        .arena = arena,
        .xapi = xapi,
        .db = xapi->db,
        .wire_name = id,
        .session_kind = SESSION_POOL,
        .superuser = true,
        .roles = ~0u,
        .user = "xapi",
    };
}

/* The same call, deaf to cancelling and deadlines: for cleaning up after what was cancelled. */
static inline struct api_call internal_call_cleanup(const struct api_call *c)
{
    struct api_call calm = *c;
    calm.call.cancel = NULL;
    calm.call.deadline_ms = 0;
    calm.call.progress = NULL;
    return calm;
}

#endif
