/* The acting host's side: asking the coordinator, attaching and letting go. */
#include "xapi/transfer/transfer.h"

#include <string.h>

#include "rpc/base/log.h"
#include "storage/sr.h"
#include "xapi/transfer/transfer_table.h"

LOG_MODULE(transfer);

static struct error *ask(struct call *c, struct xapi *xapi, const char *verb, agent_verb_fn *here, const struct value *args, struct value *result_r)
{
    return xapi->is_coordinator ? here(c, xapi, args, result_r) : agent_call_coordinator(c, xapi, verb, args, result_r);
}

static const char *text_or_null(struct call *c, const struct value *v, const char *name)
{
    const char *s = value_get_string(v, name, "");
    return s[0] != '\0' ? arena_strdup(c->arena, s) : NULL;
}

static const char *or_empty(const char *s) { return s != NULL ? s : ""; }

struct error *transfer_begin(struct call *c, struct xapi *xapi, const struct transfer_request *r, struct transfer *t)
{
    const struct member args[] = {
        member_of("kind", value_string(transfer_kind_name(r->kind))), member_of("host", value_string(xapi->host_uuid)),
        member_of("trusted", value_bool(r->trusted)),                 member_of("session", value_string(or_empty(r->session))),
        member_of("user", value_string(or_empty(r->user))),           member_of("password", value_string(or_empty(r->password))),
        member_of("vdi", value_string(or_empty(r->vdi))),             member_of("sr", value_string(or_empty(r->sr))),
        member_of("size", value_int(r->size)),                        member_of("base", value_string(or_empty(r->base))),
        member_of("task", value_string(or_empty(r->task))),
    };
    struct value v = value_map(args, ARRAY_LEN(args)), answer;

    TRY(ask(c, xapi, "coordinator.transfer_begin", transfer_verb_begin, &v, &answer));
    *t = (struct transfer){
        .id = text_or_null(c, &answer, "id"),
        .address = text_or_null(c, &answer, "address"),
        .sr = text_or_null(c, &answer, "sr"),
        .location = text_or_null(c, &answer, "location"),
        .vdi_ref = text_or_null(c, &answer, "vdi_ref"),
        .vdi_uuid = text_or_null(c, &answer, "vdi_uuid"),
        .size = value_get_int(&answer, "size", 0),
        .base_sr = text_or_null(c, &answer, "base_sr"),
        .base_location = text_or_null(c, &answer, "base_location"),
        .base_uuid = text_or_null(c, &answer, "base_uuid"),
    };
    if (t->id == NULL || t->sr == NULL || t->location == NULL)
        return err_internal(c->arena, "the coordinator's answer about a transfer is incomplete");
    t->user = arena_printf(c->arena, "%s-%s", transfer_kind_name(r->kind), t->id);
    return NULL;
}

struct error *transfer_note(struct call *c, struct xapi *xapi, const struct transfer *t, double fraction)
{
    const struct member args[] = { member_of("id", value_string(t->id)), member_of("fraction", value_float(fraction)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    return ask(c, xapi, "coordinator.transfer_note", transfer_verb_note, &v, &ignored);
}

void transfer_end(struct call *c, struct xapi *xapi, const struct transfer *t, const struct error *e)
{
    struct value_list words = { 0 };

    if (e != NULL) {
        value_list_add(c->arena, &words, value_string(e->code));
        for (unsigned i = 0; i < e->n_params; i++)
            value_list_add(c->arena, &words, value_string(e->params[i]));
    }
    const struct member args[] = { member_of("id", value_string(t->id)), member_of("error", value_list_value(&words)),
                                   member_of("written", value_bool(strncmp(t->user, "import-", 7) == 0)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *told = ask(c, xapi, "coordinator.transfer_end", transfer_verb_end, &v, &ignored);
    if (told != NULL)
        log_warn("the end of transfer %s could not be told: %s", t->id, error_text(c->arena, told));
}

/* --- the disk ------------------------------------------------------------------------------------------------ */
static struct error *open_one(struct call *c, struct xapi *xapi, const char *sr, const char *location, const char *user, bool write, const char **uri_r)
{
    const struct vdi_use use = { .user = user, .read_only = !write };
    struct vdi_where where;

    TRY(vdi_attach(c, xapi->storage, sr, location, &use, &where));
    TRY(vdi_activate(c, xapi->storage, sr, location));
    *uri_r = where.path;
    return NULL;
}

struct error *transfer_open(struct call *c, struct xapi *xapi, const struct transfer *t, bool write, const char **uri_r, const char **base_uri_r)
{
    TRY(open_one(c, xapi, t->sr, t->location, t->user, write, uri_r));
    if (t->base_sr != NULL)
        TRY(open_one(c, xapi, t->base_sr, t->base_location, t->user, false, base_uri_r));
    return NULL;
}

static void close_one(struct call *c, struct xapi *xapi, const char *sr, const char *location, const char *user)
{
    struct error *e = vdi_detach(c, xapi->storage, sr, location, user);
    if (e != NULL)
        log_warn("disk %s stays attached after a transfer: %s", location, error_text(c->arena, e));
}

void transfer_close(struct call *c, struct xapi *xapi, const struct transfer *t)
{
    close_one(c, xapi, t->sr, t->location, t->user);
    if (t->base_sr != NULL)
        close_one(c, xapi, t->base_sr, t->base_location, t->user);
}

static bool is_ours(const char *user)
{
    return strncmp(user, "export-", 7) == 0 || strncmp(user, "import-", 7) == 0 || strncmp(user, "nbd-", 4) == 0;
}

static void sweep_tap(struct call *c, struct xapi *xapi, const char *key, const struct value *users)
{
    const char *slash = strchr(key, '/');

    for (unsigned i = 0; slash != NULL && users != NULL && users->kind == VALUE_SET && i < users->len; i++)
        if (is_ours(users->items[i].s))
            close_one(c, xapi, arena_strndup(c->arena, key, (size_t)(slash - key)), slash + 1, users->items[i].s);
}

void transfers_sweep(struct call *c, struct xapi *xapi)
{
    struct value taps = storage_taps(xapi->storage, c->arena);

    for (unsigned i = 0; i < taps.len; i++)
        sweep_tap(c, xapi, value_get_string(&taps.items[i], "key", ""), value_get(&taps.items[i], "users"));
}
