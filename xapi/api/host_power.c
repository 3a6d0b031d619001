/* Turning hosts off and on again. That the host is disabled was checked with the operation. */
#include "xapi/core/xapi.h"
#include "xapi/core/agent.h"

static struct error *power(struct api_call *c, const char *host_ref, const char *how)
{
    const struct member members[] = { member_of("how", value_string(how)) };
    struct value args = value_map(members, 1), ignored;

    return agent_call(c, host_ref, "host.power", &args, &ignored);
}

struct error *api_host_reboot(struct api_call *c, const struct api_host_reboot_args *a, struct value *result_r)
{
    return power(c, a->host, "reboot");
}

struct error *api_host_shutdown(struct api_call *c, const struct api_host_shutdown_args *a, struct value *result_r)
{
    return power(c, a->host, "shutdown");
}
