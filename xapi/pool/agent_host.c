/* Agent verbs on the host itself. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/child.h"
#include "rpc/base/datetime.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/timers.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/boot_time.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/membership.h"
#include "xapi/pool/plugin.h"
#include "xenops/xenops.h"

LOG_MODULE(agent_host);

#define OUTPUT_MAX ((size_t)4 << 20)
#define GUEST_SHUTDOWN_MS 60000
#define PLAIN_CLOSE_MS 250

struct error *agent_host_facts(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct host_facts facts;
    struct value_dict d = { 0 };

    TRY(xenops_facts(c, xapi->xenops, &facts));
    value_dict_add(c->arena, &d, "memory_total", value_int(facts.memory_total));
    value_dict_add(c->arena, &d, "memory_free", value_int(facts.memory_free));
    value_dict_add(c->arena, &d, "cpu_count", value_int(facts.cpu_count));
    value_dict_add(c->arena, &d, "socket_count", value_int(facts.socket_count));
    value_dict_add(c->arena, &d, "cpu_vendor", value_string(facts.cpu_vendor));
    value_dict_add(c->arena, &d, "cpu_model", value_string(facts.cpu_model));
    value_dict_add(c->arena, &d, "cpu_flags", value_string(facts.cpu_flags));
    value_dict_add(c->arena, &d, "cpu_features", value_string(facts.cpu_features));
    value_dict_add(c->arena, &d, "hypervisor", value_string(facts.hypervisor));
    value_dict_add(c->arena, &d, "capabilities", value_string(facts.capabilities));
    *result_r = value_dict_value(&d);
    return NULL;
}

struct error *agent_host_describe(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    return host_describe(c, xapi, result_r);
}

struct error *agent_host_time(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    time_t now = (time_t)clock_wall(xapi->clock);
    struct value_dict d = { 0 };
    struct tm local;

    localtime_r(&now, &local); /* lint: only libc knows the local zone */
    value_dict_add(c->arena, &d, "utc", value_int(now));
    value_dict_add(c->arena, &d, "local", value_int((int64_t)now + local.tm_gmtoff));
    *result_r = value_dict_value(&d);
    return NULL;
}

struct error *agent_host_plugin(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const struct value *given = value_get(args, "args");
    const char *plugin, *fn, *output;

    TRY(agent_need(c, args, "plugin", &plugin));
    fn = value_get_string(args, "fn", "");
    TRY(plugin_call(c, xapi, plugin, fn, given, &output));
    *result_r = value_string(output);
    return NULL;
}

/* Runs a program of this machine and gives its output. */
static struct error *run(struct call *c, const char *const *argv, struct value *result_r)
{
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output = NULL;
    int status, error;

    spec.argv = argv;
    error = child_run(c->arena, &spec, 20000, OUTPUT_MAX, &status, &output);
    if (error != 0)
        return err_internal(c->arena, "%s: %s", argv[0], strerror(-error));
    *result_r = value_string(output);
    return NULL;
}

struct error *agent_host_dmesg(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    bool clear = value_get_bool(args, "clear", false);

    return run(c, (const char *const[]) { "dmesg", clear ? "-c" : NULL, NULL }, result_r);
}

/* The end of our own log. */
struct error *agent_host_log(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *path = arena_printf(c->arena, "%s/xapi.log", xapi->dir);

    return run(c, (const char *const[]) { "tail", "-c", "1000000", path, NULL }, result_r);
}

struct error *agent_host_hostname(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *name;

    TRY(agent_need(c, args, "name", &name));
    return membership_write(c->arena, xapi, "hostname", name);
}

/* Closing cuts open connections, ours perhaps: the reply leaves first. */
static void plain_http_close(void *ctx)
{
    struct xapi *xapi = ctx;
    AUTO_ARENA arena = arena_new();
    struct error *error = xapi->set_plain_http(arena, xapi, false);

    if (error != NULL)
        log_err("closing plain HTTP: %s", error_text(arena, error));
}

struct error *agent_host_plain_http(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    bool on = value_get_bool(args, "on", true);

    if (xapi->set_plain_http == NULL)
        return err_not_implemented(c->arena, "host.set_https_only");
    if (on) {
        membership_forget(xapi, c->arena, "https_only");
        return xapi->set_plain_http(c->arena, xapi, true);
    }
    TRY(membership_write(c->arena, xapi, "https_only", "true"));
    timers_after(xapi->timers, PLAIN_CLOSE_MS, plain_http_close, xapi);
    return NULL;
}

static int fuse_ms(const struct xapi *xapi)
{
    return (int)config_int(xapi->config, "fuse-time-ms");
}

struct error *agent_host_restart_agent(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    xapi->restart_soon(xapi, fuse_ms(xapi) / 10);
    return NULL;
}

/* --- power ------------------------------------------------------------------------------------------------- */
/* Every guest is asked to shut down, and destroyed when it does not. */
static struct error *guests_down(struct call *c, struct xapi *xapi)
{
    struct domain_info *infos;
    unsigned n;

    TRY(xenops_list(c, xapi->xenops, &infos, &n));
    for (unsigned i = 0; i < n; i++) {
        struct error *error = NULL;

        if (infos[i].state == DOMAIN_RUNNING)
            error = xenops_shutdown(c, xapi->xenops, infos[i].uuid, GUEST_SHUTDOWN_MS);
        if (error != NULL)
            log_warn("%s does not shut down: %s", infos[i].uuid, error_text(c->arena, error));
        if (error != NULL || infos[i].state != DOMAIN_RUNNING)
            TRY(xenops_destroy(c, xapi->xenops, infos[i].uuid));
    }
    return NULL;
}

static void say_good_bye(struct call *c, struct xapi *xapi)
{
    const struct member members[] = {
        member_of("host_ref", value_string(xapi->host_ref)),
        member_of("shutting_down", value_bool(true)),
    };
    struct value value = value_map(members, ARRAY_LEN(members)), ignored;
    struct error *error = NULL;

    if (!xapi->is_coordinator)
        error = agent_call_coordinator(c, xapi, "coordinator.host_state", &value, &ignored);
    if (error != NULL)
        log_warn("the coordinator was not told: %s", error_text(c->arena, error));
}

static void terminate(void *unused)
{
    if (kill(getpid(), SIGTERM) != 0)
        log_err("stopping: %s", strerror(errno));
}

/* A simulated host reboots by restarting its xapi, and is off when its xapi has ended. */
static struct error *power_simulated(struct call *c, struct xapi *xapi, bool reboot)
{
    TRY(boot_time_mark(c->arena, xapi));
    if (reboot)
        xapi->restart_soon(xapi, fuse_ms(xapi));
    else
        timers_after(xapi->timers, fuse_ms(xapi), terminate, NULL);
    return NULL;
}

struct error *agent_host_power(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    bool reboot = strcmp(value_get_string(args, "how", ""), "reboot") == 0;
    struct child_spec spec = CHILD_SPEC_INIT;
    struct host_facts facts;
    pid_t pid;
    int error;

    TRY(xenops_facts(c, xapi->xenops, &facts));
    TRY(guests_down(c, xapi));
    say_good_bye(c, xapi);
    if (strcmp(facts.hypervisor, "sim") == 0)
        return power_simulated(c, xapi, reboot);
    spec.argv = (const char *const[]) { config_string(xapi->config, reboot ? "reboot-command" : "shutdown-command"), NULL };
    error = child_start(&spec, &pid);
    return error == 0 ? NULL : err_internal(c->arena, "%s: %s", spec.argv[0], strerror(-error));
}

struct error *agent_host_certificate(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *fingerprint, *pem;

    TRY(tls_certificate_fingerprint(c->arena, arena_printf(c->arena, "%s/xapi.pem", xapi->dir), &fingerprint, &pem));
    *result_r = value_string(pem);
    return NULL;
}
