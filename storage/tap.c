/* The table of tapds: users, turns, and the public verbs. */
#include "storage/tap.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/tap_table.h"

LOG_MODULE(tap);

#define TURN_MS 200 /* how often a waiter looks at its cancel flag */
#define TALK_TRIES 3

struct error *tap_failed(struct arena *a, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    const char *text = arena_vprintf(a, fmt, args);
    va_end(args);
    return err_sr_backend_failure(a, "tapd", "", text);
}

/* --- one tap ------------------------------------------------------------------------------------------------ */
struct tap *tap_entry_new(const char *key, const char *dir)
{
    struct tap *tap = xcalloc(1, sizeof(*tap));

    tap->key = xstrdup(key);
    tap->dir = xstrdup(dir);
    tap->pidfd = tap->control = -1;
    tap->refs = 1;
    return tap;
}

void tap_entry_free(struct tap *tap)
{
    for (unsigned i = 0; i < tap->n_users; i++)
        xfree(tap->users[i]);
    xfree(tap->users);
    fd_close(&tap->pidfd);
    fd_close(&tap->control);
    text_release(&tap->in);
    arena_free(tap->said);
    arena_free(tap->ended);
    xfree(tap->lead_to);
    xfree(tap->lead_path);
    xfree(tap->from);
    xfree(tap->key);
    xfree(tap->dir);
    xfree(tap);
}

bool tap_is_ghost(const struct tap *tap) { return tap->n_users == 0 && tap->pid == 0; }

static void unref_locked(struct tap *tap)
{
    if (--tap->refs == 0)
        tap_entry_free(tap);
}

/* --- the table, and turns ------------------------------------------------------------------------------------- */
struct tap *tap_find_locked(struct taps *t, const char *key)
{
    for (struct tap *tap = t->list; tap != NULL; tap = tap->next)
        if (strcmp(tap->key, key) == 0)
            return tap;
    return NULL;
}

static struct tap *add_locked(struct taps *t, const char *key)
{
    AUTO_FREE char *dir = xprintf("%s/%u", t->dir, t->next_dir++);
    struct tap *tap = tap_entry_new(key, dir);

    tap->next = t->list;
    t->list = tap;
    return tap;
}

struct error *tap_turn(struct call *c, struct taps *t, const char *key, bool make, struct tap **tap_r)
{
    LOCK_SCOPE(&t->lock);
    for (;;) {
        struct tap *tap = tap_find_locked(t, key);

        if (tap == NULL && make)
            tap = add_locked(t, key);
        *tap_r = tap;
        if (tap == NULL)
            return NULL;
        if (!tap->busy) {
            tap->busy = true;
            tap->refs++;
            return NULL;
        }
        if (call_cancelled(c))
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        (void)cond_wait_ms(&t->changed, &t->lock, TURN_MS);
    }
}

void tap_leave(struct taps *t, struct tap *tap)
{
    lock_take(&t->lock);
    tap->busy = false;
    cond_broadcast(&t->changed);
    unref_locked(tap);
    lock_drop(&t->lock);
    tap_watch_wake(t);
}

void tap_remove(struct taps *t, struct tap *gone)
{
    LOCK_SCOPE(&t->lock);
    struct tap **at = &t->list;

    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    gone->gone = true;
    unref_locked(gone);
}

bool tap_exists(struct taps *t, const char *key)
{
    LOCK_SCOPE(&t->lock);
    const struct tap *tap = tap_find_locked(t, key);

    return tap != NULL && !tap_is_ghost(tap);
}

/* --- attach ------------------------------------------------------------------------------------------------------ */
static struct error *owner_keep(struct arena *a, const struct tap *tap)
{
    int rc = tap_owner_write(tap);

    return rc == 0 ? NULL : tap_failed(a, "%s/owner: %s", tap->dir, strerror(-rc));
}

/* The directory, then the process: what is found half done after a crash is cleared away. */
static struct error *attach_first(struct call *c, struct taps *t, struct tap *tap, const struct tap_spec *spec)
{
    int rc = dir_create(tap->dir, 0700);

    if (rc < 0)
        return tap_failed(c->arena, "%s: %s", tap->dir, strerror(-rc));
    TRY(owner_keep(c->arena, tap));
    rc = tap_spec_write(c->arena, tap->dir, spec);
    if (rc < 0)
        return tap_failed(c->arena, "%s/spec: %s", tap->dir, strerror(-rc));
    tap->read_only = spec->read_only;
    return tap_start(c, t, tap);
}

static struct error *respawn(struct call *c, struct taps *t, struct tap *tap, const struct member *words, unsigned n)
{
    struct call calm = *c;

    calm.cancel = NULL;
    calm.deadline_ms = 0;
    TRY(tap_end(&calm, t, tap));
    int rc = tap_spec_patch(c->arena, tap->dir, words, n);
    if (rc < 0)
        return tap_failed(c->arena, "%s/spec: %s", tap->dir, strerror(-rc));
    return tap_start(&calm, t, tap);
}

/* NBD clients connect again and repeat what was not answered. */
static struct error *make_writable(struct call *c, struct taps *t, struct tap *tap)
{
    struct value status;
    bool lost;

    TRY(tap_talk(c, t, tap, "status", NULL, -1, &status, &lost));
    const struct member words[] = {
        member_of("read_only", value_int(0)),
        member_of("state", value_string(value_get_string(&status, "state", "inactive"))),
    };
    TRY(respawn(c, t, tap, words, ARRAY_LEN(words)));
    tap->read_only = false;
    return NULL;
}

static struct error *attach_more(struct call *c, struct taps *t, struct tap *tap, const struct tap_spec *spec, const char *user)
{
    TRY(tap_revive(c, t, tap));
    if (tap->read_only && !spec->read_only)
        TRY(make_writable(c, t, tap));
    if (tap_user_has(tap, user))
        return NULL;
    tap_user_add(t, tap, user);
    struct error *error = owner_keep(c->arena, tap);
    if (error != NULL)
        tap_user_remove(t, tap, user);
    return error;
}

static void discard(struct call *c, struct taps *t, struct tap *tap)
{
    struct call calm = *c;

    calm.cancel = NULL;
    calm.deadline_ms = 0;
    struct error *error = tap_end(&calm, t, tap);
    if (error != NULL)
        log_warn("%s", error_text(c->arena, error));
    tap_dir_remove(tap->dir);
    tap_remove(t, tap);
}

struct error *tap_attach(struct call *c, struct taps *t, const struct tap_spec *spec, const char *user, const char **uri_r)
{
    struct tap *tap;
    struct error *error;

    TRY(tap_turn(c, t, spec->key, true, &tap));
    bool fresh = tap_is_ghost(tap);
    if (fresh) {
        tap_user_add(t, tap, user);
        error = attach_first(c, t, tap, spec);
        if (error != NULL)
            discard(c, t, tap);
    } else
        error = attach_more(c, t, tap, spec, user);
    if (error == NULL)
        *uri_r = nbd_uri_unix(c->arena, arena_printf(c->arena, "%s/nbd", tap->dir));
    if (error == NULL && fresh)
        log_debug("%s is served by process %d in %s", spec->key, (int)tap->pid, tap->dir);
    tap_leave(t, tap);
    return error;
}

struct error *tap_detach(struct call *c, struct taps *t, const char *key, const char *user)
{
    struct tap *tap;
    struct error *error = NULL;

    TRY(tap_turn(c, t, key, false, &tap));
    if (tap == NULL)
        return NULL;
    bool had = tap_user_has(tap, user);
    tap_user_remove(t, tap, user);
    if (tap->n_users == 0) {
        error = tap_end(c, t, tap);
        if (error == NULL) {
            tap_dir_remove(tap->dir);
            tap_remove(t, tap);
        } else
            tap_user_add(t, tap, user);
    } else if (had)
        error = owner_keep(c->arena, tap);
    tap_leave(t, tap);
    return error;
}

/* --- calls ---------------------------------------------------------------------------------------------------------- */
static void value_keep(struct taps *t, struct arena **arena, struct value *kept, const struct value *v)
{
    struct arena *fresh = arena_new(), *old;
    struct value copy = value_dup(fresh, v);

    lock_take(&t->lock);
    old = *arena;
    *arena = fresh;
    *kept = copy;
    lock_drop(&t->lock);
    arena_free(old);
}

static void status_keep(struct taps *t, struct tap *tap, const struct value *status)
{
    const char *mirror = value_get_string(status, "mirror", "none");

    value_keep(t, &tap->said, &tap->status, status);
    if (strcmp(mirror, "switched") == 0 || strcmp(mirror, "done") == 0)
        value_keep(t, &tap->ended, &tap->mirror, status);
    LOCK_SCOPE(&t->lock);
    if (strcmp(mirror, "none") == 0)
        tap->mirroring = false;
}

static struct error *unknown(struct arena *a, const char *key) { return tap_failed(a, "no tapd serves %s", key); }

/* A connection that ended before the answer is made again: every verb may be repeated, and one that may not (a mirror
 * that was started) says so itself. A process that is about to be gone may still let us connect: hence more tries. */
static struct error *talk(struct call *c, struct taps *t, struct tap *tap, const char *verb, const struct value *arguments, int fd,
                          struct value *result)
{
    struct error *error = NULL;
    bool lost = true;

    for (unsigned i = 0; i < TALK_TRIES && lost; i++) {
        TRY(tap_revive(c, t, tap));
        error = tap_talk(c, t, tap, verb, arguments, fd, result, &lost);
        if (lost)
            tap_await_end(tap);
    }
    return error;
}

struct error *tap_call(struct call *c, struct taps *t, const char *key, const char *verb, const struct value *arguments, int fd,
                       struct value *result_r)
{
    struct value ignored;
    struct value *result = result_r != NULL ? result_r : &ignored;
    struct tap *tap;

    TRY(tap_turn(c, t, key, false, &tap));
    if (tap == NULL)
        return unknown(c->arena, key);
    struct error *error = tap_is_ghost(tap) ? unknown(c->arena, key) : talk(c, t, tap, verb, arguments, fd, result);
    if (error == NULL && strcmp(verb, "status") == 0)
        status_keep(t, tap, result);
    if (error == NULL && strcmp(verb, "mirror-start") == 0) {
        lock_take(&t->lock);
        tap->mirroring = true;
        lock_drop(&t->lock);
    }
    tap_leave(t, tap);
    return error;
}

/* --- what it is called, and where it leads ------------------------------------------------------------------------------ */
static void string_swap(struct taps *t, char **field, const char *text)
{
    char *fresh = text != NULL ? xstrdup(text) : NULL, *old;

    lock_take(&t->lock);
    old = *field;
    *field = fresh;
    lock_drop(&t->lock);
    xfree(old);
}

static struct error *rekey_in_turn(struct call *c, struct taps *t, struct tap *tap, const char *new_key)
{
    if (tap_exists(t, new_key))
        return tap_failed(c->arena, "%s has a tapd already", new_key);
    TRY(fault_hit("tap.rekey") ? tap_failed(c->arena, "fault injected: tap.rekey") : NULL);
    AUTO_FREE char *old = xstrdup(tap->key);
    string_swap(t, &tap->from, old);
    string_swap(t, &tap->key, new_key);
    string_swap(t, &tap->lead_to, NULL);
    string_swap(t, &tap->lead_path, NULL);
    TRY(owner_keep(c->arena, tap));
    const struct member words[] = { member_of("users", value_string(tap_users_text(c->arena, tap))), member_of("key", value_string(new_key)) };
    struct value v = value_map(words, ARRAY_LEN(words)), ignored;
    struct error *error = talk(c, t, tap, "users", &v, -1, &ignored);
    if (error != NULL)
        log_debug("its log will name it %s: %s", old, error_text(c->arena, error));
    return NULL;
}

struct error *tap_rekey(struct call *c, struct taps *t, const char *key, const char *new_key)
{
    struct tap *tap;
    struct error *error;

    TRY(tap_turn(c, t, key, false, &tap));
    if (tap == NULL)
        return unknown(c->arena, key);
    error = rekey_in_turn(c, t, tap, new_key);
    tap_leave(t, tap);
    return error;
}

struct error *tap_lead(struct call *c, struct taps *t, const char *key, const char *to, const char *path)
{
    struct tap *tap;
    struct error *error;

    TRY(tap_turn(c, t, key, false, &tap));
    if (tap == NULL)
        return unknown(c->arena, key);
    string_swap(t, &tap->lead_to, to);
    string_swap(t, &tap->lead_path, to != NULL ? path : NULL);
    error = owner_keep(c->arena, tap);
    tap_leave(t, tap);
    return error;
}

bool tap_leads_to(struct taps *t, struct arena *a, const char *key, const char **to_r, const char **path_r)
{
    LOCK_SCOPE(&t->lock);
    const struct tap *tap = tap_find_locked(t, key);

    if (tap == NULL || tap->lead_to == NULL)
        return false;
    *to_r = arena_strdup(a, tap->lead_to);
    *path_r = arena_strdup(a, tap->lead_path);
    return true;
}

bool tap_is_target(struct taps *t, const char *key)
{
    LOCK_SCOPE(&t->lock);
    for (const struct tap *tap = t->list; tap != NULL; tap = tap->next)
        if (tap->lead_to != NULL && strcmp(tap->lead_to, key) == 0)
            return true;
    return false;
}

const char *tap_successor(struct taps *t, struct arena *a, const char *key)
{
    LOCK_SCOPE(&t->lock);
    for (const struct tap *tap = t->list; tap != NULL; tap = tap->next)
        if (tap->from != NULL && strcmp(tap->from, key) == 0)
            return arena_strdup(a, tap->key);
    return NULL;
}

struct value tap_last_mirror(struct taps *t, struct arena *a, const char *key)
{
    LOCK_SCOPE(&t->lock);
    const struct tap *tap = tap_find_locked(t, key);

    return tap != NULL ? value_dup(a, &tap->mirror) : value_void();
}

/* --- lists ------------------------------------------------------------------------------------------------------------------- */
static void add_all(struct arena *a, struct value_dict *d, const struct value *map)
{
    for (uint32_t i = 0; map->kind == VALUE_MAP && i < map->len; i++)
        value_dict_set(a, d, map->members[i].name, value_dup(a, &map->members[i].value));
}

struct value taps_list(struct taps *t, struct arena *a)
{
    struct value_list list = { 0 };

    LOCK_SCOPE(&t->lock);
    for (const struct tap *tap = t->list; tap != NULL; tap = tap->next) {
        struct value_dict d = { 0 };
        struct value_list users = { 0 };

        if (tap_is_ghost(tap))
            continue;
        for (unsigned i = 0; i < tap->n_users; i++)
            value_list_add(a, &users, value_string(arena_strdup(a, tap->users[i])));
        add_all(a, &d, &tap->status);
        value_dict_set(a, &d, "key", value_string(arena_strdup(a, tap->key)));
        value_dict_set(a, &d, "users", value_list_value(&users));
        value_dict_set(a, &d, "dir", value_string(arena_strdup(a, tap->dir)));
        value_dict_set(a, &d, "pid", value_int(tap->pid));
        if (tap->lead_to != NULL)
            value_dict_set(a, &d, "mirror_to", value_string(arena_strdup(a, tap->lead_to)));
        if (tap->from != NULL)
            value_dict_set(a, &d, "from", value_string(arena_strdup(a, tap->from)));
        value_list_add(a, &list, value_dict_value(&d));
    }
    return value_list_value(&list);
}

/* --- start and end ------------------------------------------------------------------------------------------------------------- */
struct taps *taps_new(const struct taps_options *o)
{
    struct taps *t = xcalloc(1, sizeof(*t));

    lock_init(&t->lock, LOCK_STORAGE);
    cond_init(&t->changed);
    t->dir = xstrdup(o->dir);
    t->program = xstrdup(o->program);
    t->clock = o->clock;
    t->allow_faults = o->allow_faults;
    t->answer_ms = o->answer_ms > 0 ? o->answer_ms : TAP_ANSWER_MS;
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(t->wake_fd >= 0);
    tap_find_all(t);
    tap_watch_start(t);
    return t;
}

void taps_watch(struct taps *t, void (*changed)(void *ctx, const char *key), void *ctx)
{
    LOCK_SCOPE(&t->lock);
    t->watch = changed;
    t->watch_ctx = ctx;
}

void taps_free(struct taps *t)
{
    if (t == NULL)
        return;
    tap_watch_stop(t);
    while (t->list != NULL) {
        struct tap *tap = t->list;

        CHECK(!tap->busy);
        t->list = tap->next;
        tap_entry_free(tap);
    }
    close(t->wake_fd);
    cond_release(&t->changed);
    lock_release(&t->lock);
    xfree(t->dir);
    xfree(t->program);
    xfree(t);
}
