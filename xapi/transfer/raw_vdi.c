/* GET /export_raw_vdi and PUT /import_raw_vdi: parameters, answers and the connection; the bytes are disk_stream's. */
#include <string.h>
#include <strings.h>

#include "gen/errors.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "xapi/core/http_caller.h"
#include "xapi/core/rpc_front.h"
#include "xapi/transfer/disk_stream.h"
#include "xapi/transfer/transfer.h"
#include "xapi/transfer/transfer_table.h"

LOG_MODULE(raw_vdi);

#define LINGER_MS 60000
#define LOOK_MS 500

struct job {
    struct xapi *xapi;
    struct http_exchange *x;
    struct call call;
    bool import, head_sent;
    const char *format;
    struct transfer t;
    struct byte_stream *stream;
    struct transfer_watched watched;
};

/* --- answers -------------------------------------------------------------------------------------------------- */
static void answer_error(struct job *j, const struct error *e)
{
    struct arena *a = j->call.arena;
    int status = http_caller_status(e);
    AUTO_TEXT body = TEXT_INIT;

    text_add(&body, e->code);
    for (unsigned i = 0; i < e->n_params; i++)
        text_printf(&body, "%s%s", i == 0 ? ": " : ", ", e->params[i]);
    const char *extra = arena_printf(a, "Content-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n%s", body.len,
                                     status == 401 ? "WWW-Authenticate: Basic realm=\"xapi\"\r\n" : "");
    if (http_write_head(j->stream, status, extra) == 0)
        (void)!bytes_write(j->stream, body.bytes, body.len);
}

static void answer_redirect(struct job *j)
{
    const struct http_request *r = http_request(j->x);
    const char *address = strchr(j->t.address, ':') != NULL ? arena_printf(j->call.arena, "[%s]", j->t.address) : j->t.address;
    int port = r->tls ? j->xapi->https_port : j->xapi->http_port, usual = r->tls ? 443 : 80;
    const char *colon = port != usual ? arena_printf(j->call.arena, ":%d", port) : "";
    const char *extra = arena_printf(j->call.arena, "Location: %s://%s%s%s\r\nContent-Length: 0\r\nConnection: close\r\n", r->tls ? "https" : "http",
                                     address, colon, r->target);
    (void)!http_write_head(j->stream, 302, extra);
}

/* --- the work -------------------------------------------------------------------------------------------------- */
/* The watch tells the coordinator. */
static struct error *note(void *ctx, double fraction)
{
    struct job *j = ctx;
    atomic_fetch_add(&j->watched.steps, 1);
    atomic_store(&j->watched.millionths, (unsigned)(fraction * 1e6));
    return NULL;
}

static int export_head(struct job *j, int64_t length)
{
    j->head_sent = true;
    return http_write_head(j->stream, 200,
                           arena_printf(j->call.arena,
                                        "Content-Type: application/octet-stream\r\nContent-Length: %lld\r\nConnection: close\r\n"
                                        "Content-Disposition: attachment; filename=\"%s.%s\"\r\n",
                                        (long long)length, j->t.vdi_uuid, j->format));
}

static struct error *export_vhd(struct job *j, struct disk_stream *s)
{
    struct disk_export *plan = NULL;
    int64_t length;
    struct error *e = vhd_export_plan(s, &plan, &length);

    if (e == NULL) {
        int rc = export_head(j, length);
        e = rc == 0 ? vhd_export_send(s, plan) : stream_failed(s, "export", rc);
    }
    vhd_export_free(plan);
    return e;
}

static struct error *export_any(struct job *j, struct disk_stream *s)
{
    s->stream = j->stream;
    if (strcmp(j->format, "vhd") == 0)
        return export_vhd(j, s);
    int rc = export_head(j, s->size);
    return rc == 0 ? raw_export(s) : stream_failed(s, "export", rc);
}

/* Do they want the answer before they send? Clients of HTTP/1.0 (the xe of old); the XenAPI library of npm, which first asks
 * with an empty body where to send a stream, and which says 1 PiB for a stream of unknown length, cut when it ends. Their
 * task says how it ended; the others hear it. */
static bool answered_first(const struct http_request *r)
{
    return r->minor == 0 || r->content_length == 0 || r->content_length >= 1ll << 50;
}

static struct error *import_any(struct job *j, struct disk_stream *s)
{
    if (answered_first(http_request(j->x))) {
        int rc = http_write_head(j->stream, 200, "Content-Type: application/octet-stream\r\nConnection: close\r\n");
        j->head_sent = true;
        if (rc != 0)
            return stream_failed(s, "import", rc);
    }
    j->stream = http_body_stream(j->x, j->stream);
    s->stream = j->stream;
    return strcmp(j->format, "vhd") == 0 ? vhd_import(s) : raw_import(s);
}

static struct error *connect_disk(struct job *j, const char *uri_text, struct nbd_client **client_r, int64_t *size_r)
{
    struct nbd_uri uri;
    struct nbd_export export;

    if (!nbd_uri_parse(j->call.arena, uri_text, &uri))
        return err_internal(j->call.arena, "no NBD address: %s", uri_text);
    int rc = nbd_client_open(&uri, cancel_fd(j->call.cancel), client_r, &export);
    if (rc != 0) {
        struct error *e = err_vdi_io_error(j->call.arena);
        e->cause = arena_printf(j->call.arena, "opening the disk: %s", strerror(-rc));
        return e;
    }
    *size_r = export.size;
    return NULL;
}

static struct error *move_bytes(struct job *j, struct disk_stream *s)
{
    const char *uri = NULL, *base_uri = NULL;

    TRY(transfer_open(&j->call, j->xapi, &j->t, j->import, &uri, &base_uri));
    TRY(connect_disk(j, uri, &s->disk, &s->size));
    if (base_uri != NULL)
        TRY(connect_disk(j, base_uri, &s->base, &s->base_size));
    return j->import ? import_any(j, s) : export_any(j, s);
}

static struct error *run(struct job *j)
{
    struct disk_stream s = { .call = &j->call, .vdi_uuid = j->t.vdi_uuid, .base_uuid = j->t.base_uuid, .note = note, .ctx = j,
                             .buffer = xcalloc(1, DISK_STREAM_CHUNK) };
    struct transfer_watch *watch = j->xapi->transfers->watch;

    j->watched = (struct transfer_watched){ .transfer = &j->t, .stream = j->stream, .cancel = j->call.cancel };
    transfer_watch_add(watch, j->xapi, &j->watched);
    struct error *e = move_bytes(j, &s), *ended = transfer_watch_remove(j->call.arena, watch, &j->watched);
    j->call.cancel = NULL; /* what follows is done in any case */
    nbd_client_close(s.disk);
    nbd_client_close(s.base);
    xfree(s.buffer);
    transfer_close(&j->call, j->xapi, &j->t);
    return e != NULL && ended != NULL ? ended : e;
}

/* --- the request ------------------------------------------------------------------------------------------------- */
static const char *parameter(struct job *j, const char *name)
{
    const struct http_request *r = http_request(j->x);
    const char *v = http_query(j->call.arena, r, name);
    return v != NULL ? v : http_cookie(j->call.arena, r, name);
}

static struct error *format_check(struct job *j)
{
    const char *format = parameter(j, "format");

    j->format = format != NULL && format[0] != '\0' ? format : "raw";
    if (strcmp(j->format, "raw") == 0 || strcmp(j->format, "vhd") == 0)
        return NULL;
    return err_value_not_supported(j->call.arena, "format", j->format, "raw and vhd are supported");
}

static struct error *admit(struct job *j)
{
    const struct http_request *r = http_request(j->x);
    struct transfer_request t = {
        .kind = j->import ? TRANSFER_IMPORT : TRANSFER_EXPORT,
        .trusted = rpc_trust(j->x, j->xapi) != RPC_STRANGER,
        .session = parameter(j, "session_id"),
        .vdi = parameter(j, "vdi"),
        .base = parameter(j, "base"),
        .task = parameter(j, "task_id"),
        .size = r->content_length,
    };

    if (t.vdi == NULL && j->import)
        t.sr = parameter(j, "sr_id") != NULL ? parameter(j, "sr_id") : parameter(j, "sr_uuid");
    (void)!http_basic_auth(j->call.arena, r, &t.user, &t.password);
    TRY(format_check(j));
    if (t.vdi == NULL && t.sr == NULL)
        return err_value_not_supported(j->call.arena, "vdi", "", "the request names no disk");
    return transfer_begin(&j->call, j->xapi, &t, &j->t);
}

/* Some clients lose what they have not read yet when the connection ends (npm's undici aborts). They count the bytes and
 * close themselves, as may be expected of HTTP/1.1 unless they say otherwise. */
static void await_client(struct job *j)
{
    const struct http_request *r = http_request(j->x);
    const char *connection = http_header(r, "connection");

    if (r->minor == 0 || (connection != NULL && strcasecmp(connection, "close") == 0))
        return;
    for (int waited = 0; waited < LINGER_MS && atomic_load(&j->xapi->serving); waited += LOOK_MS)
        if (bytes_wait(j->stream, -1, LOOK_MS) != 0)
            return;
}

static void serve(struct job *j)
{
    struct error *e = admit(j);

    if (e == NULL && j->t.address != NULL) {
        answer_redirect(j);
        return;
    }
    if (e == NULL) {
        e = run(j);
        transfer_end(&j->call, j->xapi, &j->t, e);
    }
    if (e != NULL)
        log_warn("%s of a disk: %s", j->import ? "import" : "export", error_text(j->call.arena, e));
    if (e != NULL && !j->head_sent)
        answer_error(j, e);
    else if (j->import && !j->head_sent)
        (void)!http_write_head(j->stream, 200, "Content-Length: 0\r\nConnection: close\r\n");
    if (e == NULL && !j->import)
        await_client(j);
}

static void taken_over(struct http_exchange *x, struct byte_stream *stream, void *ctx)
{
    struct job *j = ctx;

    j->stream = stream;
    struct call *before = call_enter(&j->call);
    struct cancel *cancel = j->call.cancel = cancel_new();
    serve(j);
    call_enter(before);
    bytes_close(j->stream);
    cancel_unref(cancel);
    arena_free(j->call.arena);
    xfree(j);
}

static void take_over(struct http_exchange *x, struct xapi *xapi, bool import)
{
    struct job *j = xcalloc(1, sizeof *j);

    j->xapi = xapi;
    j->x = x;
    j->import = import;
    j->call = (struct call){ .arena = arena_new(), .clock = xapi->clock, .id = import ? "import" : "export" };
    http_takeover(x, taken_over, j);
}

void transfer_http_export(struct http_exchange *x, void *xapi) { take_over(x, xapi, false); }
void transfer_http_import(struct http_exchange *x, void *xapi) { take_over(x, xapi, true); }
