/* The answer to system.listMethods. */
#ifndef XAPI_CORE_METHOD_LIST_H
#define XAPI_CORE_METHOD_LIST_H

#include "rpc/base/value.h"

/* A set of "Class.method", in the arena. */
struct value method_list(struct arena *);

#endif
