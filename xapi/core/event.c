#include "xapi/core/event.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xapi/core/event_batch.h"
#include "xapi/core/event_internal.h"
#include "xapi/core/event_legacy.h"
#include "xapi/core/session.h"
#include "xapi/core/xapi.h"

#define DAY_S 86400.0
#define TOKEN_MAX 64

/* --- waking ------------------------------------------------------------------------------------------- */

static void wake_locked(struct events *e, const uint64_t mask[2])
{
    if (e->http != NULL)
        http_server_wake(e->http, mask);
}

/* At once when the last answer is long enough ago; else the pacer does it when that is so. */
void events_wake(struct events *e, const struct class_set *classes)
{
    int64_t delay = e->delay_ms, now = clock_ms(e->xapi->clock);

    lock_take(&e->lock);
    if (now - atomic_load(&e->answered_ms) >= delay) {
        wake_locked(e, classes->bits);
    } else {
        e->pending.bits[0] |= classes->bits[0];
        e->pending.bits[1] |= classes->bits[1];
        cond_signal(&e->moved);
    }
    lock_drop(&e->lock);
}

static bool anything_pending(const struct events *e) { return (e->pending.bits[0] | e->pending.bits[1]) != 0; }

static void *pacer_main(void *arg)
{
    struct events *e = arg;

    lock_take(&e->lock);
    while (!e->stopping) {
        if (!anything_pending(e)) {
            cond_wait(&e->moved, &e->lock);
            continue;
        }
        int64_t wait = atomic_load(&e->answered_ms) + e->delay_ms - clock_ms(e->xapi->clock);
        if (wait > 0) {
            cond_wait_ms(&e->moved, &e->lock, wait);
            continue;
        }
        struct class_set pending = e->pending;
        e->pending = (struct class_set){ { 0 } };
        wake_locked(e, pending.bits);
    }
    lock_drop(&e->lock);
    return NULL;
}

static void changed(void *ctx, uint64_t generation, const struct class_set *classes, const struct commit_change *changes, unsigned n)
{
    struct events *e = ctx;

    event_log_append(e->log, generation, changes, n);
    events_wake(e, classes);
}

struct events *events_new(struct xapi *xapi)
{
    struct events *e = xcalloc(1, sizeof(*e));

    e->xapi = xapi;
    e->delay_ms = config_int(xapi->config, "event-from-delay-ms");
    atomic_init(&e->answered_ms, INT64_MIN / 2);
    lock_init(&e->lock, LOCK_EVENT);
    lock_init(&e->cache_lock, LOCK_EVENT);
    cond_init(&e->moved);
    e->log = event_log_new(xapi);
    change_log_watch(xapi->db, changed, e);
    e->pacer = thread_start("event-pacer", pacer_main, e);
    return e;
}

void events_attach(struct events *e, struct http_server *http)
{
    lock_take(&e->lock);
    e->http = http;
    lock_drop(&e->lock);
}

void events_free(struct events *e)
{
    if (e == NULL)
        return;
    change_log_unwatch(e->xapi->db, changed, e);
    lock_take(&e->lock);
    e->stopping = true;
    cond_signal(&e->moved);
    lock_drop(&e->lock);
    pthread_join(e->pacer, NULL);
    event_cache_release(e);
    event_log_free(e->log);
    cond_release(&e->moved);
    lock_release(&e->cache_lock);
    lock_release(&e->lock);
    xfree(e);
}

void events_session_gone(struct events *e, const char *session_ref)
{
    static const uint64_t everybody[2] = { ~0ull, ~0ull };

    if (e == NULL)
        return;
    event_log_unregister(e->log, session_ref, NULL);
    lock_take(&e->lock);
    wake_locked(e, everybody);
    lock_drop(&e->lock);
}

/* --- asking ----------------------------------------------------------------------------------------------- */

char *event_token(struct arena *a, uint64_t generation, uint64_t message_generation)
{
    return arena_printf(a, "%020" PRIu64 ",%020" PRIu64, generation, message_generation);
}

/* Two decimal numbers and a comma; "" is the beginning. */
static bool token_parse(const char *token, uint64_t *since, uint64_t *since_messages)
{
    char *end;

    *since = *since_messages = 0;
    if (*token == '\0')
        return true;
    if (strlen(token) > TOKEN_MAX || strspn(token, "0123456789,") != strlen(token) || *token == ',')
        return false;
    errno = 0;
    unsigned long long first = strtoull(token, &end, 10);
    if (*end != ',' || end[1] == '\0' || end[1] == ',')
        return false;
    unsigned long long second = strtoull(end + 1, &end, 10);
    if (*end != '\0' || errno != 0 || first > INT64_MAX || second > INT64_MAX)
        return false;
    *since = first;
    *since_messages = second;
    return true;
}

struct error *event_query_make(struct api_call *c, const struct value *classes, const char *token, double timeout,
                               struct event_query *q)
{
    *q = (struct event_query){ 0 };
    if (!token_parse(token, &q->since, &q->since_messages))
        return err_event_from_token_parse_failure(c->arena, token);
    /* A token from a future that a restored database does not know: everything is news. */
    uint64_t now = db_generation(c->db);
    if (q->since > now || q->since_messages > now)
        q->since = q->since_messages = 0;
    if (isnan(timeout) || timeout < 0 || timeout > DAY_S)
        timeout = DAY_S;
    q->deadline_ms = clock_ms(c->call.clock) + (int64_t)(timeout * 1000);
    q->filter = event_filter_new(classes);
    return NULL;
}

struct value event_batch(struct api_call *c, struct event_query *q, unsigned *n_r)
{
    struct event_batch b;

    event_batch_collect(c->db, c->arena, q->filter, q->since, q->since_messages, &b);
    if (b.n == 0)
        q->since = q->since_messages = b.generation;
    *n_r = b.n;
    return event_batch_value(c->db, c->arena, &b);
}

static struct error *wait_on_thread(struct api_call *c, struct event_query *q, struct value *result_r)
{
    struct session *s = c->session != NULL ? session_find(c->xapi->sessions, c->session) : NULL;
    unsigned n = 0;

    session_unref(s); /* the call's arena holds it, too */
    for (;;) {
        *result_r = event_batch(c, q, &n);
        int64_t left = q->deadline_ms - clock_ms(c->call.clock);
        if (n > 0 || left <= 0)
            return NULL;
        if (s != NULL && atomic_load(&s->gone))
            return err_session_invalid(c->arena, c->session);
        change_log_wait(c->db, &c->call, q->since, &q->filter->touched, left < 200 ? left : 200);
    }
}

struct error *event_from_wait(struct api_call *c, struct event_query *q, struct value *result_r)
{
    struct error *e = wait_on_thread(c, q, result_r);

    event_filter_unref(q->filter);
    return e;
}

bool event_must_pace(struct events *e, const struct event_query *q)
{
    return q->since != 0 && clock_ms(e->xapi->clock) - atomic_load(&e->answered_ms) < e->delay_ms;
}
