/* Work that no client asked for (reconciling, alerts, timers) as an api_call, so that it uses the same
 * functions as handlers do. */
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

#endif
