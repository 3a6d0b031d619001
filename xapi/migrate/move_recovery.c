/* Moves that nobody works on: left by an earlier life of the coordinator, or given up because a host could not be asked. The
 * ledger says how far they were; what became of the switch the hosts' journals say (move_outcome.h). */
#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/timers.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/disk_send.h"
#include "xapi/migrate/incoming.h"
#include "xapi/migrate/incoming_rows.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move_active.h"
#include "xapi/migrate/move_note.h"
#include "xapi/migrate/move_outcome.h"
#include "xapi/migrate/move_source.h"

LOG_MODULE(recovery);

#define EVERY_MS 15000

/* --- what this process works on ------------------------------------------------------------------------------------- */
struct moves {
    struct lock lock;
    struct active { struct active *next; const char *id; } *active;
    bool looking; /* one job looks at a time */
};

static struct moves *moves_of(struct xapi *xapi)
{
    return xapi->moves;
}

void move_active_begin(struct xapi *xapi, const char *id)
{
    struct active *a = xcalloc(1, sizeof *a);
    a->id = xstrdup(id);
    LOCK_SCOPE(&moves_of(xapi)->lock);
    a->next = moves_of(xapi)->active;
    moves_of(xapi)->active = a;
}

void move_active_end(struct xapi *xapi, const char *id)
{
    LOCK_SCOPE(&moves_of(xapi)->lock);
    for (struct active **p = &moves_of(xapi)->active; *p != NULL; p = &(*p)->next)
        if (strcmp((*p)->id, id) == 0) {
            struct active *gone = *p;
            *p = gone->next;
            xfree((char *)gone->id);
            xfree(gone);
            return;
        }
}

bool move_is_active(struct xapi *xapi, const char *id)
{
    LOCK_SCOPE(&moves_of(xapi)->lock);
    for (const struct active *a = moves_of(xapi)->active; a != NULL; a = a->next)
        if (strcmp(a->id, id) == 0)
            return true;
    return false;
}

/* --- one move ---------------------------------------------------------------------------------------------------------- */
static void end(struct api_call *c, const struct move *m, const char *outcome, const char *cause, const char *did)
{
    struct error *e = ledger_end(c->arena, c->xapi->ledger, m->id, LEDGER_OUT, outcome, cause, did, clock_wall(c->call.clock) * 1000);
    if (e != NULL)
        log_err("the end of migration %s is not in the ledger: %s", m->id, error_text(c->arena, e));
    else
        log_info("migration %s of VM %s: %s", m->id, m->vm_uuid, did);
}

static void roll_back(struct api_call *c, struct move *m)
{
    disk_send_end(c, m);
    struct error *e = m->destination.ops->abort(c, m);
    if (e != NULL) {
        log_warn("migration %s: what was made at the destination is cleared up later: %s", m->id, error_text(c->arena, e));
        e = move_note_put(c, m, "undo"); /* the VM is free meanwhile */
        if (e != NULL)
            log_err("migration %s: %s", m->id, error_text(c->arena, e));
        return;
    }
    move_source_forget(c, m);
    bool known = m->cause != NULL && m->cause[0] != '\0';
    end(c, m, "failed", known ? m->cause : "the coordinator stopped in mid-migration", "rolled back: the VM is where it was");
}

static struct error *complete(struct api_call *c, struct move *m)
{
    const char *power = m->final_power != NULL && m->final_power[0] != '\0' ? m->final_power : m->options.paused ? "Paused" : "Running";
    m->final_power = power;
    TRY(move_note_put(c, m, "commit"));
    TRY(move_source_commit(c, m, power, m->final_domid));
    TRY(move_note_put(c, m, "clean"));
    return NULL;
}

static struct error *clean(struct api_call *c, struct move *m)
{
    TRY(move_source_clean(c, m));
    end(c, m, "success", "", "completed: the VM is at its destination");
    return NULL;
}

static enum move_outcome outcome_of(struct api_call *c, const struct ledger_row *row, const struct move *m)
{
    if (strcmp(row->stage, "commit") == 0 || strcmp(row->stage, "clean") == 0)
        return MOVE_COMMITTED;
    bool undoes = strcmp(row->stage, "open") == 0 || strcmp(row->stage, "undo") == 0;
    return undoes ? MOVE_ABORTED : move_outcome(c, m, false);
}

static void settle(struct api_call *c, const struct ledger_row *row, struct move *m)
{
    enum move_outcome outcome = outcome_of(c, row, m);
    if (outcome == MOVE_UNKNOWN || outcome == MOVE_PENDING) {
        log_info("what became of migration %s of VM %s is not known yet", m->id, m->vm_uuid);
        return;
    }
    if (outcome == MOVE_ABORTED) {
        roll_back(c, m);
        return;
    }
    struct error *e = strcmp(row->stage, "clean") == 0 ? NULL : complete(c, m);
    if (e == NULL)
        e = clean(c, m);
    if (e != NULL)
        log_warn("migration %s is done, but not all is written down or cleared up yet: %s", m->id, error_text(c->arena, e));
}

/* Recovery's own mark on the VM is keyed by the migration's name. */
static void call_of(struct api_call *c, struct xapi *xapi, struct arena *arena, const char *id)
{
    internal_call_init(c, xapi, arena, arena_printf(arena, "move:%s", id));
}

static bool mark(struct api_call *c, const struct ledger_row *row, const struct move *m)
{
    char *key = arena_printf(c->arena, "DummyRef:|%s", c->call.id);
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm);
    bool taken = false;
    if (vm == NULL || value_get(row_value(vm, F_VM_current_operations), key) != NULL)
        return true; /* gone, or marked before */
    struct error *e = operation_take(c, CLASS_VM, m->vm, row->kind, &taken);
    return e == NULL && taken;
}

/* Once its rows are written a VM of this pool is as any other, whatever is still to be cleared up; one that has left must not
 * be touched until its record is gone. */
static bool needs_mark(const struct ledger_row *row, const struct move *m)
{
    bool leaves = m->destination.ops != &destination_local && !m->options.copy && !m->options.keep_source;
    if (strcmp(row->stage, "done") == 0 || strcmp(row->stage, "undo") == 0)
        return false;
    return leaves || strcmp(row->stage, "clean") != 0;
}

static bool ours(const struct ledger_row *row)
{
    return row->side == LEDGER_OUT && strcmp(row->stage, "queued") != 0 && strcmp(row->kind, "VDI.pool_migrate") != 0;
}

static void recover(struct xapi *xapi, const struct ledger_row *row)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    struct move m;
    bool found = false;
    struct ledger_row now;
    if (!ours(row) || move_is_active(xapi, row->id))
        return;
    if (!move_note_read(arena, row, &m)) { /* it had not begun, or only disks moved: each of those has its own note */
        call_of(&c, xapi, arena, row->id);
        m = (struct move){ .id = row->id, .vm_uuid = row->vm_uuid };
        end(&c, &m, "failed", "the coordinator stopped in mid-migration", "ended: nothing had moved, or disks one by one");
        return;
    }
    call_of(&c, xapi, arena, row->id);
    struct call *outer = call_enter(&c.call);
    if (!needs_mark(row, &m) || mark(&c, row, &m)) { /* else another call has it: the next round */
        settle(&c, row, &m);
        struct error *e = ledger_get(arena, xapi->ledger, row->id, LEDGER_OUT, &now, &found);
        if (e == NULL && found && !needs_mark(&now, &m) && db_get(c.db, arena, &model_classes[CLASS_VM], m.vm) != NULL)
            operation_end(&c, CLASS_VM, m.vm, row->kind);
    }
    call_enter(outer);
}

/* --- all of them ---------------------------------------------------------------------------------------------------------- */
static void each(struct xapi *xapi, void (*act)(struct xapi *, const struct ledger_row *))
{
    AUTO_ARENA arena = arena_new();
    struct ledger_query q = { .active = true, .limit = 10000 };
    struct ledger_row *rows;
    unsigned n;
    struct error *e = ledger_list(arena, xapi->ledger, &q, &rows, &n);
    if (e != NULL)
        log_err("migrations to recover cannot be read: %s", error_text(arena, e));
    for (unsigned i = 0; e == NULL && i < n; i++)
        act(xapi, &rows[i]);
}

/* VMs that came with persistent=false: their records go when they have been shut down; their disks stay. */
static void transient_away(struct xapi *xapi)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    internal_call_init(&c, xapi, arena, "transient");
    struct row_list vms = db_all(xapi->db, arena, &model_classes[CLASS_VM]);
    for (unsigned i = 0; i < vms.n; i++) {
        const struct row *vm = vms.rows[i];
        bool taken = false;
        if (strcmp(row_map(vm, F_VM_other_config, INCOMING_TRANSIENT, ""), "true") != 0 || strcmp(row_string(vm, F_VM_power_state), "Halted") != 0)
            continue;
        struct error *e = operation_take(&c, CLASS_VM, vm->ref, "destroy", &taken);
        if (e == NULL && taken)
            e = metadata_remove(&c, vm->ref);
        if (e != NULL)
            log_warn("the transient VM %s stays: %s", row_string(vm, F_VM_uuid), error_text(arena, e));
    }
}

static bool looking(struct xapi *xapi, bool now)
{
    LOCK_SCOPE(&moves_of(xapi)->lock);
    bool before = moves_of(xapi)->looking;
    moves_of(xapi)->looking = now;
    return before;
}

static void look(void *arg)
{
    struct xapi *xapi = arg;
    if (looking(xapi, true))
        return;
    each(xapi, recover);
    transient_away(xapi);
    looking(xapi, false);
}

void moves_later(struct xapi *xapi)
{
    (void)work_pool_post(xapi->task_workers, look, xapi);
}

static void again(void *xapi)
{
    moves_later(xapi);
}

void moves_host_up(struct xapi *xapi, const char *host_ref)
{
    if (xapi->moves != NULL)
        moves_later(xapi);
}

/* At once, before hosts report and clients come in: nobody else may take these VMs for something they are not. */
static void mark_first(struct xapi *xapi, const struct ledger_row *row)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;
    struct move m;
    if (!ours(row) || !move_note_read(arena, row, &m))
        return;
    call_of(&c, xapi, arena, row->id);
    if (needs_mark(row, &m) && !mark(&c, row, &m))
        log_warn("VM %s, in mid-migration, could not be marked", row->vm_uuid);
}

void moves_open(struct xapi *xapi)
{
    xapi->moves = xcalloc(1, sizeof *xapi->moves);
    lock_init(&xapi->moves->lock, LOCK_SINKS);
    if (xapi->ledger != NULL) {
        each(xapi, mark_first);
        incoming_moves_start(xapi);
    }
}

void moves_start(struct xapi *xapi)
{
    if (!xapi->is_coordinator)
        return;
    moves_later(xapi);
    timers_every(xapi->timers, EVERY_MS, again, xapi);
}

void moves_close(struct xapi *xapi)
{
    if (xapi->moves == NULL)
        return;
    while (xapi->moves->active != NULL)
        move_active_end(xapi, xapi->moves->active->id);
    lock_release(&xapi->moves->lock);
    xfree(xapi->moves);
    xapi->moves = NULL;
}
