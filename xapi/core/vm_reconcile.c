/* Following what hosts report about their domains.
 *
 * The report: a set of maps { uuid, domid, state: running|paused|suspended|ended, end: poweroff|reboot|
 * crash|killed|"", memory_actual, guest: map of strings }. It is the host's whole truth at one moment.
 *
 * (1) A VM with a current operation is left to that operation, which knows more than a report that may
 *     have been made before it began.
 * (2) A report may be stale. Before it changes where or how a VM runs, the VM is marked and the host is
 *     asked again.
 * (3) A domain that vanished is looked for on all live hosts before its VM counts as halted: it may have
 *     moved while the coordinator was away. As long as one of them cannot be asked, the row stays.
 * (4) Where two hosts have a domain of one VM, the row keeps the one it names; that is an error to be
 *     looked at by a human. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/agent.h"

LOG_MODULE(vm_reconcile);

static const struct class_info *const vm_class = &model_classes[CLASS_VM];

static bool busy(const struct row *vm)
{
    return row_value(vm, F_VM_current_operations)->len > 0;
}

static bool is_here(const struct row *vm, const char *host_ref)
{
    return strcmp(row_string(vm, F_VM_resident_on), host_ref) == 0;
}

static bool followed(const struct row *vm)
{
    return !row_bool(vm, F_VM_is_a_template) && !row_bool(vm, F_VM_is_control_domain);
}

static bool state_is(const struct value *domain, const char *state)
{
    return strcmp(value_get_string(domain, "state", ""), state) == 0;
}

static bool alive(const struct value *domain)
{
    return domain != NULL && (state_is(domain, "running") || state_is(domain, "paused"));
}

static const char *power_state_of(const struct value *domain)
{
    return state_is(domain, "paused") ? "Paused" : "Running";
}

/* --- asking ------------------------------------------------------------------------------------------------ */
/* What a host says about one domain right now; *domain_r is NULL when it has none. */
static struct error *ask_host(struct api_call *c, const struct row *vm, const char *host_ref, const struct value **domain_r)
{
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), *domain = arena_alloc(c->arena, sizeof *domain);
    struct error *e = agent_call(c, host_ref, "vm.find", &v, domain);
    *domain_r = e == NULL ? domain : NULL;
    return error_is(e, "DOMAIN_NOT_FOUND") ? NULL : e;
}

static bool host_live(struct api_call *c, const struct row *host)
{
    const struct row *metrics = db_get(c->db, c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    return metrics != NULL && row_bool(metrics, F_host_metrics_live);
}

/* The live host but 'not_here' where the VM's domain lives; NULL when none has it. */
static struct error *ask_others(struct api_call *c, const struct row *vm, const char *not_here, const char **host_r, const struct value **domain_r)
{
    struct row_list hosts = db_all(c->db, c->arena, &model_classes[CLASS_host]);
    *host_r = NULL;
    for (unsigned i = 0; i < hosts.n; i++) {
        if (strcmp(hosts.rows[i]->ref, not_here) == 0 || !host_live(c, hosts.rows[i]))
            continue;
        TRY(ask_host(c, vm, hosts.rows[i]->ref, domain_r));
        if (alive(*domain_r)) {
            *host_r = hosts.rows[i]->ref;
            return NULL;
        }
    }
    return NULL;
}

/* --- writing ------------------------------------------------------------------------------------------------ */
static struct error *record_alive(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *domain)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, vm_ref, power_state_of(domain), host_ref, (int)value_get_int(domain, "domid", -1)));
    TRY(vm_metrics_report(c, txn, vm_ref, domain));
    return txn_commit(txn, NULL);
}

static struct error *record_state(struct api_call *c, const char *vm_ref, const char *power_state, const char *host_ref, int domid)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, vm_ref, power_state, host_ref, domid));
    return txn_commit(txn, NULL);
}

/* --- a domain that ended by itself --------------------------------------------------------------------------- */
/* What the VM's settings say: "destroy", "restart", "preserve" … */
static const char *action_for(const struct row *vm, const char *end)
{
    if (strcmp(end, "reboot") == 0)
        return row_string(vm, F_VM_actions_after_reboot);
    if (strcmp(end, "crash") == 0)
        return row_string(vm, F_VM_actions_after_crash);
    return strcmp(end, "poweroff") == 0 ? row_string(vm, F_VM_actions_after_shutdown) : "destroy";
}

static struct error *end_domain(struct api_call *c, const struct row *vm, const char *host_ref, const char *end)
{
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    TRY(agent_call(c, host_ref, "vm.destroy", &v, &ignored));
    TRY(record_state(c, vm->ref, "Halted", NULL, -1));
    vm_disks_release(c, vm->ref, host_ref);
    if (strcmp(end, "crash") != 0)
        vm_run_tell(c, vm->ref, "VM_SHUTDOWN", end[0] != '\0' ? arena_printf(c->arena, "shut down from inside (%s)", end) : "is gone from its host");
    return NULL;
}

static struct error *act_on_end(struct api_call *c, const struct row *vm, const char *host_ref, const struct value *domain)
{
    const char *end = domain != NULL ? value_get_string(domain, "end", "") : "", *action = action_for(vm, end);
    bool preserve = strcmp(action, "preserve") == 0;
    if (preserve && strcmp(row_string(vm, F_VM_power_state), "Paused") == 0)
        return NULL; /* that was done before */
    log_info("VM %s ended by itself (%s): %s", row_string(vm, F_VM_uuid), end[0] != '\0' ? end : "vanished", action);
    if (strcmp(end, "crash") == 0)
        vm_run_tell(c, vm->ref, "VM_CRASHED", "crashed");
    if (preserve) /* the dead domain stays for whoever wants to look at it */
        return record_state(c, vm->ref, "Paused", host_ref, (int)row_int(vm, F_VM_domid));
    if (strstr(action, "restart") != NULL)
        return vm_run_reboot(c, vm->ref, true);
    return end_domain(c, vm, host_ref, end);
}

static struct error *ended_marked(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    const struct row *vm = db_get(c->db, c->arena, vm_class, vm_ref);
    const struct value *domain, *other;
    const char *other_host = NULL;
    if (vm == NULL || !is_here(vm, host_ref))
        return NULL;
    TRY(ask_host(c, vm, host_ref, &domain));
    if (domain != NULL)
        return state_is(domain, "ended") ? act_on_end(c, vm, host_ref, domain) : NULL;
    TRY(ask_others(c, vm, host_ref, &other_host, &other));
    if (other_host == NULL)
        return act_on_end(c, vm, host_ref, NULL);
    log_info("VM %s moved while nobody was watching", row_string(vm, F_VM_uuid));
    return record_alive(c, vm_ref, other_host, other);
}

struct error *vm_ended(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    return ended_marked(c, vm_ref, host_ref);
}

/* Under a mark, so that nobody starts or moves the VM meanwhile, and only if it is still true. */
static struct error *domain_ended(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    bool taken;
    TRY(operation_take(c, CLASS_VM, vm_ref, "hard_shutdown", &taken));
    if (!taken)
        return NULL;
    OPERATION_SCOPE on_vm = { c, CLASS_VM, vm_ref, "hard_shutdown" };
    return ended_marked(c, vm_ref, host_ref);
}

/* --- a domain that lives where or as the row does not say ------------------------------------------------------ */
static struct error *appears_marked(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    const struct row *vm = db_get(c->db, c->arena, vm_class, vm_ref);
    const struct value *domain, *other = NULL;
    if (vm == NULL)
        return NULL;
    TRY(ask_host(c, vm, host_ref, &domain));
    if (!alive(domain))
        return NULL;
    const char *home = row_string(vm, F_VM_resident_on);
    if (!ref_is_null(home) && strcmp(home, host_ref) != 0)
        TRY(ask_host(c, vm, home, &other));
    if (alive(other)) {
        log_err("VM %s has a second domain on another host: destroy one of them", row_string(vm, F_VM_uuid));
        return NULL;
    }
    return record_alive(c, vm_ref, host_ref, domain);
}

static struct error *domain_appears(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    bool taken;
    TRY(operation_take(c, CLASS_VM, vm_ref, "update_allowed_operations", &taken));
    if (!taken)
        return NULL;
    OPERATION_SCOPE on_vm = { c, CLASS_VM, vm_ref, "update_allowed_operations" };
    return appears_marked(c, vm_ref, host_ref);
}

/* --- a report --------------------------------------------------------------------------------------------------- */
/* Metrics of what runs where its row says; everything in one commit. */
static struct error *take_metrics(struct api_call *c, const char *host_ref, const struct value *domains)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    for (unsigned i = 0; i < domains->len; i++) {
        const struct value *domain = &domains->items[i];
        const struct row *vm = txn_by_uuid(txn, vm_class, value_get_string(domain, "uuid", ""));
        if (vm == NULL || !followed(vm) || !alive(domain) || !is_here(vm, host_ref))
            continue;
        if (!busy(vm) && !ref_is_null(row_string(vm, F_VM_scheduled_to_be_resident_on))) /* of an operation that died with its daemon */
            TRY(txn_set_string(txn, CLASS_VM, vm->ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
        TRY(txn_set_int(txn, CLASS_VM, vm->ref, F_VM_domid, value_get_int(domain, "domid", row_int(vm, F_VM_domid))));
        TRY(vm_metrics_report(c, txn, vm->ref, domain));
    }
    return txn_commit(txn, NULL);
}

static struct error *follow_domain(struct api_call *c, const struct row *vm, const char *host_ref, const struct value *domain)
{
    bool here = is_here(vm, host_ref);
    if (busy(vm) || state_is(domain, "suspended")) /* a save in progress */
        return NULL;
    if (!alive(domain))
        return here ? domain_ended(c, vm->ref, host_ref) : NULL;
    return here && strcmp(row_string(vm, F_VM_power_state), power_state_of(domain)) == 0 ? NULL : domain_appears(c, vm->ref, host_ref);
}

/* A reservation on a host that does not have the VM, of an operation that died with its daemon. */
static struct error *drop_reservation(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm = txn_get(txn, vm_class, vm_ref);
    if (vm == NULL || busy(vm) || strcmp(row_string(vm, F_VM_scheduled_to_be_resident_on), host_ref) != 0)
        return NULL;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
    return txn_commit(txn, NULL);
}

static bool reported(const struct value *domains, const char *uuid)
{
    for (unsigned i = 0; i < domains->len; i++)
        if (strcmp(value_get_string(&domains->items[i], "uuid", ""), uuid) == 0)
            return true;
    return false;
}

static void note(struct api_call *c, const struct row *vm, const struct error *e)
{
    if (e != NULL)
        log_warn_rl("VM %s does not follow its host's report: %s", row_string(vm, F_VM_uuid), error_text(c->arena, e));
}

static void follow(struct api_call *c, const char *host_ref, const struct value *domains)
{
    for (unsigned i = 0; i < domains->len; i++) {
        const struct row *vm = db_by_uuid(c->db, c->arena, vm_class, value_get_string(&domains->items[i], "uuid", ""));
        if (vm != NULL && followed(vm))
            note(c, vm, follow_domain(c, vm, host_ref, &domains->items[i]));
    }
    struct row_list vms = db_all(c->db, c->arena, vm_class);
    for (unsigned i = 0; i < vms.n; i++) {
        const struct row *vm = vms.rows[i];
        bool coming = strcmp(row_string(vm, F_VM_scheduled_to_be_resident_on), host_ref) == 0;
        if ((!is_here(vm, host_ref) && !coming) || busy(vm) || !followed(vm) || reported(domains, row_string(vm, F_VM_uuid)))
            continue;
        note(c, vm, is_here(vm, host_ref) ? domain_ended(c, vm->ref, host_ref) : drop_reservation(c, vm->ref, host_ref));
    }
}

void vm_reconcile(struct xapi *xapi, const char *host_ref, const struct value *domains)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    if (domains->kind != VALUE_SET)
        return;
    internal_call_init(&c, xapi, arena, "reconcile");
    struct call *outer = call_enter(&c.call);
    struct error *e = take_metrics(&c, host_ref, domains);
    if (e != NULL)
        log_warn("the metrics of a host's report are lost: %s", error_text(arena, e));
    follow(&c, host_ref, domains);
    call_enter(outer);
}
