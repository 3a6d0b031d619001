/* The coordinator's side of transfers: admission, and the table of those under way. */
#include "xapi/transfer/transfer_table.h"

#include <string.h>

#include "db/model.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "xapi/core/api_create.h"
#include "xapi/core/http_caller.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/operations.h"
#include "xapi/core/rbac.h"
#include "xapi/core/session.h"
#include "xapi/core/task.h"
#include "xapi/pool/sr_rows.h"

LOG_MODULE(transfer);

#define SILENT_MS 300000

/* One that was admitted: its call goes on until the end is told. */
struct admitted {
    struct admitted *next;
    struct arena *arena;
    struct api_call c;
    const char *id, *vdi, *made; /* made: an import's fresh VDI, or NULL */
    bool marked, admitted; /* admitted: its client may use the pool */
    int64_t heard_ms;
};

static const char *const kinds[] = { [TRANSFER_EXPORT] = "export", [TRANSFER_IMPORT] = "import", [TRANSFER_NBD] = "nbd" };
const char *transfer_kind_name(enum transfer_kind kind) { return kinds[kind]; }

struct transfers *transfers_new(void)
{
    struct transfers *t = xcalloc(1, sizeof *t);
    lock_init(&t->lock, LOCK_TASK);
    t->watch = transfer_watch_new();
    return t;
}

/* --- the table --------------------------------------------------------------------------------------------- */
static void list_add(struct transfers *t, struct admitted *a)
{
    LOCK_SCOPE(&t->lock);
    a->next = t->list;
    t->list = a;
}

/* Out of the list: by id, or the first that has been silent too long (id NULL). */
static struct admitted *list_take(struct transfers *t, const char *id, int64_t silent_since)
{
    LOCK_SCOPE(&t->lock);
    for (struct admitted **at = &t->list; *at != NULL; at = &(*at)->next)
        if (id != NULL ? strcmp((*at)->id, id) == 0 : (*at)->heard_ms < silent_since) {
            struct admitted *a = *at;
            *at = a->next;
            return a;
        }
    return NULL;
}

/* --- who ----------------------------------------------------------------------------------------------------- */
static struct error *enter(struct api_call *c, const struct value *args)
{
    const char *session = value_get_string(args, "session", ""), *user = value_get_string(args, "user", "");

    if (session[0] != '\0')
        return session_enter(c, session);
    if (value_get_bool(args, "trusted", false)) {
        http_caller_root(c);
        return NULL;
    }
    if (user[0] == '\0')
        return err_session_invalid(c->arena, session);
    return http_caller_password(c, user, value_get_string(args, "password", ""));
}

static struct error *may(struct api_call *c, const char *kind)
{
    const unsigned admins = ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN | ROLE_VM_ADMIN;

    if (strcmp(kind, "nbd") == 0)
        return rbac_need(c, admins, "vdi.get_nbd_info");
    return rbac_need(c, admins, strcmp(kind, "export") == 0 ? "http/get_export_raw_vdi" : "http/put_import_raw_vdi");
}

/* --- what ---------------------------------------------------------------------------------------------------- */
static struct error *named(struct api_call *c, unsigned class_id, const char *name, const struct row **row_r)
{
    if (uuid_valid(name)) {
        *row_r = db_by_uuid(c->db, c->arena, &model_classes[class_id], name);
        return *row_r != NULL ? NULL : err_uuid_invalid(c->arena, model_classes[class_id].name, name);
    }
    return db_need(c->db, c->arena, class_id, name, row_r);
}

static struct error *make_vdi(struct admitted *a, const char *sr_name, int64_t size)
{
    struct api_call *c = &a->c;
    const struct row *sr;
    struct value result;

    TRY(named(c, CLASS_SR, sr_name, &sr));
    if (size <= 0)
        return err_internal(c->arena, "the size of the new disk is unknown: the request says no Content-Length");
    const struct member fields[] = { member_of("name_label", value_string("import")), member_of("SR", value_string(sr->ref)),
                                     member_of("virtual_size", value_int(size)), member_of("type", value_string("user")) };
    struct value record = value_map(fields, ARRAY_LEN(fields));
    struct api_VDI_create_args args = { .record = &record };
    TRY(api_run(c, M_VDI_create, &args, &result));
    a->made = arena_strdup(c->arena, result.s);
    return NULL;
}

static const char *resident_of(struct api_call *c, const struct row *vdi)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vm = vbd != NULL && row_bool(vbd, F_VBD_currently_attached)
                                   ? db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM)) : NULL;
        if (vm != NULL && !ref_is_null(row_string(vm, F_VM_resident_on)))
            return row_string(vm, F_VM_resident_on);
    }
    return NULL;
}

/* Exports of what a guest writes, and imports under a guest, are refused as xapi does; NBD may read along. */
static struct error *mark(struct admitted *a, const char *kind)
{
    if (strcmp(kind, "nbd") == 0)
        return NULL;
    TRY(operation_begin(&a->c, CLASS_VDI, a->vdi, strcmp(kind, "export") == 0 ? "copy" : "force_unlock", true));
    a->marked = true;
    return NULL;
}

/* Where the disk is in use; else the host that was asked, if it can; else any that can. */
static struct error *place(struct admitted *a, const struct row *vdi, const char *acting, const char **host_r)
{
    *host_r = resident_of(&a->c, vdi);
    if (*host_r != NULL)
        return NULL;
    if (sr_plugged_on(&a->c, row_string(vdi, F_VDI_SR), acting)) {
        *host_r = acting;
        return NULL;
    }
    return sr_host(&a->c, row_string(vdi, F_VDI_SR), host_r);
}

static struct error *take_task(struct api_call *c, const char *task, const char *kind)
{
    if (strcmp(kind, "nbd") == 0)
        return NULL;
    c->is_async = true; /* the row stays, with how it ended */
    return task[0] != '\0' ? task_adopt(c, task) : task_begin(c, arena_printf(c->arena, "VDI %s", kind), NULL);
}

/* --- begin ---------------------------------------------------------------------------------------------------- */
static struct error *describe(struct admitted *a, const struct row *vdi, const struct value *args, struct value_dict *d)
{
    struct api_call *c = &a->c;
    const char *base = value_get_string(args, "base", "");
    const struct row *sr, *other;

    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &sr));
    value_dict_add(c->arena, d, "id", value_string(a->id));
    value_dict_add(c->arena, d, "sr", value_string(row_string(sr, F_SR_uuid)));
    value_dict_add(c->arena, d, "location", value_string(row_string(vdi, F_VDI_location)));
    value_dict_add(c->arena, d, "vdi_ref", value_string(vdi->ref));
    value_dict_add(c->arena, d, "vdi_uuid", value_string(row_string(vdi, F_VDI_uuid)));
    value_dict_add(c->arena, d, "size", value_int(row_int(vdi, F_VDI_virtual_size)));
    if (base[0] == '\0')
        return NULL;
    TRY(named(c, CLASS_VDI, base, &other));
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(other, F_VDI_SR), &sr));
    value_dict_add(c->arena, d, "base_sr", value_string(row_string(sr, F_SR_uuid)));
    value_dict_add(c->arena, d, "base_location", value_string(row_string(other, F_VDI_location)));
    value_dict_add(c->arena, d, "base_uuid", value_string(row_string(other, F_VDI_uuid)));
    return NULL;
}

static struct error *begin(struct admitted *a, const struct value *args, struct value_dict *d)
{
    struct api_call *c = &a->c;
    const char *kind = value_get_string(args, "kind", "nbd"), *name = value_get_string(args, "vdi", ""), *host;
    const struct row *vdi, *acting;

    TRY(enter(c, args));
    TRY(may(c, kind));
    a->admitted = true;
    acting = db_by_uuid(c->db, c->arena, &model_classes[CLASS_host], value_get_string(args, "host", ""));
    if (acting == NULL)
        return err_internal(c->arena, "a transfer for a host that the pool does not know");
    if (name[0] == '\0')
        TRY(make_vdi(a, value_get_string(args, "sr", ""), value_get_int(args, "size", 0)));
    TRY(named(c, CLASS_VDI, name[0] != '\0' ? name : a->made, &vdi));
    a->vdi = vdi->ref;
    TRY(place(a, vdi, acting->ref, &host));
    TRY(describe(a, vdi, args, d));
    if (strcmp(host, acting->ref) != 0) {
        const struct row *other;
        TRY(db_need(c->db, c->arena, CLASS_host, host, &other));
        value_dict_add(c->arena, d, "address", value_string(row_string(other, F_host_address)));
        return NULL;
    }
    TRY(take_task(c, value_get_string(args, "task", ""), kind)); /* first: marks are keyed by it, and waiting for them is cancelled by it */
    return mark(a, kind);
}

static void finish(struct admitted *a, const struct error *e, bool keep_made)
{
    struct api_call *c = &a->c;
    struct value result = a->made != NULL ? value_string(a->made) : value_void();

    if (a->marked)
        operation_end(c, CLASS_VDI, a->vdi, "transfer");
    if (a->made != NULL && !keep_made)
        api_discard_vdi(c, a->made, "the disk of a failed import");
    task_end(c, e, e == NULL ? &result : NULL);
    arena_free(a->arena);
    xfree(a);
}

static void reap(struct transfers *t, struct xapi *xapi)
{
    struct admitted *a;

    while ((a = list_take(t, NULL, clock_ms(xapi->clock) - SILENT_MS)) != NULL) {
        log_warn("transfer %s: its host has not told of it for long", a->id);
        finish(a, err_internal(a->arena, "the host that moved the data fell silent"), false);
    }
}

/* What is refused fails its client's task too: that is where clients look. */
static void fail_task(struct api_call *c, const char *task)
{
    struct error *e = task[0] != '\0' ? task_adopt(c, task) : NULL;

    c->is_async = true;
    if (e != NULL)
        log_info("task %s of a refused transfer: %s", task, error_text(c->arena, e));
}

struct error *transfer_verb_begin(struct call *call, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct admitted *a = xcalloc(1, sizeof *a);
    struct value_dict d = { 0 };

    a->arena = arena_new();
    api_call_init(&a->c, xapi, a->arena, "transfer");
    a->id = uuid_make(a->arena);
    a->heard_ms = clock_ms(xapi->clock);
    reap(xapi->transfers, xapi);
    struct value kept = value_dup(a->arena, args);
    struct error *e = begin(a, &kept, &d), *mine = error_dup(call->arena, e);
    if (e != NULL && a->admitted && a->c.task == NULL)
        fail_task(&a->c, value_get_string(&kept, "task", ""));
    struct value answer = value_dict_value(&d);
    *result_r = e == NULL ? value_dup(call->arena, &answer) : value_void();
    if (e != NULL || value_get(&answer, "address") != NULL) /* the other host asks again */
        finish(a, e, false);
    else
        list_add(xapi->transfers, a);
    return mine;
}

/* --- while it runs, and its end --------------------------------------------------------------------------------- */
struct error *transfer_verb_note(struct call *call, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *id = value_get_string(args, "id", "");
    LOCK_SCOPE(&xapi->transfers->lock);

    for (struct admitted *a = xapi->transfers->list; a != NULL; a = a->next)
        if (strcmp(a->id, id) == 0) {
            a->heard_ms = clock_ms(xapi->clock);
            call_progress(&a->c.call, value_get_float(args, "fraction", 0));
            return call_cancelled(&a->c.call) ? err_task_cancelled(call->arena, a->c.task != NULL ? a->c.task : REF_NULL) : NULL;
        }
    return err_internal(call->arena, "no transfer %s", id);
}

struct error *transfer_verb_end(struct call *call, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct admitted *a = list_take(xapi->transfers, value_get_string(args, "id", ""), 0);
    const struct value *words = value_get(args, "error");
    struct error *e = NULL;

    if (a == NULL)
        return NULL; /* told before */
    if (words != NULL && words->kind == VALUE_SET && words->len > 0) {
        const char **texts = arena_calloc(a->arena, words->len, sizeof *texts);
        for (unsigned i = 0; i < words->len; i++)
            texts[i] = words->items[i].kind == VALUE_STRING ? words->items[i].s : "";
        e = error_from_strings(a->arena, texts[0], words->len - 1, texts + 1);
    }
    if (e == NULL && value_get_bool(args, "written", false)) {
        struct api_VDI_update_args update = { .vdi = a->vdi };
        struct value ignored;
        struct error *s = api_run(&a->c, M_VDI_update, &update, &ignored);
        if (s != NULL)
            log_warn("sizes after an import: %s", error_text(a->arena, s));
    }
    finish(a, e, e == NULL);
    return NULL;
}

void transfers_free(struct xapi *xapi)
{
    struct transfers *t = xapi->transfers;
    struct admitted *a;

    if (t == NULL)
        return;
    transfer_watch_free(t->watch);
    while ((a = list_take(t, NULL, INT64_MAX)) != NULL)
        finish(a, err_internal(a->arena, "this host's daemon is stopping"), false);
    lock_release(&t->lock);
    xfree(t);
    xapi->transfers = NULL;
}
