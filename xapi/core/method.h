/* What a wire name means: "VM.start", "VM_start", "Async.VM.start", "VM.get_record", "system.listMethods". */
#ifndef XAPI_CORE_METHOD_H
#define XAPI_CORE_METHOD_H

#include "xapi/core/generic.h"

enum method_kind {
    METHOD_UNKNOWN,
    METHOD_MESSAGE,      /* an explicit message: it may still be missing or removed */
    METHOD_ACCESSOR,     /* generic.h */
    METHOD_LIST_METHODS, /* system.listMethods: no session, a bare array over XML-RPC */
    METHOD_IS_ALIVE,     /* system.isAlive:anything: gives back its first parameter */
};

struct method {
    enum method_kind kind;
    bool async;                         /* "Async." or "InternalAsync." */
    const struct message_info *message; /* METHOD_MESSAGE */
    struct accessor accessor;           /* METHOD_ACCESSOR */
};

struct method method_find(const char *wire_name);

/* Has it an Async form, and so a task for its synchronous calls? */
bool method_has_async(const struct method *);
/* Never blocks: it may run on an I/O thread. */
bool method_is_inline(const struct method *);
/* Checks a password: kept apart from other work. */
bool method_is_login(const struct method *);
unsigned method_roles(const struct method *);
/* "VM.start" or "VM.get_record", in the arena; the wire name where the method is unknown. */
const char *method_name(struct arena *, const struct method *, const char *wire_name);

#endif
