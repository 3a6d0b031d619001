/* Following what hosts report about their domains.
 *
 * The report: a set of maps { uuid, domid, state: running|paused|suspended|ended, end: poweroff|reboot|
 * crash|killed|"", memory_actual, guest: map of strings }. It is the host's whole truth at one moment.
 *
 * A VM with a current operation is left to that operation, which knows more than a report that may
 * have been made before it began. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/alert.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/pool/agent.h"

LOG_MODULE(vm_reconcile);

static const struct value *find_domain(const struct value *domains, const char *uuid)
{
    for (unsigned i = 0; domains->kind == VALUE_SET && i < domains->len; i++)
        if (strcmp(value_get_string(&domains->items[i], "uuid", ""), uuid) == 0)
            return &domains->items[i];
    return NULL;
}

static bool busy(const struct row *vm)
{
    return row_value(vm, F_VM_current_operations)->len > 0;
}

/* --- a domain that ended by itself ------------------------------------------------------------------------- */
/* What the VM's settings say: "destroy", "restart", "preserve" … */
static const char *action_for(const struct row *vm, const char *end)
{
    if (strcmp(end, "reboot") == 0)
        return row_string(vm, F_VM_actions_after_reboot);
    if (strcmp(end, "crash") == 0)
        return row_string(vm, F_VM_actions_after_crash);
    return strcmp(end, "poweroff") == 0 ? row_string(vm, F_VM_actions_after_shutdown) : "destroy";
}

static struct error *end_domain(struct api_call *c, const struct row *vm, const char *host_ref)
{
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    TRY(agent_call(c, host_ref, "vm.destroy", &v, &ignored));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, vm->ref, "Halted", NULL, -1));
    return txn_commit(txn, NULL);
}

static void tell_end(struct api_call *c, const struct row *vm, const char *end)
{
    const char *alert = strcmp(end, "reboot") == 0 ? "VM_REBOOTED" : strcmp(end, "crash") == 0 ? "VM_CRASHED" : "VM_SHUTDOWN";
    message_post(c->xapi, alert, "VM", row_string(vm, F_VM_uuid),
               arena_printf(c->arena, "VM '%s': the guest ended with '%s'", row_string(vm, F_VM_name_label), end[0] != '\0' ? end : "unknown"));
}

/* What the host says about one domain right now; *domain_r is NULL when it has none. */
static struct error *ask_host(struct api_call *c, const struct row *vm, const char *host_ref, const struct value **domain_r)
{
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), *domain = arena_alloc(c->arena, sizeof *domain);
    struct error *e = agent_call(c, host_ref, "vm.find", &v, domain);
    *domain_r = e == NULL ? domain : NULL;
    return error_is(e, "DOMAIN_NOT_FOUND") ? NULL : e;
}

static bool ended(const struct value *domain)
{
    return domain == NULL || strcmp(value_get_string(domain, "state", ""), "ended") == 0;
}

/* Under a mark, so that nobody starts or moves the VM meanwhile, and only if it is still true. */
static struct error *domain_ended(struct api_call *c, const struct row *seen, const char *host_ref)
{
    TRY(operation_begin(c, CLASS_VM, seen->ref, "hard_shutdown", false));
    OPERATION_SCOPE on_vm = { c, CLASS_VM, seen->ref, "hard_shutdown" };
    const struct row *vm;
    const struct value *domain;
    TRY(db_need(c->db, c->arena, CLASS_VM, seen->ref, &vm));
    if (strcmp(row_string(vm, F_VM_resident_on), host_ref) != 0 || row_value(vm, F_VM_current_operations)->len > 1)
        return NULL;
    TRY(ask_host(c, vm, host_ref, &domain));
    if (!ended(domain))
        return NULL;
    const char *end = value_get_string(domain, "end", ""), *action = action_for(vm, end);
    log_info("VM %s ended by itself (%s): %s", row_string(vm, F_VM_uuid), end, action);
    tell_end(c, vm, end);
    if (strstr(action, "restart") != NULL)
        return vm_run_reboot(c, vm->ref, true);
    if (strcmp(action, "preserve") == 0)
        return NULL; /* the dead domain stays for whoever wants to look at it */
    return end_domain(c, vm, host_ref);
}

/* --- a domain that lives -------------------------------------------------------------------------------------- */
static const char *state_of(const struct value *domain)
{
    return strcmp(value_get_string(domain, "state", ""), "paused") == 0 ? "Paused" : "Running";
}

static struct error *domain_lives(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *domain)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], vm_ref);
    if (vm == NULL)
        return NULL;
    int domid = (int)value_get_int(domain, "domid", row_int(vm, F_VM_domid));
    bool here = strcmp(row_string(vm, F_VM_resident_on), host_ref) == 0;
    bool same = here && strcmp(row_string(vm, F_VM_power_state), state_of(domain)) == 0;
    if (!busy(vm) && !same)
        TRY(vm_set_power_state(c, txn, vm_ref, state_of(domain), host_ref, domid));
    else if (here)
        TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_domid, domid));
    TRY(vm_metrics_report(c, txn, vm_ref, domain));
    return txn_commit(txn, NULL);
}

/* A report may be older than what an operation did since: before it changes where or how a VM runs, the
 * host is asked again. */
static struct error *reconcile_vm(struct api_call *c, const struct row *vm, const char *host_ref, const struct value *domains)
{
    const struct value *domain = find_domain(domains, row_string(vm, F_VM_uuid));
    bool here = strcmp(row_string(vm, F_VM_resident_on), host_ref) == 0;
    if (domain != NULL && strcmp(value_get_string(domain, "state", ""), "suspended") == 0)
        return NULL; /* a save in progress */
    if (ended(domain))
        return here && !busy(vm) ? domain_ended(c, vm, host_ref) : NULL;
    bool same = here && strcmp(row_string(vm, F_VM_power_state), state_of(domain)) == 0;
    if (same || (here && busy(vm)))
        return domain_lives(c, vm->ref, host_ref, domain);
    if (busy(vm))
        return NULL;
    TRY(ask_host(c, vm, host_ref, &domain));
    return ended(domain) ? NULL : domain_lives(c, vm->ref, host_ref, domain);
}

void vm_reconcile(struct xapi *xapi, const char *host_ref, const struct value *domains)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    internal_call_init(&c, xapi, arena, "reconcile");
    struct call *outer = call_enter(&c.call);
    struct row_list vms = db_all(xapi->db, arena, &model_classes[CLASS_VM]);
    for (unsigned i = 0; i < vms.n; i++) {
        const struct row *vm = vms.rows[i];
        if (row_bool(vm, F_VM_is_a_template) || row_bool(vm, F_VM_is_control_domain))
            continue;
        struct error *e = reconcile_vm(&c, vm, host_ref, domains);
        if (e != NULL)
            log_warn("VM %s does not follow its host's report: %s", row_string(vm, F_VM_uuid), error_text(arena, e));
    }
    call_enter(outer);
}
