#include "storage/sr_merge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/sr_copy.h"

LOG_MODULE(merge);

#define POLL_MS 100
#define PAUSED_POLL_MS 2
#define PAUSED_MAX_MS 2000 /* what was little takes too long: the guest goes on, another time */

struct merge {
    struct call *c;
    struct storage *s;
    const char *key; /* of the tapd that does it */
    const struct vdi_where *to;
};

static struct error *status(struct merge *m, struct value *status_r)
{
    return tap_call(m->c, m->s->taps, m->key, "status", NULL, -1, status_r);
}

static void say(struct merge *m, const char *verb)
{
    struct call calm = storage_calm(m->c);
    struct error *error = tap_call(&calm, m->s->taps, m->key, verb, NULL, -1, NULL);

    if (error != NULL)
        log_debug("%s %s: %s", verb, m->key, error_text(m->c->arena, error));
}

static void forget(struct merge *m)
{
    say(m, "mirror-abort");
    say(m, "mirror-end");
}

static struct error *start(struct merge *m)
{
    const struct member members[] = {
        member_of("format", value_string(m->to->format)),
        member_of("path", value_string(m->to->path)),
        member_of("mode", value_string("merge")),
        member_of("proof", value_int(1)),
    };
    struct value args = value_map(members, ARRAY_LEN(members)), now;

    TRY(status(m, &now));
    if (strcmp(value_get_string(&now, "mirror_mode", ""), "merge") == 0) /* of one who died over it */
        forget(m);
    return tap_call(m->c, m->s->taps, m->key, "mirror-start", &args, -1, NULL);
}

static bool rest(struct merge *m, unsigned ms)
{
    LOCK_SCOPE(&m->s->lock);
    (void)cond_wait_ms(&m->s->changed, &m->s->lock, ms);
    return !call_cancelled(m->c);
}

static bool is_clean(const struct value *now)
{
    return strcmp(value_get_string(now, "mirror", ""), "following") == 0 && value_get_int(now, "mirror_dirty", 1) == 0 &&
           value_get_int(now, "mirror_unproven", 1) == 0;
}

/* Until it follows, or (clean) has nothing left to do either. */
static struct error *await(struct merge *m, bool clean, unsigned poll_ms, unsigned max_ms)
{
    for (unsigned waited = 0;; waited += poll_ms) {
        struct value now;

        TRY(status(m, &now));
        const char *state = value_get_string(&now, "mirror", "none");
        int64_t total = value_get_int(&now, "mirror_total", 0), copied = value_get_int(&now, "mirror_copied", 0);
        call_progress(m->c, total > 0 && copied < total ? (double)copied / (double)total : 1.0);
        if (clean ? is_clean(&now) : strcmp(state, "following") == 0)
            return NULL;
        if (strcmp(state, "copying") != 0 && strcmp(state, "following") != 0)
            return mirror_failure(m->c, m->key, &now);
        if (max_ms > 0 && waited >= max_ms)
            return storage_failed(m->c, "%s: the rest of the merge takes too long", m->key);
        if (!rest(m, poll_ms))
            return error_make(m->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    }
}

/* The target is closed by now. */
static struct error *stable(struct call *c, const char *path)
{
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0 ? NULL : storage_failed(c, "syncing %s: %s", path, strerror(errno));
}

/* --- a VDI in use ---------------------------------------------------------------------------------------- */
static struct error *paused(struct merge *m, struct live *l, const char *location, bool *active_r)
{
    struct error *error;

    TRY(l->live.pause(l->live.ctx, m->c, location, active_r));
    error = !*active_r ? storage_failed(m->c, "%s is not in use any more", m->key) : await(m, true, PAUSED_POLL_MS, PAUSED_MAX_MS);
    if (error == NULL)
        error = STORAGE_FAULT(m->c, "sr.merge.paused");
    say(m, "mirror-abort");
    if (error == NULL)
        error = stable(m->c, m->to->path);
    if (error == NULL)
        return NULL;
    *active_r = false;
    struct error *resumed = l->live.resume(l->live.ctx, m->c, location, NULL);
    if (resumed != NULL)
        log_err("%s: %s", m->key, error_text(m->c->arena, resumed));
    return error;
}

static struct error *served(struct merge *m, struct live *l, const char *location, bool *active_r)
{
    struct error *error;

    TRY(start(m)); /* fails where the VDI has a mirror already: that is not ours to end */
    error = await(m, false, POLL_MS, 0);
    if (error == NULL)
        error = STORAGE_FAULT(m->c, "sr.merge.following");
    if (error == NULL)
        error = paused(m, l, location, active_r);
    if (error != NULL)
        forget(m);
    return error;
}

/* --- one that is not ---------------------------------------------------------------------------------------- */
static struct error *run(struct merge *m)
{
    struct error *error;

    TRY(tap_call(m->c, m->s->taps, m->key, "activate", NULL, -1, NULL));
    error = start(m);
    if (error == NULL)
        error = await(m, true, POLL_MS, 0);
    forget(m);
    return error;
}

static struct error *unserved(struct merge *m, const struct vdi_where *from)
{
    static atomic_uint next;
    struct call calm = storage_calm(m->c);
    const struct tap_spec spec = { .key = arena_printf(m->c->arena, "%s#copy-merge-%u", m->key, atomic_fetch_add(&next, 1)),
                                   .format = from->format, .path = from->path, .read_only = true, .cached = from->cached, .cbt = "" };
    struct error *error, *undo;
    const char *uri;

    m->key = spec.key;
    TRY(tap_attach(m->c, m->s->taps, &spec, COPY_USER, &uri));
    error = run(m);
    undo = tap_detach(&calm, m->s->taps, spec.key, COPY_USER);
    if (undo != NULL)
        log_warn("%s: %s", spec.key, error_text(m->c->arena, undo));
    return error != NULL ? error : stable(m->c, m->to->path);
}

static bool serves(struct merge *m)
{
    struct value now;

    return tap_exists(m->s->taps, m->key) && status(m, &now) == NULL && strcmp(value_get_string(&now, "state", ""), "inactive") != 0;
}

struct error *merge_images(struct call *c, struct live *l, const char *location, const struct vdi_where *from, const struct vdi_where *to,
                           bool *active_r)
{
    struct merge m = { .c = c, .s = l->storage, .key = vdi_key(c->arena, l->sr, location), .to = to };

    *active_r = false;
    if (m.s->taps == NULL)
        return storage_failed(c, "no tapd merges images here");
    return serves(&m) ? served(&m, l, location, active_r) : unserved(&m, from);
}
