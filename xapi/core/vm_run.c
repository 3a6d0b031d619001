#include "xapi/core/vm_run.h"

#include <inttypes.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/alert.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/pool/agent.h"
#include "xapi/pool/vdi_path.h"

LOG_MODULE(vm_run);

#define SUSPEND_ROOM (16ll << 20) /* headers, vCPU state and page lists beside the memory itself */

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

/* --- reservation ------------------------------------------------------------------------------------------- */
static struct error *reserve(struct api_call *c, const char *vm_ref, const char *host_ref, unsigned flags, const char **host_ref_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm, *host;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    if (host_ref == NULL)
        TRY(placement_choose(c, txn, vm, &host_ref));
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    TRY(placement_check(c, txn, vm, host, flags));
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, host_ref));
    *host_ref_r = host_ref;
    return txn_commit(txn, NULL);
}

struct error *vm_run_reserve(struct api_call *c, const char *vm_ref, const char *host_ref, const char *host_operation, unsigned flags, const char **host_ref_r)
{
    TRY(reserve(c, vm_ref, host_ref, flags, host_ref_r));
    struct error *e = operation_begin(c, CLASS_host, *host_ref_r, host_operation, true);
    if (e != NULL)
        vm_run_unreserve(c, vm_ref);
    return e;
}

void vm_run_unreserve(struct api_call *c, const char *vm_ref)
{
    struct error *e = db_set(c->db, c->arena, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, value_string(REF_NULL));
    if (e != NULL && !error_is(e, "HANDLE_INVALID"))
        log_err("the reservation of %s was not dropped: %s", vm_ref, error_text(c->arena, e));
}

/* --- recording that it runs ----------------------------------------------------------------------------------- */
static struct error *record_boot(struct txn *txn, const char *vm_ref, const struct row *host)
{
    TRY(txn_map_put(txn, CLASS_VM, vm_ref, F_VM_last_boot_CPU_flags, "vendor", value_string(row_map(host, F_host_cpu_info, "vendor", ""))));
    TRY(txn_map_put(txn, CLASS_VM, vm_ref, F_VM_last_boot_CPU_flags, "features", value_string(row_map(host, F_host_cpu_info, "features_hvm", ""))));
    return txn_set_string(txn, CLASS_VM, vm_ref, F_VM_domarch, "");
}

/* boot: a fresh start, not a resume. */
static struct error *record_running(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *info, bool boot)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    if (boot) {
        TRY(record_boot(txn, vm_ref, host));
        TRY(vm_metrics_started(c, txn, vm_ref, value_get_int(info, "started_at", clock_wall(c->call.clock))));
    }
    const char *state = strcmp(value_get_string(info, "state", "running"), "paused") == 0 ? "Paused" : "Running";
    TRY(vm_set_power_state(c, txn, vm_ref, state, host_ref, (int)value_get_int(info, "domid", -1)));
    TRY(vm_metrics_report(c, txn, vm_ref, info));
    return txn_commit(txn, NULL);
}

static void tell(struct api_call *c, const char *vm_ref, const char *alert, const char *what)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vm_ref);
    if (vm != NULL)
        message_post(c->xapi, alert, "VM", row_string(vm, F_VM_uuid), arena_printf(c->arena, "VM '%s' %s", row_string(vm, F_VM_name_label), what));
}

/* --- start -------------------------------------------------------------------------------------------------------- */
static struct error *start_reserved(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused)
{
    struct vm_spec spec;
    TRY(vm_spec_of(c, vm_ref, host_ref, &spec));
    struct member args[] = { member_of("spec", vm_spec_to_value(c->arena, &spec)), member_of("paused", value_bool(paused)) };
    struct value v = value_map(args, ARRAY_LEN(args)), info;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host_ref, "vm.start", &v, &info)));
    return record_running(c, vm_ref, host_ref, &info, true);
}

struct error *vm_run_start(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force)
{
    unsigned flags = force ? PLACE_MEMORY : PLACE_CPU | PLACE_SR | PLACE_MEMORY;
    const char *host;
    TRY(vm_run_reserve(c, vm_ref, host_ref, "vm_start", flags & ~(unsigned)PLACE_CPU, &host)); /* a fresh boot adapts to the CPU */
    OPERATION_SCOPE on_host = { c, CLASS_host, host, "vm_start" };
    struct error *e = start_reserved(c, vm_ref, host, paused);
    if (e != NULL) {
        vm_run_unreserve(c, vm_ref);
        return e;
    }
    tell(c, vm_ref, "VM_STARTED", "started");
    return NULL;
}

/* --- shutdown and reboot --------------------------------------------------------------------------------------------- */
static struct error *residence(struct api_call *c, const char *vm_ref, const struct row **vm_r, const char **host_r)
{
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, vm_r));
    *host_r = row_string(*vm_r, F_VM_resident_on);
    if (ref_is_null(*host_r))
        return err_internal(c->arena, "VM %s runs on no host", vm_ref);
    return NULL;
}

static struct error *record_halted(struct api_call *c, const char *vm_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, vm_ref, "Halted", NULL, -1));
    return txn_commit(txn, NULL);
}

struct error *vm_run_shutdown(struct api_call *c, const char *vm_ref, bool hard)
{
    const struct row *vm;
    const char *host;
    TRY(residence(c, vm_ref, &vm, &host));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))),
                             member_of("timeout_ms", value_int(config_int(c->xapi->config, "domain_shutdown_total_timeout") * 1000)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host, hard ? "vm.destroy" : "vm.shutdown", &v, &ignored)));
    TRY(record_halted(c, vm_ref));
    tell(c, vm_ref, "VM_SHUTDOWN", "shut down");
    return NULL;
}

struct error *vm_run_reboot(struct api_call *c, const char *vm_ref, bool hard)
{
    const struct row *vm;
    const char *host;
    TRY(residence(c, vm_ref, &vm, &host));
    struct vm_spec spec;
    TRY(vm_spec_of(c, vm_ref, host, &spec));
    struct member args[] = { member_of("spec", vm_spec_to_value(c->arena, &spec)), member_of("hard", value_bool(hard)),
                             member_of("timeout_ms", value_int(config_int(c->xapi->config, "domain_shutdown_total_timeout") * 1000)) };
    struct value v = value_map(args, ARRAY_LEN(args)), info;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host, "vm.reboot", &v, &info)));
    TRY(record_running(c, vm_ref, host, &info, true));
    tell(c, vm_ref, "VM_REBOOTED", "rebooted");
    return NULL;
}

/* --- suspend ----------------------------------------------------------------------------------------------------------- */
static bool sr_usable(struct api_call *c, const char *sr_ref, const char *host_ref)
{
    const struct row *sr = ref_is_null(sr_ref) ? NULL : db_get(c->db, c->arena, &model_classes[CLASS_SR], sr_ref);
    const struct value *pbds = sr != NULL ? row_value(sr, F_SR_PBDs) : NULL;
    for (unsigned i = 0; pbds != NULL && i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);
        if (pbd != NULL && strcmp(row_string(pbd, F_PBD_host), host_ref) == 0 && row_bool(pbd, F_PBD_currently_attached))
            return true;
    }
    return false;
}

/* The VM's own, else the pool's, the host's, the pool's default; the first one this host can use. */
static struct error *suspend_sr(struct api_call *c, const struct row *vm, const char *host_ref, const char **sr_r)
{
    const struct row *host;
    TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    const char *candidates[] = {
        row_string(vm, F_VM_suspend_SR),
        pools.n > 0 ? row_string(pools.rows[0], F_pool_suspend_image_SR) : REF_NULL,
        row_string(host, F_host_suspend_image_sr),
        pools.n > 0 ? row_string(pools.rows[0], F_pool_default_SR) : REF_NULL,
    };
    for (unsigned i = 0; i < ARRAY_LEN(candidates); i++)
        if (sr_usable(c, candidates[i], host_ref)) {
            *sr_r = candidates[i];
            return NULL;
        }
    return error_make(c->arena, __FILE__, __LINE__, "VM_NO_SUSPEND_SR", 1, vm->ref);
}

static struct error *suspend_vdi_make(struct api_call *c, const struct row *vm, const char *host_ref, const char **vdi_r)
{
    const char *sr;
    TRY(suspend_sr(c, vm, host_ref, &sr));
    struct member fields[] = {
        member_of("name_label", value_string("Suspend image")),
        member_of("name_description", value_string("Memory of a suspended VM")),
        member_of("SR", value_string(sr)),
        member_of("virtual_size", value_int(row_int(vm, F_VM_memory_static_max) + row_int(vm, F_VM_memory_static_max) / 256 + SUSPEND_ROOM)),
        member_of("type", value_string("suspend")),
        member_of("sharable", value_bool(false)),
        member_of("read_only", value_bool(false)),
    };
    struct value record = value_map(fields, ARRAY_LEN(fields)), result;
    struct api_VDI_create_args args = { .record = &record };
    TRY(api_run(c, M_VDI_create, &args, &result));
    *vdi_r = arena_strdup(c->arena, result.s);
    return NULL;
}

static void suspend_vdi_remove(struct api_call *c, const char *vdi_ref)
{
    struct value ignored;
    struct api_VDI_destroy_args args = { .self = vdi_ref };
    struct error *e = api_run(c, M_VDI_destroy, &args, &ignored);
    if (e != NULL)
        log_warn("the suspend image %s could not be removed: %s", vdi_ref, error_text(c->arena, e));
}

static struct error *record_suspended(struct api_call *c, const char *vm_ref, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_suspend_VDI, vdi_ref));
    TRY(vm_set_power_state(c, txn, vm_ref, "Suspended", NULL, -1));
    return txn_commit(txn, NULL);
}

static struct error *suspend_to(struct api_call *c, const struct row *vm, const char *host_ref, const char *vdi_ref)
{
    const char *path;
    TRY(vdi_path(c, vdi_ref, host_ref, &path));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))), member_of("path", value_string(path)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    return vm_run_error(c, vm->ref, agent_call(c, host_ref, "vm.suspend", &v, &ignored));
}

struct error *vm_run_suspend(struct api_call *c, const char *vm_ref)
{
    const struct row *vm;
    const char *host, *vdi;
    TRY(residence(c, vm_ref, &vm, &host));
    TRY(suspend_vdi_make(c, vm, host, &vdi));
    task_set_cancellable(c, true);
    struct error *e = suspend_to(c, vm, host, vdi);
    if (e != NULL) {
        suspend_vdi_remove(c, vdi);
        return e;
    }
    TRY(record_suspended(c, vm_ref, vdi));
    tell(c, vm_ref, "VM_SUSPENDED", "suspended");
    return NULL;
}

/* --- resume -------------------------------------------------------------------------------------------------------------- */
static struct error *resume_reserved(struct api_call *c, const struct row *vm, const char *host_ref, bool paused)
{
    struct vm_spec spec;
    const char *path;
    TRY(vm_spec_of(c, vm->ref, host_ref, &spec));
    TRY(vdi_path(c, row_string(vm, F_VM_suspend_VDI), host_ref, &path));
    struct member args[] = { member_of("spec", vm_spec_to_value(c->arena, &spec)), member_of("path", value_string(path)),
                             member_of("paused", value_bool(paused)) };
    struct value v = value_map(args, ARRAY_LEN(args)), info;
    TRY(vm_run_error(c, vm->ref, agent_call(c, host_ref, "vm.resume", &v, &info)));
    return record_running(c, vm->ref, host_ref, &info, false);
}

struct error *vm_run_resume(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    const char *image = row_string(vm, F_VM_suspend_VDI), *host;
    if (ref_is_null(image))
        return error_make(c->arena, __FILE__, __LINE__, "VM_HAS_NO_SUSPEND_VDI", 1, vm_ref);
    TRY(vm_run_reserve(c, vm_ref, host_ref, "vm_resume", (force ? 0 : PLACE_CPU) | PLACE_SR | PLACE_MEMORY, &host));
    OPERATION_SCOPE on_host = { c, CLASS_host, host, "vm_resume" };
    struct error *e = resume_reserved(c, vm, host, paused);
    if (e != NULL) {
        vm_run_unreserve(c, vm_ref);
        return e;
    }
    TRY(db_set(c->db, c->arena, CLASS_VM, vm_ref, F_VM_suspend_VDI, value_string(REF_NULL)));
    suspend_vdi_remove(c, image);
    tell(c, vm_ref, "VM_RESUMED", "resumed");
    return NULL;
}
