#include "storage/sr.h"

#include <string.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "storage/sparse_copy.h"

LOG_MODULE(sr);

#define TURN_MS 200 /* how often a waiter looks at its cancel flag */

/* An attached SR; owned by the storage, counted by the calls that use it. */
struct attached {
    struct attached *next;
    struct arena *arena; /* holds the strings of 'sr' */
    struct sr sr;
    unsigned users;
    bool gone; /* detached: freed by the last user */
};

/* Someone's turn on an SR or one of its VDIs. */
struct turn { struct turn *next; const char *sr, *location; };

struct storage {
    struct lock lock;
    struct cond changed;
    struct attached *srs;
    struct turn *turns;
};

struct storage *storage_new(void)
{
    struct storage *s = xcalloc(1, sizeof(*s));

    lock_init(&s->lock, LOCK_STORAGE);
    cond_init(&s->changed);
    return s;
}

static void attached_free(struct attached *a)
{
    xfree(a->sr.state);
    arena_free(a->arena);
    xfree(a);
}

void storage_free(struct storage *s)
{
    if (s == NULL)
        return;
    while (s->srs != NULL) {
        struct attached *a = s->srs;
        AUTO_ARENA arena = arena_new();
        struct call c = { .arena = arena, .clock = &clock_real };
        struct error *error = a->sr.driver->sr_detach(&c, &a->sr);

        if (error != NULL)
            log_warn("detaching SR %s: %s", a->sr.uuid, error_text(arena, error));
        s->srs = a->next;
        attached_free(a);
    }
    CHECK(s->turns == NULL);
    cond_release(&s->changed);
    lock_release(&s->lock);
    xfree(s);
}

/* --- turns -------------------------------------------------------------------------------------- */
static bool turn_taken_locked(const struct storage *s, const struct turn *mine)
{
    for (const struct turn *t = s->turns; t != NULL; t = t->next)
        if (strcmp(t->sr, mine->sr) == 0 && strcmp(t->location, mine->location) == 0)
            return true;
    return false;
}

/* location "": the SR itself. */
static struct error *turn_begin(struct call *c, struct storage *s, struct turn *turn)
{
    LOCK_SCOPE(&s->lock);
    while (turn_taken_locked(s, turn)) {
        if (call_cancelled(c))
            return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
        (void)cond_wait_ms(&s->changed, &s->lock, TURN_MS);
    }
    turn->next = s->turns;
    s->turns = turn;
    return NULL;
}

static void turn_end(struct storage *s, struct turn *turn)
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

static struct attached *attached_use(struct storage *s, const char *uuid)
{
    LOCK_SCOPE(&s->lock);
    struct attached *a = find_locked(s, uuid);

    if (a != NULL)
        a->users++;
    return a;
}

static void attached_leave(struct storage *s, struct attached *a)
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

/* --- a verb on an attached SR ------------------------------------------------------------------------ */
/* What one verb needs; run() calls the driver. */
struct verb {
    const char *name;
    unsigned cap; /* 0: any driver can */
    struct error *(*run)(struct call *, struct sr *, struct verb *);
    const char *location, *uuid;
    const struct vdi_create_spec *create;
    int64_t size;
    bool read_only;
    struct vdi_stat *vdi, **vdis;
    unsigned *n;
    struct sr_stat *stat;
    struct vdi_where *where;
};

static struct error *verb_checked(struct call *c, struct sr *sr, struct verb *verb)
{
    int64_t start = clock_ms(c->clock);
    struct error *error;

    if (verb->cap != 0 && (sr->driver->caps & verb->cap) == 0)
        return err_sr_operation_not_supported(c->arena, sr->uuid);
    if (fault_hit(arena_printf(c->arena, "sr.%s", verb->name)))
        return err_sr_backend_failure(c->arena, "5", "", "fault injected");
    error = verb->run(c, sr, verb);
    log_debug("%s %s %s %s %lld ms", verb->name, sr->uuid, verb->location, error == NULL ? "ok" : error->code,
              (long long)(clock_ms(c->clock) - start));
    return error;
}

static struct error *verb_run(struct call *c, struct storage *s, const char *uuid, struct verb *verb)
{
    struct turn turn = { .sr = uuid, .location = verb->location };
    struct attached *a;
    struct error *error;

    TRY(turn_begin(c, s, &turn));
    a = attached_use(s, uuid);
    error = a == NULL ? err_sr_not_attached(c->arena, uuid) : verb_checked(c, &a->sr, verb);
    if (a != NULL)
        attached_leave(s, a);
    turn_end(s, &turn);
    return error;
}

/* --- SRs ------------------------------------------------------------------------------------------ */
static struct error *spec_check(struct call *c, const struct sr_spec *spec, const struct sr_driver **driver_r)
{
    const struct sr_driver *driver = sr_driver_find(spec->type);

    if (driver == NULL)
        return err_sr_unknown_driver(c->arena, spec->type);
    for (const struct config_key *k = driver->config; k->name != NULL; k++)
        if (k->required && value_get_string(&spec->device_config, k->name, "")[0] == '\0')
            return err_sr_backend_failure(c->arena, "90", "",
                                          arena_printf(c->arena, "device-config lacks '%s' (%s)", k->name, k->help));
    *driver_r = driver;
    return NULL;
}

/* create or destroy of an SR that is not attached. */
static struct error *sr_once(struct call *c, struct storage *s, const struct sr_spec *spec, int64_t size, bool create)
{
    struct turn turn = { .sr = spec->uuid, .location = "" };
    struct sr sr = { .uuid = spec->uuid, .device_config = spec->device_config, .shared = spec->shared };
    struct error *error;

    TRY(spec_check(c, spec, &sr.driver));
    sr.state = arena_alloc(c->arena, sr.driver->state_size + 1);
    TRY(turn_begin(c, s, &turn));
    if (fault_hit(create ? "sr.create" : "sr.destroy"))
        error = err_sr_backend_failure(c->arena, "5", "", "fault injected");
    else
        error = create ? sr.driver->sr_create(c, &sr, size) : sr.driver->sr_destroy(c, &sr);
    turn_end(s, &turn);
    return error;
}

struct error *sr_create(struct call *c, struct storage *s, const struct sr_spec *spec, int64_t size)
{
    return sr_once(c, s, spec, size, true);
}

struct error *sr_destroy(struct call *c, struct storage *s, const struct sr_spec *spec)
{
    TRY(sr_detach(c, s, spec->uuid));
    return sr_once(c, s, spec, 0, false);
}

static struct attached *attached_new(const struct sr_spec *spec, const struct sr_driver *driver)
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

struct error *sr_attach(struct call *c, struct storage *s, const struct sr_spec *spec)
{
    struct turn turn = { .sr = spec->uuid, .location = "" };
    const struct sr_driver *driver;
    struct error *error = NULL;

    TRY(spec_check(c, spec, &driver));
    TRY(turn_begin(c, s, &turn));
    if (!sr_is_attached(s, spec->uuid)) {
        struct attached *a = attached_new(spec, driver);

        error = fault_hit("sr.attach") ? err_sr_backend_failure(c->arena, "5", "", "fault injected") : driver->sr_attach(c, &a->sr);
        if (error != NULL)
            attached_free(a);
        else {
            LOCK_SCOPE(&s->lock);
            a->next = s->srs;
            s->srs = a;
        }
    }
    turn_end(s, &turn);
    return error;
}

static void attached_remove(struct storage *s, struct attached *gone)
{
    LOCK_SCOPE(&s->lock);
    struct attached **at = &s->srs;

    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    gone->gone = true;
}

struct error *sr_detach(struct call *c, struct storage *s, const char *uuid)
{
    struct turn turn = { .sr = uuid, .location = "" };
    struct attached *a;
    struct error *error = NULL;

    TRY(turn_begin(c, s, &turn));
    a = attached_use(s, uuid);
    if (a != NULL) {
        error = a->sr.driver->sr_detach(c, &a->sr);
        if (error == NULL)
            attached_remove(s, a);
        attached_leave(s, a);
    }
    turn_end(s, &turn);
    return error;
}

static struct error *run_stat(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->sr_stat(c, sr, v->stat);
}

struct error *sr_stat(struct call *c, struct storage *s, const char *uuid, struct sr_stat *stat)
{
    struct verb verb = { .name = "stat", .run = run_stat, .location = "", .stat = stat };

    return verb_run(c, s, uuid, &verb);
}

static struct error *run_scan(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->sr_scan(c, sr, v->vdis, v->n);
}

struct error *sr_scan(struct call *c, struct storage *s, const char *uuid, struct vdi_stat **vdis_r, unsigned *n_r)
{
    struct verb verb = { .name = "scan", .run = run_scan, .location = "", .vdis = vdis_r, .n = n_r };

    return verb_run(c, s, uuid, &verb);
}

struct error *sr_probe(struct call *c, const char *type, const struct value *device_config, struct value *srs_r)
{
    const struct sr_spec spec = { .uuid = "", .type = type, .device_config = *device_config };
    const struct sr_driver *driver;

    TRY(spec_check(c, &spec, &driver));
    if (driver->sr_probe == NULL)
        return err_sr_operation_not_supported(c->arena, type);
    return driver->sr_probe(c, device_config, srs_r);
}

/* --- VDIs ------------------------------------------------------------------------------------------ */
static struct error *run_create(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_create(c, sr, v->create, v->vdi);
}

struct error *vdi_create(struct call *c, struct storage *s, const char *sr, const struct vdi_create_spec *spec, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_create", .cap = SR_CAP_VDI_CREATE, .run = run_create, .location = spec->uuid, .create = spec, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_destroy(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_destroy(c, sr, v->location);
}

struct error *vdi_destroy(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct verb verb = { .name = "vdi_destroy", .cap = SR_CAP_VDI_DELETE, .run = run_destroy, .location = location };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_resize(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_resize(c, sr, v->location, v->size, v->vdi);
}

struct error *vdi_resize(struct call *c, struct storage *s, const char *sr, const char *location, int64_t size, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_resize", .cap = SR_CAP_VDI_RESIZE, .run = run_resize, .location = location, .size = size, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_clone(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_clone(c, sr, v->location, v->uuid, v->vdi);
}

struct error *vdi_clone(struct call *c, struct storage *s, const char *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_clone", .cap = SR_CAP_VDI_CLONE, .run = run_clone, .location = location, .uuid = uuid, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_snapshot(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_snapshot(c, sr, v->location, v->uuid, v->vdi);
}

struct error *vdi_snapshot(struct call *c, struct storage *s, const char *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_snapshot", .cap = SR_CAP_VDI_SNAPSHOT, .run = run_snapshot, .location = location, .uuid = uuid, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_vdi_stat(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_stat(c, sr, v->location, v->vdi);
}

struct error *vdi_stat(struct call *c, struct storage *s, const char *sr, const char *location, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_stat", .run = run_vdi_stat, .location = location, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_attach(struct call *c, struct sr *sr, struct verb *v)
{
    TRY(sr->driver->vdi_attach(c, sr, v->location, v->read_only, v->where));
    return sr->driver->vdi_activate == NULL ? NULL : sr->driver->vdi_activate(c, sr, v->location);
}

struct error *vdi_attach(struct call *c, struct storage *s, const char *sr, const char *location, bool read_only, struct vdi_where *where)
{
    struct verb verb = { .name = "vdi_attach", .run = run_attach, .location = location, .read_only = read_only, .where = where };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_detach(struct call *c, struct sr *sr, struct verb *v)
{
    if (sr->driver->vdi_deactivate != NULL)
        TRY(sr->driver->vdi_deactivate(c, sr, v->location));
    return sr->driver->vdi_detach == NULL ? NULL : sr->driver->vdi_detach(c, sr, v->location);
}

struct error *vdi_detach(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct verb verb = { .name = "vdi_detach", .run = run_detach, .location = location };

    return verb_run(c, s, sr, &verb);
}

struct error *vdi_copy(struct call *c, struct storage *s, const char *sr, const char *location, const char *to_sr, const char *uuid,
                       struct vdi_stat *vdi)
{
    struct vdi_stat from;
    struct vdi_where source, target;
    struct error *error;

    TRY(vdi_stat(c, s, sr, location, &from));
    TRY(vdi_attach(c, s, sr, location, true, &source));
    if (strcmp(from.format, "raw") != 0 && strcmp(from.format, "iso") != 0)
        return err_sr_operation_not_supported(c->arena, sr);
    TRY(vdi_create(c, s, to_sr, &(struct vdi_create_spec) { .uuid = uuid, .virtual_size = from.virtual_size, .format = "raw" }, vdi));
    error = vdi_attach(c, s, to_sr, vdi->location, false, &target);
    if (error == NULL)
        error = sparse_copy_path(c, source.path, target.path, from.virtual_size);
    if (error == NULL)
        return vdi_stat(c, s, to_sr, vdi->location, vdi);
    struct error *undo = vdi_destroy(&(struct call) { .arena = c->arena, .clock = c->clock }, s, to_sr, vdi->location);
    if (undo != NULL)
        log_warn("removing the incomplete copy %s: %s", uuid, error_text(c->arena, undo));
    return error;
}
