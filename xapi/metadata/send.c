/* Metadata of a VM on its way to another pool. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/peer_http.h"

#define WAIT_S 30.0 /* of one look at the task's events */

static const char *path_of(struct api_call *c, const struct metadata_import *in, const char *task)
{
    AUTO_TEXT t = TEXT_INIT;
    const char *const *words[] = { &in->host, &in->incoming };
    static const char *const names[] = { "host", "incoming" };

    text_printf(&t, "/import_metadata?restore=%s&force=%s&dry_run=%s&live=%s&check_cpu=%s&export_snapshots=%s&task_id=%s", in->restore ? "true" : "false",
                in->force ? "true" : "false", in->dry_run ? "true" : "false", in->live ? "true" : "false", in->check_cpu ? "true" : "false",
                in->snapshots ? "true" : "false", peer_http_encode(c->arena, task));
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (*words[i] != NULL)
            text_printf(&t, "&%s=%s", names[i], peer_http_encode(c->arena, *words[i]));
    for (unsigned i = 0; in->vdi_map != NULL && i < in->vdi_map->len; i++)
        text_printf(&t, "&vdi:%s=%s", peer_http_encode(c->arena, in->vdi_map->members[i].name),
                    peer_http_encode(c->arena, in->vdi_map->members[i].value.s));
    return arena_strdup(c->arena, t.bytes);
}

/* --- the task there ----------------------------------------------------------------------------------------------- */
static struct error *error_of(struct api_call *c, const struct value *record, int http_status)
{
    const struct value *words = value_get(record, "error_info");

    if (words == NULL || words->kind != VALUE_SET || words->len == 0 || words->items[0].kind != VALUE_STRING)
        return err_internal(c->arena, "the other pool has not taken the VM's metadata: HTTP status %d", http_status);
    const char **texts = arena_calloc(c->arena, words->len, sizeof(*texts));
    for (unsigned i = 0; i < words->len; i++)
        texts[i] = words->items[i].kind == VALUE_STRING ? words->items[i].s : "";
    return error_from_strings(c->arena, texts[0], words->len - 1, texts + 1);
}

static struct error *result_of(struct api_call *c, const char *text, const char *const **vms_r, unsigned *n_r)
{
    struct value set;

    if (!xmlrpc_parse_fragment(c->arena, text, strlen(text), &set) || set.kind != VALUE_SET)
        return err_field_type_error(c->arena, text);
    const char **vms = arena_calloc(c->arena, set.len + 1u, sizeof(*vms));
    for (unsigned i = 0; i < set.len; i++) {
        if (set.items[i].kind != VALUE_STRING)
            return err_field_type_error(c->arena, text);
        vms[i] = set.items[i].s;
    }
    *vms_r = vms;
    *n_r = set.len;
    return NULL;
}

/* Returns once something has happened to the task, or after a while. */
static struct error *await_event(const struct peer_http *p, const char *task, const char **token)
{
    struct value class_name = value_string(arena_printf(p->c->arena, "Task/%s", task)), answer;
    const struct value params[] = { value_set(&class_name, 1), value_string(*token), value_float(WAIT_S) };

    TRY(peer_http_call(p, "event.from", params, ARRAY_LEN(params), &answer));
    *token = value_get_string(&answer, "token", "");
    return NULL;
}

/* Ours has ended by the time the PUT is answered; xapi's goes on. */
static struct error *outcome(const struct peer_http *p, const char *task, int http_status, const char *const **vms_r, unsigned *n_r)
{
    const struct value param = value_string(task);
    const char *token = "";
    struct value record;

    for (;;) {
        TRY(peer_http_call(p, "task.get_record", &param, 1, &record));
        const char *status = value_get_string(&record, "status", "");
        if (strcmp(status, "success") == 0)
            return result_of(p->c, value_get_string(&record, "result", ""), vms_r, n_r);
        if (strcmp(status, "cancelled") == 0)
            return err_task_cancelled(p->c->arena, task);
        if (strcmp(status, "failure") == 0 || http_status >= 300)
            return error_of(p->c, &record, http_status);
        TRY(await_event(p, task, &token));
    }
}

static struct error *send_under(const struct peer_http *p, const char *task, const struct text *tar, const struct metadata_import *in,
                                const char *const **vms_r, unsigned *n_r)
{
    int status = 0;

    TRY(peer_http_put(p, path_of(p->c, in, task), arena_printf(p->c->arena, "; task_id=%s", task), tar->bytes, tar->len, &status));
    return outcome(p, task, status, vms_r, n_r);
}

struct error *metadata_send(struct api_call *c, const struct http_target *master, const char *session, const struct metadata_export *out,
                            const struct metadata_import *in, const char *const **vms_r, unsigned *n_r)
{
    const struct peer_http p = { .c = c, .target = master, .session = session };
    const struct value params[] = { value_string("VM metadata import"), value_string("") };
    struct value task, ignored;
    AUTO_TEXT tar = TEXT_INIT;

    TRY(metadata_write(c, out, &tar));
    TRY(peer_http_call(&p, "task.create", params, ARRAY_LEN(params), &task));
    if (task.kind != VALUE_STRING || strncmp(task.s, "OpaqueRef:", 10) != 0 || strpbrk(task.s, " \r\n;&") != NULL)
        return err_internal(c->arena, "task.create of the other pool gave no task");
    struct error *e = send_under(&p, task.s, &tar, in, vms_r, n_r);
    (void)!peer_http_call(&p, "task.destroy", &task, 1, &ignored);
    return e;
}
