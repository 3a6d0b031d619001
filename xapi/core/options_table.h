/* The keys of xapi.conf. */
#ifndef XAPI_CORE_OPTIONS_TABLE_H
#define XAPI_CORE_OPTIONS_TABLE_H

#include "rpc/base/config.h"

extern const struct config_option xapi_options[]; /* ends with a NULL key */

#endif
