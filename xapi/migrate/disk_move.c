#include "xapi/migrate/disk_move.h"

#include <poll.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/task.h"
#include "xapi/migrate/disk_move_rows.h"
#include "xapi/migrate/migrations.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(disk_move);

#define MIB (1ll << 20)
#define POLL_MS 100
#define LOST_HOST_TRIES 100 /* a host that does not answer is asked this often before the move is given up */

struct mover {
    struct api_call *c, calm; /* calm: for undoing what was cancelled */
    struct disk_move *move;
    const struct row *vdi;
    const char *from_uuid, *to_uuid, *location, *to_location, *user; /* of SRs and images */
    int64_t bandwidth;
    double progress;
    unsigned lost;
    bool unknown; /* nobody could say whether it switched: recovery decides */
    struct value status;
};

/* --- verbs ------------------------------------------------------------------------------------------------- */
static struct error *verb(struct mover *m, struct api_call *c, const char *name, const struct member *more, unsigned n, struct value *result_r)
{
    struct value_dict args = { 0 };
    struct value v, ignored;

    value_dict_add(c->arena, &args, "sr", value_string(m->from_uuid));
    value_dict_add(c->arena, &args, "location", value_string(m->location));
    for (unsigned i = 0; i < n; i++)
        value_dict_set(c->arena, &args, more[i].name, more[i].value);
    v = value_dict_value(&args);
    return storage_error(c, agent_call(c, m->move->host, name, &v, result_r != NULL ? result_r : &ignored), row_string(m->vdi, F_VDI_SR), m->move->vdi);
}

static void undo_verb(struct mover *m, const char *name, const struct member *more, unsigned n)
{
    struct error *e = verb(m, &m->calm, name, more, n, NULL);
    if (e != NULL)
        log_warn("disk %s: %s while rolling back: %s", m->location, name, error_text(m->c->arena, e));
}

/* --- step 1: the new disk; from then on the old one says what is going on -------------------------------------- */
static struct error *step_make(struct mover *m)
{
    struct api_call *c = m->c;
    struct disk_move *move = m->move;
    struct value chosen = vdi_row_chosen(c->arena, m->vdi);
    const struct vdi_plan plan = { .sr = move->sr, .size = row_int(m->vdi, F_VDI_virtual_size), .format = move->format, .chosen = &chosen,
                                   .end = VDI_PROVISIONAL };
    const struct row *target;

    TRY(vdi_make(c, &plan, &move->target));
    TRY(disk_move_announce(c, move, m->vdi));
    TRY(db_need(c->db, c->arena, CLASS_VDI, move->target, &target));
    m->to_location = row_string(target, F_VDI_location);
    m->user = arena_printf(c->arena, "move-%s", row_string(target, F_VDI_uuid));
    return NULL;
}

static void undo_make(struct mover *m)
{
    if (m->move->target != NULL)
        disk_move_roll_back(&m->calm, m->move);
}

/* --- step 2: a tapd of the old disk, also where no guest has it ---------------------------------------------- */
static struct error *step_attach(struct mover *m)
{
    const struct member args[] = { member_of("user", value_string(m->user)), member_of("activate", value_bool(true)) };
    return verb(m, m->c, "vdi.attach", args, ARRAY_LEN(args), NULL);
}

static void undo_attach(struct mover *m)
{
    const struct member args[] = { member_of("user", value_string(m->user)) };
    undo_verb(m, "vdi.detach", args, ARRAY_LEN(args));
}

/* --- step 3: the mirror ----------------------------------------------------------------------------------------- */
static struct error *step_mirror(struct mover *m)
{
    const struct member args[] = {
        member_of("to_sr", value_string(m->to_uuid)),
        member_of("to", value_string(m->to_location)),
        member_of("bandwidth", value_int(m->move->bandwidth)),
        member_of("budget_us", value_int(m->move->budget_us)),
    };
    m->bandwidth = m->move->bandwidth;
    return verb(m, m->c, "vdi.mirror_start", args, ARRAY_LEN(args), NULL);
}

static void undo_mirror(struct mover *m)
{
    undo_verb(m, "vdi.mirror_abort", NULL, 0);
}

/* --- step 4: until it is equal but for what the pause can take ------------------------------------------------ */
static struct error *failed(struct mover *m, const char *why)
{
    struct error *e = err_mirror_failed(m->c->arena, m->move->vdi);
    e->cause = why;
    task_note(m->c, "migrate:error", why);
    return e;
}

bool disk_move_bandwidth(const char *text, int64_t *bytes_per_s_r)
{
    static const struct { const char *word; int64_t mib; } words[] = { { "medium", 20 }, { "fast", 30 }, { "unlimited", 0 } };
    int64_t mib;

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(text, words[i].word) == 0) {
            *bytes_per_s_r = words[i].mib * MIB;
            return true;
        }
    if (!text_to_int(text, &mib) || mib < 0 || mib > INT32_MAX)
        return false;
    *bytes_per_s_r = mib * MIB;
    return true;
}

/* What the task's other_config asks for now. */
static void bandwidth_follow(struct mover *m)
{
    struct api_call *c = m->c;
    const struct row *task = c->task != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_task], c->task) : NULL;
    const char *wanted = task != NULL ? row_map(task, F_task_other_config, "bandwidth", "") : "";
    int64_t bandwidth;

    if (wanted[0] == '\0' || !disk_move_bandwidth(wanted, &bandwidth) || bandwidth == m->bandwidth)
        return;
    const struct member args[] = { member_of("bandwidth", value_int(bandwidth)), member_of("budget_us", value_int(-1)) };
    struct error *e = verb(m, c, "vdi.mirror_set", args, ARRAY_LEN(args), NULL);
    if (e != NULL)
        log_warn("disk %s: bandwidth stays as it was: %s", m->location, error_text(c->arena, e));
    else
        m->bandwidth = bandwidth;
}

static void tell(struct mover *m)
{
    double now = (double)value_get_int(&m->status, "mirror_millionths", 0) / 1e6;
    int64_t eta = value_get_int(&m->status, "mirror_eta_ms", 0);

    m->progress = now > m->progress ? now : m->progress;
    call_progress(&m->c->call, 0.02 + 0.93 * (m->progress < 1 ? m->progress : 1));
    task_note(m->c, "migrate:eta_ms", arena_printf(m->c->arena, "%lld", (long long)eta));
    if (eta < 0)
        task_note(m->c, "migrate:will_not_converge",
                  arena_printf(m->c->arena, "%lld bytes would stay behind", (long long)value_get_int(&m->status, "mirror_left", 0)));
}

static bool rest(struct mover *m)
{
    struct call *call = &m->c->call;
    struct pollfd fd = { .fd = call->cancel != NULL ? cancel_fd(call->cancel) : -1, .events = POLLIN };

    return poll(&fd, 1, POLL_MS) >= 0 && !call_cancelled(call) && migrations_pause(m->c->xapi->migrations, 0);
}

static struct error *status_read(struct mover *m)
{
    struct error *e = verb(m, &m->calm, "vdi.mirror_status", NULL, 0, &m->status);

    if (!error_is(e, "CANNOT_CONTACT_HOST") && !error_is(e, "HOST_OFFLINE")) {
        m->lost = 0;
        return e;
    }
    m->unknown = ++m->lost >= LOST_HOST_TRIES; /* the host's tapd goes on by itself meanwhile */
    m->status = value_map(NULL, 0);
    return m->unknown ? e : NULL;
}

/* Waits until the mirror is in one of two states. */
static struct error *follow(struct mover *m, const char *wanted, const char *also)
{
    for (;;) {
        TRY(status_read(m));
        const char *state = value_get_string(&m->status, "mirror", "");
        if (strcmp(state, wanted) == 0 || strcmp(state, also) == 0)
            return NULL;
        if (strcmp(state, "failed") == 0 || strcmp(state, "none") == 0)
            return failed(m, value_get_string(&m->status, "mirror_error", "the mirror has gone"));
        if (m->lost == 0)
            tell(m);
        bandwidth_follow(m);
        if (!rest(m))
            return call_cancelled(&m->c->call) ? err_task_cancelled(m->c->arena, m->c->task != NULL ? m->c->task : REF_NULL)
                                               : err_internal(m->c->arena, "this host's daemon is stopping");
    }
}

static struct error *step_follow(struct mover *m)
{
    return follow(m, "following", "switched");
}

/* --- step 5: the switch -------------------------------------------------------------------------------------------- */
static struct error *step_switch(struct mover *m)
{
    const struct member args[] = { member_of("to_sr", value_string(m->to_uuid)), member_of("to", value_string(m->to_location)) };

    struct error *e = verb(m, m->c, "vdi.mirror_switch", args, ARRAY_LEN(args), NULL);
    if (e == NULL)
        return NULL;
    enum disk_move_outcome outcome = disk_move_outcome(&m->calm, m->move, m->from_uuid, m->location, m->to_uuid, m->to_location);
    if (outcome == DISK_MOVE_SWITCHED)
        return NULL;
    m->unknown = outcome == DISK_MOVE_UNKNOWN;
    return error_is(e, "SR_BACKEND_FAILURE") ? failed(m, error_text(m->c->arena, e)) : e;
}

/* --- steps 6 and 7: the rows follow, the old disk goes --------------------------------------------------------------- */
static void note_result(struct mover *m)
{
    static const char *const keys[][2] = { { "mirror_sent", "migrate:bytes" },       { "mirror_proven", "migrate:proven" },
                                           { "mirror_repaired", "migrate:repaired" }, { "mirror_pause_us", "migrate:pause_us" } };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        task_note(m->c, keys[i][1], arena_printf(m->c->arena, "%lld", (long long)value_get_int(&m->status, keys[i][0], 0)));
}

static struct error *step_commit(struct mover *m)
{
    task_set_cancellable(m->c, false);
    return disk_move_commit(&m->calm, m->move);
}

static struct error *step_clean(struct mover *m)
{
    const struct member args[] = { member_of("sr", value_string(m->to_uuid)), member_of("location", value_string(m->to_location)),
                                   member_of("user", value_string(m->user)) };
    undo_verb(m, "vdi.detach", args, ARRAY_LEN(args));
    disk_move_old_away(&m->calm, m->move);
    return NULL;
}

/* In the order they run; up to and including the switch a failure undoes what was done, last first. */
static const struct step {
    const char *name;
    struct error *(*run)(struct mover *);
    void (*undo)(struct mover *);
} steps[] = {
    { "make", step_make, undo_make },       { "attach", step_attach, undo_attach }, { "mirror", step_mirror, undo_mirror },
    { "follow", step_follow, NULL },        { "switch", step_switch, NULL },        { "commit", step_commit, NULL },
    { "clean", step_clean, NULL },
};

static bool after_switch(const struct step *s)
{
    return s->run == step_commit || s->run == step_clean;
}

static struct error *run_step(struct mover *m, const struct step *s)
{
    if (fault_hit(arena_printf(m->c->arena, "disk.move.%s", s->name)) && !after_switch(s))
        return err_internal(m->c->arena, "injected fault before step %s", s->name);
    return s->run(m);
}

static void undo_from(struct mover *m, unsigned failed_step)
{
    for (unsigned i = failed_step + 1; i-- > 0;) /* a step that failed may be half done: its undo runs too */
        if (steps[i].undo != NULL)
            steps[i].undo(m);
}

static struct error *run_steps(struct mover *m)
{
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        struct error *e = run_step(m, &steps[i]);
        if (steps[i].run == step_switch && e == NULL) {
            (void)!status_read(m); /* the last figures */
            note_result(m);
        }
        if (e == NULL)
            continue;
        log_warn("moving disk %s failed at '%s': %s", m->location, steps[i].name, error_text(m->c->arena, e));
        if (!m->unknown && !after_switch(&steps[i]))
            undo_from(m, i);
        return e;
    }
    return NULL;
}

struct error *disk_move_run(struct api_call *c, struct disk_move *move)
{
    struct mover m = { .c = c, .calm = internal_call_cleanup(c), .move = move };
    const struct row *from, *to;

    TRY(db_need(c->db, c->arena, CLASS_VDI, move->vdi, &m.vdi));
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(m.vdi, F_VDI_SR), &from));
    TRY(db_need(c->db, c->arena, CLASS_SR, move->sr, &to));
    m.from_uuid = row_string(from, F_SR_uuid);
    m.to_uuid = row_string(to, F_SR_uuid);
    m.location = row_string(m.vdi, F_VDI_location);
    task_set_cancellable(c, true);
    TRY(run_steps(&m));
    call_progress(&c->call, 1);
    return NULL;
}
