/* XenAPI messages (alerts): rows of class message that tell operators what happened.
 *
 * Durable; at most messages-limit of them, the oldest go first. */
#ifndef XAPI_CORE_ALERT_H
#define XAPI_CORE_ALERT_H

#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

/* 'name' as in alerts.idl ("VM_STARTED"), which gives the priority; cls: "VM", "Host", "SR", "Pool" …
 * Coordinator only. Failures are logged, never returned: an alert must not break what it reports.
 * Blocks for the commit. */
void message_post(struct xapi *, const char *name, const char *cls, const char *obj_uuid, const char *body);

/* The same with every field given; *ref_r in the arena, may be NULL. */
NODISCARD struct error *message_create(struct xapi *, struct arena *, const char *name, int64_t priority, const char *cls,
                                       const char *obj_uuid, const char *body, const char **ref_r);

#endif
