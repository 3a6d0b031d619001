#include "xapi/core/session.h"

#include <inttypes.h>
#include <string.h>

#include "db/index.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/lock.h"
#include "rpc/base/uuid.h"
#include "xapi/core/event.h"
#include "xapi/core/session_db.h"
#include "xapi/core/xapi.h"

LOG_MODULE(session);

#define BUCKETS 1024u
#define SHOWN_AFTER_MS (600 * 1000) /* how far a row's last_active may lag */
#define ALL_ROLES ((1u << N_ROLES) - 1)

struct sessions {
    struct xapi *xapi;
    struct lock lock; /* guards the lists */
    struct session *buckets[BUCKETS];
    unsigned n;
};

static struct session **bucket_of(struct sessions *s, const char *ref)
{
    return &s->buckets[index_hash(ref, strlen(ref)) % BUCKETS];
}

void session_unref(struct session *s)
{
    if (s == NULL || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    xfree((void *)s->ref);
    xfree((void *)s->user);
    xfree((void *)s->subject);
    xfree((void *)s->sid);
    xfree((void *)s->originator);
    session_db_close(s->own);
    xfree(s);
}

static void session_unref_hook(void *s) { session_unref(s); }

struct sessions *sessions_new(struct xapi *xapi)
{
    struct sessions *s = xcalloc(1, sizeof(*s));

    s->xapi = xapi;
    lock_init(&s->lock, LOCK_SESSION);
    return s;
}

void sessions_free(struct sessions *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (s->buckets[i] != NULL) {
            struct session *session = s->buckets[i];
            s->buckets[i] = session->next;
            session_unref(session);
        }
    }
    lock_release(&s->lock);
    xfree(s);
}

static char *dup_or_empty(const char *s) { return xstrdup(s != NULL ? s : ""); }

static struct session *session_make(struct xapi *xapi, const struct session_spec *spec)
{
    struct session *s = xcalloc(1, sizeof(*s));
    char ref[REF_LEN + 1];

    ref_new(ref);
    atomic_init(&s->refs, 1);
    s->ref = xstrdup(ref);
    s->user = dup_or_empty(spec->user);
    s->subject = xstrdup(spec->subject != NULL ? spec->subject : REF_NULL);
    s->sid = dup_or_empty(spec->sid);
    s->originator = dup_or_empty(spec->originator);
    s->kind = spec->kind;
    s->superuser = spec->superuser;
    s->roles = spec->superuser ? ALL_ROLES : spec->roles;
    s->created_ms = clock_ms(xapi->clock);
    atomic_init(&s->active_ms, s->created_ms);
    atomic_init(&s->shown_ms, s->created_ms);
    return s;
}

static struct error *row_create(struct xapi *xapi, struct arena *a, const struct session *s, const struct session_spec *spec)
{
    const char *host = spec->host != NULL ? spec->host : xapi->host_ref, *ref;
    int64_t now = clock_wall(xapi->clock);
    const struct field_value fields[] = {
        { F_session_this_host, value_string(host != NULL ? host : REF_NULL) },
        { F_session_last_active, value_datetime(now) },
        { F_session_validation_time, value_datetime(now) },
        { F_session_pool, value_bool(s->kind == SESSION_POOL) },
        { F_session_is_local_superuser, value_bool(s->superuser) },
        { F_session_subject, value_string(s->subject) },
        { F_session_auth_user_sid, value_string(s->sid) },
        { F_session_auth_user_name, value_string(s->user) },
        { F_session_originator, value_string(s->originator) },
    };
    AUTO_TXN txn = txn_begin(xapi->db, a);

    TRY(txn_create(txn, CLASS_session, s->ref, NULL, fields, ARRAY_LEN(fields), &ref));
    return txn_commit(txn, NULL);
}

/* Takes the session that was idle longest out of those of a user, if he has 'max' or more. */
static struct session *oldest_of_locked(struct sessions *s, const char *user, unsigned max)
{
    struct session *oldest = NULL;
    unsigned n = 0;

    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct session *x = s->buckets[i]; x != NULL; x = x->next) {
            if (strcmp(x->user, user) != 0)
                continue;
            n++;
            if (oldest == NULL || atomic_load(&x->active_ms) < atomic_load(&oldest->active_ms))
                oldest = x;
        }
    }
    return n >= max ? oldest : NULL;
}

/* Counted, or NULL. */
static struct session *oldest_of(struct sessions *s, const char *user)
{
    unsigned max = (unsigned)config_int(s->xapi->config, "sessions-per-user");
    struct session *found = NULL;

    lock_take(&s->lock);
    if (s->n >= max)
        found = oldest_of_locked(s, user, max);
    if (found != NULL)
        atomic_fetch_add(&found->refs, 1);
    lock_drop(&s->lock);
    return found;
}

struct error *session_create(struct xapi *xapi, struct arena *a, const struct session_spec *spec, const char **ref_r)
{
    struct sessions *sessions = xapi->sessions;
    struct session *s = session_make(xapi, spec), *oldest = oldest_of(sessions, s->user);

    if (oldest != NULL) {
        log_warn_rl("user '%s' has too many sessions: the one idle longest ends", s->user);
        session_destroy(xapi, a, oldest->ref);
        session_unref(oldest);
    }
    struct error *e = s->kind != SESSION_LOCAL ? row_create(xapi, a, s, spec) : NULL;
    if (e != NULL) {
        session_unref(s);
        return e;
    }
    s->own = spec->own;
    *ref_r = arena_strdup(a, s->ref);
    lock_take(&sessions->lock);
    struct session **bucket = bucket_of(sessions, s->ref);
    s->next = *bucket;
    *bucket = s;
    sessions->n++;
    lock_drop(&sessions->lock);
    return NULL;
}

/* Takes it out of the table; the table's reference becomes the caller's. */
static struct session *session_take(struct sessions *sessions, const char *ref)
{
    struct session *found = NULL;

    lock_take(&sessions->lock);
    for (struct session **at = bucket_of(sessions, ref); *at != NULL; at = &(*at)->next) {
        if (strcmp((*at)->ref, ref) == 0) {
            found = *at;
            *at = found->next;
            sessions->n--;
            break;
        }
    }
    lock_drop(&sessions->lock);
    return found;
}

bool session_destroy(struct xapi *xapi, struct arena *a, const char *ref)
{
    struct session *s = session_take(xapi->sessions, ref);

    if (s == NULL)
        return false;
    atomic_store(&s->gone, true);
    struct error *e = s->kind != SESSION_LOCAL ? db_delete(xapi->db, a, CLASS_session, ref) : NULL;
    if (e != NULL)
        log_warn_rl("row of an ended session: %s", error_text(a, e));
    events_session_gone(xapi->events, ref);
    session_unref(s);
    return true;
}

struct session *session_find(struct sessions *sessions, const char *ref)
{
    struct session *found = NULL;

    lock_take(&sessions->lock);
    for (struct session *s = *bucket_of(sessions, ref); s != NULL; s = s->next) {
        if (strcmp(s->ref, ref) == 0) {
            atomic_fetch_add(&s->refs, 1);
            found = s;
            break;
        }
    }
    lock_drop(&sessions->lock);
    if (found != NULL)
        atomic_store(&found->active_ms, clock_ms(sessions->xapi->clock));
    return found;
}

struct error *session_enter(struct api_call *c, const char *ref)
{
    struct session *s = session_find(c->xapi->sessions, ref);

    if (s == NULL)
        return err_session_invalid(c->arena, ref);
    arena_on_free(c->arena, session_unref_hook, s);
    c->session = s->ref;
    c->session_kind = s->kind;
    c->superuser = s->superuser;
    c->roles = s->roles;
    c->user = s->user;
    if (s->own != NULL)
        c->db = session_db_of(s->own);
    return NULL;
}

/* --- many at once: collected under the lock, ended without it ------------------------------------------ */

struct victims { struct session **items; unsigned n, cap; };

static void victims_add(struct victims *v, struct session *s)
{
    if (v->n == v->cap) {
        v->cap = v->cap != 0 ? v->cap * 2 : 16;
        v->items = xrealloc(v->items, v->cap * sizeof(struct session *));
    }
    atomic_fetch_add(&s->refs, 1);
    v->items[v->n++] = s;
}

static void victims_release(struct victims *v)
{
    for (unsigned i = 0; i < v->n; i++)
        session_unref(v->items[i]);
    xfree(v->items);
}

unsigned session_destroy_of(struct xapi *xapi, struct arena *a, const char *sid)
{
    struct sessions *sessions = xapi->sessions;
    struct victims found = { 0 };
    unsigned n = 0;

    lock_take(&sessions->lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct session *s = sessions->buckets[i]; s != NULL; s = s->next)
            if (*s->sid != '\0' && strcmp(s->sid, sid) == 0)
                victims_add(&found, s);
    lock_drop(&sessions->lock);
    for (unsigned i = 0; i < found.n; i++)
        n += session_destroy(xapi, a, found.items[i]->ref);
    victims_release(&found);
    return n;
}

static void show_active(struct xapi *xapi, struct arena *a, const struct victims *stale, int64_t now_ms)
{
    AUTO_TXN txn = txn_begin(xapi->db, a);
    int64_t now = clock_wall(xapi->clock);
    struct error *e = NULL;

    for (unsigned i = 0; i < stale->n && e == NULL; i++) {
        struct session *s = stale->items[i];
        int64_t active = atomic_load(&s->active_ms);
        if (txn_get(txn, &model_classes[CLASS_session], s->ref) != NULL)
            e = txn_set(txn, CLASS_session, s->ref, F_session_last_active, value_datetime(now - (now_ms - active) / 1000));
        atomic_store(&s->shown_ms, active);
    }
    if (e == NULL)
        e = txn_commit(txn, NULL);
    if (e != NULL)
        log_warn_rl("last_active of sessions: %s", error_text(a, e));
}

void session_gc(struct xapi *xapi, int64_t now_ms)
{
    struct sessions *sessions = xapi->sessions;
    int64_t idle_ms = config_int(xapi->config, "inactive_session_timeout") * 1000;
    struct victims idle = { 0 }, stale = { 0 };
    AUTO_ARENA a = arena_new();

    lock_take(&sessions->lock);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct session *s = sessions->buckets[i]; s != NULL; s = s->next) {
            int64_t active = atomic_load(&s->active_ms);
            if (now_ms - active > idle_ms)
                victims_add(&idle, s);
            else if (active - atomic_load(&s->shown_ms) >= SHOWN_AFTER_MS && s->kind != SESSION_LOCAL)
                victims_add(&stale, s);
        }
    }
    lock_drop(&sessions->lock);
    for (unsigned i = 0; i < idle.n; i++)
        session_destroy(xapi, a, idle.items[i]->ref);
    if (stale.n > 0)
        show_active(xapi, a, &stale, now_ms);
    victims_release(&idle);
    victims_release(&stale);
}

struct value session_subject_identifiers(struct xapi *xapi, struct arena *a)
{
    struct sessions *sessions = xapi->sessions;
    struct value_list list = { 0 };

    lock_take(&sessions->lock);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct session *s = sessions->buckets[i]; s != NULL; s = s->next) {
            struct value so_far = value_list_value(&list);
            if (*s->sid != '\0' && !value_set_has(&so_far, s->sid))
                value_list_add(a, &list, value_string(arena_strdup(a, s->sid)));
        }
    }
    lock_drop(&sessions->lock);
    return value_list_value(&list);
}

bool secret_equal(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    unsigned char diff = la != lb;

    for (size_t i = 0; i < la; i++)
        diff |= (unsigned char)(a[i] ^ b[lb == 0 ? 0 : i % lb]);
    return *(volatile unsigned char *)&diff == 0;
}

const char *session_log_name(struct arena *a, const char *ref)
{
    return ref != NULL ? arena_printf(a, "s:%08" PRIx64, index_hash(ref, strlen(ref)) & 0xffffffff) : "-";
}
