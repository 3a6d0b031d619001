/* The writing half of generic.c: setters of fields, map entries and set items. */
#ifndef XAPI_CORE_GENERIC_WRITE_H
#define XAPI_CORE_GENERIC_WRITE_H

#include "xapi/core/generic.h"

/* Protected map keys are checked here, against the session's roles. Blocks until durable. */
NODISCARD struct error *accessor_write(struct api_call *c, const struct accessor *, const struct value *values);

#endif
