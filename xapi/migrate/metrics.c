#include "xapi/migrate/metrics.h"

#include <string.h>

#include "rpc/base/work.h"
#include "xapi/core/http_caller.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/rbac.h"
#include "xapi/core/rpc_front.h"
#include "xapi/core/session.h"
#include "xapi/migrate/ledger_totals.h"
#include "xapi/migrate/queue.h"

#define CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define READERS (ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN | ROLE_VM_ADMIN | ROLE_VM_OPERATOR | ROLE_READ_ONLY)
#define ROWS_MAX 100000

/* --- the text ------------------------------------------------------------------------------------------------------ */
static void head(struct text *t, const char *name, const char *type, const char *help)
{
    text_printf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* label: "what=\"blackout\"," or "". */
static void write_histogram(struct text *t, const char *name, const char *label, const struct histogram *h)
{
    int64_t n = 0;

    for (unsigned i = 0; i < h->n_bounds; i++)
        text_printf(t, "%s_bucket{%sle=\"%g\"} %lld\n", name, label, h->bounds[i], (long long)(n += h->counts[i]));
    n += h->counts[h->n_bounds];
    text_printf(t, "%s_bucket{%sle=\"+Inf\"} %lld\n", name, label, (long long)n);
    int len = label[0] != '\0' ? (int)strlen(label) - 1 : 0; /* without its comma */
    const char *open = len > 0 ? "{" : "", *close = len > 0 ? "}" : "";
    text_printf(t, "%s_sum%s%.*s%s %.9g\n%s_count%s%.*s%s %lld\n", name, open, len, label, close, h->sum, name, open, len, label, close, (long long)n);
}

static void write_totals(struct text *t, const struct ledger_totals *sums)
{
    static const char *const sides[TOTALS_SIDES] = { "out", "in" };

    head(t, "xapi_migrations_total", "counter", "Migrations that ended, by kind, outcome, and whether they left this pool's hosts or came from another pool.");
    for (unsigned s = 0; s < TOTALS_SIDES; s++)
        for (unsigned k = 0; k < TOTALS_KINDS; k++)
            for (unsigned o = 0; o < TOTALS_OUTCOMES; o++)
                text_printf(t, "xapi_migrations_total{kind=\"%s\",outcome=\"%s\",direction=\"%s\"} %lld\n", totals_kinds[k], totals_outcomes[o], sides[s],
                            (long long)sums->ended[s][k][o]);
    head(t, "xapi_migration_bytes_total", "counter", "Bytes that migrations sent.");
    text_printf(t, "xapi_migration_bytes_total %.17g\n", sums->bytes);
    head(t, "xapi_migration_duration_seconds", "histogram", "How long migrations took that succeeded.");
    write_histogram(t, "xapi_migration_duration_seconds", "", &sums->duration);
    head(t, "xapi_migration_blackout_seconds", "histogram", "How long guests (or disks) stood still.");
    write_histogram(t, "xapi_migration_blackout_seconds", "", &sums->blackout);
    head(t, "xapi_migration_prediction_error_ratio", "histogram", "How far predictions were from what was measured, in parts of it.");
    write_histogram(t, "xapi_migration_prediction_error_ratio", "what=\"blackout\",", &sums->blackout_error);
    write_histogram(t, "xapi_migration_prediction_error_ratio", "what=\"duration\",", &sums->duration_error);
}

static struct error *write_active(struct arena *a, struct xapi *xapi, struct text *t)
{
    static const char *const stages[] = { "queued", "open", "send", "commit", "clean", "undo" };
    const struct ledger_query active = { .active = true, .limit = ROWS_MAX };
    unsigned counts[ARRAY_LEN(stages)] = { 0 }, n;
    struct ledger_row *rows;

    TRY(ledger_list(a, xapi->ledger, &active, &rows, &n));
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < ARRAY_LEN(stages); k++)
            counts[k] += strcmp(rows[i].stage, stages[k]) == 0;
    head(t, "xapi_migrations_active", "gauge", "Migrations under way, by phase.");
    for (unsigned k = 0; k < ARRAY_LEN(stages); k++)
        text_printf(t, "xapi_migrations_active{phase=\"%s\"} %u\n", stages[k], counts[k]);
    head(t, "xapi_migration_queue_length", "gauge", "Storage migrations that wait for their turn.");
    text_printf(t, "xapi_migration_queue_length %u\n", queue_state(xapi).waiting);
    return NULL;
}

struct error *metrics_write(struct arena *a, struct xapi *xapi, struct text *t)
{
    struct ledger_totals sums;

    TRY(ledger_totals(a, xapi->ledger, &sums));
    write_totals(t, &sums);
    return write_active(a, xapi, t);
}

/* --- who may --------------------------------------------------------------------------------------------------------- */
static struct error *admit(struct api_call *c, struct http_exchange *x)
{
    const struct http_request *r = http_request(x);
    const char *session = http_query(c->arena, r, "session_id"), *user, *password;

    if (rpc_trust(x, c->xapi) != RPC_STRANGER)
        return NULL;
    if (session == NULL)
        session = http_cookie(c->arena, r, "session_id");
    if (session != NULL && session[0] != '\0')
        TRY(session_enter(c, session));
    else if (http_basic_auth(c->arena, r, &user, &password))
        TRY(http_caller_password(c, user, password));
    else
        return err_session_invalid(c->arena, "");
    return c->superuser ? NULL : rbac_need(c, READERS, "http/get_metrics");
}

/* --- the answer -------------------------------------------------------------------------------------------------------- */
static void redirect(struct http_exchange *x, struct xapi *xapi)
{
    const struct http_request *r = http_request(x);
    const char *address = xapi->coordinator_address, *v6 = strchr(address, ':');
    struct text empty = TEXT_INIT;
    const char *where = arena_printf(http_arena(x), "Location: %s://%s%s%s:%d%s\r\n", r->tls ? "https" : "http", v6 != NULL ? "[" : "", address,
                                     v6 != NULL ? "]" : "", r->tls ? xapi->https_port : xapi->http_port, r->target);
    http_reply(x, 302, "text/plain", where, &empty);
}

static void refuse(struct http_exchange *x, const struct error *e)
{
    bool denied = error_is(e, "RBAC_PERMISSION_DENIED") || error_is(e, "SESSION_AUTHORIZATION_FAILED");
    bool unknown = error_is(e, "SESSION_INVALID") || error_is(e, "SESSION_AUTHENTICATION_FAILED");
    struct text body = TEXT_INIT;

    text_printf(&body, "%s\n", e->code);
    http_reply(x, denied ? 403 : unknown ? 401 : 500, "text/plain", unknown ? "WWW-Authenticate: Basic realm=\"xapi\"\r\n" : NULL, &body);
}

struct job { struct http_exchange *x; struct xapi *xapi; };

static void answer(void *arg)
{
    const struct job job = *(struct job *)arg;
    struct text body = TEXT_INIT;
    struct api_call c;

    api_call_init(&c, job.xapi, http_arena(job.x), "GET /metrics");
    struct call *outer = call_enter(&c.call);
    struct error *e = admit(&c, job.x);
    if (e == NULL)
        e = metrics_write(c.arena, job.xapi, &body);
    call_enter(outer);
    if (e != NULL) {
        text_release(&body);
        refuse(job.x, e);
        return;
    }
    http_reply(job.x, 200, CONTENT_TYPE, NULL, &body);
}

void metrics_http(struct http_exchange *x, void *ctx)
{
    struct xapi *xapi = ctx;
    struct job *job = arena_alloc(http_arena(x), sizeof(*job));
    struct text busy = TEXT_INIT;

    if (!xapi->is_coordinator) {
        redirect(x, xapi);
        return;
    }
    *job = (struct job){ x, xapi };
    if (work_pool_post(xapi->login_workers, answer, job)) /* it may have to check a password */
        return;
    text_add(&busy, "too many requests\n");
    http_reply(x, 503, "text/plain", NULL, &busy);
}
