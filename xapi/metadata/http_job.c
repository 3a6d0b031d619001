#include "xapi/metadata/http_job.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "rpc/http/parse.h"
#include "xapi/core/http_caller.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/rbac.h"
#include "xapi/core/rpc_front.h"
#include "xapi/core/session.h"
#include "xapi/core/task.h"
#include "xapi/core/xapi.h"

LOG_MODULE(metadata);

#define IDLE_MS 60000   /* a client that sends nothing */
#define LOOK_MS 500
#define LINGER_MS 2000
#define LINGER_MAX ((size_t)256 << 20) /* read and dropped so that the client sees its answer */

/* --- parameters --------------------------------------------------------------------------------------------------- */
const char *http_job_parameter(struct http_job *j, const char *name)
{
    const struct http_request *r = http_request(j->x);
    const char *v = http_query(j->c.arena, r, name);
    return v != NULL ? v : http_cookie(j->c.arena, r, name);
}

bool http_job_flag(struct http_job *j, const char *name, bool fallback)
{
    const char *v = http_query(j->c.arena, http_request(j->x), name);
    return v == NULL ? fallback : strcasecmp(v, "true") == 0 || strcmp(v, "1") == 0;
}

struct value http_job_parameters(struct http_job *j, const char *prefix)
{
    struct arena *a = j->c.arena;
    struct value_dict d = { 0 };
    size_t n = strlen(prefix);

    for (const char *p = http_request(j->x)->query; *p != '\0'; p += *p == '&') {
        size_t len = strcspn(p, "&"), key_len = strcspn(p, "=&");
        const char *key = percent_decode(a, p, key_len, false, true);
        const char *value = key_len < len ? percent_decode(a, p + key_len + 1, len - key_len - 1, false, true) : NULL;
        if (key != NULL && value != NULL && strncmp(key, prefix, n) == 0)
            value_dict_add(a, &d, key + n, value_string(value));
        p += len;
    }
    return value_dict_value(&d);
}

struct error *http_job_object(struct http_job *j, unsigned class_id, const struct row **row_r)
{
    struct api_call *c = &j->c;
    const char *ref = http_job_parameter(j, "ref"), *uuid = http_job_parameter(j, "uuid");

    if (ref != NULL)
        return db_need(c->db, c->arena, class_id, ref, row_r);
    if (uuid == NULL)
        return err_internal(c->arena, "the request names no %s", model_classes[class_id].name);
    *row_r = db_by_uuid(c->db, c->arena, &model_classes[class_id], uuid);
    return *row_r != NULL ? NULL : err_uuid_invalid(c->arena, model_classes[class_id].name, uuid);
}

/* --- who ------------------------------------------------------------------------------------------------------------ */
static struct error *enter(struct http_job *j)
{
    const char *session = http_job_parameter(j, "session_id"), *user, *password;

    if (session != NULL && session[0] != '\0')
        return session_enter(&j->c, session);
    if (rpc_trust(j->x, j->xapi) != RPC_STRANGER) {
        http_caller_root(&j->c);
        return NULL;
    }
    if (http_basic_auth(j->c.arena, http_request(j->x), &user, &password))
        return http_caller_password(&j->c, user, password);
    return err_session_invalid(j->c.arena, "");
}

static struct error *admit(struct http_job *j)
{
    struct error *e = enter(j);

    j->known = e == NULL;
    if (j->kind->open)
        return NULL;
    TRY(e);
    if (j->c.db != j->xapi->db && strcmp(http_request(j->x)->method, "PUT") == 0)
        return err_operation_not_allowed(j->c.arena, "this session looks at a database that is not the pool's");
    return rbac_need(&j->c, j->kind->roles, j->kind->permission);
}

static struct error *take_task(struct http_job *j)
{
    const char *task = http_job_parameter(j, "task_id");

    j->c.is_async = true; /* the row stays, with how it ended */
    if (task != NULL && task[0] != '\0')
        return task_adopt(&j->c, task);
    return j->kind->task_label != NULL ? task_begin(&j->c, j->kind->task_label, http_job_parameter(j, "subtask_of")) : NULL;
}

/* --- the body --------------------------------------------------------------------------------------------------------- */
/* Also those who say an absurd length for a stream of unknown length (the XenAPI library of npm) and cut it when it ends. */
static bool answered_first(const struct http_request *r) { return r->minor == 0 || r->content_length >= 1ll << 50; }

struct error *http_job_body(struct http_job *j)
{
    const struct http_request *r = http_request(j->x);

    if (r->minor > 0 && r->content_length < 0 && http_header(r, "transfer-encoding") == NULL)
        return err_import_error(j->c.arena, "the request has no body");
    if (answered_first(r)) {
        const char *extra = j->c.task != NULL ? arena_printf(j->c.arena, "task-id: %s\r\nConnection: close\r\n", j->c.task) : "Connection: close\r\n";
        j->head_sent = true;
        if (http_write_head(j->stream, 200, extra) != 0)
            return err_import_error(j->c.arena, "the connection broke");
    }
    j->left = answered_first(r) ? -1 : r->content_length;
    j->stream = http_body_stream(j->x, j->stream);
    return NULL;
}

/* Waits for bytes. */
static struct error *await(struct http_job *j)
{
    for (int waited = 0; waited < IDLE_MS; waited += LOOK_MS) {
        int rc = bytes_wait(j->stream, -1, LOOK_MS);
        if (call_cancelled(&j->c.call))
            return err_task_cancelled(j->c.arena, j->c.task != NULL ? j->c.task : REF_NULL);
        if (rc > 0)
            return NULL;
        if (rc < 0 || !atomic_load(&j->xapi->serving))
            return err_import_error(j->c.arena, "the connection broke");
    }
    return err_import_error(j->c.arena, "nothing more came for a minute");
}

static struct error *read_some(struct http_job *j, void *at, size_t len, size_t *n_r)
{
    *n_r = 0;
    if (j->left == 0)
        return NULL;
    TRY(await(j));
    ssize_t n = bytes_read(j->stream, at, len);
    *n_r = n > 0 ? (size_t)n : 0;
    if (j->left > 0)
        j->left -= (int64_t)*n_r;
    return n >= 0 || n == -EPIPE ? NULL : err_import_error(j->c.arena, "the connection broke");
}

struct error *http_job_read(struct http_job *j, void *at, size_t len, bool *ended_r)
{
    size_t n = 0;

    *ended_r = false;
    for (size_t done = 0; done < len && !*ended_r; done += n) {
        TRY(read_some(j, (char *)at + done, len - done, &n));
        *ended_r = n == 0;
    }
    return NULL;
}

struct error *http_job_read_all(struct http_job *j, size_t max, struct text *t)
{
    const size_t piece = 65536;
    size_t n = 1;

    if (http_request(j->x)->content_length > (int64_t)max)
        return err_import_error(j->c.arena, "the file is too large");
    while (n > 0) {
        text_grow(t, piece);
        TRY(read_some(j, t->bytes + t->len, piece, &n));
        t->len += n;
        t->bytes[t->len] = '\0';
        if (t->len > max)
            return err_import_error(j->c.arena, "the file is too large");
    }
    return NULL;
}

void http_job_skip(struct http_job *j, size_t max, int moment_ms)
{
    char dropped[16384];

    for (size_t n = 0; n < max && j->left != 0;) {
        ssize_t got = bytes_wait(j->stream, -1, moment_ms) > 0 ? bytes_read(j->stream, dropped, sizeof(dropped)) : 0;
        if (got <= 0)
            return;
        n += (size_t)got;
        if (j->left > 0)
            j->left -= got;
    }
}

/* --- the answer -------------------------------------------------------------------------------------------------------- */
static const char *task_line(const struct http_job *j)
{
    return j->c.task != NULL ? arena_printf(j->c.arena, "task-id: %s\r\n", j->c.task) : "";
}

static void answer_error(struct http_job *j, const struct error *e)
{
    int status = http_caller_status(e);
    AUTO_TEXT body = TEXT_INIT;

    text_add(&body, e->code);
    for (unsigned i = 0; i < e->n_params; i++)
        text_printf(&body, "%s%s", i == 0 ? ": " : ", ", e->params[i]);
    const char *extra = arena_printf(j->c.arena, "Content-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n%s%s", body.len, task_line(j),
                                     status == 401 ? "WWW-Authenticate: Basic realm=\"xapi\"\r\n" : "");
    if (http_write_head(j->stream, status, extra) == 0)
        (void)!bytes_write(j->stream, body.bytes, body.len);
}

static void answer(struct http_job *j)
{
    const char *type = j->type != NULL ? arena_printf(j->c.arena, "Content-Type: %s\r\n", j->type) : "";
    const char *name = j->file_name != NULL ? arena_printf(j->c.arena, "Content-Disposition: attachment; filename=\"%s\"\r\n", j->file_name) : "";

    if (j->head_sent)
        return;
    const char *extra = arena_printf(j->c.arena, "%s%s%sContent-Length: %zu\r\nConnection: close\r\n", type, name, task_line(j), j->body.len);
    if (http_write_head(j->stream, 200, extra) == 0 && j->body.len > 0)
        (void)!bytes_write(j->stream, j->body.bytes, j->body.len);
}

/* To the coordinator; a live import is meant for this host. */
static void answer_redirect(struct http_job *j)
{
    const struct http_request *r = http_request(j->x);
    struct xapi *xapi = j->xapi;
    const char *address = xapi->coordinator_address != NULL ? xapi->coordinator_address : "";
    int port = r->tls ? xapi->https_port : xapi->http_port, usual = r->tls ? 443 : 80;
    const char *colon = port != usual ? arena_printf(j->c.arena, ":%d", port) : "";
    const char *host = http_query(j->c.arena, r, "live") != NULL && http_query(j->c.arena, r, "host") == NULL
                           ? arena_printf(j->c.arena, "&host=%s", xapi->host_uuid) : "";

    if (strchr(address, ':') != NULL)
        address = arena_printf(j->c.arena, "[%s]", address);
    const char *extra = arena_printf(j->c.arena, "Location: %s://%s%s%s%s\r\nContent-Length: 0\r\nConnection: close\r\n", r->tls ? "https" : "http",
                                     address, colon, r->target, host);
    (void)!http_write_head(j->stream, 302, extra);
}

/* --- the whole ----------------------------------------------------------------------------------------------------------- */
static struct error *work(struct http_job *j)
{
    struct error *e = admit(j);

    if (e != NULL && !j->known)
        return e;
    TRY(take_task(j));
    return e != NULL ? e : j->kind->run(j); /* who may not hears it by the task as well */
}

static void serve(struct http_job *j)
{
    if (!j->xapi->is_coordinator) {
        answer_redirect(j);
        return;
    }
    struct error *e = work(j);
    if (e != NULL)
        log_warn("%s: %s", j->kind->permission, error_text(j->c.arena, e));
    task_end(&j->c, e, e == NULL ? &j->result : NULL);
    if (e == NULL)
        answer(j);
    else if (!j->head_sent)
        answer_error(j, e);
}

static void taken_over(struct http_exchange *x, struct byte_stream *stream, void *ctx)
{
    struct http_job *j = ctx;
    struct call *before = call_enter(&j->c.call);

    j->stream = stream;
    serve(j);
    call_enter(before);
    if (strcmp(http_request(x)->method, "PUT") == 0 && bytes_finish(j->stream) == 0)
        http_job_skip(j, LINGER_MAX, LINGER_MS);
    bytes_close(j->stream);
    text_release(&j->body);
    arena_free(j->c.arena);
    xfree(j);
}

void http_job_start(struct http_exchange *x, struct xapi *xapi, const struct http_job_kind *kind)
{
    struct http_job *j = xcalloc(1, sizeof(*j));

    j->kind = kind;
    j->left = -1;
    j->xapi = xapi;
    j->x = x;
    api_call_init(&j->c, xapi, arena_new(), kind->permission);
    http_takeover(x, taken_over, j);
}
