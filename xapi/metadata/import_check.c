/* What an import may not do: to VMs that exist, to their networks' peace, to a host. */
#include <inttypes.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/placement.h"
#include "xapi/core/vm_memory.h"
#include "xapi/metadata/import.h"

static const char *number(struct importer *m, int64_t n) { return arena_printf(m->c->arena, "%" PRId64, n); }

/* --- what is made, what is replaced ----------------------------------------------------------------------------- */
static bool is_default_template(const struct ova_object *o)
{
    return ova_bool(o, "is_default_template") ||
           (ova_bool(o, "is_a_template") && strcmp(ova_map(o, "other_config", "default_template", ""), "true") == 0);
}

/* Templates of the product and control domains: each pool has its own. */
static const char *own_vm(struct importer *m, const struct ova_object *o)
{
    struct row_list all = txn_all(m->txn, &model_classes[CLASS_VM]);

    for (unsigned i = 0; is_default_template(o) && i < all.n; i++)
        if (row_bool(all.rows[i], F_VM_is_default_template) && strcmp(row_string(all.rows[i], F_VM_name_label), ova_string(o, "name_label", "")) == 0)
            return arena_strdup(m->c->arena, all.rows[i]->ref);
    return NULL;
}

static bool is_mine(const struct importer *m, const struct row *vm)
{
    return m->in->incoming != NULL && strcmp(row_map(vm, F_VM_other_config, METADATA_INCOMING, ""), m->in->incoming) == 0;
}

/* May this VM make room for the one that comes? */
static struct error *check_existing(struct importer *m, const struct imported_vm *vm)
{
    const struct row *old = vm->replaces;
    const struct value *busy = row_value(old, F_VM_current_operations);
    int64_t version = row_int(old, F_VM_version), sent = ova_int(vm->object, "version", 0);

    if (is_mine(m, old) || (row_bool(old, F_VM_is_a_snapshot) && vm->is_snapshot && busy->len == 0))
        return NULL;
    if (strcmp(row_string(old, F_VM_power_state), "Halted") != 0)
        return err_vm_bad_power_state(m->c->arena, old->ref, "Halted", row_string(old, F_VM_power_state));
    if (busy->len > 0)
        return err_other_operation_in_progress(m->c->arena, "VM", old->ref, busy->members[0].value.s, busy->members[0].name);
    if (sent <= version && !import_forced(m))
        return err_vm_to_import_is_not_newer_version(m->c->arena, old->ref, number(m, version), number(m, sent));
    return NULL;
}

static struct error *choose(struct importer *m, const struct ova_object *o)
{
    struct imported_vm vm = { .object = o, .sent = ova_string(o, "power_state", "Halted"), .is_snapshot = ova_bool(o, "is_a_snapshot") };

    if (ova_bool(o, "is_control_domain") || is_default_template(o)) {
        import_set_ref(m, o, own_vm(m, o));
        return NULL;
    }
    if (vm.is_snapshot && !m->in->snapshots)
        return NULL;
    if (m->in->restore) {
        if (!uuid_valid(ova_string(o, "uuid", "")))
            return err_import_error(m->c->arena, "a VM without uuid cannot be restored");
        vm.replaces = txn_by_uuid(m->txn, &model_classes[CLASS_VM], ova_string(o, "uuid", ""));
        if (vm.replaces != NULL)
            TRY(check_existing(m, &vm));
    }
    for (unsigned i = 0; i < m->n_vms && vm.replaces != NULL; i++)
        if (m->vms[i].replaces != NULL && strcmp(m->vms[i].replaces->ref, vm.replaces->ref) == 0)
            return err_import_error(m->c->arena, "two VMs with one uuid");
    m->vms[m->n_vms] = vm;
    m->vm_of[o - m->ova.objects] = &m->vms[m->n_vms++];
    return NULL;
}

struct error *import_choose(struct importer *m)
{
    for (unsigned i = 0; i < m->ova.n; i++)
        if (strcmp(m->ova.objects[i].class_name, "VM") == 0)
            TRY(choose(m, &m->ova.objects[i]));
    return m->n_vms > 0 || import_forced(m) ? NULL : err_import_error(m->c->arena, "there is no VM in it");
}

/* --- MAC seeds ----------------------------------------------------------------------------------------------------- */
/* Is it one of those that are replaced, or part of their past? */
static bool gives_way(const struct importer *m, const struct row *vm)
{
    for (unsigned i = 0; i < m->n_vms; i++) {
        const struct row *old = m->vms[i].replaces;
        if (old != NULL && (strcmp(old->ref, vm->ref) == 0 || strcmp(old->ref, row_string(vm, F_VM_snapshot_of)) == 0))
            return true;
    }
    return false;
}

struct error *import_check_seeds(struct importer *m)
{
    struct row_list all = txn_all(m->txn, &model_classes[CLASS_VM]);

    for (unsigned i = 0; m->in->restore && i < m->n_vms; i++) {
        const char *seed = ova_map(m->vms[i].object, "other_config", "mac_seed", NULL);
        for (unsigned k = 0; seed != NULL && k < all.n; k++)
            if (strcmp(row_map(all.rows[k], F_VM_other_config, "mac_seed", ""), seed) == 0 && !gives_way(m, all.rows[k]))
                return err_duplicate_mac_seed(m->c->arena, seed);
    }
    return NULL;
}

/* --- the host -------------------------------------------------------------------------------------------------------- */
static struct error *check_memory(struct importer *m, const struct row *vm, const struct row *host)
{
    int64_t needed = vm_memory_needed(vm), available = host_memory_free(m->txn, host, vm->ref);

    return needed <= available ? NULL : err_host_not_enough_free_memory(m->c->arena, number(m, needed), number(m, available > 0 ? available : 0));
}

/* The VM has no ref yet that the sender could know. */
static struct error *check_cpu(struct importer *m, const struct row *vm, const struct row *host)
{
    struct error *e = placement_check_cpu(m->c, vm, host);

    if (e != NULL && error_is(e, "VM_INCOMPATIBLE_WITH_THIS_HOST") && e->n_params == 3)
        return err_vm_incompatible_with_this_host(m->c->arena, REF_NULL, host->ref, e->params[2]);
    return e;
}

struct error *import_check_host(struct importer *m, const struct imported_vm *vm)
{
    bool runs = strcmp(vm->sent, "Running") == 0 || strcmp(vm->sent, "Paused") == 0;
    const struct row *row, *host;

    if (!m->in->live || m->in->host == NULL || vm->is_snapshot)
        return NULL;
    TRY(txn_need(m->txn, CLASS_host, m->in->host, &host));
    TRY(txn_need(m->txn, CLASS_VM, vm->ref, &row));
    if (runs)
        TRY(check_memory(m, row, host));
    return m->in->check_cpu ? check_cpu(m, row, host) : NULL;
}
