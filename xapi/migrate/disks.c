#include "xapi/migrate/disks.h"

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "storage/sr.h"

LOG_MODULE(migrate);

#define AGAIN_MS 500

typedef struct error *disk_fn(struct call *, struct storage *, const char *sr, const char *location);

static unsigned count(const struct value *disks) { return disks != NULL && disks->kind == VALUE_SET ? disks->len : 0; }

static struct error *one(struct call *c, struct xapi *xapi, const struct value *disk, disk_fn *fn)
{
    return fn(c, xapi->storage, value_get_string(disk, "sr", ""), value_get_string(disk, "location", ""));
}

struct error *migration_disks_close(struct call *c, struct xapi *xapi, const struct value *disks)
{
    for (unsigned i = 0; i < count(disks); i++)
        TRY(one(c, xapi, &disks->items[i], vdi_deactivate));
    return NULL;
}

struct error *migration_disks_open(struct call *c, struct xapi *xapi, const struct value *disks)
{
    struct error *first = NULL;

    for (unsigned i = 0; i < count(disks); i++) {
        struct error *error = one(c, xapi, &disks->items[i], vdi_activate);

        if (first == NULL)
            first = error;
    }
    return first;
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
        struct error *error = migration_disks_open(&c, r->m->xapi, &r->disks);

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
    struct error *error = migration_disks_open(c, m->xapi, disks);

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
