/* Moves of disks that an earlier life of the daemon left unfinished, and old disks whose time has come. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/work.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/timers.h"
#include "xapi/migrate/disk_move_rows.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_make.h"

LOG_MODULE(disk_move);

#define EVERY_MS 60000

static bool task_runs(struct api_call *c, const char *ref)
{
    const struct row *task = db_get(c->db, c->arena, &model_classes[CLASS_task], ref);
    return task != NULL && (strcmp(row_string(task, F_task_status), "pending") == 0 || strcmp(row_string(task, F_task_status), "cancelling") == 0);
}

static void let_go(struct api_call *c, const struct disk_move *m, const char *sr, const char *location)
{
    const struct row *target = db_get(c->db, c->arena, &model_classes[CLASS_VDI], m->target);
    const char *uuid = target != NULL ? row_string(target, F_VDI_uuid) : "";
    const struct member args[] = { member_of("sr", value_string(sr)), member_of("location", value_string(location)),
                                   member_of("user", value_string(arena_printf(c->arena, "move-%s", uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *e = agent_call(c, m->host, "vdi.detach", &v, &ignored);
    if (e != NULL)
        log_warn("disk %s stays attached after its move: %s", location, error_text(c->arena, e));
}

static void abort_mirror(struct api_call *c, const struct disk_move *m, const char *sr, const char *location)
{
    const struct member args[] = { member_of("sr", value_string(sr)), member_of("location", value_string(location)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *e = agent_call(c, m->host, "vdi.mirror_abort", &v, &ignored);
    if (e != NULL)
        log_warn("the mirror of disk %s could not be ended: %s", location, error_text(c->arena, e));
    let_go(c, m, sr, location);
}

static struct error *finish(struct api_call *c, const struct disk_move *m, bool committed, const char *to_sr, const char *to_location)
{
    if (!committed)
        TRY(disk_move_commit(c, m));
    let_go(c, m, to_sr, to_location);
    disk_move_old_away(c, m);
    return NULL;
}

static void recover(struct api_call *c, const struct row *vdi, const struct disk_move_note *note)
{
    struct disk_move m = { .vdi = vdi->ref, .sr = note->sr, .host = note->host, .target = note->target, .quarantine_s = note->quarantine_s };
    const struct row *from = db_get(c->db, c->arena, &model_classes[CLASS_SR], row_string(vdi, F_VDI_SR));
    const struct row *to = db_get(c->db, c->arena, &model_classes[CLASS_SR], note->sr);
    const struct row *target = db_get(c->db, c->arena, &model_classes[CLASS_VDI], note->target);
    const char *to_location = target != NULL ? row_string(target, F_VDI_location) : "";

    if (from == NULL || to == NULL)
        return;
    const char *from_uuid = row_string(from, F_SR_uuid), *to_uuid = row_string(to, F_SR_uuid), *location = row_string(vdi, F_VDI_location);
    enum disk_move_outcome outcome = note->moved ? DISK_MOVE_SWITCHED : disk_move_outcome(c, &m, from_uuid, location, to_uuid, to_location);
    if (outcome == DISK_MOVE_UNKNOWN) {
        log_warn("what became of the move of disk %s cannot be known yet", location);
        return;
    }
    if (outcome == DISK_MOVE_SWITCHED) {
        struct error *e = finish(c, &m, note->moved, to_uuid, to_location);
        if (e != NULL)
            log_err("the finished move of disk %s cannot be written down yet: %s", location, error_text(c->arena, e));
        else
            log_info("the move of disk %s to SR %s was completed after a restart", location, to_uuid);
        return;
    }
    if (outcome == DISK_MOVE_RUNNING)
        abort_mirror(c, &m, from_uuid, location);
    disk_move_roll_back(c, &m);
    log_info("the move of disk %s to SR %s was rolled back after a restart", location, to_uuid);
}

static void recover_marked(struct api_call *c, const struct row *vdi, const struct disk_move_note *note)
{
    bool taken = false;
    struct error *e = operation_take(c, CLASS_VDI, vdi->ref, "mirror", &taken);

    if (e != NULL)
        log_warn("disk %s: %s", row_string(vdi, F_VDI_uuid), error_text(c->arena, e));
    if (!taken)
        return; /* busy: another round */
    recover(c, vdi, note);
    operation_end(c, CLASS_VDI, vdi->ref, "mirror");
}

static void recover_host(struct api_call *c, const char *host_ref)
{
    struct row_list vdis = db_all(c->db, c->arena, &model_classes[CLASS_VDI]);
    struct disk_move_note note;

    for (unsigned i = 0; i < vdis.n; i++)
        if (disk_move_note_of(c->arena, vdis.rows[i], &note) && strcmp(note.host, host_ref) == 0 && !task_runs(c, note.task))
            recover_marked(c, vdis.rows[i], &note);
}

/* --- quarantine ------------------------------------------------------------------------------------------------ */
static void quarantine_end(struct api_call *c)
{
    struct row_list vdis = db_all(c->db, c->arena, &model_classes[CLASS_VDI]);

    for (unsigned i = 0; i < vdis.n; i++) {
        const struct row *vdi = vdis.rows[i];
        int64_t until;

        if (!text_to_int(row_map(vdi, F_VDI_other_config, DISK_QUARANTINE_KEY, ""), &until) || until > clock_wall(c->call.clock))
            continue;
        if (row_value(vdi, F_VDI_VBDs)->len > 0 || row_value(vdi, F_VDI_current_operations)->len > 0)
            continue; /* somebody took it back */
        struct error *e = vdi_unmake(c, vdi->ref);
        if (e != NULL)
            log_warn("disk %s, whose quarantine is over, stays: %s", row_string(vdi, F_VDI_uuid), error_text(c->arena, e));
    }
}

static bool live(struct api_call *c, const struct row *host)
{
    const struct row *metrics = db_get(c->db, c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    return metrics != NULL && row_bool(metrics, F_host_metrics_live);
}

/* --- in the background ---------------------------------------------------------------------------------------- */
struct job { struct xapi *xapi; char *host_ref; /* NULL: all that are live */ };

static void job_run(void *arg)
{
    struct job *job = arg;
    AUTO_ARENA arena = arena_new();
    struct api_call c;

    internal_call_init(&c, job->xapi, arena, "disk moves");
    struct row_list hosts = db_all(c.db, arena, &model_classes[CLASS_host]);
    for (unsigned i = 0; i < hosts.n; i++)
        if (job->host_ref != NULL ? strcmp(job->host_ref, hosts.rows[i]->ref) == 0 : live(&c, hosts.rows[i]))
            recover_host(&c, hosts.rows[i]->ref);
    quarantine_end(&c);
    xfree(job->host_ref);
    xfree(job);
}

static void post(struct xapi *xapi, const char *host_ref)
{
    struct job *job = xcalloc(1, sizeof *job);

    *job = (struct job){ xapi, host_ref != NULL ? xstrdup(host_ref) : NULL };
    if (work_pool_post(xapi->task_workers, job_run, job))
        return;
    xfree(job->host_ref);
    xfree(job);
}

void disk_moves_host_up(struct xapi *xapi, const char *host_ref)
{
    post(xapi, host_ref);
}

static void every_minute(void *xapi)
{
    post(xapi, NULL);
}

void disk_moves_start(struct xapi *xapi)
{
    if (!xapi->is_coordinator)
        return;
    post(xapi, xapi->host_ref);
    timers_every(xapi->timers, EVERY_MS, every_minute, xapi);
}

/* --- where ------------------------------------------------------------------------------------------------------ */
void disk_move_host(struct api_call *c, const char *from_sr, const char *to_sr, const char *wanted, const char **host_r)
{
    struct row_list hosts = db_all(c->db, c->arena, &model_classes[CLASS_host]);

    *host_r = NULL;
    for (unsigned i = 0; i < hosts.n; i++) {
        const char *ref = hosts.rows[i]->ref;

        if ((wanted == NULL || strcmp(wanted, ref) == 0) && live(c, hosts.rows[i]) && sr_plugged_on(c, from_sr, ref) && sr_plugged_on(c, to_sr, ref)) {
            *host_r = ref;
            if (c->xapi->host_ref != NULL && strcmp(c->xapi->host_ref, ref) == 0)
                return; /* our own host saves the way */
        }
    }
}
