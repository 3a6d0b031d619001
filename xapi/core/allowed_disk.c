/* VDI and SR operations (specs §2.6, §2.8). */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"
#include "xapi/core/version.h"

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Does the SR's driver have a feature? "VDI_RESIZE" or "VDI_RESIZE/1". A missing SM row: none. */
static bool sm_has(struct txn *txn, const struct row *sr, const char *feature)
{
    struct row_list drivers = txn_all(txn, &model_classes[CLASS_SM]);
    for (unsigned i = 0; i < drivers.n; i++) {
        if (strcmp(row_string(drivers.rows[i], F_SM_type), row_string(sr, F_SR_type)) != 0)
            continue;
        const struct value *features = row_value(drivers.rows[i], F_SM_features);
        for (unsigned k = 0; k < features->len; k++)
            if (strcmp(features->members[k].name, feature) == 0)
                return true;
    }
    return false;
}

static unsigned attached_pbds(struct txn *txn, const struct row *sr)
{
    const struct value *pbds = row_value(sr, F_SR_PBDs);
    unsigned n = 0;
    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = txn_get(txn, &model_classes[CLASS_PBD], pbds->items[i].s);
        n += pbd != NULL && row_bool(pbd, F_PBD_currently_attached);
    }
    return n;
}

/* --- VDI --------------------------------------------------------------------------------------------------------- */
struct vdi_check { struct api_call *c; struct txn *txn; const struct row *vdi, *sr; const char *op; };

/* Copies and exports only read: what deletes the disk, or writes to it, waits for them. */
static bool beside(const char *op, const char *other)
{
    if (strcmp(other, "copy") == 0)
        return !one_of(op, LIST("destroy", "forget", "resize", "mirror", "set_on_boot", "force_unlock", "blocked"));
    return strcmp(op, "destroy") == 0 && strcmp(other, "mirror") == 0;
}

static struct error *vdi_conflict(struct vdi_check *k)
{
    const struct value *current = row_value(k->vdi, F_VDI_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        const char *other = current->members[i].value.s;
        if (beside(k->op, other))
            continue;
        return err_other_operation_in_progress(k->c->arena, "VDI", k->vdi->ref, other, current->members[i].name);
    }
    if (strcmp(k->op, "resize") == 0 && attached_pbds(k->txn, k->sr) == 0)
        return err_sr_has_no_pbds(k->c->arena, k->sr->ref);
    return NULL;
}

static bool of_snapshot(struct vdi_check *k, const struct row *vbd)
{
    const struct row *vm = txn_get(k->txn, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));
    return vm != NULL && row_bool(vm, F_VM_is_a_snapshot);
}

static struct error *vdi_users(struct vdi_check *k)
{
    const struct value *vbds = row_value(k->vdi, F_VDI_VBDs);
    bool active = false, active_rw = false, only_snapshots = true;
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(k->txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd == NULL)
            continue;
        bool used = row_bool(vbd, F_VBD_currently_attached);
        active |= used;
        active_rw |= used && strcmp(row_string(vbd, F_VBD_mode), "RW") == 0;
        only_snapshots &= !used || of_snapshot(k, vbd);
    }
    if (!active || one_of(k->op, LIST("snapshot", "resize_online", "blocked", "clone", "mirror", "enable_cbt", "disable_cbt", "data_destroy")))
        return NULL;
    if ((strcmp(k->op, "copy") == 0 && !active_rw) || (strcmp(k->op, "list_changed_blocks") == 0 && only_snapshots))
        return NULL;
    return err_vdi_in_use(k->c->arena, k->vdi->ref, k->op);
}

static struct error *vdi_busy_device(struct vdi_check *k)
{
    const struct value *vbds = row_value(k->vdi, F_VDI_VBDs);
    for (unsigned i = 0; i < vbds->len && strcmp(k->op, "data_destroy") != 0; i++) {
        const struct row *vbd = txn_get(k->txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct value *current = vbd != NULL ? row_value(vbd, F_VBD_current_operations) : NULL;
        if (current != NULL && current->len > 0)
            return err_other_operation_in_progress(k->c->arena, "VDI", k->vdi->ref, current->members[0].value.s, current->members[0].name);
    }
    return NULL;
}

static const struct { const char *op, *feature; } vdi_features[] = {
    { "snapshot", "VDI_SNAPSHOT" },     { "destroy", "VDI_DELETE" },
    { "resize", "VDI_RESIZE" },         { "resize_online", "VDI_RESIZE_ONLINE" },
    { "update", "VDI_UPDATE" },         { "generate_config", "VDI_GENERATE_CONFIG" },
    { "clone", "VDI_CLONE" },           { "mirror", "VDI_MIRROR" },
    { "enable_cbt", "VDI_CONFIG_CBT" }, { "disable_cbt", "VDI_CONFIG_CBT" },
    { "data_destroy", "VDI_CONFIG_CBT" }, { "list_changed_blocks", "VDI_CONFIG_CBT" },
    { "set_on_boot", "VDI_RESET_ON_BOOT" },
};

static struct error *vdi_feature(struct vdi_check *k)
{
    for (unsigned i = 0; i < ARRAY_LEN(vdi_features); i++)
        if (strcmp(k->op, vdi_features[i].op) == 0 && !sm_has(k->txn, k->sr, vdi_features[i].feature))
            return err_sr_operation_not_supported(k->c->arena, k->sr->ref);
    return NULL;
}

/* Disks that the pool itself depends on. */
static struct error *vdi_of_pool(struct vdi_check *k)
{
    struct arena *a = k->c->arena;
    const char *type = row_string(k->vdi, F_VDI_type);
    if (!one_of(k->op, LIST("destroy", "forget")))
        return NULL;
    if (strcmp(type, "rrd") == 0)
        return error_make(a, __FILE__, __LINE__, "VDI_HAS_RRDS", 1, k->vdi->ref);
    struct row_list pools = txn_all(k->txn, &model_classes[CLASS_pool]);
    if (!one_of(type, LIST("ha_statefile", "redo_log")) || pools.n == 0)
        return NULL;
    const struct value *current = row_value(pools.rows[0], F_pool_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        if (strcmp(current->members[i].value.s, "ha_enable") == 0)
            return err_ha_enable_in_progress(a);
        if (strcmp(current->members[i].value.s, "ha_disable") == 0)
            return err_ha_disable_in_progress(a);
    }
    return row_bool(pools.rows[0], F_pool_ha_enabled) ? err_ha_is_enabled(a) : NULL;
}

static bool being_copied(const struct row *vdi)
{
    const struct value *current = row_value(vdi, F_VDI_current_operations);
    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, "copy") == 0)
            return true;
    return false;
}

static struct error *vdi_kind(struct vdi_check *k)
{
    struct arena *a = k->c->arena;
    if (strcmp(row_string(k->vdi, F_VDI_type), "cbt_metadata") == 0 &&
        one_of(k->op, LIST("clone", "copy", "enable_cbt", "disable_cbt", "mirror", "resize", "resize_online", "snapshot", "set_on_boot")))
        return err_vdi_incompatible_type(a, k->vdi->ref, "cbt_metadata");
    if (row_bool(k->vdi, F_VDI_cbt_enabled) && one_of(k->op, LIST("mirror", "set_on_boot")))
        return err_vdi_cbt_enabled(a, k->vdi->ref);
    if (strcmp(k->op, "destroy") == 0 && strcmp(row_string(k->sr, F_SR_type), "udev") == 0)
        return err_vdi_is_a_physical_device(a, k->vdi->ref);
    if (strcmp(k->op, "destroy") == 0 && row_bool(k->sr, F_SR_is_tools_sr))
        return err_sr_operation_not_supported(a, k->sr->ref);
    TRY(vdi_of_pool(k));
    if (strcmp(k->op, "data_destroy") == 0 && !row_bool(k->vdi, F_VDI_is_a_snapshot))
        return err_operation_not_allowed(a, "VDI is not a snapshot");
    if (strcmp(k->op, "data_destroy") == 0 && !row_bool(k->vdi, F_VDI_cbt_enabled))
        return error_make(a, __FILE__, __LINE__, "VDI_NO_CBT_METADATA", 1, k->vdi->ref);
    if (strcmp(k->op, "snapshot") == 0 && row_bool(k->vdi, F_VDI_sharable))
        return error_make(a, __FILE__, __LINE__, "VDI_IS_SHARABLE", 1, k->vdi->ref);
    if (strcmp(k->op, "snapshot") == 0 && being_copied(k->vdi))
        return err_operation_not_allowed(a, "Snapshot operation not allowed during copy.");
    if (one_of(k->op, LIST("snapshot", "copy")) && strcmp(row_string(k->vdi, F_VDI_on_boot), "reset") == 0)
        return err_vdi_on_boot_mode_incompatible_with_operation(a);
    return NULL;
}

static struct error *vdi_check(struct api_call *c, struct txn *txn, const struct row *vdi, const char *op, bool strict)
{
    struct vdi_check k = { c, txn, vdi, txn_get(txn, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR)), op };
    if (k.sr == NULL)
        return NULL;
    if (!one_of(op, LIST("clone", "copy", "resize", "resize_online", "snapshot", "destroy", "forget", "update", "generate_config", "blocked", "force_unlock")) &&
        version_upgrade_in_progress(c))
        return err_not_supported_during_upgrade(c->arena);
    TRY(vdi_conflict(&k));
    TRY(vdi_users(&k));
    TRY(vdi_busy_device(&k));
    TRY(vdi_feature(&k));
    return vdi_kind(&k);
}

static bool vdi_published(struct api_call *c, const struct row *vdi, const char *op)
{
    return one_of(op, LIST("clone", "copy", "resize", "resize_online", "snapshot", "destroy", "forget", "update", "generate_config"));
}

const struct operation_rules allowed_vdi = {
    .class_id = CLASS_VDI,
    .current_field = F_VDI_current_operations,
    .allowed_field = F_VDI_allowed_operations,
    .check = vdi_check,
    .published = vdi_published,
};

/* --- SR ----------------------------------------------------------------------------------------------------------- */
static const struct { const char *op, *feature, *spelling; } sr_ops[] = {
    { "vdi_create", "VDI_CREATE", "VDI.create" },           { "vdi_destroy", "VDI_DELETE", "VDI.destroy" },
    { "vdi_resize", "VDI_RESIZE", "VDI.resize" },           { "vdi_clone", "VDI_CLONE", "VDI.clone" },
    { "vdi_snapshot", "VDI_SNAPSHOT", "VDI.snapshot" },     { "vdi_mirror", "VDI_MIRROR", "VDI.mirror" },
    { "vdi_enable_cbt", "VDI_CONFIG_CBT", "VDI.enable_cbt" }, { "vdi_disable_cbt", "VDI_CONFIG_CBT", "VDI.disable_cbt" },
    { "vdi_data_destroy", "VDI_CONFIG_CBT", "VDI.data_destroy" },
    { "vdi_list_changed_blocks", "VDI_CONFIG_CBT", "VDI.list_changed_blocks" },
    { "vdi_set_on_boot", "VDI_RESET_ON_BOOT", "VDI.set_on_boot" }, { "vdi_introduce", "VDI_INTRODUCE", "VDI.introduce" },
    { "vdi_revert", "VDI_CLONE", "VDI.revert" },            { "update", "SR_UPDATE", "update" },
    { "pbd_create", NULL, "PBD.create" },                   { "pbd_destroy", NULL, "PBD.destroy" },
};

static const char *sr_spelling(const char *op)
{
    for (unsigned i = 0; i < ARRAY_LEN(sr_ops); i++)
        if (strcmp(op, sr_ops[i].op) == 0)
            return sr_ops[i].spelling;
    return op;
}

static struct error *sr_contents(struct api_call *c, struct txn *txn, const struct row *sr, const char *op)
{
    unsigned attached = attached_pbds(txn, sr);
    if (attached > 0 && one_of(op, LIST("destroy", "forget")))
        return err_sr_has_pbd(c->arena, sr->ref);
    if (strcmp(op, "destroy") != 0)
        return NULL;
    if (row_value(sr, F_SR_PBDs)->len == 0)
        return err_sr_has_no_pbds(c->arena, sr->ref);
    const struct value *vdis = row_value(sr, F_SR_VDIs);
    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdis->items[i].s);
        if (vdi != NULL && row_bool(vdi, F_VDI_managed) && strcmp(row_string(vdi, F_VDI_type), "rrd") != 0)
            return err_sr_not_empty(c->arena);
    }
    return NULL;
}

static struct error *sr_check(struct api_call *c, struct txn *txn, const struct row *sr, const char *op, bool strict)
{
    if (one_of(op, LIST("vdi_mirror", "vdi_enable_cbt", "vdi_disable_cbt", "vdi_data_destroy", "vdi_list_changed_blocks", "vdi_set_on_boot", "vdi_revert")) &&
        version_upgrade_in_progress(c))
        return err_not_supported_during_upgrade(c->arena);
    for (unsigned i = 0; i < ARRAY_LEN(sr_ops); i++)
        if (strcmp(op, sr_ops[i].op) == 0 && sr_ops[i].feature != NULL && !sm_has(txn, sr, sr_ops[i].feature))
            return err_sr_operation_not_supported(c->arena, sr->ref);
    TRY(sr_contents(c, txn, sr, op));
    const struct value *current = row_value(sr, F_SR_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        const char *other = current->members[i].value.s;
        if (strcmp(op, "plug") != 0 || strcmp(other, "plug") != 0)
            return err_other_operation_in_progress(c->arena, "SR", sr->ref, sr_spelling(other), current->members[i].name);
    }
    return NULL;
}

static bool sr_published(struct api_call *c, const struct row *sr, const char *op)
{
    return true;
}

const struct operation_rules allowed_sr = {
    .class_id = CLASS_SR,
    .current_field = F_SR_current_operations,
    .allowed_field = F_SR_allowed_operations,
    .check = sr_check,
    .published = sr_published,
};
