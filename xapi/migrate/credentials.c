#include "xapi/migrate/credentials.h"

#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/rbac.h"
#include "xapi/core/session.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/migrations.h"
#include "xapi/pool/agent_wire.h"

LOG_MODULE(credentials);

#define KNOWN 256u
#define KNOWN_MS 60000
#define CHECK_MS 20000
#define DAY_MS (24ll * 3600 * 1000)
#define MIGRATION_ROLES (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN)

/* What was good a moment ago: a ring. */
struct known { char *word; int64_t until_ms; };
struct credentials { struct lock lock; struct known known[KNOWN]; unsigned next; };

struct credentials *credentials_new(void)
{
    struct credentials *t = xcalloc(1, sizeof *t);

    lock_init(&t->lock, LOCK_SINKS);
    return t;
}

void credentials_free(struct credentials *t)
{
    if (t == NULL)
        return;
    for (unsigned i = 0; i < KNOWN; i++)
        xfree(t->known[i].word);
    lock_release(&t->lock);
    xfree(t);
}

/* All of them are compared, so that the time tells nothing. */
static bool known(struct xapi *xapi, const char *word)
{
    struct credentials *t = xapi->credentials;
    int64_t now = clock_ms(xapi->clock);
    bool found = false;

    if (t == NULL)
        return false;
    LOCK_SCOPE(&t->lock);
    for (unsigned i = 0; i < KNOWN; i++)
        found |= t->known[i].word != NULL && t->known[i].until_ms > now && secret_equal(t->known[i].word, word);
    return found;
}

static void remember(struct xapi *xapi, const char *word)
{
    struct credentials *t = xapi->credentials;
    char *copy = xstrdup(word);

    if (t != NULL) {
        LOCK_SCOPE(&t->lock);
        struct known *k = &t->known[t->next++ % KNOWN];
        char *old = k->word;
        *k = (struct known){ copy, clock_ms(xapi->clock) + KNOWN_MS };
        copy = old;
    }
    xfree(copy);
}

/* --- who knows a key --------------------------------------------------------------------------------------------- */
static bool journal_knows(struct arena *a, struct xapi *xapi, const char *key)
{
    struct journal_entry *entries;
    unsigned n;

    if (xapi->migrations == NULL || journal_list(a, xapi->migrations->journal, &entries, &n) != NULL)
        return false;
    for (unsigned i = 0; i < n; i++)
        if (secret_equal(value_get_string(&entries[i].facts, "key", ""), key))
            return true;
    return false;
}

static struct error *ledger_knows(struct arena *a, struct xapi *xapi, const char *key, bool *known_r)
{
    struct ledger_row row = { 0 };

    TRY(ledger_by_key(a, xapi->ledger, key, &row, known_r));
    if (*known_r && row.ended_ms != 0)
        *known_r = row.ended_ms >= clock_wall(xapi->clock) * 1000 - DAY_MS;
    return NULL;
}

/* --- the coordinator's word --------------------------------------------------------------------------------------- */
static struct error *session_check(struct call *call, struct xapi *xapi, const char *session)
{
    struct api_call c;

    api_call_init(&c, xapi, call->arena, "migration");
    TRY(session_enter(&c, session));
    return rbac_need(&c, MIGRATION_ROLES, "http/post_services_xenops");
}

static struct error *key_check(struct call *c, struct xapi *xapi, const char *key)
{
    bool found = false;

    TRY(ledger_knows(c->arena, xapi, key, &found));
    return found ? NULL : err_session_authentication_failed(c->arena);
}

struct error *credentials_verb_check(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *session = value_get_string(args, "session", "");

    *result_r = value_void();
    return session[0] != '\0' ? session_check(c, xapi, session) : key_check(c, xapi, value_get_string(args, "key", ""));
}

static struct error *ask_coordinator(struct call *c, struct xapi *xapi, const char *kind, const char *text)
{
    const struct member members[] = { member_of(kind, value_string(text)) };
    struct value args = value_map(members, 1), ignored;

    return agent_call_coordinator(c, xapi, "coordinator.migration_key", &args, &ignored);
}

/* On the coordinator sessions are looked up in memory, each time. */
static struct error *session_admitted(struct call *c, struct xapi *xapi, const char *session)
{
    const char *word = arena_printf(c->arena, "session %s", session);

    if (xapi->is_coordinator)
        return session_check(c, xapi, session);
    if (known(xapi, word))
        return NULL;
    TRY(ask_coordinator(c, xapi, "session", session));
    remember(xapi, word);
    return NULL;
}

static struct error *key_admitted(struct call *c, struct xapi *xapi, const char *key)
{
    const char *word = arena_printf(c->arena, "key %s", key);

    if (known(xapi, word))
        return NULL;
    if (!journal_knows(c->arena, xapi, key))
        TRY(xapi->is_coordinator ? key_check(c, xapi, key) : ask_coordinator(c, xapi, "key", key));
    remember(xapi, word);
    return NULL;
}

/* --- checking ------------------------------------------------------------------------------------------------------ */
static const char *offered(struct arena *a, const struct http_request *http, const char *name)
{
    const char *text = http_cookie(a, http, name);

    if (text == NULL)
        text = http_query(a, http, name);
    return text != NULL && text[0] != '\0' ? text : NULL;
}

void credential_read(struct arena *a, const struct http_request *http, struct credential *o)
{
    *o = (struct credential){ offered(a, http, "pool_secret"), offered(a, http, "session_id"), offered(a, http, "migration_key") };
}

char *credential_cookie(struct arena *a, const char *key)
{
    return arena_printf(a, "migration_key=%s", key);
}

static bool is_pools(struct xapi *xapi, const struct credential *o)
{
    return o->pool_secret != NULL && xapi->pool_secret != NULL && secret_equal(o->pool_secret, xapi->pool_secret);
}

struct error *credential_check(struct call *c, struct xapi *xapi, const struct credential *o)
{
    struct error *e = NULL;

    if (is_pools(xapi, o))
        return NULL;
    if (o->key != NULL && uuid_valid(o->key)) {
        e = key_admitted(c, xapi, o->key);
        if (e == NULL)
            return NULL;
    }
    if (o->session != NULL)
        return session_admitted(c, xapi, o->session);
    return e != NULL ? e : err_session_authentication_failed(c->arena);
}

/* What needs no asking: never blocks. */
static bool good_already(struct call *c, struct xapi *xapi, const struct credential *o)
{
    if (is_pools(xapi, o) || (o->key != NULL && known(xapi, arena_printf(c->arena, "key %s", o->key))))
        return true;
    if (o->session == NULL)
        return false;
    return xapi->is_coordinator ? session_check(c, xapi, o->session) == NULL : known(xapi, arena_printf(c->arena, "session %s", o->session));
}

/* --- /services/xenops ---------------------------------------------------------------------------------------------- */
struct post { struct xapi *xapi; struct http_exchange *exchange; };

static void post_serve(void *arg)
{
    struct post *p = arg;
    struct xapi *xapi = p->xapi;
    struct http_exchange *exchange = p->exchange;
    AUTO_ARENA arena = arena_new();
    struct call c = { .arena = arena, .clock = xapi->clock, .deadline_ms = clock_ms(xapi->clock) + CHECK_MS, .id = "xenops" };
    struct call *outer = call_enter(&c);
    struct credential offer;

    xfree(p);
    credential_read(arena, http_request(exchange), &offer);
    struct error *e = credential_check(&c, xapi, &offer);
    if (e != NULL) {
        log_warn_rl("refused a call of another pool from %s: %s", http_request(exchange)->peer, e->code);
        agent_reply_error(exchange, e);
    } else
        agent_serve(exchange, xapi, true);
    (void)call_enter(outer);
}

static void reply(struct http_exchange *exchange, int status, const char *line)
{
    struct text body = TEXT_INIT;

    text_add(&body, line);
    http_reply(exchange, status, "text/plain", NULL, &body);
}

void credentials_http_xenops(struct http_exchange *exchange, void *ctx)
{
    struct xapi *xapi = ctx;
    const struct http_request *http = http_request(exchange);

    if (strcmp(http->method, "POST") != 0) {
        reply(exchange, 200, "Hosts of other pools talk about migrations here.\n");
        return;
    }
    if (!http->tls && !http->unix_socket && config_bool(xapi->config, "migration-https-only")) {
        reply(exchange, 403, "Migrations are talked about over TLS.\n");
        return;
    }
    struct call c = { .arena = http_arena(exchange), .clock = xapi->clock, .id = "xenops" };
    struct credential offer;
    credential_read(c.arena, http, &offer);
    if (good_already(&c, xapi, &offer)) {
        agent_serve(exchange, xapi, true);
        return;
    }
    struct post *p = xcalloc(1, sizeof *p);
    *p = (struct post){ xapi, exchange };
    if (work_pool_post(xapi->login_workers, post_serve, p)) /* strangers keep nobody waiting but each other */
        return;
    xfree(p);
    reply(exchange, 503, "");
}
