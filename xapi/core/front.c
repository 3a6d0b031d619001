#include "xapi/core/front.h"

#include <string.h>
#include <sys/stat.h>

#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/http/tls.h"
#include "xapi/core/event.h"
#include "xapi/core/rpc_front.h"
#include "xapi/core/version_text.h"

LOG_MODULE(front);

struct front {
    struct arena *arena;    /* routes */
    struct tls_context *tls;
    struct lock lock;       /* guards plain_id */
    int plain_id;           /* of the plain listener; -1: closed */
};

/* --- routes ------------------------------------------------------------------------------------------- */

static void reply_text(struct http_exchange *x, int status, const char *type, const char *extra, const char *s)
{
    struct text body = TEXT_INIT;

    text_add(&body, s);
    http_reply(x, status, type, extra, &body);
    text_release(&body);
}

static void page_root(struct http_exchange *x, void *xapi)
{
    reply_text(x, 200, "text/html",  NULL,
               "<!DOCTYPE html>\n<html><head><title>xapi</title></head><body><p>This is a Xen host. Its API is at "
               "<code>/</code> (XML-RPC) and <code>/jsonrpc</code> (JSON-RPC).</p></body></html>\n");
}

static void page_missing(struct http_exchange *x, void *xapi) { reply_text(x, 404, "text/plain", NULL, "not found\n"); }

static void preflight(struct http_exchange *x, void *xapi)
{
    reply_text(x, 200, "text/plain", "Access-Control-Allow-Methods: POST, GET, OPTIONS\r\n", "");
}

static const struct http_route *routes_make(struct arena *a, struct xapi *xapi, const struct http_route *more)
{
    const struct http_route routes[] = {
        { "POST", "/", HTTP_BODY_BUFFER, rpc_http_xml, xapi },
        { "POST", "/jsonrpc", HTTP_BODY_BUFFER, rpc_http_json, xapi },
        { "OPTIONS", "/", HTTP_BODY_BUFFER, preflight, xapi },
        { "GET", "/$", HTTP_BODY_BUFFER, page_root, xapi },
        { "GET", "/", HTTP_BODY_BUFFER, page_missing, xapi },
        { "PUT", "/", HTTP_BODY_TAKEOVER, page_missing, xapi },
    };
    unsigned n = 0;

    while (more != NULL && more[n].method != NULL)
        n++;
    struct http_route *all = arena_calloc(a, ARRAY_LEN(routes) + n + 1, sizeof(*all));
    memcpy(all, routes, sizeof(routes));
    if (n > 0)
        memcpy(all + ARRAY_LEN(routes), more, n * sizeof(*all));
    return all;
}

/* --- listeners ---------------------------------------------------------------------------------------------- */

static struct error *plain_open(struct arena *a, struct xapi *xapi)
{
    struct front *f = xapi->front;
    int port = xapi->http_port;

    if (port < 0 || f->plain_id >= 0)
        return NULL;
    TRY(http_listen_tcp(a, xapi->http, xapi->address, port, NULL, &f->plain_id, &xapi->http_port));
    log_info("plain HTTP on %s:%d", xapi->address, xapi->http_port);
    return NULL;
}

/* Open connections are cut as well: "HTTPS only" means it. */
static struct error *set_plain_http(struct arena *a, struct xapi *xapi, bool open)
{
    struct front *f = xapi->front;
    struct error *e = NULL;

    lock_take(&f->lock);
    if (open) {
        e = plain_open(a, xapi);
    } else if (f->plain_id >= 0) {
        http_unlisten(xapi->http, f->plain_id, true);
        f->plain_id = -1;
        log_info("plain HTTP closed");
    }
    lock_drop(&f->lock);
    return e;
}

static struct error *unix_open(struct arena *a, struct xapi *xapi)
{
    const char *path = config_string(xapi->config, "unix-socket");
    char *dir = arena_strdup(a, path), *slash = strrchr(dir, '/');
    int id;

    if (*path == '\0')
        return NULL;
    if (slash != NULL && slash != dir) {
        *slash = '\0';
        int rc = dir_create(dir, 0755);
        if (rc < 0)
            return err_internal(a, "%s: %s", dir, strerror(-rc));
    }
    return http_listen_unix(a, xapi->http, path, &id);
}

static struct error *listeners_open(struct arena *a, struct xapi *xapi)
{
    int id;

    TRY(http_listen_tcp(a, xapi->http, xapi->address, xapi->https_port, xapi->front->tls, &id, &xapi->https_port));
    log_info("HTTPS on %s:%d", xapi->address, xapi->https_port);
    if (!xapi->https_only)
        TRY(plain_open(a, xapi));
    return unix_open(a, xapi);
}

static struct error *server_open(struct arena *a, struct xapi *xapi, const struct http_route *more)
{
    const struct config *config = xapi->config;
    const struct http_server_options options = {
        .clock = xapi->clock,
        .routes = routes_make(xapi->front->arena, xapi, more),
        .threads = (unsigned)config_int(config, "io-threads"),
        .limits = {
            .header_bytes = (size_t)config_int(config, "header-bytes"),
            .body_bytes = (size_t)config_int(config, "request-bytes"),
            .connections = (unsigned)config_int(config, "connections"),
            .per_address = (unsigned)config_int(config, "connections-per-address"),
        },
        .server_header = "xapi/" XAPI_VERSION,
        .rpc_headers = FRONT_RPC_HEADERS,
    };

    TRY(tls_server_context(a, arena_printf(a, "%s/xapi.pem", xapi->dir), &xapi->front->tls));
    TRY(http_server_new(a, &options, &xapi->http));
    events_attach(xapi->events, xapi->http);
    TRY(listeners_open(a, xapi));
    http_server_start(xapi->http);
    return NULL;
}

struct error *front_start(struct arena *a, struct xapi *xapi, const struct http_route *more)
{
    struct front *f = xcalloc(1, sizeof(*f));

    f->arena = arena_new();
    f->plain_id = -1;
    lock_init(&f->lock, LOCK_POOL);
    xapi->front = f;
    xapi->set_plain_http = set_plain_http;
    return server_open(a, xapi, more);
}

void front_stop(struct xapi *xapi)
{
    struct front *f = xapi->front;

    if (f == NULL)
        return;
    events_attach(xapi->events, NULL);
    if (xapi->http != NULL)
        http_server_free(xapi->http);
    xapi->http = NULL;
    xapi->set_plain_http = NULL;
    xapi->front = NULL;
    tls_context_free(f->tls);
    lock_release(&f->lock);
    arena_free(f->arena);
    xfree(f);
}
