#include "xapi/pool/join.h"

#include <stdio.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/identity.h"
#include "xapi/pool/agent_wire.h"
#include "xapi/pool/membership.h"
#include "xapi/pool/network_rows.h"

LOG_MODULE(join);

/* --- reading both sides ------------------------------------------------------------------------------------- */
static struct error *remote_read(struct join *j)
{
    struct value pools;

    TRY(remote_records(j->remote, "pool", &pools));
    if (pools.len == 0)
        return err_joining_host_service_failed(j->c->arena);
    j->pool = pools.members[0].value;
    j->master_ref = value_get_string(&j->pool, "master", "");
    TRY(remote_records(j->remote, "host", &j->hosts));
    TRY(remote_records(j->remote, "host_metrics", &j->metrics));
    TRY(remote_records(j->remote, "SM", &j->sms));
    TRY(remote_records(j->remote, "PIF", &j->pifs));
    TRY(remote_records(j->remote, "network", &j->networks));
    TRY(remote_records(j->remote, "Certificate", &j->certificates));
    j->master = value_get(&j->hosts, j->master_ref);
    return j->master == NULL ? err_joining_host_service_failed(j->c->arena) : NULL;
}

static struct error *local_read(struct join *j)
{
    const struct value *pifs;

    TRY(db_need(j->c->db, j->c->arena, CLASS_host, j->c->xapi->host_ref, &j->local));
    pifs = row_value(j->local, F_host_PIFs);
    for (unsigned i = 0; i < pifs->len; i++) {
        const struct row *pif = db_get(j->c->db, j->c->arena, &model_classes[CLASS_PIF], pifs->items[i].s);

        if (pif != NULL && row_bool(pif, F_PIF_management))
            j->management = pif;
    }
    return NULL;
}

/* --- the rows that go along ------------------------------------------------------------------------------------ */
struct export { struct api_call *c; struct value_list records; };

static void export_row(struct export *e, const struct row *row)
{
    struct value_dict d = { 0 };

    if (row == NULL)
        return;
    value_dict_add(e->c->arena, &d, "class", value_string(row->class->name));
    value_dict_add(e->c->arena, &d, "ref", value_string(row->ref));
    value_dict_add(e->c->arena, &d, "record", value_record(&row->record));
    value_list_add(e->c->arena, &e->records, value_dict_value(&d));
}

static void export_class(struct export *e, unsigned class_id)
{
    struct row_list rows = db_all(e->c->db, e->c->arena, &model_classes[class_id]);

    for (unsigned i = 0; i < rows.n; i++)
        export_row(e, rows.rows[i]);
}

/* Every VM but the default templates, which the pool has. */
static void export_vms(struct export *e)
{
    struct row_list vms = db_all(e->c->db, e->c->arena, &model_classes[CLASS_VM]);

    for (unsigned i = 0; i < vms.n; i++)
        if (!row_bool(vms.rows[i], F_VM_is_default_template))
            export_row(e, vms.rows[i]);
}

struct error *join_describe(struct api_call *c, struct value *description_r)
{
    static const unsigned classes[] = {
        CLASS_network, CLASS_host, CLASS_host_metrics, CLASS_host_cpu, CLASS_Certificate, CLASS_PIF_metrics, CLASS_PIF, CLASS_SR, CLASS_PBD,
        CLASS_VDI, CLASS_VM_metrics, CLASS_VM_guest_metrics, CLASS_console, CLASS_VBD_metrics, CLASS_VBD, CLASS_VIF_metrics, CLASS_VIF,
    };
    struct export e = { .c = c };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(classes); i++)
        export_class(&e, classes[i]);
    export_vms(&e);
    value_dict_add(c->arena, &d, "host_ref", value_string(c->xapi->host_ref));
    value_dict_add(c->arena, &d, "records", value_list_value(&e.records));
    *description_r = value_dict_value(&d);
    return NULL;
}

/* --- the move ----------------------------------------------------------------------------------------------------- */
static const char *master_fingerprint(const struct join *j)
{
    for (unsigned i = 0; i < j->certificates.len; i++) {
        const struct value *certificate = &j->certificates.members[i].value;

        if (strcmp(value_get_string(certificate, "host", ""), j->master_ref) == 0 && strcmp(value_get_string(certificate, "type", ""), "host") == 0)
            return value_get_string(certificate, "fingerprint", "");
    }
    return "";
}

/* From here on the coordinator's certificate is known and checked. */
static struct error *admitted(struct join *j, const char *secret, const char *fingerprint)
{
    struct http_target target = j->remote->target;
    struct value description, ignored;
    bool unreachable;
    struct error *error;

    target.fingerprint = fingerprint;
    TRY(join_describe(j->c, &description));
    error = agent_exchange(&j->c->call, j->c->xapi, &target, secret, "coordinator.admit_host", &description, &ignored, &unreachable);
    if (!unreachable)
        return error;
    log_warn("%s", error_text(j->c->arena, error));
    return err_joining_host_connection_failed(j->c->arena);
}

/* The files of a member; pool.conf last: it decides. */
static struct error *files_write(struct join *j, const char *secret, const char *fingerprint)
{
    struct arena *arena = j->c->arena;
    struct xapi *xapi = j->c->xapi;
    const char *address = value_get_string(j->master, "address", j->remote->target.address);
    const char *db = arena_printf(arena, "%s/pool.db", xapi->dir);

    TRY(membership_write(arena, xapi, "host_ref", xapi->host_ref));
    TRY(membership_write(arena, xapi, "coordinator_certificate", fingerprint));
    TRY(identity_set_secret(arena, xapi->dir, secret));
    TRY(identity_set_role(arena, xapi->dir, address));
    /* the old database is kept aside: it is no part of the new pool */
    for (unsigned i = 0; i < 3; i++) {
        const char *suffix = (const char *[]) { "", "-wal", "-shm" }[i];

        if (rename(arena_printf(arena, "%s%s", db, suffix), arena_printf(arena, "%s.before-join%s", db, suffix)) != 0 && suffix[0] == '\0')
            log_warn("%s cannot be put aside", db);
    }
    return NULL;
}

static struct error *joined(struct join *j)
{
    struct value secret;
    const char *fingerprint = master_fingerprint(j);

    if (fingerprint[0] == '\0')
        return err_pool_joining_master_certificate_not_in_pool_bundle(j->c->arena, value_get_string(j->master, "uuid", ""));
    TRY(remote_call(j->remote, "pool.initial_auth", NULL, 0, &secret));
    if (secret.kind != VALUE_STRING || secret.len == 0)
        return err_joining_host_service_failed(j->c->arena);
    TRY(admitted(j, secret.s, fingerprint));
    if (fault_hit("join.admitted"))
        return err_internal(j->c->arena, "fault injected");
    TRY(files_write(j, secret.s, fingerprint));
    log_info("this host has joined the pool of %s and restarts as its member", j->remote->target.address);
    j->c->xapi->restart_soon(j->c->xapi, (int)config_int(j->c->xapi->config, "fuse-time-ms"));
    return NULL;
}

static struct error *join_run(struct join *j)
{
    TRY(remote_read(j));
    TRY(local_read(j));
    TRY(join_check(j));
    return joined(j);
}

struct error *pool_join(struct api_call *c, const char *address, const char *user, const char *password, bool force)
{
    struct remote_pool remote;
    struct join j = { .c = c, .force = force, .remote = &remote };
    struct error *error;

    if (!c->xapi->is_coordinator)
        return err_operation_not_allowed(c->arena, "Host is already part of a pool");
    TRY(remote_login(c, address, user, password, &remote));
    error = join_run(&j);
    remote_logout(&remote);
    return error;
}
