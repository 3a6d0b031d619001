#include "xapi/pool/vm_copy.h"

#include <inttypes.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/row_copy.h"
#include "xapi/core/task.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vm_metadata.h"

struct copy {
    struct api_call *c;
    const struct vm_copy_plan *plan;
    const struct row *vm;
    const char **vdis;  /* what each new VBD holds; NULL: left out */
    const char *image;  /* of a suspended one, else null */
    const char *new_vm;
    bool suspended;
    struct value_list made; /* disks */
};

static bool is_snapshot(const struct copy *k)
{
    return k->plan->kind == VM_COPY_SNAPSHOT || k->plan->kind == VM_COPY_CHECKPOINT;
}

static const char *kind_name(const struct copy *k)
{
    return is_snapshot(k) ? "snapshot" : k->plan->kind == VM_COPY_FULL ? "copy" : "clone";
}

/* The fault point vm.<kind>.<step>, and whether the task was cancelled. */
static struct error *step(struct copy *k, const char *name)
{
    const char *point = arena_printf(k->c->arena, "vm.%s.%s", kind_name(k), name);

    if (call_cancelled(&k->c->call))
        return err_task_cancelled(k->c->arena, k->c->task != NULL ? k->c->task : REF_NULL);
    return fault_hit(point) ? err_internal(k->c->arena, "fault point %s", point) : NULL;
}

/* --- disks ------------------------------------------------------------------------------------------------- */
static struct error *full_copy(struct api_call *c, const char *vdi_ref, const char *sr_ref, const char **new_r)
{
    const struct row *vdi;

    TRY(operation_begin(c, CLASS_VDI, vdi_ref, "copy", true));
    OPERATION_SCOPE scope = { c, CLASS_VDI, vdi_ref, "copy" };
    TRY(db_need(c->db, c->arena, CLASS_VDI, vdi_ref, &vdi));
    return vdi_copy_whole(c, vdi_ref, sr_ref != NULL ? sr_ref : row_string(vdi, F_VDI_SR), VDI_PROVISIONAL, new_r);
}

struct error *vm_image_copy(struct api_call *c, const char *vdi_ref, const char **ref_r)
{
    return full_copy(c, vdi_ref, NULL, ref_r);
}

static struct error *copy_disk(struct copy *k, const char *vdi_ref, const char **new_r)
{
    TRY(step(k, "disk"));
    if (k->plan->kind == VM_COPY_FULL)
        TRY(full_copy(k->c, vdi_ref, k->plan->sr, new_r));
    else
        TRY(vdi_derive_marked(k->c, vdi_ref, is_snapshot(k) ? VDI_CHILD_SNAPSHOT : VDI_CHILD_CLONE, VDI_PROVISIONAL, new_r));
    value_list_add(k->c->arena, &k->made, value_string(*new_r));
    return NULL;
}

static bool ignored(const struct copy *k, const char *vdi_ref)
{
    return k->plan->ignore_vdis != NULL && value_set_has(k->plan->ignore_vdis, vdi_ref);
}

/* Empty drives and ISOs are shared, disks are copied. */
static struct error *copy_disks(struct copy *k)
{
    const struct value *vbds = row_value(k->vm, F_VM_VBDs);

    k->vdis = arena_calloc(k->c->arena, vbds->len + 1u, sizeof(*k->vdis));
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(k->c->db, k->c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        const char *vdi = vbd != NULL ? row_string(vbd, F_VBD_VDI) : REF_NULL;

        if (vbd == NULL || ignored(k, vdi))
            continue;
        k->vdis[i] = vdi;
        if (!row_bool(vbd, F_VBD_empty) && strcmp(row_string(vbd, F_VBD_type), "Disk") == 0)
            TRY(copy_disk(k, vdi, &k->vdis[i]));
        call_progress(&k->c->call, 0.9 * (i + 1) / vbds->len);
    }
    return NULL;
}

static struct error *copy_image(struct copy *k)
{
    const char *image = row_string(k->vm, F_VM_suspend_VDI);

    if (!k->suspended || db_get(k->c->db, k->c->arena, &model_classes[CLASS_VDI], image) == NULL)
        return NULL;
    TRY(step(k, "image"));
    k->image = image;
    if (k->plan->share_image)
        return NULL;
    TRY(full_copy(k->c, image, k->plan->sr, &k->image));
    value_list_add(k->c->arena, &k->made, value_string(k->image));
    return NULL;
}

static void remove_made(struct copy *k)
{
    for (unsigned i = 0; i < k->made.n; i++)
        vdi_discard(k->c, k->made.items[i].s, "the disk of a failed copy");
}

/* --- the VM's row -------------------------------------------------------------------------------------------- */
/* A MAC seed of its own, unless it is the VM's past; it is nobody's default template, but knows what it came from. */
static struct value copied_config(struct copy *k, const char *seed)
{
    const struct value *old = row_value(k->vm, F_VM_other_config);
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < old->len; i++)
        if (strcmp(old->members[i].name, "default_template") != 0 && strcmp(old->members[i].name, "xensource_internal") != 0)
            value_dict_add(k->c->arena, &d, old->members[i].name, old->members[i].value);
    if (seed != NULL)
        value_dict_set(k->c->arena, &d, "mac_seed", value_string(seed));
    if (row_bool(k->vm, F_VM_is_a_template) && row_map(k->vm, F_VM_other_config, "base_template_name", NULL) == NULL)
        value_dict_add(k->c->arena, &d, "base_template_name", value_string(row_string(k->vm, F_VM_name_label)));
    return value_dict_value(&d);
}

/* 48 random bits: the last digits of a version 4 uuid. */
static uint64_t random_bits(void)
{
    char digits[UUID_LEN + 1];
    uint64_t n = 0;

    uuid_new(digits);
    for (unsigned i = UUID_LEN - 12; i < UUID_LEN; i++)
        n = n << 4 | (uint64_t)(digits[i] <= '9' ? digits[i] - '0' : (digits[i] | 0x20) - 'a' + 10);
    return n;
}

/* A guest that watches its generation must see that it is another one now. */
static const char *fresh_generation(struct copy *k)
{
    const char *old = row_string(k->vm, F_VM_generation_id);

    return old[0] == '\0' ? old : arena_printf(k->c->arena, "%" PRIu64 ":%" PRIu64, random_bits(), random_bits());
}

static struct error *copy_row(struct copy *k, struct txn *txn, const char *seed)
{
    static const unsigned skip[] = {
        F_VM_resident_on, F_VM_scheduled_to_be_resident_on, F_VM_metrics, F_VM_guest_metrics, F_VM_domid, F_VM_domarch,
        F_VM_is_default_template, F_VM_is_a_snapshot, F_VM_snapshot_of, F_VM_snapshot_time, F_VM_snapshot_info,
        F_VM_snapshot_metadata, F_VM_transportable_snapshot_id, F_VM_parent, F_VM_blobs, F_VM_attached_PCIs, F_VM_requires_reboot,
        F_VM_pending_guidances, F_VM_pending_guidances_recommended, F_VM_pending_guidances_full, F_VM_ha_always_run, F_VM_appliance,
        F_VM_start_delay, F_VM_shutdown_delay, F_VM_order, F_VM_suspend_SR, F_VM_version, F_VM_blocked_operations,
        F_VM_snapshot_schedule, F_VM_protection_policy, F_VM_is_vmss_snapshot, F_VM_is_snapshot_from_vmpp, 0,
    };
    const struct field_value changes[] = { { F_VM_name_label, value_string(k->plan->name) },
                                           { F_VM_domid, value_int(-1) },
                                           { F_VM_is_a_template, value_bool(is_snapshot(k) || row_bool(k->vm, F_VM_is_a_template)) },
                                           { F_VM_power_state, value_string(k->suspended ? "Suspended" : "Halted") },
                                           { F_VM_suspend_VDI, value_string(k->image) },
                                           { F_VM_generation_id, value_string(fresh_generation(k)) },
                                           { F_VM_other_config, copied_config(k, seed) } };

    return row_copy(k->c, txn, k->vm, skip, changes, ARRAY_LEN(changes), &k->new_vm);
}

/* --- what makes it a snapshot ----------------------------------------------------------------------------------- */
static struct value snapshot_info(struct copy *k)
{
    struct value_dict d = { 0 };

    value_dict_add(k->c->arena, &d, "power-state-at-snapshot",
                   value_string(k->plan->power_state != NULL ? k->plan->power_state : row_string(k->vm, F_VM_power_state)));
    value_dict_add(k->c->arena, &d, "disk-snapshot-type", value_string("crash_consistent"));
    return value_dict_value(&d);
}

/* The snapshot continues what the VM continued, and the VM continues the snapshot. */
static struct error *snapshot_fields(struct copy *k, struct txn *txn)
{
    const struct row *vm;
    const char *ref = k->new_vm;

    TRY(txn_need(txn, CLASS_VM, k->plan->vm, &vm));
    TRY(txn_set_bool(txn, CLASS_VM, ref, F_VM_is_a_snapshot, true));
    TRY(txn_set_string(txn, CLASS_VM, ref, F_VM_snapshot_of, vm->ref));
    TRY(txn_set(txn, CLASS_VM, ref, F_VM_snapshot_time, value_datetime(clock_wall(k->c->call.clock))));
    TRY(txn_set(txn, CLASS_VM, ref, F_VM_snapshot_info, snapshot_info(k)));
    TRY(txn_set_string(txn, CLASS_VM, ref, F_VM_snapshot_metadata, vm_metadata_write(k->c->arena, vm)));
    TRY(txn_set_string(txn, CLASS_VM, ref, F_VM_parent, row_string(vm, F_VM_parent)));
    return txn_set_string(txn, CLASS_VM, vm->ref, F_VM_parent, ref);
}

static struct error *copy_rows(struct copy *k)
{
    TRY(step(k, "rows"));
    AUTO_TXN txn = txn_begin(k->c->db, k->c->arena);
    const char *seed = is_snapshot(k) ? NULL : uuid_make(k->c->arena);
    const struct row *vm;

    TRY(txn_need(txn, CLASS_VM, k->plan->vm, &vm));
    for (unsigned i = 0; i < k->made.n; i++)
        TRY(vdi_settle(k->c, txn, k->made.items[i].s));
    TRY(copy_row(k, txn, seed));
    const struct vm_devices devices = { .from = k->vm, .to = k->new_vm, .mac_seed = seed, .vdis = k->vdis, .attached = k->suspended };
    TRY(vm_devices_copy(k->c, txn, &devices));
    TRY(vm_metrics_copy(k->c, txn, vm, k->new_vm));
    if (is_snapshot(k))
        TRY(snapshot_fields(k, txn));
    TRY(operations_update_around(k->c, txn, CLASS_VM, k->new_vm));
    return txn_commit(txn, NULL);
}

/* --- all of it ---------------------------------------------------------------------------------------------------- */
static struct error *run(struct copy *k)
{
    TRY(copy_disks(k));
    TRY(copy_image(k));
    return copy_rows(k);
}

struct error *vm_copy(struct api_call *c, const struct vm_copy_plan *plan, const char **ref_r)
{
    struct copy k = { .c = c, .plan = plan, .image = REF_NULL };

    TRY(db_need(c->db, c->arena, CLASS_VM, plan->vm, &k.vm));
    k.suspended = plan->kind != VM_COPY_SNAPSHOT && strcmp(row_string(k.vm, F_VM_power_state), "Suspended") == 0;
    task_set_cancellable(c, true);
    struct error *error = run(&k);
    task_set_cancellable(c, false);
    if (error != NULL) {
        remove_made(&k);
        return error;
    }
    *ref_r = k.new_vm;
    return NULL;
}
