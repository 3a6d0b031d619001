#include "xapi/migrate/disks_only.h"

#include <string.h>

#include "rpc/base/log.h"
#include "xapi/core/operations.h"
#include "xapi/core/task.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disk_move.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move_active.h"
#include "xapi/migrate/move_watch.h"

LOG_MODULE(move);

static const char *host_of(struct api_call *c, const struct move *m, const struct move_disk *d)
{
    const char *host = NULL;
    disk_move_host(c, d->sr, d->target_sr, m->guest == MOVE_RUNNING ? m->from : NULL, &host);
    return host;
}

bool disks_only_can(struct api_call *c, const struct move *m)
{
    if (m->destination.ops != &destination_local || (m->guest == MOVE_RUNNING && strcmp(m->from, m->destination.host) != 0))
        return false;
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].how != MOVE_DISK_STAYS && host_of(c, m, &m->disks[i]) == NULL)
            return false;
    return true;
}

/* One disk's share of the whole. */
struct share { void (*progress)(struct call *, double); void *ctx; double from, part; };

static void share_progress(struct call *call, double fraction)
{
    const struct share *s = call->progress_ctx;
    struct call outer = *call;
    outer.progress_ctx = s->ctx;
    if (s->progress != NULL)
        s->progress(&outer, s->from + s->part * fraction);
}

static struct error *move_disk(struct api_call *c, const struct move *m, struct move_disk *d)
{
    TRY(operation_begin(c, CLASS_VDI, d->vdi, "mirror", true));
    OPERATION_SCOPE on_vdi = { c, CLASS_VDI, d->vdi, "mirror" };
    struct disk_move one = { .vdi = d->vdi, .sr = d->target_sr, .host = host_of(c, m, d), .format = d->format != NULL ? d->format : "",
                             .bandwidth = m->options.bandwidth, .budget_us = (int64_t)m->options.max_downtime_ms * 1000,
                             .quarantine_s = config_int(c->xapi->config, "vdi-quarantine") };
    TRY(disk_move_run(c, &one));
    d->target = one.target;
    return NULL;
}

static struct error *move_disks(struct api_call *c, struct move *m)
{
    int64_t total = 1, done = 0;
    for (unsigned i = 0; i < m->n_disks; i++)
        total += m->disks[i].how != MOVE_DISK_STAYS ? m->disks[i].size : 0;
    for (unsigned i = 0; i < m->n_disks; i++) {
        struct move_disk *d = &m->disks[i];
        if (d->how == MOVE_DISK_STAYS)
            continue;
        struct share share = { c->call.progress, c->call.progress_ctx, (double)done / (double)total, (double)d->size / (double)total };
        c->call.progress = share_progress;
        c->call.progress_ctx = &share;
        task_set_cancellable(c, true);
        struct error *e = move_disk(c, m, d);
        c->call.progress = share.progress;
        c->call.progress_ctx = share.ctx;
        TRY(e);
        done += d->size;
    }
    return NULL;
}

static struct error *begin(struct api_call *c, const struct move *m)
{
    const struct row *vm, *host;
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    TRY(db_need(c->db, c->arena, CLASS_host, m->from, &host));
    const struct ledger_row row = {
        .id = m->id, .side = LEDGER_OUT, .stage = "open", .kind = m->kind, .vm_uuid = m->vm_uuid, .vm_name = row_string(vm, F_VM_name_label),
        .user = c->user, .from_host = row_string(host, F_host_uuid), .from_name = row_string(host, F_host_name_label),
        .to_host = m->destination.host_uuid, .to_name = m->destination.host_name, .began_ms = clock_wall(c->call.clock) * 1000,
        .note = value_map(NULL, 0), .facts = value_map(NULL, 0), /* each disk's own note is what recovery goes by */
    };
    task_note(c, "migrate:id", m->id);
    return ledger_put(c->arena, c->xapi->ledger, &row);
}

struct error *disks_only_run(struct api_call *c, struct move *m)
{
    TRY(begin(c, m));
    move_active_begin(c->xapi, m->id);
    move_phase(c, m, "mirror");
    struct error *e = move_disks(c, m);
    move_phase(c, m, NULL);
    move_active_end(c->xapi, m->id);
    const char *outcome = e == NULL ? "success" : error_is(e, "TASK_CANCELLED") ? "cancelled" : "failed";
    struct error *l = ledger_end(c->arena, c->xapi->ledger, m->id, LEDGER_OUT, outcome, e != NULL ? error_text(c->arena, e) : "", "",
                                 clock_wall(c->call.clock) * 1000);
    if (l != NULL)
        log_err("the end of migration %s is not in the ledger: %s", m->id, error_text(c->arena, l));
    return e;
}
