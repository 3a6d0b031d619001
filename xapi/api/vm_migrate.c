/* VM.pool_migrate: the coordinator's part (specs/migration-semantics.md §1.3): check, mark, reserve, let
 * the source host send, and write down where the VM lives. */
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/version.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/migrate/migrate.h"
#include "xapi/migrate/migrations.h"
#include "xapi/core/agent.h"

#define MIB (1ll << 20)
#define ARRIVAL_TRIES 10
#define ARRIVAL_PAUSE_MS 300

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

/* specs §1.3 step 7: where it lives, and no reservation any more, in one change. */
static struct error *arrived(struct api_call *c, const char *vm_ref, const char *host_ref, int domid)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    if (domid < 0) /* told by the destination's next report */
        domid = (int)row_int(vm, F_VM_domid);
    TRY(vm_set_power_state(c, txn, vm_ref, "Running", host_ref, domid));
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

/* A decimal number among the options; 0 where it is absent or is none. */
static int64_t option_number(const struct value *options, const char *key)
{
    int64_t n = 0;
    return text_to_int(value_get_string(options, key, ""), &n) && n > 0 && n <= INT32_MAX ? n : 0;
}

struct move { const char *vm, *from, *to; const struct value *options; struct http_target target; };

static struct error *send_vm(struct api_call *c, const struct move *move, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, move->vm, &vm));
    struct vm_spec spec;
    TRY(vm_spec_of_move(c, move->vm, move->to, &spec));
    struct value_dict args = { 0 };
    value_dict_add(c->arena, &args, "migration_id", value_string(uuid_make(c->arena)));
    value_dict_add(c->arena, &args, "vm", value_string(row_string(vm, F_VM_uuid)));
    value_dict_add(c->arena, &args, "spec", vm_spec_to_value(c->arena, &spec));
    value_dict_add(c->arena, &args, "disks", vm_disks_written(c, vm));
    value_dict_add(c->arena, &args, "destination", migration_target_value(c->arena, &move->target));
    /* our named deviation from xapi (requirements N1): live=false really suspends, copies and resumes */
    value_dict_add(c->arena, &args, "live", value_bool(strcmp(value_get_string(move->options, "live", "true"), "false") != 0));
    value_dict_add(c->arena, &args, "bandwidth", value_int(option_number(move->options, "bandwidth") * MIB));
    value_dict_add(c->arena, &args, "max_downtime_ms", value_int(option_number(move->options, "max_downtime_ms")));
    value_dict_add(c->arena, &args, "localhost", value_bool(strcmp(move->from, move->to) == 0));
    struct value v = value_dict_value(&args);
    return vm_run_error(c, move->vm, agent_call(c, move->from, "migrate.send", &v, result_r));
}

/* With the destination reserved: find the way there, send, write it down. */
static struct error *move_reserved(struct api_call *c, struct move *move)
{
    struct value result = value_void();
    TRY(find_target(c, move->to, value_get_string(move->options, "network", NULL), &move->target));
    TRY(send_vm(c, move, &result));
    note_result(c, &result);
    return arrived(c, move->vm, move->to, (int)value_get_int(&result, "domid", -1));
}

/* Did the source say so itself? If it cannot be asked, the VM may be on either host: the reservation stays,
 * and the hosts' reports tell in the end. */
static bool outcome_known(const struct error *e)
{
    return !error_is(e, "CANNOT_CONTACT_HOST") && !error_is(e, "HOST_OFFLINE");
}

static bool runs_there(struct api_call *c, const struct move *move, const char *vm_uuid, int *domid_r)
{
    struct member args[] = { member_of("uuid", value_string(vm_uuid)) };
    struct value v = value_map(args, ARRAY_LEN(args)), domain = value_void();
    if (agent_call(c, move->to, "vm.find", &v, &domain) != NULL)
        return false;
    *domid_r = (int)value_get_int(&domain, "domid", -1);
    const char *state = value_get_string(&domain, "state", "");
    return strcmp(state, "running") == 0 || strcmp(state, "paused") == 0;
}

/* The source's answer was lost, but the destination has the VM under its own name: it only has that after
 * the commit point, and a moment after it: a source that cannot be asked is given that moment. */
static bool arrived_all_the_same(struct api_call *c, const struct move *move, const char *vm_uuid, const struct error *e, int *domid_r)
{
    unsigned tries = outcome_known(e) ? 1 : ARRIVAL_TRIES;
    if (strcmp(move->from, move->to) == 0)
        return false;
    while (!runs_there(c, move, vm_uuid, domid_r))
        if (--tries == 0 || !migrations_pause(c->xapi->migrations, ARRIVAL_PAUSE_MS))
            return false;
    return true;
}

static struct error *move_marked(struct api_call *c, struct move *move)
{
    const struct row *vm, *host;
    const char *reserved;
    TRY(vm_run_residence(c, move->vm, "running", &vm, &move->from));
    TRY(db_need(c->db, c->arena, CLASS_host, move->to, &host));
    TRY(version_check_upgrade(c, move->from, move->to));
    TRY(vm_run_reserve(c, move->vm, move->to, "vm_migrate", PLACE_SR | PLACE_MEMORY, &reserved));
    OPERATION_SCOPE on_host = { c, CLASS_host, move->to, "vm_migrate" };
    struct api_call calm = internal_call_cleanup(c);
    bool elsewhere = strcmp(move->from, move->to) != 0;
    struct error *e = move_reserved(c, move);
    int domid;
    if (e != NULL && arrived_all_the_same(&calm, move, row_string(vm, F_VM_uuid), e, &domid))
        e = arrived(&calm, move->vm, move->to, domid);
    if (e != NULL && outcome_known(e)) {
        vm_run_unreserve(c, move->vm);
        if (elsewhere)
            vm_disks_release(&calm, move->vm, move->to);
    }
    if (e != NULL)
        return e;
    if (elsewhere)
        vm_disks_release(&calm, move->vm, move->from);
    vm_run_tell(c, move->vm, "VM_MIGRATED", arena_printf(c->arena, "migrated to host '%s'", row_string(host, F_host_name_label)));
    return NULL;
}

static struct error *move_vm(struct api_call *c, const char *vm_ref, const char *host_ref, const struct value *options)
{
    bool force = strcmp(value_get_string(options, "force", "false"), "true") == 0;
    if (!force) {
        const struct row *vm, *host;
        TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
        TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
        TRY(placement_check_cpu(c, vm, host));
    }
    TRY(operation_begin(c, CLASS_VM, vm_ref, "pool_migrate", !force));
    OPERATION_SCOPE on_vm = { c, CLASS_VM, vm_ref, "pool_migrate" };
    task_set_cancellable(c, true);
    struct move move = { .vm = vm_ref, .to = host_ref, .options = options };
    return move_marked(c, &move);
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
