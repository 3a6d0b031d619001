/* host.call_plugin: programs in plugins-dir, in the dialect of XenAPI plugins. */
#ifndef XAPI_POOL_PLUGIN_H
#define XAPI_POOL_PLUGIN_H

#include "xapi/core/xapi.h"

/* The program gets one argument, an XML-RPC call "fn" whose one parameter after a session is 'args', and
 * prints an XML-RPC answer. *output_r in c's arena. XENAPI_MISSING_PLUGIN [name];
 * XENAPI_PLUGIN_FAILURE [status; stdout; stderr], or the failure that the program prints.
 * "updater.py" check_update answers "[]" where no such program is: there are no updates. */
NODISCARD struct error *plugin_call(struct call *c, struct xapi *, const char *plugin, const char *fn, const struct value *args,
                                    const char **output_r);

#endif
