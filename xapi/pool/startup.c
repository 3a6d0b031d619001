#include "xapi/pool/startup.h"

#include <string.h>

#include "rpc/base/log.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/agent.h"
#include "xapi/pool/allowed_refresh.h"
#include "xapi/pool/fresh_pool.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/membership.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/sr_watch.h"

LOG_MODULE(pool_start);

/* This host's row is found by its uuid and follows what the host says now; it is live from here on. */
static struct error *known_pool_update(struct api_call *c, const struct value *description, const char **host_ref_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host = txn_by_uuid(txn, &model_classes[CLASS_host], c->xapi->host_uuid);
    const struct row *pool = pool_row(txn);

    if (host == NULL || pool == NULL)
        return err_internal(c->arena, "the database of %s knows no host %s: it belongs to another host", c->xapi->dir, c->xapi->host_uuid);
    *host_ref_r = arena_strdup(c->arena, host->ref);
    TRY(host_rows_update(txn, c->arena, host->ref, description));
    TRY(txn_set_string(txn, CLASS_pool, pool->ref, F_pool_master, host->ref));
    TRY(sm_rows_update(txn, c->arena));
    return txn_commit(txn, NULL);
}

/* Live, and enabled unless an administrator has asked for it to stay disabled. */
static struct error *host_open(struct api_call *c, const char *host_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;

    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    TRY(txn_set_bool(txn, CLASS_host_metrics, row_string(host, F_host_metrics), F_host_metrics_live, true));
    if (strcmp(row_map(host, F_host_other_config, HOST_STAYS_DISABLED, ""), "true") != 0)
        TRY(txn_set_bool(txn, CLASS_host, host_ref, F_host_enabled, true));
    return txn_commit(txn, NULL);
}

static struct error *coordinator_start(struct arena *arena, struct xapi *xapi)
{
    struct api_call c;
    struct value description;
    const char *host_ref;

    internal_call_init(&c, xapi, arena, "pool start");
    TRY(host_describe(&c.call, xapi, &description));
    if (db_count(xapi->db, &model_classes[CLASS_pool]) == 0) {
        TRY(fresh_pool_create(&c, &description, &host_ref));
        log_info("made a pool of one with host %s", xapi->host_uuid);
    } else
        TRY(known_pool_update(&c, &description, &host_ref));
    xapi->host_ref = arena_strdup(arena, host_ref);
    TRY(heartbeat_start(arena, xapi));
    pbd_plug_all(&c, host_ref);
    vm_disks_settle(&c, host_ref);
    TRY(host_open(&c, host_ref));
    xapi->allowed_refresh = allowed_refresh_start(xapi);
    xapi->sr_watch = sr_watch_start(xapi);
    return NULL;
}

static struct error *member_start(struct arena *arena, struct xapi *xapi)
{
    const char *host_ref = membership_read(arena, xapi, "host_ref");

    if (host_ref == NULL)
        return err_internal(arena, "%s/host_ref is missing: this host is no complete member of a pool", xapi->dir);
    xapi->host_ref = arena_strdup(arena, host_ref);
    return heartbeat_start(arena, xapi);
}

struct error *pool_start(struct arena *arena, struct xapi *xapi)
{
    return xapi->is_coordinator ? coordinator_start(arena, xapi) : member_start(arena, xapi);
}

void pool_stop(struct xapi *xapi)
{
    allowed_refresh_stop(xapi->allowed_refresh);
    xapi->allowed_refresh = NULL;
    sr_watch_stop(xapi->sr_watch);
    xapi->sr_watch = NULL;
    agent_drain(xapi->agent); /* its verbs use what goes away here */
    heartbeat_stop(xapi);
}
