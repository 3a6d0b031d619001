/* VDI.pool_migrate: its checks, in xapi's order, and the move. */
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disk_ledger.h"
#include "xapi/migrate/disk_move.h"
#include "xapi/migrate/queue.h"
#include "xapi/pool/sr_room.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_rows.h"

/* --- options ------------------------------------------------------------------------------------------------- */
static struct error *bad_option(struct api_call *c, const char *key, const char *value, const char *reason)
{
    return err_value_not_supported(c->arena, key, value, reason);
}

/* "raw", "vhd", "qcow2", and the names that H3C's dialogs have for two of them. */
static const char *format_word(const char *word)
{
    static const char *const words[][2] = { { "raw", "raw" }, { "vhd", "vhd" }, { "qcow2", "qcow2" }, { "high-speed", "raw" }, { "intelligent", "qcow2" } };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(word, words[i][0]) == 0)
            return words[i][1];
    return NULL;
}

static bool is_file_sr(const struct row *sr)
{
    static const char *const types[] = { "file", "ext", "nfs", "gfs2", "dummy" };

    for (unsigned i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(row_string(sr, F_SR_type), types[i]) == 0)
            return true;
    return false;
}

static struct error *no_base_images(struct api_call *c, const struct row *vdi, const char *word)
{
    struct value stat;

    TRY(vdi_verb(c, vdi, "vdi.stat", NULL, &stat));
    return value_get_string(&stat, "parent", "")[0] == '\0' ? NULL : bad_option(c, "dest-img-format", word, "the disk has base images");
}

static struct error *read_format(struct api_call *c, const struct value *options, const struct row *vdi, const struct row *to, const char **format_r)
{
    const char *word = value_get_string(options, "dest-img-format", "");

    *format_r = "";
    if (word[0] == '\0')
        return NULL;
    *format_r = format_word(word);
    if (*format_r == NULL)
        return bad_option(c, "dest-img-format", word, "one of raw, vhd, qcow2, high-speed and intelligent is expected");
    if (!is_file_sr(to))
        return bad_option(c, "dest-img-format", word, "the format can only be chosen in a file-based SR");
    return no_base_images(c, vdi, word);
}

static struct error *read_number(struct api_call *c, const struct value *options, const char *key, int64_t *n_r)
{
    const char *text = value_get_string(options, key, "");

    if (text[0] != '\0' && (!text_to_int(text, n_r) || *n_r < 0 || *n_r > INT32_MAX))
        return bad_option(c, key, text, "a number that is not negative is expected");
    return NULL;
}

static struct error *read_options(struct api_call *c, const struct value *options, struct disk_move *move)
{
    const char *bandwidth = value_get_string(options, "bandwidth", "");
    int64_t budget_ms = 0;

    if (bandwidth[0] != '\0' && !disk_move_bandwidth(bandwidth, &move->bandwidth))
        return bad_option(c, "bandwidth", bandwidth, "MiB/s, medium, fast or unlimited is expected");
    TRY(read_number(c, options, "max_downtime_ms", &budget_ms));
    move->budget_us = budget_ms * 1000;
    move->quarantine_s = config_int(c->xapi->config, "vdi-quarantine");
    return read_number(c, options, "quarantine_s", &move->quarantine_s);
}

/* --- checks --------------------------------------------------------------------------------------------------- */
/* The VM of the first VBD, plugged or not; xapi asks no other. */
static struct error *first_vm(struct api_call *c, const struct row *vdi, const struct row **vm_r)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);
    const struct row *vbd;

    if (vbds->len == 0)
        return err_vdi_needs_vm_for_migrate(c->arena, vdi->ref);
    TRY(db_need(c->db, c->arena, CLASS_VBD, vbds->items[0].s, &vbd));
    return db_need(c->db, c->arena, CLASS_VM, row_string(vbd, F_VBD_VM), vm_r);
}

/* No other VM may have it plugged in: a mirror follows the writes of one host. */
static struct error *used_by_one(struct api_call *c, const struct row *vdi, const struct row *vm)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL && row_bool(vbd, F_VBD_currently_attached) && strcmp(row_string(vbd, F_VBD_VM), vm->ref) != 0)
            return err_vdi_in_use(c->arena, vdi->ref, "mirror");
    }
    return NULL;
}

/* Which of two features the SR's driver lacks, joined by ';'; "": none. */
static const char *lacking(struct api_call *c, const struct row *sr, const char *mirror, const char *snapshot)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    bool mirrors = sr_has_feature(txn, sr, mirror) || sr_has_feature(txn, sr, "VDI_MIRROR"), snapshots = sr_has_feature(txn, sr, snapshot);

    return arena_printf(c->arena, "%s%s%s", mirrors ? "" : mirror, mirrors || snapshots ? "" : ";", snapshots ? "" : snapshot);
}

static struct error *can_take_it(struct api_call *c, const struct row *from, const struct row *to)
{
    const char *source = lacking(c, from, "VDI_MIRROR", "VDI_SNAPSHOT"), *target = lacking(c, to, "VDI_MIRROR_IN", "VDI_SNAPSHOT");

    if (source[0] != '\0')
        return err_sr_does_not_support_migration(c->arena, from->ref, source);
    return target[0] != '\0' ? err_sr_does_not_support_migration(c->arena, to->ref, target) : NULL;
}

static struct error *check(struct api_call *c, const struct row *vdi, const struct row *from, const struct row *to, const struct row *vm)
{
    if (row_map(vdi, F_VDI_sm_config, "key_hash", "")[0] != '\0')
        return err_vdi_is_encrypted(c->arena, vdi->ref);
    TRY(can_take_it(c, from, to));
    return used_by_one(c, vdi, vm);
}

static struct error *where(struct api_call *c, const struct row *vm, const struct row *from, const struct row *to, const char **host_r)
{
    bool runs = strcmp(row_string(vm, F_VM_power_state), "Running") == 0;

    disk_move_host(c, from->ref, to->ref, runs ? row_string(vm, F_VM_resident_on) : NULL, host_r);
    return *host_r != NULL ? NULL : err_vm_requires_sr(c->arena, vm->ref, to->ref);
}

/* --- the move --------------------------------------------------------------------------------------------------- */
/* All that can be said before anything is done; *there_r: nothing is to be done. */
static struct error *plan(struct api_call *c, const struct api_VDI_pool_migrate_args *a, struct disk_move *move, bool *there_r, const struct row **vm_r)
{
    const struct row *vdi, *from, *to;

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->vdi, &vdi));
    TRY(first_vm(c, vdi, vm_r));
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &from));
    TRY(db_need(c->db, c->arena, CLASS_SR, a->sr, &to));
    TRY(read_options(c, a->options, move));
    TRY(read_format(c, a->options, vdi, to, &move->format));
    bool same_format = move->format[0] == '\0' || strcmp(move->format, row_map(vdi, F_VDI_sm_config, "type", "")) == 0;
    *there_r = strcmp(from->ref, to->ref) == 0 && same_format;
    if (*there_r) {
        const char *bandwidth = value_get_string(a->options, "bandwidth", "");
        return bandwidth[0] == '\0' ? NULL : bad_option(c, "bandwidth", bandwidth, "no disk moves");
    }
    TRY(check(c, vdi, from, to, *vm_r));
    TRY(sr_room_check(c, to->ref, sr_room_use_of(vdi, move->format), sr_room_plain(c, to->ref, vdi)));
    return where(c, *vm_r, from, to, &move->host);
}

static struct error *move_noted(struct api_call *c, const char *id, struct disk_move *move, const struct row *vm)
{
    TRY(disk_ledger_begin(c, id, move, vm));
    struct error *e = disk_move_run(c, move);
    disk_ledger_end(c, id, e);
    return e;
}

/* What the marks would be refused for, but for what is under way: that is waited for in its turn. */
static struct error *allowed(struct api_call *c, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vdi, *vm;

    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    TRY(first_vm(c, vdi, &vm));
    struct error *e = operation_check(c, txn, CLASS_VM, vm, "migrate_send", true);
    if (e == NULL || error_is(e, "OTHER_OPERATION_IN_PROGRESS"))
        e = operation_check(c, txn, CLASS_VDI, vdi, "mirror", true);
    return error_is(e, "OTHER_OPERATION_IN_PROGRESS") ? NULL : e;
}

static struct error *move_in_place(struct api_call *c, const struct api_VDI_pool_migrate_args *a, const char *id, struct disk_move *move, const char *vm_ref,
                                   struct value *result_r)
{
    const struct row *vm;
    bool there;

    TRY(operation_begin(c, CLASS_VM, vm_ref, "migrate_send", true));
    OPERATION_SCOPE on_vm = { c, CLASS_VM, vm_ref, "migrate_send" };
    TRY(operation_begin(c, CLASS_VDI, a->vdi, "mirror", true));
    OPERATION_SCOPE on_vdi = { c, CLASS_VDI, a->vdi, "mirror" };
    TRY(plan(c, a, move, &there, &vm)); /* again: it may have waited for its turn, or for those marks */
    if (!there)
        TRY(move_noted(c, id, move, vm));
    *result_r = value_string(there ? a->vdi : move->target);
    return NULL;
}

static struct value args_value(struct api_call *c, const struct api_VDI_pool_migrate_args *a)
{
    struct value_dict d = { 0 };

    value_dict_add(c->arena, &d, "vdi", value_string(a->vdi));
    value_dict_add(c->arena, &d, "sr", value_string(a->sr));
    value_dict_add(c->arena, &d, "options", *a->options);
    return value_dict_value(&d);
}

struct error *api_VDI_pool_migrate(struct api_call *c, const struct api_VDI_pool_migrate_args *a, struct value *result_r)
{
    const char *id = uuid_make(c->arena);
    struct move_options options;
    struct disk_move move = { .vdi = a->vdi, .sr = a->sr, .options = &options };
    struct queue_place place;
    const struct row *vm;
    bool there;

    TRY(allowed(c, a->vdi));
    TRY(plan(c, a, &move, &there, &vm));
    TRY(move_options_read(c->arena, a->options, &options));
    *result_r = value_string(a->vdi); /* it is there already */
    if (there)
        return NULL;
    const struct queue_request request = { .id = id, .message = "VDI.pool_migrate", .args = args_value(c, a), .vm_uuid = row_string(vm, F_VM_uuid),
                                           .vm_name = row_string(vm, F_VM_name_label), .host = move.host, .options = &options };
    TRY(queue_enter(c, &request, &place));
    struct error *e = move_in_place(c, a, id, &move, vm->ref, result_r);
    queue_leave(c, &place);
    return e;
}
