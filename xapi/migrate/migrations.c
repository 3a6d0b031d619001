#include "xapi/migrate/migrations.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/agent.h"
#include "xapi/migrate/decide.h"
#include "xapi/migrate/receiver.h"

LOG_MODULE(migrate);

#define TEMP_PREFIX 24
#define ASK_AGAIN_MS 500
#define KEPT_S (30 * 86400) /* finished records that nobody settles */

void migration_temp_uuid(const char *vm_uuid, enum journal_side side, char *out)
{
    memcpy(out, vm_uuid, TEMP_PREFIX);
    memcpy(out + TEMP_PREFIX, side == JOURNAL_SOURCE ? "000000000000" : "000000000001", UUID_LEN - TEMP_PREFIX + 1);
}

bool migrations_enter(struct migrations *m, struct migration_worker *worker)
{
    LOCK_SCOPE(&m->lock);
    if (m->stopping)
        return false;
    worker->next = m->workers;
    m->workers = worker;
    return true;
}

void migrations_leave(struct migrations *m, struct migration_worker *gone)
{
    LOCK_SCOPE(&m->lock);
    for (struct migration_worker **p = &m->workers; *p != NULL; p = &(*p)->next)
        if (*p == gone) {
            *p = gone->next;
            break;
        }
    cond_broadcast(&m->changed);
}

void migrations_stream(struct migrations *m, struct byte_stream **slot, struct byte_stream *stream)
{
    LOCK_SCOPE(&m->lock);
    *slot = stream;
    if (m->stopping && stream != NULL)
        bytes_abort(stream);
}

bool migrations_claim(struct migrations *m, struct migration_claim *claim, const char *id)
{
    LOCK_SCOPE(&m->lock);
    for (const struct migration_claim *other = m->claims; other != NULL; other = other->next)
        if (strcmp(other->id, id) == 0)
            return false;
    *claim = (struct migration_claim){ .next = m->claims, .id = id };
    m->claims = claim;
    return true;
}

void migrations_unclaim(struct migrations *m, struct migration_claim *gone)
{
    LOCK_SCOPE(&m->lock);
    for (struct migration_claim **p = &m->claims; *p != NULL; p = &(*p)->next)
        if (*p == gone) {
            *p = gone->next;
            return;
        }
}

void migrations_thread(struct migrations *m, const char *name, void *(*fn)(void *), void *arg)
{
    lock_take(&m->lock);
    m->recovering++;
    lock_drop(&m->lock);
    pthread_detach(thread_start(name, fn, arg));
}

void migrations_thread_end(struct migrations *m)
{
    LOCK_SCOPE(&m->lock);
    m->recovering--;
    cond_broadcast(&m->changed);
}

bool migrations_pause(struct migrations *m, int64_t ms)
{
    LOCK_SCOPE(&m->lock);
    if (!m->stopping)
        cond_wait_ms(&m->changed, &m->lock, ms);
    return !m->stopping;
}

struct error *migration_target(struct arena *a, const struct value *v, struct http_target *target)
{
    const struct value *d = value_get(v, "destination");
    *target = (struct http_target){
        .address = value_get_string(d, "address", NULL),
        .port = (int)value_get_int(d, "port", 0),
        .tls = value_get_bool(d, "tls", true),
        .fingerprint = value_get_string(d, "fingerprint", NULL),
        .cookie = value_get_string(d, "cookie", NULL),
    };
    if (target->address == NULL || target->port <= 0)
        return err_internal(a, "a migration needs the destination's address and port");
    if (target->fingerprint != NULL && target->fingerprint[0] == '\0')
        target->fingerprint = NULL;
    if (target->cookie != NULL && target->cookie[0] == '\0')
        target->cookie = NULL;
    return NULL;
}

struct value migration_target_value(struct arena *a, const struct http_target *t)
{
    struct value_dict d = { 0 };
    value_dict_add(a, &d, "address", value_string(t->address));
    value_dict_add(a, &d, "port", value_int(t->port));
    value_dict_add(a, &d, "tls", value_bool(t->tls));
    value_dict_add(a, &d, "fingerprint", value_string(t->fingerprint != NULL ? t->fingerprint : ""));
    value_dict_add(a, &d, "cookie", value_string(t->cookie != NULL ? t->cookie : ""));
    return value_dict_value(&d);
}

struct error *migration_resolve(struct call *c, struct migrations *m, const char *id, const struct http_target *target, bool *committed_r)
{
    for (unsigned tries = 0;; tries++) {
        struct member args[] = { member_of("migration_id", value_string(id)) };
        struct value v = value_map(args, ARRAY_LEN(args)), answer;
        struct error *e = agent_call_at(c, m->xapi, target, "migrate.ask", &v, &answer);
        if (e == NULL) {
            const char *state = value_get_string(&answer, "state", "");
            *committed_r = strcmp(state, "COMMITTED") == 0;
            if (*committed_r || strcmp(state, "ABORTED") == 0)
                return NULL;
        }
        if (decide_take(m->xapi, id, committed_r))
            return NULL;
        if (tries % 20 == 0)
            log_warn("migration %s: the destination %s has not said yet whether it committed; the guest stays paused: %s", id,
                     target->address, e != NULL ? error_text(c->arena, e) : "no answer");
        if (!migrations_pause(m, ASK_AGAIN_MS))
            return err_internal(c->arena, "the daemon stops before the outcome of migration %s is known", id);
    }
}

struct error *migrate_start(struct arena *a, struct xapi *xapi)
{
    struct migrations *m = xcalloc(1, sizeof *m);
    m->xapi = xapi;
    lock_init(&m->lock, LOCK_MIGRATE);
    cond_init(&m->changed);
    xapi->migrations = m;
    TRY(journal_open(a, arena_printf(a, "%s/journal", xapi->dir), &m->journal));
    journal_expire(m->journal, clock_wall(xapi->clock) - KEPT_S);
    TRY(migrations_recover(a, m));
    migrations_thread(m, "migrate-patience", incoming_patience, m);
    return NULL;
}

void migrate_quiesce(struct xapi *xapi)
{
    struct migrations *m = xapi->migrations;
    LOCK_SCOPE(&m->lock);
    m->stopping = true;
    cond_broadcast(&m->changed);
    for (struct migration_worker *w = m->workers; w != NULL; w = w->next) {
        if (w->vm != NULL)
            bytes_abort(w->vm);
        for (unsigned i = 0; i < FAN_MAX; i++)
            if (w->mem[i] != NULL)
                bytes_abort(w->mem[i]);
    }
}

void migrate_stop(struct xapi *xapi)
{
    struct migrations *m = xapi->migrations;
    if (m == NULL)
        return;
    migrate_quiesce(xapi);
    lock_take(&m->lock);
    while (m->recovering > 0 || m->workers != NULL)
        cond_wait(&m->changed, &m->lock);
    lock_drop(&m->lock);
    incoming_free_all(m);
    journal_close(m->journal);
    cond_release(&m->changed);
    lock_release(&m->lock);
    xfree(m);
    xapi->migrations = NULL;
}

struct error *migrate_verb_list(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct journal_entry *entries;
    unsigned n;
    TRY(journal_list(c->arena, xapi->migrations->journal, &entries, &n));
    struct value_list list = { 0 };
    for (unsigned i = 0; i < n; i++) {
        struct value_dict d = { 0 };
        value_dict_add(c->arena, &d, "migration_id", value_string(entries[i].migration_id));
        value_dict_add(c->arena, &d, "side", value_string(entries[i].side == JOURNAL_SOURCE ? "source" : "destination"));
        value_dict_add(c->arena, &d, "state", value_string(journal_state_name(entries[i].state)));
        value_dict_add(c->arena, &d, "facts", entries[i].facts);
        value_list_add(c->arena, &list, value_dict_value(&d));
    }
    *result_r = value_list_value(&list);
    return NULL;
}
