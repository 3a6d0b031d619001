#include "xapi/core/vm_run.h"

#include <ctype.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/alert.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/vdi_reset.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/agent.h"

LOG_MODULE(vm_run);

#define DISK_WAIT_MS 120000 /* specs §2.9: the short policy */

/* --- errors --------------------------------------------------------------------------------------------- */
struct error *vm_run_error(struct api_call *c, const char *vm_ref, struct error *e)
{
    static const struct { const char *code; unsigned params; } without_vm[] = {
        { "VM_BAD_POWER_STATE", 2 }, { "VM_FAILED_SUSPEND_ACKNOWLEDGMENT", 0 }, { "VM_FAILED_SHUTDOWN_ACKNOWLEDGMENT", 0 },
        { "VM_SUSPEND_TIMEOUT", 1 }, { "VM_SHUTDOWN_TIMEOUT", 1 },              { "BALLOONING_TIMEOUT_BEFORE_MIGRATION", 0 },
    };
    if (e == NULL)
        return NULL;
    if (error_is(e, "TASK_CANCELLED") && e->n_params == 0)
        return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
    for (unsigned i = 0; i < ARRAY_LEN(without_vm); i++) {
        if (!error_is(e, without_vm[i].code) || e->n_params != without_vm[i].params)
            continue;
        const char *params[3] = { vm_ref };
        for (unsigned k = 0; k < e->n_params; k++)
            params[k + 1] = e->params[k];
        return error_from_strings(c->arena, e->code, e->n_params + 1, params);
    }
    return e;
}

void vm_run_tell(struct api_call *c, const char *vm_ref, const char *alert, const char *what)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);
    if (vm != NULL)
        message_post(c->xapi, alert, "VM", row_string(vm, F_VM_uuid), arena_printf(c->arena, "VM '%s' %s", row_string(vm, F_VM_name_label), what));
}

/* --- reservation ------------------------------------------------------------------------------------------- */
struct reservation {
    const char *vm, *host, *host_operation;
    unsigned flags;
    const char *chosen;
    struct error *refused; /* by the host: not to be waited for */
};

static struct error *reserve_once(struct api_call *c, void *ctx)
{
    struct reservation *r = ctx;
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm, *host;
    TRY(txn_need(txn, CLASS_VM, r->vm, &vm));
    r->chosen = r->host;
    if (r->chosen == NULL)
        TRY(placement_choose(c, txn, vm, r->flags, &r->chosen));
    TRY(txn_need(txn, CLASS_host, r->chosen, &host));
    TRY(placement_check(c, txn, vm, host, r->flags));
    r->refused = operation_mark(c, txn, CLASS_host, r->chosen, r->host_operation, true);
    if (r->refused != NULL)
        return NULL;
    if (strcmp(r->host_operation, "vm_migrate") != 0)
        TRY(vm_disks_mark(c, txn, vm));
    TRY(txn_set_string(txn, CLASS_VM, r->vm, F_VM_scheduled_to_be_resident_on, r->chosen));
    return txn_commit(txn, NULL);
}

struct error *vm_run_reserve(struct api_call *c, const char *vm_ref, const char *host_ref, const char *host_operation, unsigned flags, const char **host_ref_r)
{
    struct reservation r = { .vm = vm_ref, .host = host_ref, .host_operation = host_operation, .flags = flags };
    TRY(operation_retry(c, CLASS_VBD, DISK_WAIT_MS, reserve_once, &r));
    *host_ref_r = r.chosen;
    return r.refused;
}

static struct error *unreserve(struct api_call *c, const char *vm_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    if (txn_get(txn, &model_classes[CLASS_VM], vm_ref) == NULL)
        return NULL;
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
    TRY(vm_disks_unmark(c, txn, vm_ref));
    return txn_commit(txn, NULL);
}

void vm_run_unreserve(struct api_call *c, const char *vm_ref)
{
    struct error *e = unreserve(c, vm_ref);
    if (e != NULL)
        log_err("the reservation of %s was not dropped: %s", vm_ref, error_text(c->arena, e));
}

/* --- recording that it runs ----------------------------------------------------------------------------------- */
/* A fresh boot gets what every host of the pool has, so that it can move to any of them. */
static struct error *record_cpu(struct api_call *c, struct txn *txn, const char *vm_ref, const struct row *host)
{
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    struct row_list pools = txn_all(txn, &model_classes[CLASS_pool]);
    const char *key = strcmp(vm_domain_type(vm), "pv") == 0 ? "features_pv" : "features_hvm";
    const char *features = pools.n > 0 ? row_map(pools.rows[0], F_pool_cpu_info, key, NULL) : NULL;
    struct member flags[] = { member_of("vendor", value_string(row_map(host, F_host_cpu_info, "vendor", ""))),
                              member_of("features", value_string(features != NULL ? features : row_map(host, F_host_cpu_info, key, ""))) };
    return txn_set(txn, CLASS_VM, vm_ref, F_VM_last_boot_CPU_flags, value_map(flags, ARRAY_LEN(flags)));
}

struct error *vm_run_record(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *domain, bool boot)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    if (boot) {
        TRY(record_cpu(c, txn, vm_ref, host));
        TRY(vm_metrics_started(c, txn, vm_ref, value_get_int(domain, "started_at", clock_wall(c->call.clock))));
    }
    TRY(vm_disks_unmark(c, txn, vm_ref));
    const char *state = strcmp(value_get_string(domain, "state", "running"), "paused") == 0 ? "Paused" : "Running";
    TRY(vm_set_power_state(c, txn, vm_ref, state, host_ref, (int)value_get_int(domain, "domid", -1)));
    TRY(vm_metrics_report(c, txn, vm_ref, domain));
    return txn_commit(txn, NULL);
}

/* --- start -------------------------------------------------------------------------------------------------------- */
static struct error *start_reserved(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused)
{
    struct vm_spec spec;
    TRY(vdi_reset_disks(c, vm_ref));
    TRY(vm_spec_of(c, vm_ref, host_ref, &spec));
    struct member args[] = { member_of("spec", vm_spec_to_value(c->arena, &spec)), member_of("paused", value_bool(paused)) };
    struct value v = value_map(args, ARRAY_LEN(args)), info;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host_ref, "vm.start", &v, &info)));
    return vm_run_record(c, vm_ref, host_ref, &info, true);
}

struct error *vm_run_start(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force)
{
    const char *host; /* a fresh boot adapts to the CPU: that is never checked */
    TRY(vm_run_reserve(c, vm_ref, host_ref, "vm_start", force ? PLACE_MEMORY : PLACE_SR | PLACE_MEMORY, &host));
    OPERATION_SCOPE on_host = { c, CLASS_host, host, "vm_start" };
    struct error *e = start_reserved(c, vm_ref, host, paused);
    if (e != NULL) {
        struct api_call calm = internal_call_cleanup(c);
        vm_run_unreserve(c, vm_ref);
        vm_disks_release(&calm, vm_ref, host);
        return e;
    }
    vm_run_tell(c, vm_ref, "VM_STARTED", "started");
    return NULL;
}

/* --- shutdown and reboot --------------------------------------------------------------------------------------------- */
struct error *vm_run_residence(struct api_call *c, const char *vm_ref, const char *expected, const struct row **vm_r, const char **host_r)
{
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, vm_r));
    *host_r = row_string(*vm_r, F_VM_resident_on);
    if (!ref_is_null(*host_r))
        return NULL;
    char *actual = arena_strdup(c->arena, row_string(*vm_r, F_VM_power_state));
    actual[0] = (char)tolower((unsigned char)actual[0]);
    return err_vm_bad_power_state(c->arena, vm_ref, expected, actual);
}

static struct error *record_halted(struct api_call *c, const char *vm_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, vm_ref, "Halted", NULL, -1));
    return txn_commit(txn, NULL);
}

static int64_t shutdown_timeout_ms(struct api_call *c)
{
    return config_int(c->xapi->config, "domain_shutdown_total_timeout") * 1000;
}

struct error *vm_run_shutdown(struct api_call *c, const char *vm_ref, bool hard)
{
    const struct row *vm;
    const char *host;
    TRY(vm_run_residence(c, vm_ref, hard ? "paused, suspended, running" : "running", &vm, &host));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))), member_of("timeout_ms", value_int(shutdown_timeout_ms(c))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host, hard ? "vm.destroy" : "vm.shutdown", &v, &ignored)));
    TRY(record_halted(c, vm_ref));
    struct api_call calm = internal_call_cleanup(c);
    vm_disks_release(&calm, vm_ref, host);
    vm_run_tell(c, vm_ref, "VM_SHUTDOWN", "shut down");
    return NULL;
}

/* All its interfaces are there after a boot, also those made meanwhile. */
static struct error *interfaces_attached(struct api_call *c, const struct row *vm)
{
    const struct value *vifs = row_value(vm, F_VM_VIFs);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    for (unsigned i = 0; i < vifs->len; i++)
        if (txn_get(txn, &model_classes[CLASS_VIF], vifs->items[i].s) != NULL)
            TRY(txn_set_bool(txn, CLASS_VIF, vifs->items[i].s, F_VIF_currently_attached, true));
    return txn_commit(txn, NULL);
}

/* Its disks are put back while nothing runs. */
static struct error *reboot_with_reset(struct api_call *c, const char *vm_ref, const char *host_ref, bool hard)
{
    const char *host = arena_strdup(c->arena, host_ref);
    TRY(vm_run_shutdown(c, vm_ref, hard));
    return vm_run_start(c, vm_ref, host, false, true);
}

struct error *vm_run_reboot(struct api_call *c, const char *vm_ref, bool hard)
{
    const struct row *vm;
    const char *host;
    TRY(vm_run_residence(c, vm_ref, hard ? "paused, running" : "running", &vm, &host));
    if (vdi_reset_any(c, vm_ref))
        return reboot_with_reset(c, vm_ref, host, hard);
    struct vm_spec spec;
    TRY(vm_spec_of_boot(c, vm_ref, host, &spec));
    struct member args[] = { member_of("spec", vm_spec_to_value(c->arena, &spec)), member_of("hard", value_bool(hard)),
                             member_of("timeout_ms", value_int(shutdown_timeout_ms(c))) };
    struct value v = value_map(args, ARRAY_LEN(args)), info;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host, "vm.reboot", &v, &info)));
    TRY(interfaces_attached(c, vm));
    TRY(vm_run_record(c, vm_ref, host, &info, true));
    vm_run_tell(c, vm_ref, "VM_REBOOTED", "rebooted");
    return NULL;
}
