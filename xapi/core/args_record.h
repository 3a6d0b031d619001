/* Records given to constructors: VM.create({name_label: …}). */
#ifndef XAPI_CORE_ARGS_RECORD_H
#define XAPI_CORE_ARGS_RECORD_H

#include "xapi/core/args.h"

/* The result is a map with every field a constructor takes: as given, or its default. Required
 * references must be there; of a record of no class everything is kept. */
NODISCARD struct error *args_record(struct api_call *c, const struct type_info *, const char *what, const struct value *in,
                                    struct value *value_r);

#endif
