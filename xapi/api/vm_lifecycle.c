/* VM power operations. The dispatcher has checked everything and marked the operation on the VM. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"
#include "xapi/core/api_create.h"
#include "xapi/core/operations.h"
#include "xapi/core/task.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/core/agent.h"
#include "xapi/migrate/move_watch.h"

LOG_MODULE(vm);

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

struct error *api_VM_start(struct api_call *c, const struct api_VM_start_args *a, struct value *result_r)
{
    return vm_run_start(c, a->vm, NULL, a->start_paused, a->force);
}

/* During a rolling upgrade VMs go to upgraded hosts only. */
static struct error *check_upgraded(struct api_call *c, const char *host_ref)
{
    const struct row *host;
    TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
    return version_upgrade_in_progress(c) && !version_is_highest(c, host) ? err_not_supported_during_upgrade(c->arena) : NULL;
}

struct error *api_VM_start_on(struct api_call *c, const struct api_VM_start_on_args *a, struct value *result_r)
{
    TRY(check_upgraded(c, a->host));
    return vm_run_start(c, a->vm, a->host, a->start_paused, a->force);
}

struct error *api_VM_resume(struct api_call *c, const struct api_VM_resume_args *a, struct value *result_r)
{
    return vm_run_resume(c, a->vm, NULL, a->start_paused, a->force);
}

struct error *api_VM_resume_on(struct api_call *c, const struct api_VM_resume_on_args *a, struct value *result_r)
{
    TRY(check_upgraded(c, a->host));
    return vm_run_resume(c, a->vm, a->host, a->start_paused, a->force);
}

struct error *api_VM_suspend(struct api_call *c, const struct api_VM_suspend_args *a, struct value *result_r)
{
    return vm_run_suspend(c, a->vm);
}

/* --- pause and unpause ------------------------------------------------------------------------------------ */
static struct error *set_paused(struct api_call *c, const char *vm_ref, const char *verb, const char *state)
{
    const struct row *vm;
    const char *host;
    TRY(vm_run_residence(c, vm_ref, strcmp(state, "Paused") == 0 ? "running" : "paused", &vm, &host));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host, verb, &v, &ignored)));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_power_state, state));
    TRY(operations_update_around(c, txn, CLASS_VM, vm_ref));
    return txn_commit(txn, NULL);
}

/* Until no move of the VM is under way. */
static struct error *move_ended(struct api_call *c, const char *vm_ref)
{
    struct class_set classes = { { 0 } };
    class_set_add(&classes, CLASS_VM);
    for (;;) {
        uint64_t since = db_generation(c->db);
        const char *host;
        if (move_of_vm(c, vm_ref, &host) == NULL)
            return NULL;
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        change_log_wait(c->db, &c->call, since, &classes, 1000);
    }
}

/* In mid-migration: the guest is suspended at once, and stays paused where it arrives. */
static struct error *pause_moving(struct api_call *c, const char *vm_ref, bool *paused_r)
{
    const struct member args[] = { member_of("finish", value_bool(true)), member_of("paused", value_bool(true)) };
    const struct row *vm;
    const char *host;
    *paused_r = false;
    if (move_of_vm(c, vm_ref, &host) == NULL)
        return NULL;
    struct error *e = move_control(c, vm_ref, args, ARRAY_LEN(args));
    if (e != NULL)
        log_debug("the move could not be told that its VM is to be paused: %s", error_text(c->arena, e));
    TRY(move_ended(c, vm_ref));
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    *paused_r = strcmp(row_string(vm, F_VM_power_state), "Paused") == 0;
    return NULL;
}

struct error *api_VM_pause(struct api_call *c, const struct api_VM_pause_args *a, struct value *result_r)
{
    bool paused;
    TRY(pause_moving(c, a->vm, &paused));
    return paused ? NULL : set_paused(c, a->vm, "vm.pause", "Paused");
}

struct error *api_VM_unpause(struct api_call *c, const struct api_VM_unpause_args *a, struct value *result_r)
{
    return set_paused(c, a->vm, "vm.unpause", "Running");
}

/* --- ends ---------------------------------------------------------------------------------------------------- */
struct error *api_VM_clean_shutdown(struct api_call *c, const struct api_VM_clean_shutdown_args *a, struct value *result_r)
{
    task_set_cancellable(c, true);
    return vm_run_shutdown(c, a->vm, false);
}

struct error *api_VM_clean_reboot(struct api_call *c, const struct api_VM_clean_reboot_args *a, struct value *result_r)
{
    task_set_cancellable(c, true);
    return vm_run_reboot(c, a->vm, false);
}

/* specs §2.3: a hard shutdown or reboot first cancels what stands in its way and waits for it to go. Our
 * own mark is among current_operations and not in the list. */
static struct error *cancel_others(struct api_call *c, const char *vm_ref, const char *const *ops)
{
    struct class_set classes = { { 0 } };
    class_set_add(&classes, CLASS_VM);
    for (;;) {
        uint64_t since = db_generation(c->db);
        const struct row *vm;
        TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
        const struct value *current = row_value(vm, F_VM_current_operations);
        bool waiting = false;
        for (unsigned i = 0; i < current->len; i++)
            if (one_of(current->members[i].value.s, ops)) {
                task_cancel_running(c->xapi->tasks, current->members[i].name);
                waiting = true;
            }
        if (!waiting)
            return NULL;
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        change_log_wait(c->db, &c->call, since, &classes, 1000);
    }
}

/* A suspended VM loses its image; one that is gone already (the cancelled work may have ended it) is fine. */
static struct error *hard_shutdown(struct api_call *c, const char *vm_ref)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    const char *state = row_string(vm, F_VM_power_state);
    if (strcmp(state, "Halted") == 0)
        return NULL;
    if (strcmp(state, "Suspended") != 0)
        return vm_run_shutdown(c, vm_ref, true);
    const char *image = row_string(vm, F_VM_suspend_VDI);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_suspend_VDI, REF_NULL));
    TRY(vm_image_give_up(txn, image));
    TRY(vm_set_power_state(c, txn, vm_ref, "Halted", NULL, -1));
    TRY(txn_commit(txn, NULL));
    api_discard_vdi(c, image, "the suspend image");
    return NULL;
}

struct error *api_VM_hard_shutdown(struct api_call *c, const struct api_VM_hard_shutdown_args *a, struct value *result_r)
{
    TRY(cancel_others(c, a->vm, LIST("clean_shutdown", "clean_reboot", "hard_reboot", "pool_migrate", "call_plugin", "shutdown", "suspend")));
    return hard_shutdown(c, a->vm);
}

struct error *api_VM_hard_reboot(struct api_call *c, const struct api_VM_hard_reboot_args *a, struct value *result_r)
{
    TRY(cancel_others(c, a->vm, LIST("clean_shutdown", "clean_reboot", "pool_migrate", "call_plugin", "suspend")));
    return vm_run_reboot(c, a->vm, true);
}

/* Clean where the guest can, else hard; a suspended VM is simply dropped. */
struct error *api_VM_shutdown(struct api_call *c, const struct api_VM_shutdown_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->vm, &vm));
    if (strcmp(row_string(vm, F_VM_power_state), "Running") == 0) {
        struct error *e = vm_run_shutdown(c, a->vm, false);
        if (e == NULL || error_is(e, "TASK_CANCELLED"))
            return e;
    }
    return hard_shutdown(c, a->vm);
}

/* A live host is trusted to know its domains, and asked. */
static struct error *check_no_domain(struct api_call *c, const struct row *vm)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], row_string(vm, F_VM_resident_on));
    const struct row *metrics = host != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics)) : NULL;
    if (metrics == NULL || !row_bool(metrics, F_host_metrics_live))
        return NULL;
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), domain;
    struct error *e = agent_call(c, host->ref, "vm.find", &v, &domain);
    if (error_is(e, "DOMAIN_NOT_FOUND"))
        return NULL;
    if (e != NULL)
        return err_host_is_live(c->arena, host->ref);
    return err_domain_exists(c->arena, vm->ref, arena_printf(c->arena, "%lld", (long long)value_get_int(&domain, "domid", -1)));
}

/* The row only: for VMs of hosts that are gone for good. */
struct error *api_VM_power_state_reset(struct api_call *c, const struct api_VM_power_state_reset_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->vm, &vm));
    TRY(check_no_domain(c, vm));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, a->vm, "Halted", NULL, -1));
    return txn_commit(txn, NULL);
}
