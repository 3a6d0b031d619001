/* Messages that run on the host they name, without the database. */
#include <string.h>

#include "xapi/core/generic.h"
#include "xapi/core/timers.h"
#include "xapi/core/xapi.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/heartbeat.h"

#include <signal.h>
#include <unistd.h>

static struct error *here(struct api_call *c, agent_verb_fn *verb, const struct member *members, unsigned n, struct value *result_r)
{
    struct value args = value_map(members, n);

    *result_r = value_void();
    return verb(&c->call, c->xapi, &args, result_r);
}

struct error *api_host_get_servertime(struct api_call *c, const struct api_host_get_servertime_args *a, struct value *result_r)
{
    struct value times;

    TRY(here(c, agent_host_time, NULL, 0, &times));
    *result_r = value_datetime(value_get_int(&times, "utc", 0));
    return NULL;
}

struct error *api_host_get_server_localtime(struct api_call *c, const struct api_host_get_server_localtime_args *a, struct value *result_r)
{
    struct value times;

    TRY(here(c, agent_host_time, NULL, 0, &times));
    *result_r = value_datetime(value_get_int(&times, "local", 0));
    return NULL;
}

struct error *api_host_call_plugin(struct api_call *c, const struct api_host_call_plugin_args *a, struct value *result_r)
{
    const struct member members[] = {
        member_of("plugin", value_string(a->plugin)),
        member_of("fn", value_string(a->fn)),
        member_of("args", *a->args),
    };

    return here(c, agent_host_plugin, members, ARRAY_LEN(members), result_r);
}

struct error *api_host_dmesg(struct api_call *c, const struct api_host_dmesg_args *a, struct value *result_r)
{
    return here(c, agent_host_dmesg, NULL, 0, result_r);
}

struct error *api_host_dmesg_clear(struct api_call *c, const struct api_host_dmesg_clear_args *a, struct value *result_r)
{
    const struct member members[] = { member_of("clear", value_bool(true)) };

    return here(c, agent_host_dmesg, members, 1, result_r);
}

struct error *api_host_get_log(struct api_call *c, const struct api_host_get_log_args *a, struct value *result_r)
{
    return here(c, agent_host_log, NULL, 0, result_r);
}

struct error *api_host_restart_agent(struct api_call *c, const struct api_host_restart_agent_args *a, struct value *result_r)
{
    return here(c, agent_host_restart_agent, NULL, 0, result_r);
}

/* The reply leaves first. */
static void terminate(void *unused)
{
    (void)kill(getpid(), SIGTERM);
}

struct error *api_host_shutdown_agent(struct api_call *c, const struct api_host_shutdown_agent_args *a, struct value *result_r)
{
    timers_after(c->xapi->timers, 1000, terminate, NULL);
    return NULL;
}

struct error *api_host_is_in_emergency_mode(struct api_call *c, const struct api_host_is_in_emergency_mode_args *a, struct value *result_r)
{
    *result_r = value_bool(heartbeat_in_emergency(c->xapi));
    return NULL;
}

/* --- list_methods ------------------------------------------------------------------------------------------------ */
struct names { struct arena *arena; struct value_list list; };

static void name_add(void *ctx, const struct generic_method *m)
{
    struct names *names = ctx;

    value_list_add(names->arena, &names->list, value_string(arena_strdup(names->arena, m->name)));
}

struct error *api_host_list_methods(struct api_call *c, const struct api_host_list_methods_args *a, struct value *result_r)
{
    struct names names = { .arena = c->arena };

    generic_each_method(c->arena, name_add, &names);
    *result_r = value_list_value(&names.list);
    return NULL;
}
