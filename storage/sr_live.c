#include "storage/sr_live.h"

#include <string.h>

#include "gen/errors.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "storage/sr_copy.h"
#include "storage/sr_merge.h"

LOG_MODULE(sr);

#define RESUME_TRIES 3

/* --- turns of paused VDIs ---------------------------------------------------------------------------- */
static struct live_turn *turn_find(struct live *l, const char *location)
{
    for (struct live_turn *t = l->turns; t != NULL; t = t->next)
        if (t->taken && strcmp(t->turn.location, location) == 0)
            return t;
    return NULL;
}

static struct error *turn_take(struct live *l, struct call *c, const char *location)
{
    struct live_turn *t;

    if (strcmp(location, l->location) == 0 || turn_find(l, location) != NULL)
        return NULL;
    t = arena_alloc(c->arena, sizeof(*t));
    t->turn = (struct turn) { .sr = l->sr, .location = arena_strdup(c->arena, location) };
    TRY(turn_begin(c, l->storage, &t->turn));
    t->taken = true;
    t->next = l->turns;
    l->turns = t;
    return NULL;
}

static void turn_give(struct live *l, const char *location)
{
    struct live_turn *t = turn_find(l, location);

    if (t == NULL)
        return;
    turn_end(l->storage, &t->turn);
    t->taken = false;
}

void live_release(struct live *l)
{
    for (struct live_turn *t = l->turns; t != NULL; t = t->next)
        if (t->taken)
            turn_end(l->storage, &t->turn);
    l->turns = NULL;
}

/* --- the driver's way to a tapd ------------------------------------------------------------------------ */
static struct error *status_of(struct call *c, struct storage *s, const char *key, struct value *status_r)
{
    return tap_call(c, s->taps, key, "status", NULL, -1, status_r);
}

static struct error *resume_once(struct call *c, struct storage *s, const char *key, const struct vdi_where *where)
{
    struct value_dict args = { 0 };
    struct value v;

    if (where != NULL) {
        value_dict_add(c->arena, &args, "format", value_string(where->format));
        value_dict_add(c->arena, &args, "path", value_string(where->path));
        value_dict_add(c->arena, &args, "cbt", value_string(where->cbt != NULL ? where->cbt : ""));
    }
    v = value_dict_value(&args);
    return tap_call(c, s->taps, key, "resume", &v, -1, NULL);
}

/* The guest waits for it: tried again, whoever gave up meanwhile. */
static struct error *resume(struct call *c, struct storage *s, const char *key, const struct vdi_where *where)
{
    struct call calm = storage_calm(c);
    struct error *error = NULL;

    for (unsigned i = 0; i < RESUME_TRIES; i++) {
        error = resume_once(&calm, s, key, where);
        if (error == NULL)
            return NULL;
    }
    log_err("%s stays paused: %s", key, error_text(c->arena, error));
    return error;
}

static struct error *live_pause(void *ctx, struct call *c, const char *location, bool *active_r)
{
    struct live *l = ctx;
    struct storage *s = l->storage;
    const char *key = vdi_key(c->arena, l->sr, location);
    struct value status;
    struct error *error;

    *active_r = false;
    TRY(turn_take(l, c, location));
    if (s->taps == NULL || !tap_exists(s->taps, key))
        return NULL;
    TRY(status_of(c, s, key, &status));
    if (strcmp(value_get_string(&status, "state", ""), "inactive") == 0)
        return NULL;
    if (strcmp(value_get_string(&status, "mirror", "none"), "none") != 0 &&
        strcmp(value_get_string(&status, "mirror_mode", ""), "mirror") == 0) { /* on its way elsewhere: its chain must stay as it is */
        turn_give(l, location);
        return storage_failed(c, "%s is being mirrored", key);
    }
    error = tap_call(c, s->taps, key, "pause", NULL, -1, NULL);
    if (error != NULL) {
        struct error *undo = resume(c, s, key, NULL);

        if (undo == NULL)
            turn_give(l, location);
        return error;
    }
    *active_r = true;
    return NULL;
}

static struct error *live_resume(void *ctx, struct call *c, const char *location, const struct vdi_where *where)
{
    struct live *l = ctx;
    struct storage *s = l->storage;
    const char *key = vdi_key(c->arena, l->sr, location);
    struct error *error = NULL;
    struct value status;

    if (s->taps != NULL && tap_exists(s->taps, key)) {
        struct call calm = storage_calm(c);

        error = status_of(&calm, s, key, &status);
        /* one that could not be paused keeps the chain it has: it may be another one by now */
        if (error == NULL && strcmp(value_get_string(&status, "state", ""), "paused") == 0)
            error = resume(c, s, key, where);
    }
    if (error == NULL)
        turn_give(l, location);
    return error;
}

static struct error *live_resized(void *ctx, struct call *c, const char *location, int64_t size)
{
    const struct live *l = ctx;
    const char *key = vdi_key(c->arena, l->sr, location);
    const struct member members[] = { member_of("size", value_int(size)) };
    struct value args = value_map(members, ARRAY_LEN(members));

    if (l->storage->taps == NULL || !tap_exists(l->storage->taps, key))
        return NULL;
    return tap_call(c, l->storage->taps, key, "resize", &args, -1, NULL);
}

static struct error *live_copy_point(void *ctx, struct call *c, const char *location, const struct vdi_where *from, const struct vdi_where *to)
{
    const struct live *l = ctx;

    return copy_point(c, l->storage, vdi_key(c->arena, l->sr, location), from, to);
}

static struct error *live_merge(void *ctx, struct call *c, const char *location, const struct vdi_where *from, const struct vdi_where *to, bool *active_r)
{
    return merge_images(c, ctx, location, from, to, active_r);
}

void live_init(struct live *l, struct storage *s, const char *sr, const char *location)
{
    *l = (struct live) {
        .live = { .ctx = l, .pause = live_pause, .resume = live_resume, .resized = live_resized, .copy_point = live_copy_point, .merge = live_merge },
        .storage = s,
        .sr = sr,
        .location = location,
    };
}

/* --- what a dead operation left ---------------------------------------------------------------------------- */
static struct error *run_where(struct call *c, struct sr *sr, struct verb *v)
{
    TRY(sr->driver->vdi_attach(c, sr, v->location, v->flag, v->where));
    return sr->driver->vdi_activate == NULL ? NULL : sr->driver->vdi_activate(c, sr, v->location);
}

/* The driver hears again what is in use; a tapd that stands paused goes on with the chain it names. */
static struct error *repair_in_turn(struct call *c, struct storage *s, const char *sr, const char *location, const char *key)
{
    struct vdi_where where;
    struct verb verb = { .name = "vdi_activate", .run = run_where, .location = location, .where = &where };
    struct value status;

    TRY(status_of(c, s, key, &status));
    const char *state = value_get_string(&status, "state", "");
    if (strcmp(state, "inactive") == 0)
        return NULL;
    verb.flag = value_get_int(&status, "read_only", 0) != 0;
    TRY(verb_in_turn(c, s, sr, &verb));
    if (strcmp(state, "paused") != 0)
        return NULL;
    TRY(resume(c, s, key, &where));
    log_warn("%s was left paused and goes on", key);
    return NULL;
}

static struct error *repair_one(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct turn turn = { .sr = sr, .location = location };
    struct error *error;

    TRY(turn_begin(c, s, &turn));
    error = repair_in_turn(c, s, sr, location, vdi_key(c->arena, sr, location));
    turn_end(s, &turn);
    return error;
}

typedef struct error *key_fn(struct call *, struct storage *, const char *sr, const char *location, const char *key);

static void each_tap(struct call *c, struct storage *s, const char *sr, key_fn *fn)
{
    size_t len = strlen(sr);
    struct value list;

    if (s->taps == NULL)
        return;
    list = taps_list(s->taps, c->arena);
    for (unsigned i = 0; i < list.len; i++) {
        const char *key = value_get_string(&list.items[i], "key", "");
        struct error *error;

        if (strncmp(key, sr, len) != 0 || key[len] != '/')
            continue;
        error = fn(c, s, sr, key + len + 1, key);
        if (error != NULL)
            log_err("%s: %s", key, error_text(c->arena, error));
    }
}

static struct error *repair(struct call *c, struct storage *s, const char *sr, const char *location, const char *key)
{
    return copy_key_is(key) ? NULL : repair_one(c, s, sr, location);
}

void live_repair(struct call *c, struct storage *s, const char *sr) { each_tap(c, s, sr, repair); }

static struct error *give_up(struct call *c, struct storage *s, const char *sr, const char *location, const char *key)
{
    const char *to, *path;
    struct value status;

    if (copy_key_is(key))
        return tap_detach(c, s->taps, key, COPY_USER);
    if (tap_leads_to(s->taps, c->arena, key, &to, &path))
        return NULL;
    TRY(status_of(c, s, key, &status));
    if (strcmp(value_get_string(&status, "mirror", "none"), "none") == 0)
        return NULL;
    log_warn("a copy of %s was under way and is given up", key);
    return tap_call(c, s->taps, key, "mirror-abort", NULL, -1, NULL);
}

void live_give_up(struct call *c, struct storage *s, const char *sr) { each_tap(c, s, sr, give_up); }
