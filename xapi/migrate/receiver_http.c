/* PUT /services/xenops/migrate/vm/… and /mem/…: who may come in, and the thread of each. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "xapi/core/session.h"
#include "xapi/migrate/credentials.h"
#include "xapi/migrate/receiver.h"
#include "xapi/migrate/wire.h"

LOG_MODULE(receiver);

struct put {
    struct xapi *xapi;
    struct incoming *in;
    struct put_words words;
    struct migration_worker worker;
    struct arena *arena; /* owns what the credential points to */
    struct credential credential;
};

static bool of_our_pool(const struct put *put)
{
    const char *secret = put->credential.pool_secret;

    return secret != NULL && secret_equal(secret, put->xapi->pool_secret);
}

/* The pool's secret, the key this migration was prepared with, or what else may (that can mean asking the coordinator). */
static struct error *admit(struct call *c, const struct put *put)
{
    if (of_our_pool(put))
        return NULL;
    if (put->in->key[0] != '\0' && put->credential.key != NULL && secret_equal(put->credential.key, put->in->key))
        return NULL;
    return credential_check(c, put->xapi, &put->credential);
}

static void converse(struct call *c, struct put *put, struct byte_stream *stream)
{
    struct migrations *m = put->xapi->migrations;
    struct error *e = admit(c, put);

    if (e != NULL) {
        log_warn("migration %s: a connection was refused: %s", put->in->id, error_text(c->arena, e));
        if (handshake_send(stream, e) != 0)
            log_debug("migration %s: the peer did not hear why", put->in->id);
    } else if (put->words.mem) {
        receive_mem(c, m, put->in, &put->words, stream);
    } else {
        receive_vm(c, m, put->in, &put->words, stream);
    }
}

static void put_free(struct put *put)
{
    arena_free(put->arena);
    xfree(put);
}

static void put_run(struct http_exchange *x, struct byte_stream *stream, void *ctx)
{
    struct put *put = ctx;
    struct migrations *m = put->xapi->migrations;
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = put->xapi->clock, .id = arena_printf(a, "M:%.8s", put->in->id) };
    struct call *outer = call_enter(&c);

    migrations_stream(m, &put->worker.vm, stream);
    converse(&c, put, stream);
    call_enter(outer);
    migrations_stream(m, &put->worker.vm, NULL);
    bytes_close(stream);
    incoming_unref(m, put->in);
    migrations_leave(m, &put->worker);
    put_free(put);
}

static void refuse_put(struct http_exchange *x, int status)
{
    struct text body = TEXT_INIT;
    http_reply(x, status, "text/plain", NULL, &body);
}

static unsigned number(struct arena *a, const struct http_request *req, const char *key, unsigned fallback)
{
    const char *word = http_cookie(a, req, key);
    int64_t n;

    if (word == NULL)
        return fallback;
    return text_to_int(word, &n) && n >= 0 && n <= FAN_MAX ? (unsigned)n : FAN_MAX + 1;
}

static bool flag(struct arena *a, const struct http_request *req, const char *key)
{
    const char *word = http_cookie(a, req, key);

    return word != NULL && strcmp(word, "1") == 0;
}

/* False where it makes no sense. */
static bool words_read(struct arena *a, const struct http_request *req, struct put_words *w)
{
    w->fan = flag(a, req, "fan");
    w->confirm = flag(a, req, "confirm");
    w->alive = flag(a, req, "alive");
    w->report = flag(a, req, "report");
    w->stream = number(a, req, "stream", 0);
    w->streams = number(a, req, "streams", 1);
    return w->streams >= 1 && w->streams <= FAN_MAX && w->stream < w->streams;
}

void migrate_http_put(struct http_exchange *x, void *ctx)
{
    struct xapi *xapi = ctx;
    const struct http_request *req = http_request(x);
    static const char vm_path[] = "/services/xenops/migrate/vm/", mem_path[] = "/services/xenops/migrate/mem/";
    bool mem = strncmp(req->path, mem_path, sizeof mem_path - 1) == 0;
    if (!mem && strncmp(req->path, vm_path, sizeof vm_path - 1) != 0) {
        refuse_put(x, 404);
        return;
    }
    struct put *put = xcalloc(1, sizeof *put);
    *put = (struct put){ .xapi = xapi, .words = { .mem = mem }, .arena = arena_new() };
    const char *id = http_cookie(put->arena, req, "migration_id");
    credential_read(put->arena, req, &put->credential);
    int status = 404;
    if (!of_our_pool(put) && put->credential.session == NULL && put->credential.key == NULL)
        status = 401;
    else if (!words_read(put->arena, req, &put->words))
        status = 400;
    else if (id != NULL && migrations_enter(xapi->migrations, &put->worker)) {
        put->in = incoming_ref(xapi->migrations, id);
        if (put->in != NULL) {
            http_takeover(x, put_run, put);
            return;
        }
        migrations_leave(xapi->migrations, &put->worker);
    }
    put_free(put);
    refuse_put(x, status);
}
