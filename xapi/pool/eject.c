/* pool.eject: the coordinator's part, and the ejected host's. */
#include "xapi/pool/eject.h"

#include <string.h>
#include <unistd.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/identity.h"
#include "xapi/core/operations.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/membership.h"
#include "xapi/pool/sr_rows.h"

LOG_MODULE(eject);

static struct error *check(struct api_call *c, const struct row *pool, const struct row *host)
{
    const struct value *vms = row_value(host, F_host_resident_VMs);

    if (row_bool(pool, F_pool_ha_enabled))
        return err_ha_is_enabled(c->arena);
    if (strcmp(host->ref, row_string(pool, F_pool_master)) == 0)
        return err_internal(c->arena, "Cannot_eject_master: %s is the coordinator", row_string(host, F_host_uuid));
    for (unsigned i = 0; i < vms->len; i++) {
        const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], vms->items[i].s);

        if (vm != NULL && !row_bool(vm, F_VM_is_control_domain) && strcmp(row_string(vm, F_VM_power_state), "Halted") != 0)
            return err_operation_not_allowed(c->arena, "VM resident on host");
    }
    return NULL;
}

static struct error *rows_remove(struct api_call *c, const char *host_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(host_rows_destroy(txn, c->arena, host_ref));
    return txn_commit(txn, NULL);
}

static struct error *eject(struct api_call *c, const struct row *pool, const char *host_ref)
{
    const struct row *host;
    const struct value *pbds;
    struct value ignored;

    TRY(db_need(c->db, c->arena, CLASS_host, host_ref, &host));
    TRY(check(c, pool, host));
    TRY(agent_call(c, host_ref, "host.time", NULL, &ignored)); /* before anything is unplugged: is it there? */
    pbds = row_value(host, F_host_PBDs);
    for (unsigned i = 0; i < pbds->len; i++)
        TRY(pbd_unplug(c, pbds->items[i].s));
    TRY(agent_call(c, host_ref, "pool.leave", NULL, &ignored));
    TRY(rows_remove(c, host_ref));
    heartbeat_forget(c->xapi, host_ref);
    log_info("ejected host %s", row_string(host, F_host_uuid));
    return NULL;
}

struct error *pool_eject(struct api_call *c, const char *host_ref)
{
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);

    if (pools.n == 0)
        return err_internal(c->arena, "there is no pool");
    TRY(operation_begin(c, CLASS_pool, pools.rows[0]->ref, "eject", true));
    OPERATION_SCOPE scope = { c, CLASS_pool, pools.rows[0]->ref, "eject" };
    return eject(c, pools.rows[0], host_ref);
}

/* The database goes first: without it, and with whatever role, the next start makes a pool of one. */
struct error *agent_pool_leave(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *db = arena_printf(c->arena, "%s/pool.db", xapi->dir);

    if (xapi->is_coordinator)
        return err_internal(c->arena, "Cannot_eject_master: this host is a coordinator");
    (void)unlink(db);
    (void)unlink(arena_printf(c->arena, "%s-wal", db));
    (void)unlink(arena_printf(c->arena, "%s-shm", db));
    TRY(identity_set_role(c->arena, xapi->dir, NULL));
    TRY(identity_set_secret(c->arena, xapi->dir, identity_new_secret(c->arena)));
    membership_forget(xapi, c->arena, "coordinator_certificate");
    membership_forget(xapi, c->arena, "host_ref");
    membership_forget(xapi, c->arena, "control_domain_uuid");
    log_info("ejected: this host restarts as a pool of its own");
    xapi->restart_soon(xapi, (int)config_int(xapi->config, "fuse-time-ms"));
    return NULL;
}
