#include "storage/sr_copy.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "gen/errors.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "storage/sparse_copy.h"

LOG_MODULE(copy);

#define POLL_MIN_MS 10
#define POLL_MAX_MS 200

/* --- waiting for a mirror -------------------------------------------------------------------------------- */
static struct error *cancelled(struct call *c) { return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0); }

static void report(struct call *c, const struct value *status)
{
    int64_t total = value_get_int(status, "mirror_total", 0), copied = value_get_int(status, "mirror_copied", 0);

    if (total > 0)
        call_progress(c, (double)(copied < total ? copied : total) / (double)total);
}

static struct error *mirror_verb(struct call *c, struct storage *s, const char *key, const char *verb)
{
    struct call calm = storage_calm(c);

    return tap_call(&calm, s->taps, key, verb, NULL, -1, NULL);
}

/* Waits a little; false when cancelled. */
static bool rest(struct call *c, struct storage *s, unsigned ms)
{
    LOCK_SCOPE(&s->lock);
    (void)cond_wait_ms(&s->changed, &s->lock, ms);
    return !call_cancelled(c);
}

struct error *mirror_failure(struct call *c, const char *key, const struct value *status)
{
    const char *state = value_get_string(status, "mirror", "none"), *why = value_get_string(status, "mirror_error", "");

    if (strcmp(state, "failed") != 0 && why[0] == '\0')
        return storage_failed(c, "the mirror of %s is gone (%s)", key, state);
    return storage_failed(c, "%s", why[0] != '\0' ? why : "the mirror failed");
}

static bool under_way(const char *state)
{
    return strcmp(state, "copying") == 0 || strcmp(state, "following") == 0 || strcmp(state, "switching") == 0;
}

struct error *mirror_await(struct call *c, struct storage *s, const char *key, const char *wanted)
{
    for (unsigned ms = POLL_MIN_MS;; ms = ms * 2 < POLL_MAX_MS ? ms * 2 : POLL_MAX_MS) {
        struct value status;

        TRY(tap_call(c, s->taps, key, "status", NULL, -1, &status));
        const char *state = value_get_string(&status, "mirror", "none");
        report(c, &status);
        if (strcmp(state, wanted) == 0)
            return mirror_verb(c, s, key, "mirror-end");
        if (!under_way(state))
            return mirror_failure(c, key, &status);
        if (strcmp(wanted, "switched") == 0 && strcmp(state, "following") == 0)
            TRY(mirror_verb(c, s, key, "mirror-switch")); /* a tapd that was started again does not know of it */
        if (!rest(c, s, ms))
            return cancelled(c);
    }
}

/* --- a tapd for one copy ------------------------------------------------------------------------------------ */
static struct error *start(struct call *c, struct storage *s, const char *key, const char *mode, const struct vdi_where *to)
{
    const struct member members[] = {
        member_of("format", value_string(to->format)),
        member_of("path", value_string(to->path)),
        member_of("mode", value_string(mode)),
        member_of("proof", value_int(1)),
    };
    struct value args = value_map(members, ARRAY_LEN(members));

    return tap_call(c, s->taps, key, "mirror-start", &args, -1, NULL);
}

bool copy_key_is(const char *key) { return strstr(key, "#copy-") != NULL; }

static const char *copy_key(struct arena *a, const char *key)
{
    static atomic_uint next;

    return arena_printf(a, "%s#copy-%u", key, atomic_fetch_add(&next, 1));
}

static struct error *copy_in_tap(struct call *c, struct storage *s, const char *key, const struct vdi_where *to)
{
    TRY(tap_call(c, s->taps, key, "activate", NULL, -1, NULL));
    TRY(start(c, s, key, "copy", to));
    return mirror_await(c, s, key, "done");
}

static struct error *copy_by_tap(struct call *c, struct storage *s, const char *of, const struct vdi_where *from, const struct vdi_where *to, int64_t size)
{
    struct call calm = storage_calm(c);
    const struct tap_spec spec = { .key = copy_key(c->arena, of), .format = from->format, .path = from->path, .read_only = true,
                                   .cached = from->cached, .size = size, .cbt = "" };
    const char *uri;

    TRY(tap_attach(c, s->taps, &spec, COPY_USER, &uri));
    struct error *error = copy_in_tap(c, s, spec.key, to);
    struct error *undo = tap_detach(&calm, s->taps, spec.key, COPY_USER);
    if (undo != NULL)
        log_warn("%s: %s", spec.key, error_text(c->arena, undo));
    return error;
}

static bool serves(struct call *c, struct storage *s, const char *key)
{
    struct value status;

    if (!tap_exists(s->taps, key) || tap_call(c, s->taps, key, "status", NULL, -1, &status) != NULL)
        return false;
    return strcmp(value_get_string(&status, "state", ""), "inactive") != 0;
}

struct error *copy_point(struct call *c, struct storage *s, const char *key, const struct vdi_where *from, const struct vdi_where *to)
{
    struct error *error;

    if (s->taps == NULL)
        return storage_failed(c, "no tapd copies %s here", key);
    if (!serves(c, s, key))
        return copy_by_tap(c, s, key, from, to, 0);
    TRY(start(c, s, key, "point", to));
    error = mirror_await(c, s, key, "done");
    if (error != NULL) {
        struct error *undo = mirror_verb(c, s, key, "mirror-abort");

        if (undo == NULL)
            undo = mirror_verb(c, s, key, "mirror-end");
        if (undo != NULL)
            log_debug("%s: %s", key, error_text(c->arena, undo));
    }
    return error;
}

/* --- vdi_copy --------------------------------------------------------------------------------------------------- */
struct side { const char *sr, *location, *user; struct vdi_where where; struct vdi_stat stat; bool attached; };

static struct error *side_open(struct call *c, struct storage *s, struct side *side, bool read_only)
{
    const struct vdi_use use = { .user = side->user, .read_only = read_only, .direct = true };

    TRY(vdi_stat(c, s, side->sr, side->location, &side->stat));
    TRY(vdi_attach(c, s, side->sr, side->location, &use, &side->where));
    side->attached = true;
    return NULL;
}

static void side_close(struct call *c, struct storage *s, struct side *side)
{
    struct call calm = storage_calm(c);
    struct error *error = side->attached ? vdi_detach(&calm, s, side->sr, side->location, side->user) : NULL;

    if (error != NULL)
        log_warn("detaching %s: %s", side->location, error_text(c->arena, error));
}

static bool plain_file(const struct side *side, struct stat *st)
{
    bool raw = strcmp(side->where.format, "raw") == 0 || strcmp(side->where.format, "iso") == 0;

    return raw && stat(side->where.path, st) == 0 && S_ISREG(st->st_mode);
}

/* The kernel moves the data itself inside one file system. */
static bool kernel_can(const struct side *from, const struct side *to)
{
    struct stat a, b;

    return plain_file(from, &a) && plain_file(to, &b) && a.st_dev == b.st_dev;
}

static struct error *copy_sides(struct call *c, struct storage *s, struct side *from, struct side *to)
{
    struct stat st;

    if (to->stat.virtual_size < from->stat.virtual_size)
        return err_vdi_too_small(c->arena, to->location, arena_printf(c->arena, "%lld", (long long)from->stat.virtual_size));
    if (kernel_can(from, to) || (s->taps == NULL && plain_file(from, &st) && plain_file(to, &st)))
        return sparse_copy_path(c, from->where.path, to->where.path, from->stat.virtual_size);
    if (s->taps == NULL)
        return err_sr_operation_not_supported(c->arena, from->sr);
    if (strcmp(from->where.format, "iso") == 0)
        from->where.format = "raw";
    return copy_by_tap(c, s, vdi_key(c->arena, from->sr, from->location), &from->where, &to->where, from->stat.virtual_size);
}

struct error *vdi_copy(struct call *c, struct storage *s, const char *sr, const char *location, const char *to_sr, const char *to)
{
    static atomic_uint next;
    const char *user = arena_printf(c->arena, "copy-%u", atomic_fetch_add(&next, 1));
    struct side source = { .sr = sr, .location = location, .user = user }, target = { .sr = to_sr, .location = to, .user = user };
    struct error *error = side_open(c, s, &source, true);

    if (error == NULL)
        error = side_open(c, s, &target, false);
    if (error == NULL)
        error = copy_sides(c, s, &source, &target);
    side_close(c, s, &target);
    side_close(c, s, &source);
    return error;
}
