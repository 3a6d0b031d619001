/* After a restart: what the journal says is unfinished is finished or rolled back, before clients come in.
 *
 * Source:       before GO-SENT the guest is resumed if it was suspended, its disks opened again; at GO-SENT a thread
 *               asks the destination until it knows.
 * Destination:  before COMMITTED the unfinished copy is destroyed and the migration aborted for ever; at
 *               COMMITTED the disks are opened and the guest is made to run.
 * SRs are not attached yet: the tapds open what they had (storage/sr.h); what cannot be opened is tried again. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "xapi/migrate/disks.h"
#include "xapi/migrate/migrations.h"

LOG_MODULE(recovery);

/* The domain that carries either uuid; false when there is none. */
static bool domain_find(struct call *c, struct migrations *m, const char *uuid, struct domain_info *info_r)
{
    return xenops_find(c, m->xapi->xenops, uuid, info_r) == NULL;
}

/* Gives a suspended source back its name and its life. */
static struct error *revive(struct call *c, struct migrations *m, const struct journal_entry *e, const char *vm, const char *temp)
{
    struct domain_info info;
    if (domain_find(c, m, temp, &info))
        TRY(xenops_rename(c, m->xapi->xenops, temp, vm));
    if (domain_find(c, m, vm, &info)) /* also when it was resumed already: its disks may not have been open yet */
        migration_disks_reopen(c, m, e->migration_id, value_get(&e->facts, "disks"));
    if (domain_find(c, m, vm, &info) && info.state == DOMAIN_SUSPENDED)
        TRY(xenops_resume(c, m->xapi->xenops, vm));
    return NULL;
}

struct error *migration_destroy_old(struct call *c, struct migrations *m, const char *id, const char *temp)
{
    struct member gone[] = { member_of("destroyed", value_string("1")) };
    struct value facts = value_map(gone, ARRAY_LEN(gone));
    TRY(xenops_destroy(c, m->xapi->xenops, temp));
    return journal_write(c->arena, m->journal, id, JOURNAL_SOURCE, JOURNAL_DONE, &facts);
}

static struct error *finish_source(struct call *c, struct migrations *m, const struct journal_entry *e, bool committed)
{
    const char *vm = value_get_string(&e->facts, "vm", ""), *temp = value_get_string(&e->facts, "temp", "");
    if (committed) {
        TRY(journal_write(c->arena, m->journal, e->migration_id, JOURNAL_SOURCE, JOURNAL_DONE, &e->facts));
        TRY(migration_destroy_old(c, m, e->migration_id, temp)); /* renamed before GO; 'vm' may have come back since */
    } else {
        TRY(revive(c, m, e, vm, temp));
        TRY(journal_write(c->arena, m->journal, e->migration_id, JOURNAL_SOURCE, JOURNAL_RESUMED, &e->facts));
    }
    log_info("migration %s of %s: %s after a restart", e->migration_id, vm, committed ? "completed" : "rolled back");
    return NULL;
}

static struct error *finish_destination(struct call *c, struct migrations *m, const struct journal_entry *e)
{
    const char *vm = value_get_string(&e->facts, "vm", ""), *temp = value_get_string(&e->facts, "temp", "");
    struct domain_info info;
    if (e->state != JOURNAL_COMMITTED) {
        TRY(journal_write(c->arena, m->journal, e->migration_id, JOURNAL_DESTINATION, JOURNAL_ABORTED, &e->facts));
        TRY(xenops_destroy(c, m->xapi->xenops, temp));
        log_info("migration %s of %s to this host: given up after a restart", e->migration_id, vm);
        return NULL;
    }
    if (domain_find(c, m, temp, &info))
        TRY(xenops_rename(c, m->xapi->xenops, temp, vm));
    if (domain_find(c, m, vm, &info))
        migration_disks_reopen(c, m, e->migration_id, value_get(&e->facts, "disks"));
    bool paused = value_get_string(&e->facts, "paused", "")[0] != '\0';
    if (!paused && domain_find(c, m, vm, &info) && info.state == DOMAIN_PAUSED)
        TRY(xenops_unpause(c, m->xapi->xenops, vm));
    TRY(journal_write(c->arena, m->journal, e->migration_id, JOURNAL_DESTINATION, JOURNAL_RUNNING, &e->facts));
    log_info("migration %s of %s to this host: completed after a restart", e->migration_id, vm);
    return NULL;
}

/* --- asking in the background --------------------------------------------------------------------------------- */
struct asking { struct migrations *m; struct arena *arena; struct journal_entry entry; };

static struct error *ask_and_finish(struct call *c, struct asking *asking)
{
    struct http_target target;
    TRY(migration_target(c->arena, &asking->entry.facts, &target));
    bool committed = false;
    TRY(migration_resolve(c, asking->m, asking->entry.migration_id, &target, &committed));
    return finish_source(c, asking->m, &asking->entry, committed);
}

static void *asking_run(void *arg)
{
    struct asking *asking = arg;
    struct migrations *m = asking->m;
    struct call c = { .arena = asking->arena, .clock = m->xapi->clock, .id = "recovery" };
    call_enter(&c);
    struct error *e = ask_and_finish(&c, asking);
    if (e != NULL)
        log_err("migration %s is still unresolved: %s", asking->entry.migration_id, error_text(c.arena, e));
    call_enter(NULL);
    arena_free(asking->arena);
    xfree(asking);
    migrations_thread_end(m);
    return NULL;
}

static void ask_later(struct migrations *m, const struct journal_entry *e)
{
    struct asking *asking = xcalloc(1, sizeof *asking);
    asking->m = m;
    asking->arena = arena_new();
    asking->entry = *e;
    asking->entry.migration_id = arena_strdup(asking->arena, e->migration_id);
    asking->entry.facts = value_dup(asking->arena, &e->facts);
    migrations_thread(m, "migrate-ask", asking_run, asking);
}

static struct error *recover_entry(struct call *c, struct migrations *m, const struct journal_entry *e)
{
    if (e->side == JOURNAL_DESTINATION) {
        if (e->state == JOURNAL_PREPARED || e->state == JOURNAL_READY || e->state == JOURNAL_COMMITTED)
            return finish_destination(c, m, e);
        return NULL;
    }
    if (e->state == JOURNAL_GO_SENT)
        ask_later(m, e);
    else if (e->state == JOURNAL_PREPARED || e->state == JOURNAL_STREAMING || e->state == JOURNAL_SUSPENDED)
        return finish_source(c, m, e, false);
    else if (e->state == JOURNAL_DONE && value_get(&e->facts, "destroyed") == NULL) /* a later move may use that name by now */
        return finish_source(c, m, e, true);
    return NULL;
}

struct error *migrations_recover(struct arena *a, struct migrations *m)
{
    struct journal_entry *entries;
    unsigned n;
    struct call c = { .arena = a, .clock = m->xapi->clock, .id = "recovery" };
    TRY(journal_list(a, m->journal, &entries, &n));
    for (unsigned i = 0; i < n; i++) {
        struct error *e = recover_entry(&c, m, &entries[i]);
        if (e != NULL)
            log_err("migration %s could not be recovered and is tried again at the next start: %s", entries[i].migration_id, error_text(a, e));
    }
    return NULL;
}
