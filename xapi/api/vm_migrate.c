/* VM.pool_migrate: the coordinator's part (specs/migration-semantics.md §1.3): check, mark, reserve, and let the engine move. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/move.h"
#include "xapi/migrate/network_choice.h"

/* Post-copy is not for everything (requirements H3-42 to 46). */
static struct error *check_postcopy(struct api_call *c, const struct row *vm, const struct move_options *o)
{
    if (o->postcopy != POSTCOPY_NEVER && row_value(vm, F_VM_VGPUs)->len > 0)
        return err_operation_not_allowed(c->arena, "post-copy is not possible with virtual GPUs");
    return NULL;
}

static struct error *destination_of(struct api_call *c, struct move *move, const struct row *host)
{
    move->destination.ops = &destination_local;
    move->destination.host = host->ref;
    move->destination.host_uuid = row_string(host, F_host_uuid);
    move->destination.host_name = row_string(host, F_host_name_label);
    return network_choose(c, move->from, host->ref, &move->options, &move->destination.target);
}

static struct error *move_marked(struct api_call *c, struct move *move, const char *host_ref)
{
    const struct row *vm, *host;
    const char *reserved, *there;
    TRY(vm_run_residence(c, move->vm, "running", &vm, &move->from));
    TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
    move->vm_uuid = row_string(vm, F_VM_uuid);
    TRY(version_check_upgrade(c, move->from, host_ref));
    TRY(check_postcopy(c, vm, &move->options));
    TRY(vm_run_reserve(c, move->vm, host_ref, "vm_migrate", PLACE_SR | PLACE_MEMORY, &reserved));
    OPERATION_SCOPE on_host = { c, CLASS_host, host_ref, "vm_migrate" };
    struct error *e = destination_of(c, move, host);
    if (e != NULL) {
        struct api_call calm = internal_call_cleanup(c);
        vm_run_unreserve(&calm, move->vm);
        return e;
    }
    TRY(move_run(c, move, &there));
    vm_run_tell(c, move->vm, "VM_MIGRATED", arena_printf(c->arena, "migrated to host '%s'", row_string(host, F_host_name_label)));
    return NULL;
}

static struct error *move_vm(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *options)
{
    struct move move = { .id = uuid_make(c->arena), .key = uuid_make(c->arena), .kind = "pool_migrate", .vm = vm_ref, .guest = MOVE_RUNNING };
    TRY(move_options_read(c->arena, options, &move.options));
    if (!move.options.force) {
        const struct row *vm, *host;
        TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
        TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
        TRY(placement_check_cpu(c, vm, host));
    }
    TRY(operation_begin(c, CLASS_VM, vm_ref, "pool_migrate", !move.options.force));
    OPERATION_SCOPE on_vm = { c, CLASS_VM, vm_ref, "pool_migrate" };
    task_set_cancellable(c, true);
    return move_marked(c, &move, host_ref);
}

struct error *api_VM_pool_migrate(struct api_call *c, const struct api_VM_pool_migrate_args *a, struct value *result_r)
{
    return move_vm(c, a->vm, a->host, a->options);
}

/* The emulators are new after a move, also within the host. */
struct error *api_VM_restart_device_models(struct api_call *c, const struct api_VM_restart_device_models_args *a, struct value *result_r)
{
    const struct row *vm;
    const char *host;
    TRY(vm_run_residence(c, a->self, "running", &vm, &host));
    if (strcmp(row_string(vm, F_VM_power_state), "Running") != 0)
        return err_vm_bad_power_state(c->arena, a->self, "running", "paused");
    struct member live[] = { member_of("live", value_string("true")) };
    struct value options = value_map(live, ARRAY_LEN(live));
    return move_vm(c, a->self, host, &options);
}
