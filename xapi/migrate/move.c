#include "xapi/migrate/move.h"

#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/task.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disk_send.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move_active.h"
#include "xapi/migrate/move_note.h"
#include "xapi/migrate/move_outcome.h"
#include "xapi/migrate/move_send.h"
#include "xapi/migrate/move_source.h"
#include "xapi/migrate/move_watch.h"
#include "xapi/migrate/preflight.h"
#include "xapi/migrate/queue.h"

LOG_MODULE(move);

struct mover {
    struct api_call *c, calm; /* calm: deaf to cancelling, for undoing and for what follows the switch */
    struct move *m;
    bool left;                /* something of the destination's could not be undone: recovery tries again */
    bool unknown;             /* nobody could say whether it switched: recovery asks again */
    const char *power;        /* of the VM once it is there */
    int domid;
};

/* --- note ------------------------------------------------------------------------------------------------------ */
static const char *host_field(struct api_call *c, const char *ref, unsigned field)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], ref);
    return host != NULL ? row_string(host, field) : "";
}

static struct error *step_note(struct mover *mv)
{
    struct api_call *c = mv->c;
    struct move *m = mv->m;
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    const struct ledger_row row = {
        .id = m->id, .side = LEDGER_OUT, .stage = "open", .kind = m->kind, .vm_uuid = m->vm_uuid,
        .vm_name = row_string(vm, F_VM_name_label), .user = c->user, .key = m->key,
        .from_host = host_field(c, m->from, F_host_uuid), .from_name = host_field(c, m->from, F_host_name_label),
        .to_host = m->destination.host_uuid, .to_name = m->destination.host_name,
        .began_ms = clock_wall(c->call.clock) * 1000, .note = value_map(NULL, 0), .facts = value_map(NULL, 0),
    };
    TRY(ledger_put(c->arena, c->xapi->ledger, &row));
    task_note(c, "migrate:id", m->id);
    return move_note_put(c, m, "open");
}

/* The caller's reservation of room. */
static void undo_note(struct mover *mv)
{
    vm_run_unreserve(&mv->calm, mv->m->vm);
}

/* --- open, preflight, copy, mirror, admit ------------------------------------------------------------------------ */
static struct error *step_open(struct mover *mv)
{
    return mv->m->destination.ops->open(mv->c, mv->m);
}

static void undo_open(struct mover *mv)
{
    struct error *e = mv->m->destination.ops->abort(&mv->calm, mv->m);
    if (e != NULL)
        log_warn("migration %s: what was made at the destination is cleared up later: %s", mv->m->id, error_text(mv->c->arena, e));
    mv->left = e != NULL;
}

static bool moves_data(const struct move *m)
{
    return m->guest == MOVE_RUNNING || m->n_disks > 0;
}

static struct error *step_preflight(struct mover *mv)
{
    bool elsewhere = mv->m->destination.ops != &destination_local || strcmp(mv->m->from, mv->m->destination.host) != 0;
    if (!elsewhere || !moves_data(mv->m) || !config_bool(mv->c->xapi->config, "migration-preflight"))
        return NULL;
    return preflight_run(mv->c, mv->m);
}

static double disk_share(const struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].how != MOVE_DISK_STAYS)
            return m->guest == MOVE_RUNNING ? 0.7 : 0.95;
    return 0.02;
}

static struct error *step_copy(struct mover *mv)
{
    return disk_send_copy(mv->c, mv->m, 0.02, disk_share(mv->m) / 2);
}

static struct error *step_mirror(struct mover *mv)
{
    return disk_send_mirror(mv->c, mv->m, disk_share(mv->m) / 2, disk_share(mv->m));
}

static void undo_disks(struct mover *mv)
{
    disk_send_end(&mv->calm, mv->m);
}

static struct error *step_admit(struct mover *mv)
{
    TRY(mv->m->destination.ops->admit(mv->c, mv->m));
    return move_note_put(mv->c, mv->m, "open");
}

/* --- send -------------------------------------------------------------------------------------------------------- */
static struct error *send_running(struct mover *mv)
{
    struct move *m = mv->m;
    struct error *e = move_send(mv->c, m, disk_share(m));
    if (e == NULL) {
        mv->power = value_get_bool(&m->result, "paused", m->options.paused) ? "Paused" : "Running";
        mv->domid = (int)value_get_int(&m->result, "domid", -1);
        return NULL;
    }
    if (m->guest == MOVE_HALTED) /* its guest shut down in mid-migration: the disks go on */
        return NULL;
    enum move_outcome outcome = move_outcome(&mv->calm, m, !move_answered(e));
    mv->unknown = outcome == MOVE_UNKNOWN || outcome == MOVE_PENDING; /* nothing may be undone yet */
    if (outcome != MOVE_COMMITTED)
        return e;
    log_warn("migration %s: the source's word was lost (%s), but the guest is at its destination", m->id, error_text(mv->c->arena, e));
    mv->power = m->options.paused ? "Paused" : "Running";
    return NULL;
}

static struct error *step_send(struct mover *mv)
{
    struct move *m = mv->m;
    mv->domid = -1;
    if (m->guest == MOVE_RUNNING)
        TRY(send_running(mv));
    if (m->guest == MOVE_RUNNING)
        return NULL;
    mv->power = m->guest == MOVE_SUSPENDED ? "Suspended" : "Halted";
    if (call_cancelled(&mv->c->call))
        return err_task_cancelled(mv->c->arena, mv->c->task != NULL ? mv->c->task : REF_NULL);
    TRY(queue_before_switch(mv->c, &m->options));
    task_set_cancellable(mv->c, false);
    return disk_send_hand_over(mv->c, m);
}

/* --- commit and clean: what cannot be done now is done by recovery ------------------------------------------------- */
static struct error *step_commit(struct mover *mv)
{
    struct move *m = mv->m;
    task_set_cancellable(mv->c, false);
    m->final_power = mv->power;
    m->final_domid = mv->domid;
    TRY(move_note_put(&mv->calm, m, "commit"));
    move_facts(mv->c, m, &m->result);
    disk_send_tell(mv->c, m);
    return move_source_commit(&mv->calm, m, mv->power, mv->domid);
}

static struct error *step_clean(struct mover *mv)
{
    TRY(move_note_put(&mv->calm, mv->m, "clean"));
    return move_source_clean(&mv->calm, mv->m);
}

/* In the order they run; up to and including 'send' a failure undoes what was done, last first. */
static const struct step {
    const char *name;
    struct error *(*run)(struct mover *);
    void (*undo)(struct mover *); /* what cannot be undone now sets 'left' */
} steps[] = {
    { "note", step_note, undo_note }, { "open", step_open, undo_open },      { "preflight", step_preflight, NULL },
    { "copy", step_copy, undo_disks }, { "mirror", step_mirror, undo_disks }, { "admit", step_admit, NULL },
    { "send", step_send, NULL },     { "commit", step_commit, NULL },       { "clean", step_clean, NULL },
};

static bool after_switch(const struct step *s)
{
    return s->run == step_commit || s->run == step_clean;
}

static struct error *run_step(struct mover *mv, const struct step *s)
{
    move_phase(mv->c, mv->m, s->name);
    if (fault_hit(arena_printf(mv->c->arena, "migrate.move.%s", s->name)) && !after_switch(s))
        return err_internal(mv->c->arena, "injected fault before step %s", s->name);
    if (!after_switch(s) && call_cancelled(&mv->c->call))
        return err_task_cancelled(mv->c->arena, mv->c->task != NULL ? mv->c->task : REF_NULL);
    return s->run(mv);
}

static void undo_from(struct mover *mv, unsigned failed)
{
    for (unsigned i = failed + 1; i-- > 0;) /* a step that failed may be half done: its undo runs too */
        if (steps[i].undo != NULL)
            steps[i].undo(mv);
}

static void end_failed(struct mover *mv, const struct error *e)
{
    struct api_call *c = mv->c;
    mv->m->cause = error_text(c->arena, e);
    if (mv->left && move_note_put(&mv->calm, mv->m, "undo") == NULL)
        return;
    const char *outcome = error_is(e, "TASK_CANCELLED") ? "cancelled" : "failed";
    struct error *l = ledger_end(c->arena, c->xapi->ledger, mv->m->id, LEDGER_OUT, outcome, error_text(c->arena, e), "",
                                 clock_wall(c->call.clock) * 1000);
    if (l != NULL)
        log_err("the end of migration %s is not in the ledger: %s", mv->m->id, error_text(c->arena, l));
}

static struct error *run_steps(struct mover *mv)
{
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        struct error *e = run_step(mv, &steps[i]);
        if (e == NULL)
            continue;
        log_warn("migration %s of VM %s %s at '%s': %s", mv->m->id, mv->m->vm_uuid, after_switch(&steps[i]) ? "goes on later" : "failed",
                 steps[i].name, error_text(mv->c->arena, e));
        if (after_switch(&steps[i])) {
            moves_later(mv->c->xapi);
            return NULL; /* the VM is there */
        }
        if (mv->unknown) {
            moves_later(mv->c->xapi);
            return e;
        }
        undo_from(mv, i);
        move_source_forget(&mv->calm, mv->m);
        end_failed(mv, e);
        return e;
    }
    return NULL;
}

struct error *move_run(struct api_call *c, struct move *m, const char **vm_ref_r)
{
    struct mover mv = { .c = c, .calm = internal_call_cleanup(c), .m = m, .domid = -1, .power = "Running" };
    m->result = value_map(NULL, 0);
    task_set_cancellable(c, true);
    move_active_begin(c->xapi, m->id);
    struct error *e = run_steps(&mv);
    move_phase(c, m, NULL);
    move_active_end(c->xapi, m->id);
    peer_pool_release(m->destination.peer);
    m->destination.peer = NULL;
    TRY(e);
    call_progress(&c->call, 1);
    *vm_ref_r = m->vm_there != NULL && m->vm_there[0] != '\0' ? m->vm_there : m->vm;
    return NULL;
}
