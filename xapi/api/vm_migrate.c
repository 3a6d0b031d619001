/* VM.pool_migrate: the coordinator's part (specs/migration-semantics.md §1.3): check, mark, reserve, let
 * the source host send, and write down where the VM lives. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/alert.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/migrate.h"
#include "xapi/migrate/migrations.h"
#include "xapi/pool/agent.h"

LOG_MODULE(vm_migrate);

static const struct class_info *const host_class = &model_classes[CLASS_host];
static const struct class_info *const vm_class = &model_classes[CLASS_VM];

/* --- the target's address on a chosen network ---------------------------------------------------------- */
static struct error *network_address(struct api_call *c, const char *host, const char *network, const char **address_r)
{
    struct row_list pifs = db_all(c->db, c->arena, &model_classes[CLASS_PIF]);
    for (unsigned i = 0; i < pifs.n; i++) {
        const struct row *pif = pifs.rows[i];
        if (strcmp(row_string(pif, F_PIF_host), host) != 0 || strcmp(row_string(pif, F_PIF_network), network) != 0)
            continue;
        if (!row_bool(pif, F_PIF_currently_attached))
            return err_required_pif_is_unplugged(c->arena, pif->ref);
        *address_r = row_string(pif, F_PIF_IP);
        return (*address_r)[0] != '\0' ? NULL : err_interface_has_no_ip(c->arena, pif->ref);
    }
    return err_pif_not_present(c->arena, host, network);
}

static struct error *find_target(struct api_call *c, const char *host, const char *network, struct http_target *target)
{
    TRY(agent_target(c, host, target));
    if (network != NULL)
        TRY(network_address(c, host, network, &target->address));
    if (!config_bool(c->xapi->config, "migration-https-only")) {
        target->tls = false;
        target->port = c->xapi->http_port;
        target->fingerprint = NULL;
    }
    return NULL;
}

/* --- reservation: SRs, networks and memory, and the mark that holds the memory -------------------------- */
static struct error *reserve(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm, *host;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    TRY(placement_check(c, txn, vm, host, PLACE_SR | PLACE_MEMORY));
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, host_ref));
    return txn_commit(txn, NULL);
}

static void unreserve(struct api_call *c, const char *vm_ref)
{
    struct error *e = db_set(c->db, c->arena, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, value_string(REF_NULL));
    if (e != NULL && !error_is(e, "HANDLE_INVALID"))
        log_err("the reservation of %s was not dropped: %s", vm_ref, error_text(c->arena, e));
}

/* specs §1.3 step 7: both fields in one change; the domid is the destination's, told by its next report. */
static struct error *arrived(struct api_call *c, const char *vm_ref, const char *host_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_resident_on, host_ref));
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_scheduled_to_be_resident_on, REF_NULL));
    return txn_commit(txn, NULL);
}

/* What the engine measured goes into the task (tables of clients and of the demo read it). */
static void note_result(struct api_call *c, const struct value *result)
{
    static const char *const keys[] = { "rounds", "pages", "bytes", "blackout_us", "duration_us" };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        task_note(c, arena_printf(c->arena, "migrate:%s", keys[i]),
                  arena_printf(c->arena, "%lld", (long long)value_get_int(result, keys[i], 0)));
}

struct move { const char *vm, *from, *to; const struct value *options; struct http_target target; };

static struct error *send_vm(struct api_call *c, const struct move *move)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, move->vm, &vm));
    struct vm_spec spec;
    TRY(vm_spec_of(c, move->vm, move->to, &spec));
    struct value_dict args = { 0 };
    value_dict_add(c->arena, &args, "migration_id", value_string(uuid_make(c->arena)));
    value_dict_add(c->arena, &args, "vm", value_string(row_string(vm, F_VM_uuid)));
    value_dict_add(c->arena, &args, "spec", vm_spec_to_value(c->arena, &spec));
    value_dict_add(c->arena, &args, "destination", migration_target_value(c->arena, &move->target));
    value_dict_add(c->arena, &args, "live", value_bool(strcmp(value_get_string(move->options, "live", "true"), "false") != 0));
    value_dict_add(c->arena, &args, "localhost", value_bool(strcmp(move->from, move->to) == 0));
    struct value v = value_dict_value(&args), result;
    TRY(agent_call(c, move->from, "migrate.send", &v, &result));
    note_result(c, &result);
    return NULL;
}

static struct error *move_reserved(struct api_call *c, const struct move *move)
{
    struct error *e = reserve(c, move->vm, move->to);
    if (e == NULL)
        e = send_vm(c, move);
    if (e != NULL) {
        unreserve(c, move->vm);
        return error_is(e, "TASK_CANCELLED") ? err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL) : e;
    }
    return arrived(c, move->vm, move->to);
}

static struct error *move_marked(struct api_call *c, struct move *move)
{
    const struct row *vm, *host;
    TRY(db_need(c->db, c->arena, CLASS_VM, move->vm, &vm));
    TRY(db_need(c->db, c->arena, CLASS_host, move->to, &host));
    move->from = arena_strdup(c->arena, row_string(vm, F_VM_resident_on));
    TRY(version_check_upgrade(c, move->from, move->to));
    TRY(operation_begin(c, CLASS_host, move->to, "vm_migrate", true));
    OPERATION_SCOPE on_host = { c, CLASS_host, move->to, "vm_migrate" };
    const char *network = value_get_string(move->options, "network", NULL);
    TRY(find_target(c, move->to, network, &move->target));
    TRY(move_reserved(c, move));
    message_post(c->xapi, "VM_MIGRATED", "VM", row_string(vm, F_VM_uuid),
               arena_printf(c->arena, "VM '%s' migrated to host '%s'", row_string(vm, F_VM_name_label), row_string(host, F_host_name_label)));
    return NULL;
}

struct error *api_VM_pool_migrate(struct api_call *c, const struct api_VM_pool_migrate_args *a, struct value *result_r)
{
    bool force = strcmp(value_get_string(a->options, "force", "false"), "true") == 0;
    if (!force) {
        const struct row *vm = db_get(c->db, c->arena, vm_class, a->vm), *host = db_get(c->db, c->arena, host_class, a->host);
        if (vm == NULL)
            return err_handle_invalid(c->arena, "VM", a->vm);
        if (host == NULL)
            return err_handle_invalid(c->arena, "host", a->host);
        TRY(placement_check_cpu(c, vm, host));
    }
    TRY(operation_begin(c, CLASS_VM, a->vm, "pool_migrate", !force));
    OPERATION_SCOPE on_vm = { c, CLASS_VM, a->vm, "pool_migrate" };
    task_set_cancellable(c, true);
    struct move move = { .vm = a->vm, .to = a->host, .options = a->options };
    return move_marked(c, &move);
}
