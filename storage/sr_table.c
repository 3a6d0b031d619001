#include "storage/sr_table.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "storage/sr_live.h"

LOG_MODULE(sr);

#define TURN_MS 200 /* how often a waiter looks at its cancel flag */

struct storage *storage_new(struct taps *taps)
{
    struct storage *s = xcalloc(1, sizeof(*s));

    lock_init(&s->lock, LOCK_STORAGE);
    cond_init(&s->changed);
    s->taps = taps;
    return s;
}

const char *sr_tap(struct arena *arena, struct storage *s, const char *sr)
{
    size_t len = strlen(sr);

    if (s->taps == NULL)
        return NULL;
    struct value list = taps_list(s->taps, arena);
    for (unsigned i = 0; i < list.len; i++) {
        const char *keys[] = { value_get_string(&list.items[i], "key", ""), value_get_string(&list.items[i], "mirror_to", "") };

        for (unsigned k = 0; k < ARRAY_LEN(keys); k++)
            if (strncmp(keys[k], sr, len) == 0 && keys[k][len] == '/')
                return keys[k];
    }
    return NULL;
}

/* SRs that were in use when their storage ended, for as long as the process lives: what their drivers hold (mounts,
 * active volumes) stays, since guests go on without us. */
static struct attached *_Atomic left_in_use;

static void leave_in_use(struct attached *a)
{
    a->next = atomic_load(&left_in_use);
    while (!atomic_compare_exchange_weak(&left_in_use, &a->next, a))
        ;
}

static void detach(struct storage *s, struct attached *a)
{
    AUTO_ARENA arena = arena_new();
    struct call c = { .arena = arena, .clock = &clock_real };
    struct live live;

    if (sr_tap(arena, s, a->sr.uuid) != NULL) {
        leave_in_use(a);
        return;
    }
    live_init(&live, s, a->sr.uuid, "");
    a->sr.live = &live.live;
    struct error *error = a->sr.driver->sr_detach(&c, &a->sr);
    if (error != NULL)
        log_warn("detaching SR %s: %s", a->sr.uuid, error_text(arena, error));
    live_release(&live);
    attached_free(a);
}

static void detach_all(struct storage *s)
{
    while (s->srs != NULL) {
        struct attached *a = s->srs;

        s->srs = a->next;
        detach(s, a);
    }
}

static void direct_free(struct direct_use *d)
{
    xfree(d->sr);
    xfree(d->location);
    xfree(d->user);
    xfree(d);
}

void storage_free(struct storage *s)
{
    if (s == NULL)
        return;
    cleaner_free(s);
    detach_all(s);
    CHECK(s->turns == NULL);
    while (s->direct != NULL) {
        struct direct_use *d = s->direct;

        s->direct = d->next;
        direct_free(d);
    }
    cond_release(&s->changed);
    lock_release(&s->lock);
    xfree(s);
}

/* --- turns -------------------------------------------------------------------------------------- */
static bool turns_clash(const struct turn *a, const struct turn *b)
{
    if (strcmp(a->sr, b->sr) != 0)
        return false;
    if (a->kind == TURN_CLEAN || b->kind == TURN_CLEAN)
        return a->kind != TURN_PLAIN && b->kind != TURN_PLAIN;
    return strcmp(a->location, b->location) == 0;
}

static struct turn *turn_clash_locked(const struct storage *s, const struct turn *mine)
{
    for (struct turn *t = s->turns; t != NULL; t = t->next)
        if (turns_clash(t, mine))
            return t;
    return NULL;
}

/* location "": the SR itself. */
struct error *turn_begin(struct call *c, struct storage *s, struct turn *turn)
{
    struct turn *other;

    LOCK_SCOPE(&s->lock);
    while ((other = turn_clash_locked(s, turn)) != NULL) {
        if (call_cancelled(c))
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        if (other->kind == TURN_CLEAN && other->cancel != NULL)
            cancel_raise(other->cancel);
        (void)cond_wait_ms(&s->changed, &s->lock, TURN_MS);
    }
    turn->next = s->turns;
    s->turns = turn;
    return NULL;
}

void turn_end(struct storage *s, struct turn *turn)
{
    LOCK_SCOPE(&s->lock);
    struct turn **at = &s->turns;

    while (*at != turn)
        at = &(*at)->next;
    *at = turn->next;
    cond_broadcast(&s->changed);
}

/* --- the table of attached SRs --------------------------------------------------------------------- */
static struct attached *find_locked(struct storage *s, const char *uuid)
{
    for (struct attached *a = s->srs; a != NULL; a = a->next)
        if (strcmp(a->sr.uuid, uuid) == 0)
            return a;
    return NULL;
}

struct attached *attached_use(struct storage *s, const char *uuid)
{
    LOCK_SCOPE(&s->lock);
    struct attached *a = find_locked(s, uuid);

    if (a != NULL)
        a->users++;
    return a;
}

void attached_leave(struct storage *s, struct attached *a)
{
    bool last;

    lock_take(&s->lock);
    last = --a->users == 0 && a->gone;
    lock_drop(&s->lock);
    if (last)
        attached_free(a);
}

bool sr_is_attached(struct storage *s, const char *uuid)
{
    LOCK_SCOPE(&s->lock);
    return find_locked(s, uuid) != NULL;
}

struct attached *attached_new(const struct sr_spec *spec, const struct sr_driver *driver)
{
    struct attached *a = xcalloc(1, sizeof(*a));

    a->arena = arena_new();
    a->sr = (struct sr) {
        .driver = driver,
        .uuid = arena_strdup(a->arena, spec->uuid),
        .device_config = value_dup(a->arena, &spec->device_config),
        .shared = spec->shared,
        .state = xcalloc(1, driver->state_size + 1),
    };
    return a;
}

void attached_free(struct attached *a)
{
    xfree(a->sr.state);
    arena_free(a->arena);
    xfree(a);
}

void attached_insert(struct storage *s, struct attached *a)
{
    LOCK_SCOPE(&s->lock);
    a->next = s->srs;
    s->srs = a;
}

void attached_remove(struct storage *s, struct attached *gone)
{
    LOCK_SCOPE(&s->lock);
    struct attached **at = &s->srs;

    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    gone->gone = true;
}

/* --- a verb on an attached SR ------------------------------------------------------------------------ */
static struct error *verb_checked(struct call *c, struct sr *sr, struct verb *verb)
{
    int64_t start = clock_ms(c->clock);
    struct error *error;

    if (verb->cap != 0 && (sr->driver->caps & verb->cap) == 0)
        return err_sr_operation_not_supported(c->arena, sr->uuid);
    if (fault_hit(arena_printf(c->arena, "sr.%s", verb->name)))
        return storage_failed(c, "fault injected");
    error = verb->run(c, sr, verb);
    log_debug("%s %s %s %s %lld ms", verb->name, sr->uuid, verb->location, error == NULL ? "ok" : error->code,
              (long long)(clock_ms(c->clock) - start));
    return error;
}

struct error *verb_in_turn(struct call *c, struct storage *s, const char *uuid, struct verb *verb)
{
    struct attached *a = attached_use(s, uuid);
    struct error *error;
    struct live live;
    struct sr sr;

    if (a == NULL)
        return err_sr_not_attached(c->arena, uuid);
    live_init(&live, s, uuid, verb->location);
    sr = a->sr;
    sr.live = &live.live;
    error = verb_checked(c, &sr, verb);
    live_release(&live);
    attached_leave(s, a);
    return error;
}

struct error *verb_run(struct call *c, struct storage *s, const char *uuid, struct verb *verb)
{
    struct turn turn = { .sr = uuid, .location = verb->location, .kind = verb->kind, .cancel = verb->cancel };
    struct error *error;

    TRY(turn_begin(c, s, &turn));
    error = verb_in_turn(c, s, uuid, verb);
    turn_end(s, &turn);
    return error;
}

/* --- users beside tapds -------------------------------------------------------------------------------- */
static struct direct_use **direct_find_locked(struct storage *s, const char *sr, const char *location, const char *user)
{
    struct direct_use **at = &s->direct;

    while (*at != NULL && (strcmp((*at)->sr, sr) != 0 || strcmp((*at)->location, location) != 0 ||
                           (user != NULL && strcmp((*at)->user, user) != 0)))
        at = &(*at)->next;
    return at;
}

void direct_add(struct storage *s, const char *sr, const char *location, const char *user)
{
    LOCK_SCOPE(&s->lock);
    struct direct_use **at = direct_find_locked(s, sr, location, user);

    if (*at != NULL)
        return;
    *at = xcalloc(1, sizeof(**at));
    **at = (struct direct_use) { .sr = xstrdup(sr), .location = xstrdup(location), .user = xstrdup(user) };
}

bool direct_remove(struct storage *s, const char *sr, const char *location, const char *user)
{
    LOCK_SCOPE(&s->lock);
    struct direct_use **at = direct_find_locked(s, sr, location, user), *gone = *at;

    if (gone == NULL)
        return false;
    *at = gone->next;
    direct_free(gone);
    return true;
}

bool direct_any(struct storage *s, const char *sr, const char *location)
{
    LOCK_SCOPE(&s->lock);
    return *direct_find_locked(s, sr, location, NULL) != NULL;
}

/* --- small things ---------------------------------------------------------------------------------------- */
const char *vdi_key(struct arena *a, const char *sr, const char *location) { return arena_printf(a, "%s/%s", sr, location); }

struct error *storage_failed(struct call *c, const char *fmt, ...)
{
    va_list args;
    const char *text;

    va_start(args, fmt);
    text = arena_vprintf(c->arena, fmt, args);
    va_end(args);
    return err_sr_backend_failure(c->arena, "5", "", text);
}

struct call storage_calm(const struct call *c)
{
    struct call calm = *c;

    calm.cancel = NULL;
    calm.deadline_ms = 0;
    calm.progress = NULL;
    return calm;
}
