#include "xapi/migrate/disks.h"

#include "rpc/base/check.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/thread.h"
#include "rpc/base/work.h"
#include "storage/sr.h"
#include "xapi/migrate/disk_sink.h"

LOG_MODULE(migrate);

#define AGAIN_MS 500

#define READY_MS 120000

static unsigned count(const struct value *disks) { return disks != NULL && disks->kind == VALUE_SET ? disks->len : 0; }

/* --- all at once --------------------------------------------------------------------------------------------------- */
struct disk_job;
typedef struct error *disk_fn(struct call *, struct xapi *, const struct disk_job *);
struct disk_job {
    struct xapi *xapi;
    disk_fn *fn;
    const char *sr, *location;
    bool hand_over;
    struct call call;    /* with an arena of its own */
    pthread_t thread;
    bool started;
    struct error *error; /* in that arena */
};

static void *job_run(void *arg)
{
    struct disk_job *j = arg;
    struct call *before = call_enter(&j->call);

    j->error = j->fn(&j->call, j->xapi, j);
    call_enter(before);
    return NULL;
}

/* The first error, in the caller's arena. */
static struct error *all(struct call *c, struct xapi *xapi, const struct value *disks, disk_fn *fn)
{
    unsigned n = count(disks);
    struct disk_job *jobs = xcalloc(n + 1, sizeof(*jobs));
    struct error *first = NULL;

    for (unsigned i = 0; i < n; i++) {
        struct disk_job *j = &jobs[i];

        *j = (struct disk_job){ .xapi = xapi, .fn = fn, .call = *c,
                                .sr = value_get_string(&disks->items[i], "sr", ""), .location = value_get_string(&disks->items[i], "location", ""),
                                .hand_over = value_get_bool(&disks->items[i], "hand_over", false) };
        j->call.arena = arena_new();
        j->call.progress = NULL;
        j->started = i + 1 < n && thread_try_start("migrate-disk", job_run, j, &j->thread) == 0;
    }
    for (unsigned i = n; i-- > 0;) /* the last one, and those that got no thread, here */
        if (!jobs[i].started)
            job_run(&jobs[i]);
    for (unsigned i = 0; i < n; i++) {
        if (jobs[i].started)
            CHECK(pthread_join(jobs[i].thread, NULL) == 0);
        if (first == NULL && jobs[i].error != NULL)
            first = error_dup(c->arena, jobs[i].error);
        arena_free(jobs[i].call.arena);
    }
    xfree(jobs);
    return first;
}

static struct error *ready_one(struct call *c, struct xapi *xapi, const struct disk_job *j)
{
    return j->hand_over ? vdi_mirror_ready(c, xapi->storage, j->sr, j->location, READY_MS) : NULL;
}

static struct error *close_one(struct call *c, struct xapi *xapi, const struct disk_job *j)
{
    if (j->hand_over)
        TRY(vdi_mirror_hand_over(c, xapi->storage, j->sr, j->location));
    return vdi_deactivate(c, xapi->storage, j->sr, j->location);
}

static struct error *open_one(struct call *c, struct xapi *xapi, const struct disk_job *j)
{
    return vdi_activate(c, xapi->storage, j->sr, j->location);
}

struct error *migration_disks_ready(struct call *c, struct xapi *xapi, const struct value *disks) { return all(c, xapi, disks, ready_one); }
struct error *migration_disks_close(struct call *c, struct xapi *xapi, const struct value *disks) { return all(c, xapi, disks, close_one); }

struct error *migration_disks_open(struct call *c, struct xapi *xapi, const struct value *disks)
{
    disk_sinks_cut(xapi, disks);
    return all(c, xapi, disks, open_one);
}

/* --- the way back -------------------------------------------------------------------------------------------- */
struct reopening { struct migrations *m; struct arena *arena; const char *id; struct value disks; };

static void reopen_finish(struct reopening *r)
{
    struct migrations *m = r->m;

    arena_free(r->arena);
    xfree(r);
    LOCK_SCOPE(&m->lock);
    m->recovering--;
    cond_broadcast(&m->changed);
}

static void *reopen_run(void *arg)
{
    struct reopening *r = arg;
    bool open = false;

    while (!open && migrations_pause(r->m, AGAIN_MS)) {
        AUTO_ARENA a = arena_new();
        struct call c = { .arena = a, .clock = r->m->xapi->clock, .id = "disks" };
        struct error *error = all(&c, r->m->xapi, &r->disks, open_one);

        open = error == NULL;
        if (!open)
            log_warn_rl("migration %s: disks that the guest waits for are not open yet: %s", r->id, error_text(a, error));
    }
    if (open)
        log_info("migration %s: the guest's disks are open again", r->id);
    reopen_finish(r);
    return NULL;
}

void migration_disks_reopen(struct call *c, struct migrations *m, const char *id, const struct value *disks)
{
    struct error *error = all(c, m->xapi, disks, open_one);

    if (error == NULL)
        return;
    log_err("migration %s: the guest waits for its disks: %s", id, error_text(c->arena, error));
    struct reopening *r = xcalloc(1, sizeof(*r));
    r->m = m;
    r->arena = arena_new();
    r->id = arena_strdup(r->arena, id);
    r->disks = value_dup(r->arena, disks);
    lock_take(&m->lock);
    m->recovering++;
    lock_drop(&m->lock);
    pthread_detach(thread_start("migrate-disks", reopen_run, r));
}
