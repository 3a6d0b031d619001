#include "xapi/migrate/peer_pool.h"

#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "rpc/wire/envelope.h"
#include "xapi/core/agent.h"

LOG_MODULE(peer_pool);

#define ANSWER_MAX ((size_t)256 << 20)
#define PARAMS_MAX 8u
#define ONE_CALL_MS 120000 /* a call there that scans or plugs an SR may take its time */
#define TOUCH_MS 300000
#define CLASSES 8u

/* Touches the session; all of it is its own. */
struct keeper {
    struct arena *arena;
    struct http_client *client;
    const struct clock *clock;
    struct http_target master;
    const char *session;
    struct lock lock;
    struct cond wake;
    struct cancel *cancel;
    bool stop;
    pthread_t thread;
};

struct peer_pool {
    struct arena *arena; /* that it lives in */
    struct http_client *client;
    struct http_target master;
    const char *session;
    struct { const char *name; struct value records; } classes[CLASSES];
    unsigned n_classes;
    struct keeper *keeper;
};

/* --- the token --------------------------------------------------------------------------------------------------- */
static const char address_bytes[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:%";

bool migration_url_read(struct arena *a, const char *url, bool *tls_r, const char **address_r, int *port_r)
{
    bool tls = strncmp(url, "https://", 8) == 0;
    const char *at = tls ? url + 8 : url + 7, *end, *port;
    int64_t n = 0;

    if (!tls && strncmp(url, "http://", 7) != 0)
        return false;
    if (*at == '[') {
        end = strchr(++at, ']');
        port = end == NULL ? "" : end + 1;
    } else
        port = end = at + strcspn(at, ":/?#");
    if (end == NULL || end == at || strspn(at, address_bytes) < (size_t)(end - at))
        return false;
    size_t len = port[0] == ':' ? strcspn(port, "/?#") : 0;
    if (len > 0 && (!text_to_int(arena_strndup(a, port + 1, len - 1), &n) || n < 1 || n > UINT16_MAX))
        return false;
    if (port[len] != '\0' && strchr("/?#", port[len]) == NULL)
        return false;
    *tls_r = tls;
    *address_r = arena_strndup(a, at, (size_t)(end - at));
    *port_r = (int)n;
    return true;
}

char *migration_url(struct arena *a, const char *address, int port, const char *path)
{
    bool v6 = strchr(address, ':') != NULL;
    const char *tail = port != 0 && port != 80 ? arena_printf(a, ":%d", port) : "";

    return arena_printf(a, "http://%s%s%s%s%s", v6 ? "[" : "", address, v6 ? "]" : "", tail, path);
}

static bool url_target(struct api_call *c, const char *url, struct http_target *target)
{
    const struct xapi *x = c->xapi;
    int plain = x->http_port > 0 ? x->http_port : 80, port;
    bool tls;

    if (!migration_url_read(c->arena, url, &tls, &target->address, &port))
        return false;
    if (!tls && !config_bool(x->config, "migration-https-only")) {
        target->port = port != 0 ? port : plain;
        return true;
    }
    target->tls = true;
    target->port = port == 0 || (!tls && (port == plain || port == 80)) ? x->https_port : port;
    return true;
}

static struct error *unusable(struct api_call *c, const char *key)
{
    return err_internal(c->arena, "the migration's token (dest) has no usable '%s'", key);
}

struct error *migration_token_read(struct api_call *c, const struct value *map, struct migration_token *t)
{
    static const char *const keys[] = { "host", "session_id", "master", "xenops", "SM" };
    struct http_target sm = { 0 };

    *t = (struct migration_token){ 0 };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (value_get_string(map, keys[i], "")[0] == '\0')
            return unusable(c, keys[i]);
    t->host = value_get_string(map, "host", "");
    t->session = value_get_string(map, "session_id", "");
    if (t->session[strspn(t->session, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:-_.")] != '\0')
        return unusable(c, "session_id"); /* it goes into a header */
    if (!url_target(c, value_get_string(map, "master", ""), &t->master))
        return unusable(c, "master");
    if (!url_target(c, value_get_string(map, "xenops", ""), &t->host_target))
        return unusable(c, "xenops");
    if (!url_target(c, value_get_string(map, "SM", ""), &sm))
        return unusable(c, "SM");
    t->master.cookie = t->host_target.cookie = arena_printf(c->arena, "session_id=%s", t->session);
    return NULL;
}

/* --- calls --------------------------------------------------------------------------------------------------------- */
struct error *peer_pool_open(struct api_call *c, const struct migration_token *t, struct peer_pool **p_r)
{
    struct peer_pool *p = arena_calloc(c->arena, 1, sizeof *p);

    p->arena = c->arena;
    p->client = c->xapi->client;
    p->master = t->master;
    p->session = t->session;
    *p_r = p;
    return NULL;
}

static struct error *post(struct call *call, struct http_client *client, const struct http_target *master, const char *method,
                          const struct value *params, unsigned n, struct value *result_r)
{
    struct call sub = *call;
    struct http_target target = *master;
    AUTO_TEXT body = TEXT_INIT;
    struct http_answer answer;

    sub.deadline_ms = clock_ms(call->clock) + ONE_CALL_MS;
    if (call->deadline_ms != 0 && call->deadline_ms < sub.deadline_ms)
        sub.deadline_ms = call->deadline_ms;
    target.cookie = NULL;
    wire_write_call(&body, WIRE_JSON2, method, params, n);
    int rc = http_client_post(&sub, client, &target, "/jsonrpc", wire_content_type(WIRE_JSON2), NULL, body.bytes, body.len, ANSWER_MAX, &answer);
    if (rc == 0 && answer.status == 200)
        return wire_parse_answer(call->arena, WIRE_JSON2, answer.body, answer.body_len, result_r);
    struct error *e = err_cannot_contact_host(call->arena, target.address);
    e->cause = rc != 0 ? arena_printf(call->arena, "%s: %s", method, strerror(-rc)) : arena_printf(call->arena, "%s: HTTP status %d", method, answer.status);
    return e;
}

struct error *peer_pool_call(struct api_call *c, struct peer_pool *p, const char *method, const struct value *params, unsigned n,
                             struct value *result_r)
{
    struct value all[PARAMS_MAX + 1] = { value_string(p->session) };

    *result_r = value_void();
    if (n > PARAMS_MAX)
        return err_internal(c->arena, "%s with too many parameters", method);
    for (unsigned i = 0; i < n; i++)
        all[i + 1] = params[i];
    struct error *e = post(&c->call, p->client, &p->master, method, all, n + 1, result_r);
    if (error_is(e, "CANNOT_CONTACT_HOST") && call_cancelled(&c->call))
        return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
    return e;
}

static struct error *found(struct error *e, bool *found_r)
{
    *found_r = e == NULL;
    return error_is(e, "HANDLE_INVALID") || error_is(e, "UUID_INVALID") ? NULL : e;
}

struct error *peer_pool_record(struct api_call *c, struct peer_pool *p, const char *class_name, const char *ref, struct value *record_r, bool *found_r)
{
    struct value param = value_string(ref);

    TRY(found(peer_pool_call(c, p, arena_printf(c->arena, "%s.get_record", class_name), &param, 1, record_r), found_r));
    if (*found_r && record_r->kind != VALUE_MAP)
        return err_internal(c->arena, "the other pool's %s.get_record gave no record", class_name);
    return NULL;
}

struct error *peer_pool_by_uuid(struct api_call *c, struct peer_pool *p, const char *class_name, const char *uuid, const char **ref_r, bool *found_r)
{
    struct value param = value_string(uuid), result;

    TRY(found(peer_pool_call(c, p, arena_printf(c->arena, "%s.get_by_uuid", class_name), &param, 1, &result), found_r));
    if (*found_r && result.kind != VALUE_STRING)
        return err_internal(c->arena, "the other pool's %s.get_by_uuid gave no reference", class_name);
    *ref_r = *found_r ? result.s : NULL;
    return NULL;
}

struct error *peer_pool_records(struct api_call *c, struct peer_pool *p, const char *class_name, const struct value **records_r)
{
    for (unsigned i = 0; i < p->n_classes; i++)
        if (strcmp(p->classes[i].name, class_name) == 0) {
            *records_r = &p->classes[i].records;
            return NULL;
        }
    if (p->n_classes == CLASSES)
        return err_internal(c->arena, "too many classes of another pool are read");
    struct value records;
    TRY(peer_pool_call(c, p, arena_printf(c->arena, "%s.get_all_records", class_name), NULL, 0, &records));
    if (records.kind != VALUE_MAP)
        return err_internal(c->arena, "the other pool's %s.get_all_records gave no records", class_name);
    p->classes[p->n_classes].name = class_name;
    p->classes[p->n_classes].records = records;
    *records_r = &p->classes[p->n_classes++].records;
    return NULL;
}

struct error *peer_pool_verb(struct api_call *c, struct peer_pool *p, const char *verb, const struct value *args, struct value *result_r)
{
    return agent_call_at(&c->call, c->xapi, &p->master, verb, args, result_r);
}

const struct http_target *peer_pool_master(const struct peer_pool *p) { return &p->master; }
const char *peer_pool_session(const struct peer_pool *p) { return p->session; }

/* --- keeping the session alive ---------------------------------------------------------------------------------------- */
static void touch(struct keeper *k)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = k->clock, .cancel = k->cancel, .id = "peer" };
    struct value params[] = { value_string(k->session), value_string(k->session) }, ignored;
    struct error *e = post(&c, k->client, &k->master, "session.get_uuid", params, ARRAY_LEN(params), &ignored);

    if (e != NULL)
        log_debug("touching the session of another pool: %s", error_text(a, e));
}

static void *keeper_main(void *arg)
{
    struct keeper *k = arg;

    for (;;) {
        int64_t until = clock_ms(k->clock) + TOUCH_MS;
        lock_take(&k->lock);
        while (!k->stop && clock_ms(k->clock) < until)
            (void)cond_wait_ms(&k->wake, &k->lock, TOUCH_MS);
        bool stop = k->stop;
        lock_drop(&k->lock);
        if (stop)
            return NULL;
        touch(k);
    }
}

static void release_hook(void *p)
{
    peer_pool_release(p);
}

void peer_pool_keep(struct peer_pool *p, struct xapi *xapi)
{
    if (p->keeper != NULL)
        return;
    struct keeper *k = p->keeper = xcalloc(1, sizeof *k);
    k->arena = arena_new();
    k->client = xapi->client;
    k->clock = xapi->clock;
    k->master = p->master;
    k->master.address = arena_strdup(k->arena, p->master.address);
    k->master.cookie = NULL;
    k->session = arena_strdup(k->arena, p->session);
    k->cancel = cancel_new();
    lock_init(&k->lock, LOCK_LEAF);
    cond_init(&k->wake);
    k->thread = thread_start("peer-keep", keeper_main, k);
    arena_on_free(p->arena, release_hook, p);
}

void peer_pool_release(struct peer_pool *p)
{
    if (p == NULL || p->keeper == NULL)
        return;
    struct keeper *k = p->keeper;
    p->keeper = NULL;
    cancel_raise(k->cancel);
    lock_take(&k->lock);
    k->stop = true;
    cond_broadcast(&k->wake);
    lock_drop(&k->lock);
    pthread_join(k->thread, NULL);
    cancel_unref(k->cancel);
    cond_release(&k->wake);
    lock_release(&k->lock);
    arena_free(k->arena);
    xfree(k);
}
