#include "xapi/pool/sr_watch.h"

#include <stdatomic.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/timers.h"
#include "xapi/core/vm_run.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"
#include "xapi/pool/vm_wake.h"

LOG_MODULE(sr_watch);

#define DIRTY "dirty"
#define AGAIN "again" /* its value when clearing up failed: tried again by a round that refreshes */
#define AUTO_SCAN "auto-scan"
#define CLEAN_WAIT_MS 5000

struct sr_watch {
    struct xapi *xapi;
    atomic_bool busy;      /* a round is queued or running */
    _Atomic int64_t refreshed_ms; /* when the last round with refreshing began; -1: never */
    char start_id[UUID_LEN + 1];
};

const char *sr_watch_start_id(struct xapi *xapi)
{
    return xapi->sr_watch != NULL ? xapi->sr_watch->start_id : "starting";
}

struct error *sr_watch_dirty(struct txn *txn, const char *sr_ref)
{
    if (txn_get(txn, &model_classes[CLASS_SR], sr_ref) == NULL)
        return NULL;
    return txn_map_put(txn, CLASS_SR, sr_ref, F_SR_other_config, DIRTY, value_string(""));
}

/* --- clearing up -------------------------------------------------------------------------------------------- */
/* The host where a VM writes to the disk; NULL: none does. */
static const char *writer_host(struct api_call *c, const struct row *vdi)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vm = vbd == NULL ? NULL : db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM));

        if (vm != NULL && row_bool(vbd, F_VBD_currently_attached) && !ref_is_null(row_string(vm, F_VM_resident_on)))
            return row_string(vm, F_VM_resident_on);
    }
    return NULL;
}

/* Rather where a VM writes to a disk of the SR: there its chain can be shortened under it. NULL: nowhere plugged. */
static const char *cleaning_host(struct api_call *c, const struct row *sr)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);
    const char *host;

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdis->items[i].s);
        const char *writer = vdi == NULL ? NULL : writer_host(c, vdi);

        if (writer != NULL)
            return writer;
    }
    return sr_host(c, sr->ref, &host) == NULL ? host : NULL;
}

/* Waits a while for the host to have done all; it goes on by itself, and the next round asks again. */
static struct error *clean(struct api_call *c, const struct row *sr)
{
    const struct member members[] = { member_of("uuid", value_string(row_string(sr, F_SR_uuid))) };
    struct value args = value_map(members, 1), ignored;
    const char *host = cleaning_host(c, sr);
    struct api_call brief = *c;

    brief.call.deadline_ms = clock_ms(c->call.clock) + CLEAN_WAIT_MS;
    return host == NULL ? NULL : agent_call(&brief, host, "sr.clean", &args, &ignored);
}

/* Taken as a scan only while the rows follow: coalescing may be long, and excludes others by itself. */
static struct error *scan(struct api_call *c, const struct row *sr)
{
    bool taken;

    TRY(operation_take(c, CLASS_SR, sr->ref, "scan", &taken));
    if (!taken)
        return NULL; /* busy: the next round */
    OPERATION_SCOPE scope = { c, CLASS_SR, sr->ref, "scan" };
    return sr_rescan(c, sr->ref);
}

/* --- sizes ---------------------------------------------------------------------------------------------------- */
static struct error *refresh_disks(struct api_call *c, const struct row *sr)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi != NULL && !row_bool(vdi, F_VDI_read_only) && writer_host(c, vdi) != NULL)
            TRY(vdi_refresh(c, vdi->ref));
    }
    return sr_sizes_refresh(c, sr->ref);
}

/* --- what a death left --------------------------------------------------------------------------------------------- */
static void remove_left_overs(struct api_call *c, const struct row *sr)
{
    const struct value *vdis = row_value(sr, F_SR_VDIs);

    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = db_get(c->db, c->arena, &model_classes[CLASS_VDI], vdis->items[i].s);

        if (vdi == NULL || (!vdi_is_left_over(c, vdi) && !vm_image_is_unused(c, vdi)))
            continue;
        log_info("disk %s was not finished by an earlier start, or is of no use any more: removed", row_string(vdi, F_VDI_uuid));
        vdi_discard(c, vdi->ref, "the unfinished disk");
    }
}

/* --- rounds ------------------------------------------------------------------------------------------------------ */
static bool plugged_anywhere(struct api_call *c, const struct row *sr)
{
    const char *host;

    return sr_host(c, sr->ref, &host) == NULL;
}

static struct error *clean_again(struct api_call *c, const char *sr_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr = txn_get(txn, &model_classes[CLASS_SR], sr_ref);

    if (sr == NULL || row_map(sr, F_SR_other_config, DIRTY, NULL) != NULL)
        return NULL;
    TRY(txn_map_put(txn, CLASS_SR, sr_ref, F_SR_other_config, DIRTY, value_string(AGAIN)));
    return txn_commit(txn, NULL);
}

static void watch_sr(struct api_call *c, const struct row *sr, bool refresh)
{
    const char *mark = row_map(sr, F_SR_other_config, DIRTY, NULL);
    bool dirty = mark != NULL && (refresh || strcmp(mark, AGAIN) != 0), unclean;
    bool scanned = strcmp(row_map(sr, F_SR_other_config, AUTO_SCAN, "false"), "true") == 0;
    struct error *error = NULL;

    if ((!dirty && !refresh) || !plugged_anywhere(c, sr))
        return;
    if (refresh)
        remove_left_overs(c, sr);
    if (dirty)
        error = clean(c, sr);
    if (error != NULL)
        log_debug("clearing up SR %s: %s", row_string(sr, F_SR_uuid), error_text(c->arena, error));
    if (error_is(error, "TASK_CANCELLED") && !refresh)
        return; /* it goes on: the next round asks again */
    unclean = error != NULL && !error_is(error, "TASK_CANCELLED");
    error = dirty || scanned ? scan(c, sr) : refresh_disks(c, sr);
    if (unclean && error == NULL)
        error = clean_again(c, sr->ref);
    if (error != NULL)
        log_info("looking at SR %s: %s", row_string(sr, F_SR_uuid), error_text(c->arena, error));
}

void sr_watch_round(struct xapi *xapi, bool refresh)
{
    AUTO_ARENA rows_arena = arena_new();
    struct row_list srs = db_all(xapi->db, rows_arena, &model_classes[CLASS_SR]);

    for (unsigned i = 0; i < srs.n; i++) {
        AUTO_ARENA arena = arena_new();
        struct api_call c;

        internal_call_init(&c, xapi, arena, "sr watch");
        if (atomic_load(&xapi->serving))
            watch_sr(&c, srs.rows[i], refresh);
    }
}

static void wake_guests(struct xapi *xapi)
{
    AUTO_ARENA arena = arena_new();
    struct api_call c;

    internal_call_init(&c, xapi, arena, "vm wake");
    vm_wake_all(&c);
}

static void round_run(void *arg)
{
    struct sr_watch *w = arg;
    int64_t now = clock_ms(w->xapi->clock);
    int64_t last = atomic_load(&w->refreshed_ms);
    bool refresh = last < 0 || now - last >= config_int(w->xapi->config, "sr-refresh-interval-ms");

    if (refresh)
        atomic_store(&w->refreshed_ms, now);
    sr_watch_round(w->xapi, refresh);
    if (refresh)
        wake_guests(w->xapi);
    atomic_store(&w->busy, false);
}

static void tick(void *arg)
{
    struct xapi *xapi = arg;

    if (!atomic_load(&xapi->serving) || atomic_exchange(&xapi->sr_watch->busy, true))
        return;
    if (!work_pool_post(xapi->task_workers, round_run, xapi->sr_watch))
        atomic_store(&xapi->sr_watch->busy, false);
}

struct sr_watch *sr_watch_start(struct xapi *xapi)
{
    struct sr_watch *w = xcalloc(1, sizeof(*w));

    w->xapi = xapi;
    atomic_store(&w->refreshed_ms, -1);
    uuid_new(w->start_id);
    timers_every(xapi->timers, config_int(xapi->config, "sr-watch-interval-ms"), tick, xapi);
    return w;
}

void sr_watch_stop(struct sr_watch *w)
{
    xfree(w);
}
