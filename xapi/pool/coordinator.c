/* What members call on the coordinator: "here I am", "this is what runs here". */
#include <string.h>

#include "rpc/base/log.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/operations.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/agent_wire.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/sr_rows.h"

LOG_MODULE(coordinator);

#define TALK_BACK_MS 10000

static struct error *coordinator_only(struct call *c, struct xapi *xapi)
{
    return xapi->is_coordinator ? NULL : err_host_is_slave(c->arena, xapi->coordinator_address);
}

/* Can we reach the host where it says it is, with the certificate we have on record? */
static struct error *talk_back(struct api_call *c, const char *host_ref, const char *address)
{
    struct call sub = { .arena = c->arena, .clock = c->call.clock, .id = c->call.id, .deadline_ms = clock_ms(c->call.clock) + TALK_BACK_MS };
    struct http_target target;
    struct value ignored;
    bool unreachable;
    struct error *error;

    TRY(agent_target(c, host_ref, &target));
    target.address = address;
    error = agent_exchange(&sub, c->xapi, &target, NULL, "host.time", NULL, &ignored, &unreachable);
    if (error == NULL)
        return NULL;
    log_warn("host at %s: %s", address, error_text(c->arena, error));
    return err_host_master_cannot_talk_back(c->arena, address);
}

static struct error *rows_hello(struct api_call *c, const char *host_ref, const struct value *description)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;

    TRY(host_rows_update(txn, c->arena, host_ref, description));
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    TRY(txn_set_bool(txn, CLASS_host, host_ref, F_host_enabled, false));
    TRY(txn_set_bool(txn, CLASS_host_metrics, row_string(host, F_host_metrics), F_host_metrics_live, true));
    return txn_commit(txn, NULL);
}

static struct error *rows_enable(struct api_call *c, const char *host_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;

    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    if (strcmp(row_map(host, F_host_other_config, HOST_STAYS_DISABLED, ""), "true") != 0)
        TRY(txn_set_bool(txn, CLASS_host, host_ref, F_host_enabled, true));
    TRY(operations_update(c, txn, CLASS_host, host_ref));
    return txn_commit(txn, NULL);
}

struct error *coordinator_hello(struct call *call, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid, *address;
    const struct row *host;
    struct api_call c;

    TRY(coordinator_only(call, xapi));
    TRY(agent_need(call, args, "uuid", &uuid));
    TRY(agent_need(call, args, "address", &address));
    internal_call_init(&c, xapi, call->arena, call->id);
    host = db_by_uuid(c.db, c.arena, &model_classes[CLASS_host], uuid);
    if (host == NULL)
        return err_host_unknown_to_master(call->arena, uuid);
    TRY(talk_back(&c, host->ref, address));
    TRY(rows_hello(&c, host->ref, args));
    heartbeat_hello(xapi, host->ref);
    pbd_plug_all(&c, host->ref);
    vm_disks_settle(&c, host->ref);
    TRY(rows_enable(&c, host->ref));
    if (xapi->host_up != NULL)
        xapi->host_up(xapi, host->ref);
    log_info("host %s at %s has started", uuid, address);
    return NULL;
}

struct error *coordinator_host_state(struct call *call, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const struct value *domains = value_get(args, "domains");
    const char *host_ref;

    TRY(coordinator_only(call, xapi));
    TRY(agent_need(call, args, "host_ref", &host_ref));
    if (db_get(xapi->db, call->arena, &model_classes[CLASS_host], host_ref) == NULL)
        return err_host_unknown_to_master(call->arena, host_ref);
    if (value_get_bool(args, "shutting_down", false))
        heartbeat_shutting_down(xapi, host_ref);
    else
        heartbeat_heard(xapi, host_ref, domains, value_get_int(args, "memory_total", 0), value_get_int(args, "memory_free", 0));
    return NULL;
}
