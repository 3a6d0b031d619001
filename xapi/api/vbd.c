/* Block devices: the rows that link VMs to disks, and plugging them into running VMs. */
#include <ctype.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vbd_device.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/pool/agent_verbs.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* --- create ------------------------------------------------------------------------------------------------ */
static struct error *check_medium(struct api_call *c, const struct row *vdi)
{
    const struct row *sr = db_get(c->db, c->arena, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR));
    bool drive = sr != NULL && strcmp(row_string(sr, F_SR_type), "udev") == 0;
    bool iso = sr != NULL && (strcmp(row_string(sr, F_SR_content_type), "iso") == 0 || strcmp(row_string(sr, F_SR_type), "iso") == 0);
    return drive || iso ? NULL : err_vdi_is_not_iso(c->arena, vdi->ref, sr != NULL ? row_string(sr, F_SR_content_type) : "");
}

/* The record is consistent in itself and with the disk. */
static struct error *check_record(struct api_call *c, const struct value *record)
{
    const char *type = value_get_string(record, "type", "Disk"), *mode = value_get_string(record, "mode", "RW");
    bool cd = strcmp(type, "CD") == 0, empty = value_get_bool(record, "empty", false), rw = strcmp(mode, "RW") == 0;
    const struct row *vdi = NULL;
    if (!empty) {
        TRY(db_need(c->db, c->arena, CLASS_VDI, value_get_string(record, "VDI", REF_NULL), &vdi));
        const char *kind = row_string(vdi, F_VDI_type);
        if (!one_of(kind, LIST("system", "user", "ephemeral", "suspend", "crashdump", "metadata", "pvs_cache")))
            return err_vdi_incompatible_type(c->arena, vdi->ref, kind);
    }
    if (cd && rw)
        return err_vbd_cds_must_be_readonly(c->arena);
    if (!cd && empty)
        return err_vbd_not_removable_media(c->arena, "in constructor");
    if (cd && vdi != NULL)
        TRY(check_medium(c, vdi));
    return rw && vdi != NULL && row_bool(vdi, F_VDI_read_only) ? err_vdi_readonly(c->arena, vdi->ref) : NULL;
}

/* A VM that moves takes with it what it had when it began. */
static struct error *check_vm_stays(struct api_call *c, const struct row *vm)
{
    const struct value *current = row_value(vm, F_VM_current_operations);
    for (unsigned i = 0; i < current->len; i++)
        if (one_of(current->members[i].value.s, LIST("migrate_send", "pool_migrate")))
            return err_other_operation_in_progress(c->arena, "VM", vm->ref, current->members[i].value.s, current->members[i].name);
    return NULL;
}

static struct error *choose_device(struct api_call *c, struct txn *txn, const struct row *vm, const struct value *record, const char **device_r)
{
    const char *device = value_get_string(record, "userdevice", "autodetect");
    bool floppy = strcmp(value_get_string(record, "type", "Disk"), "Floppy") == 0;
    unsigned number;
    if (strcmp(device, "autodetect") == 0) {
        struct value free_devices = vbd_devices_free(c->arena, txn, vm, floppy);
        if (free_devices.len == 0)
            return err_invalid_device(c->arena, device);
        *device_r = free_devices.items[0].s;
        return NULL;
    }
    if (!vbd_device_number(device, &number) || floppy != (number >= VBD_FLOPPY_FIRST))
        return err_invalid_device(c->arena, device);
    *device_r = device;
    return vbd_device_used(txn, vm, number) ? err_device_already_exists(c->arena, device) : NULL;
}

static struct error *create_row(struct api_call *c, struct txn *txn, const struct value *record, const char *device, const char **ref_r)
{
    const struct class_info *class = &model_classes[CLASS_VBD];
    struct field_value *fields = arena_calloc(c->arena, record->len + 1u, sizeof *fields);
    unsigned n = 0;
    for (unsigned i = 0; i < record->len; i++) {
        int field = model_field(class, record->members[i].name);
        if (field > 0 && field != F_VBD_userdevice && field != F_VBD_device && field != F_VBD_currently_attached)
            fields[n++] = (struct field_value){ (unsigned)field, record->members[i].value };
    }
    TRY(txn_create(txn, CLASS_VBD, NULL, NULL, fields, n, ref_r));
    TRY(txn_set_string(txn, CLASS_VBD, *ref_r, F_VBD_userdevice, device));
    if (value_get_bool(record, "empty", false)) /* whatever else it names */
        TRY(txn_set_string(txn, CLASS_VBD, *ref_r, F_VBD_VDI, REF_NULL));
    return operations_update_around(c, txn, CLASS_VBD, *ref_r);
}

struct error *api_VBD_create(struct api_call *c, const struct api_VBD_create_args *a, struct value *result_r)
{
    TRY(check_record(c, a->record));
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    const char *device = NULL, *ref;
    TRY(txn_need(txn, CLASS_VM, value_get_string(a->record, "VM", REF_NULL), &vm));
    TRY(check_vm_stays(c, vm));
    TRY(choose_device(c, txn, vm, a->record, &device));
    TRY(create_row(c, txn, a->record, device, &ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

/* --- destroy, set_mode, assert_attachable --------------------------------------------------------------------- */
struct error *api_VBD_destroy(struct api_call *c, const struct api_VBD_destroy_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vbd;
    TRY(txn_need(txn, CLASS_VBD, a->self, &vbd));
    const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
    const struct value *current = row_value(vbd, F_VBD_current_operations);
    if (row_bool(vbd, F_VBD_currently_attached))
        return err_operation_not_allowed(c->arena, arena_printf(c->arena, "VBD '%s' still attached to '%s'", row_string(vbd, F_VBD_uuid),
                                                                vm != NULL ? row_string(vm, F_VM_uuid) : ""));
    if (current->len > 0) /* it is being attached */
        return err_other_operation_in_progress(c->arena, "VBD", a->self, current->members[0].value.s, current->members[0].name);
    const char *vdi = arena_strdup(c->arena, row_string(vbd, F_VBD_VDI));
    TRY(txn_delete(txn, CLASS_VBD, a->self));
    if (txn_get(txn, &model_classes[CLASS_VDI], vdi) != NULL)
        TRY(operations_update_around(c, txn, CLASS_VDI, vdi));
    return txn_commit(txn, NULL);
}

static const char *lower_state(struct api_call *c, const struct row *vm)
{
    char *state = arena_strdup(c->arena, row_string(vm, F_VM_power_state));
    state[0] = (char)tolower((unsigned char)state[0]);
    return state;
}

struct error *api_VBD_set_mode(struct api_call *c, const struct api_VBD_set_mode_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vbd, *vm;
    TRY(txn_need(txn, CLASS_VBD, a->self, &vbd));
    TRY(txn_need(txn, CLASS_VM, row_string(vbd, F_VBD_VM), &vm));
    if (strcmp(row_string(vm, F_VM_power_state), "Halted") != 0)
        return err_vm_bad_power_state(c->arena, vm->ref, "halted", lower_state(c, vm));
    if (strcmp(row_string(vbd, F_VBD_type), "CD") == 0 && strcmp(a->value, "RW") == 0)
        return err_vbd_cds_must_be_readonly(c->arena);
    TRY(txn_set_string(txn, CLASS_VBD, a->self, F_VBD_mode, a->value));
    TRY(operations_update_around(c, txn, CLASS_VBD, a->self));
    return txn_commit(txn, NULL);
}

struct error *api_VBD_assert_attachable(struct api_call *c, const struct api_VBD_assert_attachable_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vbd;
    TRY(txn_need(txn, CLASS_VBD, a->self, &vbd));
    return operation_check(c, txn, CLASS_VBD, vbd, "attach", true);
}

/* --- what a running VM has plugged in ---------------------------------------------------------------------------- */
struct device { const struct row *vbd, *vm; const char *host; /* NULL: the VM does not run */ };

static struct error *device_of(struct api_call *c, const char *vbd_ref, struct device *d)
{
    TRY(db_need(c->db, c->arena, CLASS_VBD, vbd_ref, &d->vbd));
    TRY(db_need(c->db, c->arena, CLASS_VM, row_string(d->vbd, F_VBD_VM), &d->vm));
    const char *host = row_string(d->vm, F_VM_resident_on);
    d->host = ref_is_null(host) ? NULL : host;
    return NULL;
}

/* "vm.disk_plug" with the disk, or an empty drive for vdi NULL; "vm.disk_unplug". */
static struct error *disk_verb(struct api_call *c, const struct device *d, const char *verb, const struct row *vdi)
{
    struct disk_spec disk;
    TRY(vm_disk_spec(c, d->vbd, vdi, d->host, &disk));
    struct member args[] = { member_of("uuid", value_string(row_string(d->vm, F_VM_uuid))), member_of("disk", disk_to_value(c->arena, &disk)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    return vm_run_error(c, d->vm->ref, agent_call(c, d->host, verb, &v, &ignored));
}

static struct error *record_attached(struct api_call *c, const struct device *d, bool attached)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_bool(txn, CLASS_VBD, d->vbd->ref, F_VBD_currently_attached, attached));
    if (attached)
        TRY(txn_set_string(txn, CLASS_VBD, d->vbd->ref, F_VBD_device, vbd_device_name(c->arena, row_string(d->vbd, F_VBD_userdevice))));
    TRY(operations_update_around(c, txn, CLASS_VBD, d->vbd->ref));
    return txn_commit(txn, NULL);
}

struct error *api_VBD_plug(struct api_call *c, const struct api_VBD_plug_args *a, struct value *result_r)
{
    struct device d;
    TRY(device_of(c, a->self, &d));
    TRY(vm_run_residence(c, d.vm->ref, "running", &d.vm, &d.host));
    const char *vdi_ref = row_bool(d.vbd, F_VBD_empty) ? REF_NULL : row_string(d.vbd, F_VBD_VDI);
    const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi_ref);
    struct error *e = disk_verb(c, &d, "vm.disk_plug", vdi);
    if (e == NULL)
        return record_attached(c, &d, true);
    struct api_call calm = internal_call_cleanup(c);
    vm_disk_release(&calm, vdi_ref, d.host, a->self);
    return e;
}

static struct error *unplug(struct api_call *c, const char *vbd_ref)
{
    struct device d;
    TRY(device_of(c, vbd_ref, &d));
    TRY(vm_run_residence(c, d.vm->ref, "running", &d.vm, &d.host));
    struct member spec[] = { member_of("device", value_string(row_string(d.vbd, F_VBD_userdevice))) };
    struct member args[] = { member_of("uuid", value_string(row_string(d.vm, F_VM_uuid))), member_of("disk", value_map(spec, ARRAY_LEN(spec))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    TRY(vm_run_error(c, d.vm->ref, agent_call(c, d.host, "vm.disk_unplug", &v, &ignored)));
    TRY(record_attached(c, &d, false));
    vm_disk_release(c, row_string(d.vbd, F_VBD_VDI), d.host, vbd_ref);
    return NULL;
}

struct error *api_VBD_unplug(struct api_call *c, const struct api_VBD_unplug_args *a, struct value *result_r)
{
    return unplug(c, a->self);
}

struct error *api_VBD_unplug_force(struct api_call *c, const struct api_VBD_unplug_force_args *a, struct value *result_r)
{
    return unplug(c, a->self);
}

/* --- media --------------------------------------------------------------------------------------------------------- */
static struct error *record_medium(struct api_call *c, const struct device *d, const char *vdi_ref)
{
    const char *before = row_string(d->vbd, F_VBD_VDI);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VBD, d->vbd->ref, F_VBD_VDI, vdi_ref));
    TRY(txn_set_bool(txn, CLASS_VBD, d->vbd->ref, F_VBD_empty, ref_is_null(vdi_ref)));
    TRY(operations_update_around(c, txn, CLASS_VBD, d->vbd->ref));
    if (txn_get(txn, &model_classes[CLASS_VDI], before) != NULL)
        TRY(operations_update_around(c, txn, CLASS_VDI, before));
    return txn_commit(txn, NULL);
}

/* In a VM that is halted only the row changes; in one that runs, if the drive is plugged in, the drive too. */
static struct error *change_medium(struct api_call *c, const struct device *d, const char *vdi_ref)
{
    const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdi_ref);
    struct error *e = NULL;
    if (d->host != NULL && row_bool(d->vbd, F_VBD_currently_attached))
        e = disk_verb(c, d, "vm.disk_plug", vdi);
    if (e == NULL)
        return record_medium(c, d, vdi_ref);
    struct api_call calm = internal_call_cleanup(c);
    vm_disk_release(&calm, vdi_ref, d->host, d->vbd->ref);
    return e;
}

struct error *api_VBD_insert(struct api_call *c, const struct api_VBD_insert_args *a, struct value *result_r)
{
    struct device d;
    const struct row *vdi;
    TRY(device_of(c, a->vbd, &d));
    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi, &vdi));
    TRY(check_medium(c, vdi));
    if (!row_bool(vdi, F_VDI_managed))
        return err_vdi_not_managed(c->arena, a->vdi);
    return change_medium(c, &d, a->vdi);
}

struct error *api_VBD_eject(struct api_call *c, const struct api_VBD_eject_args *a, struct value *result_r)
{
    struct device d;
    TRY(device_of(c, a->vbd, &d));
    const char *before = row_string(d.vbd, F_VBD_VDI);
    TRY(change_medium(c, &d, REF_NULL));
    if (d.host != NULL)
        vm_disk_release(c, before, d.host, a->vbd);
    return NULL;
}
