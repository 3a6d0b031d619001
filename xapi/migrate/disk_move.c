#include "xapi/migrate/disk_move.h"

#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/task.h"
#include "xapi/migrate/disk_mirror.h"
#include "xapi/migrate/disk_move_rows.h"
#include "xapi/migrate/queue.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

LOG_MODULE(disk_move);

#define MIB (1ll << 20)

struct mover {
    struct api_call *c, calm; /* calm: for undoing what was cancelled */
    struct disk_move *move;
    const struct row *vdi;
    const char *from_uuid, *to_uuid, *location, *to_location, *user; /* of SRs and images */
    struct disk_mirror mirror;
    bool unknown; /* nobody could say whether it switched: recovery decides */
};

/* --- verbs ------------------------------------------------------------------------------------------------- */
static struct error *verb(struct mover *m, struct api_call *c, const char *name, const struct member *more, unsigned n, struct value *result_r)
{
    return disk_mirror_verb(c, &m->mirror, name, more, n, result_r);
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
    m->mirror.bandwidth = m->move->bandwidth;
    return verb(m, m->c, "vdi.mirror_start", args, ARRAY_LEN(args), NULL);
}

static void undo_mirror(struct mover *m)
{
    undo_verb(m, "vdi.mirror_abort", NULL, 0);
}

/* --- step 4: until it is equal but for what the pause can take ------------------------------------------------ */
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

static void tell(struct mover *m)
{
    const struct value *status = &m->mirror.status;
    double now = (double)value_get_int(status, "mirror_millionths", 0) / 1e6;

    m->mirror.progress = now > m->mirror.progress ? now : m->mirror.progress;
    call_progress(&m->c->call, 0.02 + 0.93 * (m->mirror.progress < 1 ? m->mirror.progress : 1));
    disk_mirror_tell(m->c, value_get_int(status, "mirror_eta_ms", 0), value_get_int(status, "mirror_left", 0));
}

static struct error *status_read(struct mover *m)
{
    struct error *e = disk_mirror_look(&m->calm, &m->mirror);

    m->unknown = m->mirror.unknown;
    return e;
}

/* Waits until the mirror is in one of two states. */
static struct error *follow(struct mover *m, const char *wanted, const char *also)
{
    for (;;) {
        TRY(status_read(m));
        const char *state = disk_mirror_state(&m->mirror);
        if (strcmp(state, wanted) == 0 || strcmp(state, also) == 0)
            return NULL;
        if (strcmp(state, "failed") == 0 || strcmp(state, "none") == 0)
            return disk_mirror_cause(m->c, &m->mirror);
        if (m->mirror.lost == 0)
            tell(m);
        disk_mirror_limit(m->c, &m->mirror, disk_mirror_wanted_bandwidth(m->c, m->mirror.bandwidth));
        TRY(disk_mirror_rest(m->c));
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

    if (m->move->options != NULL)
        TRY(queue_before_switch(m->c, m->move->options)); /* the mirror follows meanwhile */
    struct error *e = verb(m, m->c, "vdi.mirror_switch", args, ARRAY_LEN(args), NULL);
    if (e == NULL)
        return NULL;
    enum disk_move_outcome outcome = disk_move_outcome(&m->calm, m->move, m->from_uuid, m->location, m->to_uuid, m->to_location);
    if (outcome == DISK_MOVE_SWITCHED)
        return NULL;
    m->unknown = outcome == DISK_MOVE_UNKNOWN;
    return error_is(e, "SR_BACKEND_FAILURE") ? disk_mirror_failed(m->c, &m->mirror, error_text(m->c->arena, e)) : e;
}

/* --- steps 6 and 7: the rows follow, the old disk goes --------------------------------------------------------------- */
static void note_result(struct mover *m)
{
    static const char *const keys[][2] = { { "mirror_sent", "migrate:bytes" },       { "mirror_proven", "migrate:proven" },
                                           { "mirror_repaired", "migrate:repaired" }, { "mirror_pause_us", "migrate:pause_us" } };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        task_note(m->c, keys[i][1], arena_printf(m->c->arena, "%lld", (long long)value_get_int(&m->mirror.status, keys[i][0], 0)));
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
    m.mirror = (struct disk_mirror){ .host = move->host, .vdi = move->vdi, .sr = row_string(m.vdi, F_VDI_SR), .sr_uuid = m.from_uuid, .location = m.location };
    task_set_cancellable(c, true);
    TRY(run_steps(&m));
    call_progress(&c->call, 1);
    return NULL;
}
