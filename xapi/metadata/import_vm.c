/* Rows of imported VMs, their snapshots and metrics. */
#include <inttypes.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "rpc/wire/json.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/metadata/import.h"

#define MEMORY_MAX (1ll << 50)
#define VCPUS_MAX 65536
#define SHADOW_MAX 1024.0

static bool is_incoming(const struct importer *m, const struct imported_vm *vm) { return m->in->incoming != NULL && !vm->is_snapshot; }

/* --- the VM itself ---------------------------------------------------------------------------------------------- */
static struct value other_config(struct importer *m, const struct imported_vm *vm)
{
    struct arena *a = m->c->arena;
    struct value old = import_other_config(m, vm->object);
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < old.len; i++)
        value_dict_add(a, &d, old.members[i].name, old.members[i].value);
    if (!m->in->restore && value_get(&old, "mac_seed") != NULL)
        value_dict_set(a, &d, "mac_seed", value_string(uuid_make(a)));
    if (m->in->incoming != NULL)
        value_dict_set(a, &d, METADATA_INCOMING, value_string(m->in->incoming));
    if (is_incoming(m, vm))
        value_dict_set(a, &d, METADATA_INCOMING_HA, value_string(ova_bool(vm->object, "ha_always_run") ? "true" : "false"));
    return value_dict_value(&d);
}

/* 48 random bits: the last digits of a version 4 uuid. */
static uint64_t random_bits(void)
{
    char digits[UUID_LEN + 1];
    uint64_t n = 0;

    uuid_new(digits);
    for (const char *p = digits + UUID_LEN - 12; *p != '\0'; p++)
        n = n << 4 | (uint64_t)(*p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10);
    return n;
}

/* A copy is another machine: a guest that watches its generation must see that. */
static const char *generation(struct importer *m, const struct imported_vm *vm)
{
    const char *old = ova_string(vm->object, "generation_id", "0:0");

    if (m->in->restore || old[0] == '\0')
        return old;
    return arena_printf(m->c->arena, "%" PRIu64 ":%" PRIu64, random_bits(), random_bits());
}

static const char *known_state(const struct imported_vm *vm)
{
    const struct field_info *field = &model_classes[CLASS_VM].fields[F_VM_power_state];
    return model_enum_has(field->type->enum_info, vm->sent) ? vm->sent : "Halted";
}

/* What follows from the numbers is computed from them: they must be such that it can be. */
static struct error *check_numbers(struct importer *m, const struct imported_vm *vm)
{
    static const unsigned memory[] = { F_VM_memory_static_min, F_VM_memory_dynamic_min, F_VM_memory_dynamic_max, F_VM_memory_static_max };
    const struct field_info *fields = model_classes[CLASS_VM].fields;
    struct value v;
    bool good = true;

    for (unsigned i = 0; i < ARRAY_LEN(memory); i++)
        if (ova_field(m->c->arena, vm->object, &fields[memory[i]], &v))
            good &= v.i >= 0 && v.i <= MEMORY_MAX;
    if (ova_field(m->c->arena, vm->object, &fields[F_VM_VCPUs_max], &v))
        good &= v.i >= 0 && v.i <= VCPUS_MAX;
    if (ova_field(m->c->arena, vm->object, &fields[F_VM_HVM_shadow_multiplier], &v))
        good &= v.f >= 0 && v.f <= SHADOW_MAX;
    return good ? NULL : err_import_error(m->c->arena, "memory or processors of a VM make no sense");
}

struct error *import_vm_make(struct importer *m, struct imported_vm *vm)
{
    /* what the VM is doing, and what belongs to the pool that it came from */
    static const unsigned skip[] = { F_VM_domid, F_VM_domarch, F_VM_is_default_template, F_VM_is_control_domain, F_VM_requires_reboot,
                                     F_VM_pending_guidances, F_VM_pending_guidances_recommended, F_VM_pending_guidances_full, 0 };
    struct value none = value_map(NULL, 0);
    const struct field_value changes[] = {
        { F_VM_power_state, value_string(known_state(vm)) },
        { F_VM_other_config, other_config(m, vm) },
        { F_VM_generation_id, value_string(generation(m, vm)) },
        { F_VM_ha_always_run, value_bool(!is_incoming(m, vm) && ova_bool(vm->object, "ha_always_run")) },
        { F_VM_blobs, vm->replaces != NULL ? value_dup(m->c->arena, row_value(vm->replaces, F_VM_blobs)) : none },
    };

    TRY(check_numbers(m, vm));
    TRY(import_row(m, CLASS_VM, m->in->restore ? ova_string(vm->object, "uuid", "") : NULL, vm->object, skip, changes, ARRAY_LEN(changes), &vm->ref));
    return vm_memory_overhead_update(m->txn, vm->ref);
}

/* --- metrics ------------------------------------------------------------------------------------------------------ */
static struct error *make_metrics(struct importer *m, const struct imported_vm *vm)
{
    const struct ova_object *metrics = ova_find(&m->ova, ova_string(vm->object, "metrics", ""));
    const struct ova_object *guest = ova_find(&m->ova, ova_string(vm->object, "guest_metrics", ""));
    const char *ref;

    if (metrics == NULL || strcmp(metrics->class_name, "VM_metrics") != 0)
        TRY(vm_metrics_ensure(m->c, m->txn, vm->ref, &ref));
    else {
        TRY(import_row(m, CLASS_VM_metrics, NULL, metrics, NULL, NULL, 0, &ref));
        TRY(txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_metrics, ref));
    }
    if (guest == NULL || strcmp(guest->class_name, "VM_guest_metrics") != 0)
        return NULL;
    TRY(import_row(m, CLASS_VM_guest_metrics, NULL, guest, NULL, NULL, 0, &ref));
    return txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_guest_metrics, ref);
}

/* --- the past -------------------------------------------------------------------------------------------------------- */
/* The record that a snapshot keeps of its VM (xapi/pool/vm_metadata.h) names the VM as it is called here, and no SR of the
 * pool it came from. What another product keeps there stays as it is. */
static struct error *link_metadata(struct importer *m, const struct imported_vm *vm, const char *of)
{
    const struct row *parent = txn_get(m->txn, &model_classes[CLASS_VM], of), *row;
    struct value_dict d = { 0 };
    struct value map;
    const char *reason;
    AUTO_TEXT text = TEXT_INIT;

    TRY(txn_need(m->txn, CLASS_VM, vm->ref, &row));
    const char *old = row_string(row, F_VM_snapshot_metadata);
    if (parent == NULL || !json_parse(m->c->arena, old, strlen(old), &map, &reason) || map.kind != VALUE_MAP)
        return NULL;
    for (unsigned i = 0; i < map.len; i++)
        value_dict_add(m->c->arena, &d, map.members[i].name, map.members[i].value);
    value_dict_set(m->c->arena, &d, "uuid", value_string(row_string(parent, F_VM_uuid)));
    value_dict_set(m->c->arena, &d, "suspend_SR", value_string(row_string(parent, F_VM_suspend_SR)));
    map = value_dict_value(&d);
    json_write(&text, &map);
    return txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_snapshot_metadata, text.bytes);
}

static struct error *link_past(struct importer *m, const struct imported_vm *vm)
{
    const char *of = import_ref(m, ova_string(vm->object, "snapshot_of", "")), *parent = import_ref(m, ova_string(vm->object, "parent", ""));

    if (parent != NULL && strcmp(parent, vm->ref) != 0)
        TRY(txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_parent, parent));
    if (of == NULL || !vm->is_snapshot || strcmp(of, vm->ref) == 0)
        return NULL;
    TRY(txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_snapshot_of, of));
    return link_metadata(m, vm, of);
}

/* --- the state ------------------------------------------------------------------------------------------------------- */
/* Suspended needs its image. */
static struct error *set_state(struct importer *m, const struct imported_vm *vm)
{
    bool suspended = strcmp(vm->sent, "Suspended") == 0;
    const char *image = NULL;

    if (suspended)
        TRY(import_disk(m, ova_string(vm->object, "suspend_VDI", ""), &image));
    if (image != NULL)
        TRY(txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_suspend_VDI, image));
    return txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_power_state, image != NULL && !is_incoming(m, vm) ? "Suspended" : "Halted");
}

struct error *import_vm_link(struct importer *m, const struct imported_vm *vm)
{
    const char *affinity = m->in->host != NULL && !vm->is_snapshot ? m->in->host : import_ref(m, ova_string(vm->object, "affinity", ""));
    const char *suspend_sr = import_ref(m, ova_string(vm->object, "suspend_SR", ""));

    if (affinity != NULL)
        TRY(txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_affinity, affinity));
    if (suspend_sr != NULL)
        TRY(txn_set_string(m->txn, CLASS_VM, vm->ref, F_VM_suspend_SR, suspend_sr));
    TRY(make_metrics(m, vm));
    TRY(link_past(m, vm));
    return set_state(m, vm);
}
