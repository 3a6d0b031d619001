/* Host, pool and task operations (specs §2.5, §2.8). */
#include <string.h>

#include "xapi/core/allowed.h"
#include "xapi/core/version.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

static const char *host_spelling(const char *op)
{
    if (strcmp(op, "vm_start") == 0)
        return "VM.start";
    if (strcmp(op, "vm_resume") == 0)
        return "VM.resume";
    return strcmp(op, "vm_migrate") == 0 ? "VM.migrate" : op;
}

/* Does a current operation exclude this one? */
static bool host_excludes(const char *current, const char *op)
{
    const char *const *creating = LIST("provision", "vm_resume", "vm_migrate");
    const char *const *removing = LIST("evacuate", "reboot", "shutdown");
    if ((one_of(current, creating) && one_of(op, removing)) || (one_of(current, removing) && one_of(op, creating)))
        return true;
    if (strcmp(current, "reboot") == 0)
        return one_of(op, LIST("shutdown", "apply_updates"));
    if (strcmp(current, "shutdown") == 0)
        return one_of(op, LIST("reboot", "apply_updates"));
    if (strcmp(current, "apply_updates") == 0)
        return one_of(op, LIST("reboot", "shutdown", "enable"));
    return strcmp(current, "provision") == 0 && strcmp(op, "provision") == 0;
}

static struct error *host_check(struct api_call *c, struct txn *txn, const struct row *host, const char *op, bool strict)
{
    const struct value *current = row_value(host, F_host_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        const char *other = current->members[i].value.s;
        if (host_excludes(other, op))
            return err_other_operation_in_progress(c->arena, "host", host->ref, host_spelling(other), current->members[i].name);
    }
    if (row_bool(host, F_host_enabled) && one_of(op, LIST("reboot", "shutdown", "apply_updates")))
        return err_host_not_disabled(c->arena);
    if (strcmp(op, "power_on") != 0)
        return NULL;
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    if (metrics != NULL && row_bool(metrics, F_host_metrics_live))
        return err_host_is_live(c->arena, host->ref);
    if (row_string(host, F_host_power_on_mode)[0] == '\0')
        return err_host_power_on_mode_disabled(c->arena);
    return err_xenapi_missing_plugin(c->arena, "power-on-host");
}

static bool host_published(struct api_call *c, const struct row *host, const char *op)
{
    return !version_upgrade_in_progress(c) || one_of(op, LIST("evacuate", "provision"));
}

const struct operation_rules allowed_host = {
    .class_id = CLASS_host,
    .current_field = F_host_current_operations,
    .allowed_field = F_host_allowed_operations,
    .check = host_check,
    .published = host_published,
};

/* --- pool ---------------------------------------------------------------------------------------------------- */
static const struct { const char *op, *code; } blocking[] = {
    { "ha_enable", "HA_ENABLE_IN_PROGRESS" },
    { "ha_disable", "HA_DISABLE_IN_PROGRESS" },
    { "cluster_create", "CLUSTER_CREATE_IN_PROGRESS" },
    { "designate_new_master", "DESIGNATE_NEW_MASTER_IN_PROGRESS" },
    { "tls_verification_enable", "TLS_VERIFICATION_ENABLE_IN_PROGRESS" },
    { "configure_repositories", "CONFIGURE_REPOSITORIES_IN_PROGRESS" },
    { "sync_updates", "SYNC_UPDATES_IN_PROGRESS" },
    { "apply_updates", "APPLY_UPDATES_IN_PROGRESS" },
};

static const char *blocking_code(const char *op)
{
    for (unsigned i = 0; i < ARRAY_LEN(blocking); i++)
        if (strcmp(op, blocking[i].op) == 0)
            return blocking[i].code;
    return NULL;
}

static struct error *pool_check(struct api_call *c, struct txn *txn, const struct row *pool, const char *op, bool strict)
{
    const struct value *current = row_value(pool, F_pool_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        const char *code = blocking_code(current->members[i].value.s);
        if (code != NULL && blocking_code(op) != NULL)
            return error_make(c->arena, __FILE__, __LINE__, code, 0);
        return err_other_operation_in_progress(c->arena, "pool", pool->ref, current->members[i].value.s, current->members[i].name);
    }
    bool ha = row_bool(pool, F_pool_ha_enabled);
    if (ha && one_of(op, LIST("ha_enable", "designate_new_master", "eject")))
        return err_ha_is_enabled(c->arena);
    return !ha && strcmp(op, "ha_disable") == 0 ? err_ha_not_enabled(c->arena) : NULL;
}

static bool always_published(struct api_call *c, const struct row *row, const char *op)
{
    return true;
}

const struct operation_rules allowed_pool = {
    .class_id = CLASS_pool,
    .current_field = F_pool_current_operations,
    .allowed_field = F_pool_allowed_operations,
    .check = pool_check,
    .published = always_published,
};

/* --- task: what it allows is set by who runs it --------------------------------------------------------------- */
static struct error *task_check(struct api_call *c, struct txn *txn, const struct row *task, const char *op, bool strict)
{
    return NULL;
}

static bool task_published(struct api_call *c, const struct row *task, const char *op)
{
    return value_set_has(row_value(task, F_task_allowed_operations), op);
}

const struct operation_rules allowed_task = {
    .class_id = CLASS_task,
    .current_field = F_task_current_operations,
    .allowed_field = F_task_allowed_operations,
    .check = task_check,
    .published = task_published,
};
