/* VM records: made from nothing, from a template or another VM, and destroyed. */
#include <stdlib.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/mac.h"
#include "xapi/core/operations.h"
#include "xapi/core/row_copy.h"
#include "xapi/core/vm_metrics.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"

LOG_MODULE(vm_record);

/* --- create ------------------------------------------------------------------------------------------------ */
struct error *api_VM_create(struct api_call *c, const struct api_VM_create_args *a, struct value *result_r)
{
    const struct class_info *class = &model_classes[CLASS_VM];
    struct field_value *fields = arena_calloc(c->arena, class->n_fields, sizeof *fields);
    unsigned n = 0;
    for (unsigned i = 0; i < a->record->len; i++) {
        int field = model_field(class, a->record->members[i].name);
        if (field > 0)
            fields[n++] = (struct field_value){ (unsigned)field, a->record->members[i].value };
    }
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const char *ref, *metrics;
    TRY(txn_create(txn, CLASS_VM, NULL, NULL, fields, n, &ref));
    TRY(txn_set_string(txn, CLASS_VM, ref, F_VM_power_state, "Halted"));
    TRY(txn_set_int(txn, CLASS_VM, ref, F_VM_domid, -1));
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, ref, &vm));
    if (row_map(vm, F_VM_other_config, "mac_seed", NULL) == NULL)
        TRY(txn_map_put(txn, CLASS_VM, ref, F_VM_other_config, "mac_seed", value_string(uuid_make(c->arena))));
    TRY(vm_metrics_ensure(c, txn, ref, &metrics));
    TRY(operations_update(c, txn, CLASS_VM, ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

/* --- destroy ----------------------------------------------------------------------------------------------- */
static struct error *delete_all(struct txn *txn, const struct value *refs, unsigned class_id)
{
    for (unsigned i = 0; i < refs->len; i++)
        if (txn_get(txn, &model_classes[class_id], refs->items[i].s) != NULL)
            TRY(txn_delete(txn, class_id, refs->items[i].s));
    return NULL;
}

static struct error *delete_one(struct txn *txn, const char *ref, unsigned class_id)
{
    return txn_get(txn, &model_classes[class_id], ref) != NULL ? txn_delete(txn, class_id, ref) : NULL;
}

struct error *api_VM_destroy(struct api_call *c, const struct api_VM_destroy_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->self, &vm));
    const char *image = row_string(vm, F_VM_suspend_VDI);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(delete_all(txn, row_value(vm, F_VM_VBDs), CLASS_VBD));
    TRY(delete_all(txn, row_value(vm, F_VM_VIFs), CLASS_VIF));
    TRY(delete_all(txn, row_value(vm, F_VM_consoles), CLASS_console));
    TRY(delete_all(txn, row_value(vm, F_VM_VTPMs), CLASS_VTPM));
    TRY(delete_one(txn, row_string(vm, F_VM_metrics), CLASS_VM_metrics));
    TRY(delete_one(txn, row_string(vm, F_VM_guest_metrics), CLASS_VM_guest_metrics));
    TRY(txn_delete(txn, CLASS_VM, a->self));
    TRY(txn_commit(txn, NULL));
    if (ref_is_null(image))
        return NULL;
    struct value ignored;
    struct api_VDI_destroy_args args = { .self = image };
    return api_run(c, M_VDI_destroy, &args, &ignored);
}

/* --- clone and copy ------------------------------------------------------------------------------------------ */
struct copy { struct api_call *c; const struct row *vm; const char *new_vm, *sr; bool full; struct value_list made; };

static struct error *copy_vdi(struct copy *k, const char *vdi_ref, const char **new_r)
{
    struct value result;
    if (k->full) {
        const struct row *vdi;
        TRY(db_need(k->c->db, k->c->arena, CLASS_VDI, vdi_ref, &vdi));
        struct api_VDI_copy_args args = { .vdi = vdi_ref, .sr = ref_is_null(k->sr) ? row_string(vdi, F_VDI_SR) : k->sr,
                                          .base_vdi = REF_NULL, .into_vdi = REF_NULL };
        TRY(api_run(k->c, M_VDI_copy, &args, &result));
    } else {
        struct value no_params = value_map(NULL, 0);
        struct api_VDI_clone_args args = { .vdi = vdi_ref, .driver_params = &no_params };
        TRY(api_run(k->c, M_VDI_clone, &args, &result));
    }
    *new_r = arena_strdup(k->c->arena, result.s);
    value_list_add(k->c->arena, &k->made, value_string(*new_r));
    return NULL;
}

/* Disks that were copied before one failed. */
static void remove_made(struct copy *k)
{
    for (unsigned i = 0; i < k->made.n; i++) {
        struct value ignored;
        struct api_VDI_destroy_args args = { .self = k->made.items[i].s };
        struct error *e = api_run(k->c, M_VDI_destroy, &args, &ignored);
        if (e != NULL)
            log_warn("the disk %s of a failed copy stays: %s", k->made.items[i].s, error_text(k->c->arena, e));
    }
}

/* Empty drives and ISOs are shared, disks are copied. */
static struct error *copy_disks(struct copy *k, const char **vdis)
{
    const struct value *vbds = row_value(k->vm, F_VM_VBDs);
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(k->c->db, k->c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        vdis[i] = vbd != NULL ? row_string(vbd, F_VBD_VDI) : REF_NULL;
        if (vbd == NULL || row_bool(vbd, F_VBD_empty) || strcmp(row_string(vbd, F_VBD_type), "Disk") != 0)
            continue;
        TRY(copy_vdi(k, vdis[i], &vdis[i]));
    }
    return NULL;
}

static struct error *copy_devices(struct copy *k, struct txn *txn, const char *const *vdis)
{
    static const unsigned vbd_skip[] = { F_VBD_currently_attached, F_VBD_device, F_VBD_metrics, 0 };
    static const unsigned vif_skip[] = { F_VIF_currently_attached, F_VIF_metrics, 0 };
    const struct value *vbds = row_value(k->vm, F_VM_VBDs), *vifs = row_value(k->vm, F_VM_VIFs);
    const char *ref;
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct field_value changes[] = { { F_VBD_VM, value_string(k->new_vm) }, { F_VBD_VDI, value_string(vdis[i]) } };
        if (vbd == NULL)
            continue;
        TRY(row_copy(k->c, txn, vbd, vbd_skip, changes, ARRAY_LEN(changes), &ref));
        TRY(operations_update(k->c, txn, CLASS_VBD, ref));
    }
    for (unsigned i = 0; i < vifs->len; i++) {
        const struct row *vif = txn_get(txn, &model_classes[CLASS_VIF], vifs->items[i].s);
        if (vif == NULL)
            continue;
        const struct field_value changes[] = { { F_VIF_VM, value_string(k->new_vm) },
                                               { F_VIF_MAC, value_string(mac_make(k->c->arena)) },
                                               { F_VIF_MAC_autogenerated, value_bool(true) } };
        TRY(row_copy(k->c, txn, vif, vif_skip, changes, ARRAY_LEN(changes), &ref));
        TRY(operations_update(k->c, txn, CLASS_VIF, ref));
    }
    return NULL;
}

/* other_config of the copy: a fresh MAC seed. */
static struct value copied_config(struct api_call *c, const struct row *vm)
{
    const struct value *old = row_value(vm, F_VM_other_config);
    struct value_dict d = { 0 };
    for (unsigned i = 0; i < old->len; i++)
        value_dict_add(c->arena, &d, old->members[i].name, old->members[i].value);
    value_dict_set(c->arena, &d, "mac_seed", value_string(uuid_make(c->arena)));
    return value_dict_value(&d);
}

static struct error *copy_rows(struct copy *k, const char *name, const char *const *vdis)
{
    static const unsigned skip[] = { F_VM_power_state, F_VM_suspend_VDI, F_VM_resident_on, F_VM_scheduled_to_be_resident_on, F_VM_metrics,
                                     F_VM_guest_metrics, F_VM_domid, F_VM_is_default_template, F_VM_is_a_snapshot, F_VM_snapshot_of,
                                     F_VM_snapshot_time, F_VM_snapshot_info, F_VM_snapshot_metadata, F_VM_blobs, F_VM_attached_PCIs,
                                     F_VM_requires_reboot, F_VM_pending_guidances, 0 };
    const struct field_value changes[] = { { F_VM_name_label, value_string(name) },
                                           { F_VM_domid, value_int(-1) },
                                           { F_VM_parent, value_string(k->vm->ref) },
                                           { F_VM_other_config, copied_config(k->c, k->vm) } };
    AUTO_TXN txn = txn_begin(k->c->db, k->c->arena);
    const char *metrics;
    TRY(row_copy(k->c, txn, k->vm, skip, changes, ARRAY_LEN(changes), &k->new_vm));
    TRY(copy_devices(k, txn, vdis));
    TRY(vm_metrics_ensure(k->c, txn, k->new_vm, &metrics));
    TRY(operations_update(k->c, txn, CLASS_VM, k->new_vm));
    return txn_commit(txn, NULL);
}

static struct error *copy_vm(struct api_call *c, const char *vm_ref, const char *name, const char *sr, bool full, struct value *result_r)
{
    struct copy k = { .c = c, .sr = sr, .full = full };
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &k.vm));
    const char **vdis = arena_calloc(c->arena, row_value(k.vm, F_VM_VBDs)->len + 1, sizeof *vdis);
    struct error *e = copy_disks(&k, vdis);
    if (e == NULL)
        e = copy_rows(&k, name, vdis);
    if (e != NULL) {
        remove_made(&k);
        return e;
    }
    *result_r = value_string(k.new_vm);
    return NULL;
}

struct error *api_VM_clone(struct api_call *c, const struct api_VM_clone_args *a, struct value *result_r)
{
    return copy_vm(c, a->vm, a->new_name, REF_NULL, false, result_r);
}

struct error *api_VM_copy(struct api_call *c, const struct api_VM_copy_args *a, struct value *result_r)
{
    return copy_vm(c, a->vm, a->new_name, a->sr, true, result_r);
}

/* --- provision: the disks a template describes -------------------------------------------------------------------- */
/* The value of name="…" inside one XML element; NULL when it has none. */
static const char *attribute(struct arena *a, const char *element, const char *end, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = element; p + len + 2 < end; p++) {
        if (strncmp(p, name, len) != 0 || p[len] != '=' || p[len + 1] != '"' || p[-1] != ' ')
            continue;
        const char *value = p + len + 2, *close = memchr(value, '"', (size_t)(end - value));
        return close != NULL ? arena_strndup(a, value, (size_t)(close - value)) : NULL;
    }
    return NULL;
}

static struct error *default_sr(struct api_call *c, const char *wanted_uuid, const char **sr_r)
{
    const struct row *sr = wanted_uuid != NULL && wanted_uuid[0] != '\0' ? db_by_uuid(c->db, c->arena, &model_classes[CLASS_SR], wanted_uuid) : NULL;
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    *sr_r = sr != NULL ? sr->ref : pools.n > 0 ? row_string(pools.rows[0], F_pool_default_SR) : REF_NULL;
    return ref_is_null(*sr_r) ? err_default_sr_not_found(c->arena, *sr_r) : NULL;
}

static struct error *provision_disk(struct api_call *c, const struct row *vm, const char *element, const char *end)
{
    const char *size = attribute(c->arena, element, end, "size"), *device = attribute(c->arena, element, end, "device");
    const char *bootable = attribute(c->arena, element, end, "bootable"), *sr;
    if (size == NULL || device == NULL)
        return NULL;
    TRY(default_sr(c, attribute(c->arena, element, end, "sr"), &sr));
    struct member vdi_fields[] = {
        member_of("name_label", value_string(arena_printf(c->arena, "%s %s", row_string(vm, F_VM_name_label), device))),
        member_of("name_description", value_string("Created by template provisioner")),
        member_of("SR", value_string(sr)),
        member_of("virtual_size", value_int(strtoll(size, NULL, 10))),
        member_of("type", value_string("user")),
        member_of("sharable", value_bool(false)),
        member_of("read_only", value_bool(false)),
    };
    struct value record = value_map(vdi_fields, ARRAY_LEN(vdi_fields)), vdi;
    struct api_VDI_create_args vdi_args = { .record = &record };
    TRY(api_run(c, M_VDI_create, &vdi_args, &vdi));
    struct member vbd_fields[] = {
        member_of("VM", value_string(vm->ref)),
        member_of("VDI", value_string(arena_strdup(c->arena, vdi.s))),
        member_of("userdevice", value_string(device)),
        member_of("bootable", value_bool(bootable != NULL && strcmp(bootable, "true") == 0)),
        member_of("mode", value_string("RW")),
        member_of("type", value_string("Disk")),
        member_of("empty", value_bool(false)),
        member_of("unpluggable", value_bool(true)),
    };
    struct value vbd_record = value_map(vbd_fields, ARRAY_LEN(vbd_fields)), vbd;
    struct api_VBD_create_args vbd_args = { .record = &vbd_record };
    return api_run(c, M_VBD_create, &vbd_args, &vbd);
}

/* <provision><disk device="0" size="…" sr="" bootable="true" type="system"/>…</provision> in other_config:disks */
struct error *api_VM_provision(struct api_call *c, const struct api_VM_provision_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->vm, &vm));
    const char *disks = row_map(vm, F_VM_other_config, "disks", "");
    for (const char *p = strstr(disks, "<disk "); p != NULL; p = strstr(p + 1, "<disk ")) {
        const char *end = strchr(p, '>');
        if (end == NULL)
            break;
        TRY(provision_disk(c, vm, p, end));
    }
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_map_remove(txn, CLASS_VM, a->vm, F_VM_other_config, "disks"));
    TRY(txn_set_bool(txn, CLASS_VM, a->vm, F_VM_is_a_template, false));
    return txn_commit(txn, NULL);
}
