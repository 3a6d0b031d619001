/* The answering half of path_probe.h: PUT /services/xenops/migrate/sample/<bytes>. */
#include <errno.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xapi/migrate/credentials.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/path_probe.h"
#include "xapi/migrate/path_watch.h"
#include "xapi/migrate/preflight.h"
#include "xapi/migrate/wire.h"

LOG_MODULE(preflight);

#define SILENCE_MS 20000
#define MOST_MS 120000

/* What may still be asked for. */
struct allowance { int64_t there, back; };

static int swallow(struct allowance *left, struct byte_stream *stream, uint64_t n, uint8_t *buffer)
{
    if (n > PATH_CHUNK_MAX || (left->there -= (int64_t)n) < 0)
        return -EPROTO;
    return bytes_read_all(stream, buffer, n);
}

static int produce(struct allowance *left, struct byte_stream *stream, uint64_t n, const uint8_t *buffer)
{
    if (n > PATH_CHUNK_MAX || (left->back -= (int64_t)n) < 0)
        return -EPROTO;
    return bytes_write(stream, buffer, n);
}

static int answer(struct byte_stream *stream, uint64_t nonce)
{
    uint8_t bytes[PATH_ANSWER];
    path_put64(bytes, nonce);
    path_put64(bytes + 8, (uint64_t)path_wall_us());
    return bytes_write(stream, bytes, sizeof bytes);
}

static int serve_one(struct allowance *left, struct byte_stream *stream, uint8_t *buffer)
{
    uint8_t head[PATH_REQUEST];
    int r = bytes_read_all(stream, head, sizeof head);
    if (r != 0)
        return r;
    uint64_t n = path_get64(head + 1);
    switch (head[0]) {
    case 'E':
        return answer(stream, n);
    case 'U':
        return swallow(left, stream, n, buffer);
    case 'D':
        return produce(left, stream, n, buffer);
    default:
        return -EPROTO;
    }
}

int path_serve(struct byte_stream *stream, int64_t bytes)
{
    struct allowance left = { bytes, bytes };
    uint8_t *buffer = xcalloc(1, PATH_CHUNK_MAX);
    int r = 0;
    while (r == 0)
        r = serve_one(&left, stream, buffer);
    xfree(buffer);
    return r;
}

struct sample { struct xapi *xapi; int64_t bytes; struct migration_worker worker; };

static void sample_run(struct http_exchange *x, struct byte_stream *stream, void *ctx)
{
    struct sample *s = ctx;
    struct migrations *m = s->xapi->migrations;
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = s->xapi->clock, .id = "sample" };
    struct call *outer = call_enter(&c);
    struct credential credential;
    credential_read(a, http_request(x), &credential);
    migrations_stream(m, &s->worker.vm, stream);
    struct path_watch *watch = path_watch_start(&c, stream, SILENCE_MS, MOST_MS);
    struct error *e = credential_check(&c, s->xapi, &credential);
    if (e != NULL)
        log_warn_rl("a sample for %s is refused: %s", http_request(x)->peer, error_text(a, e));
    int r = handshake_send(stream, e);
    if (r == 0 && e == NULL)
        r = path_serve(stream, s->bytes);
    if (r == -EPROTO)
        log_warn_rl("%s asked for a sample in a way that is none", http_request(x)->peer);
    (void)path_watch_stop(watch);
    migrations_stream(m, &s->worker.vm, NULL);
    bytes_close(stream);
    (void)call_enter(outer);
    migrations_leave(m, &s->worker);
    xfree(s);
}

static void refuse(struct http_exchange *x, int status)
{
    struct text body = TEXT_INIT;
    http_reply(x, status, "text/plain", NULL, &body);
}

void preflight_http_sample(struct http_exchange *x, void *ctx)
{
    struct xapi *xapi = ctx;
    const struct http_request *http = http_request(x);
    int64_t bytes;
    if (strncmp(http->path, PATH_SAMPLE_ROUTE, strlen(PATH_SAMPLE_ROUTE)) != 0 || !text_to_int(http->path + strlen(PATH_SAMPLE_ROUTE), &bytes) ||
        bytes < 0 || bytes > PATH_SAMPLE_MAX) {
        refuse(x, 404);
        return;
    }
    if (!http->tls && !http->unix_socket && config_bool(xapi->config, "migration-https-only")) {
        refuse(x, 403);
        return;
    }
    struct sample *s = xcalloc(1, sizeof *s);
    *s = (struct sample){ .xapi = xapi, .bytes = bytes };
    if (migrations_enter(xapi->migrations, &s->worker)) {
        http_takeover(x, sample_run, s);
        return;
    }
    xfree(s);
    refuse(x, 503);
}
