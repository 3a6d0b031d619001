/* Hosts: letting VMs in and keeping them out, and what a host can be asked. */
#include <ctype.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/core/agent.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/network_rows.h"

struct error *api_host_disable(struct api_call *c, const struct api_host_disable_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;

    TRY(txn_need(txn, CLASS_host, a->host, &host));
    if (!row_bool(host, F_host_enabled))
        return NULL;
    TRY(txn_set_bool(txn, CLASS_host, a->host, F_host_enabled, false));
    if (!a->auto_enable)
        TRY(txn_map_put(txn, CLASS_host, a->host, F_host_other_config, HOST_STAYS_DISABLED, value_string("true")));
    TRY(operations_update(c, txn, CLASS_host, a->host));
    return txn_commit(txn, NULL);
}

struct error *api_host_enable(struct api_call *c, const struct api_host_enable_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host, *metrics;

    TRY(txn_need(txn, CLASS_host, a->host, &host));
    if (row_bool(host, F_host_enabled))
        return NULL;
    metrics = txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    if (metrics == NULL || !row_bool(metrics, F_host_metrics_live))
        return err_host_still_booting(c->arena);
    if (row_value(host, F_host_pending_guidances)->len > 0)
        return err_host_pending_mandatory_guidance_not_empty(c->arena, a->host);
    TRY(txn_set_bool(txn, CLASS_host, a->host, F_host_enabled, true));
    TRY(txn_map_remove(txn, CLASS_host, a->host, F_host_other_config, HOST_STAYS_DISABLED));
    TRY(operations_update(c, txn, CLASS_host, a->host));
    return txn_commit(txn, NULL);
}

/* --- memory ------------------------------------------------------------------------------------------------ */
struct error *api_host_compute_free_memory(struct api_call *c, const struct api_host_compute_free_memory_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;

    TRY(txn_need(txn, CLASS_host, a->host, &host));
    *result_r = value_int(host_memory_free(txn, host, NULL));
    return NULL;
}

struct error *api_host_compute_memory_overhead(struct api_call *c, const struct api_host_compute_memory_overhead_args *a, struct value *result_r)
{
    const struct row *host;

    TRY(db_need(c->db, c->arena, CLASS_host, a->host, &host));
    *result_r = value_int(row_int(host, F_host_memory_overhead));
    return NULL;
}

struct error *api_host_get_uncooperative_resident_VMs(struct api_call *c, const struct api_host_get_uncooperative_resident_VMs_args *a,
                                                      struct value *result_r)
{
    *result_r = value_set(NULL, 0);
    return NULL;
}

struct error *api_host_get_management_interface(struct api_call *c, const struct api_host_get_management_interface_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host, *pif;

    TRY(txn_need(txn, CLASS_host, a->host, &host));
    pif = pif_management(txn, host);
    *result_r = value_string(pif == NULL ? REF_NULL : arena_strdup(c->arena, pif->ref));
    return NULL;
}

/* --- hosts that are gone ------------------------------------------------------------------------------------- */
static bool live(struct txn *txn, const struct row *host)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));

    return metrics != NULL && row_bool(metrics, F_host_metrics_live);
}

static bool has_residents(struct txn *txn, const struct row *host)
{
    const struct value *vms = row_value(host, F_host_resident_VMs);

    for (unsigned i = 0; i < vms->len; i++) {
        const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], vms->items[i].s);

        if (vm != NULL && !row_bool(vm, F_VM_is_control_domain))
            return true;
    }
    return false;
}

struct error *api_host_destroy(struct api_call *c, const struct api_host_destroy_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;

    TRY(txn_need(txn, CLASS_host, a->self, &host));
    if (strcmp(a->self, c->xapi->host_ref) == 0)
        return err_host_cannot_destroy_self(c->arena, a->self);
    if (live(txn, host))
        return err_host_is_live(c->arena, a->self);
    if (has_residents(txn, host))
        return err_host_has_resident_vms(c->arena, a->self);
    TRY(host_rows_destroy(txn, c->arena, a->self));
    TRY(txn_commit(txn, NULL));
    heartbeat_forget(c->xapi, a->self);
    return NULL;
}

/* Its VMs do not run any more, its PBDs are not plugged: the administrator vouches for it. */
struct error *api_host_declare_dead(struct api_call *c, const struct api_host_declare_dead_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;
    const struct value *vms, *pbds;

    TRY(txn_need(txn, CLASS_host, a->host, &host));
    if (live(txn, host))
        return err_host_is_live(c->arena, a->host);
    vms = row_value(host, F_host_resident_VMs);
    for (unsigned i = 0; i < vms->len; i++) {
        const struct row *vm = txn_get(txn, &model_classes[CLASS_VM], vms->items[i].s);

        if (vm != NULL && !row_bool(vm, F_VM_is_control_domain))
            TRY(vm_set_power_state(c, txn, vm->ref, "Halted", NULL, -1));
    }
    pbds = row_value(host, F_host_PBDs);
    for (unsigned i = 0; i < pbds->len; i++)
        TRY(txn_set_bool(txn, CLASS_PBD, pbds->items[i].s, F_PBD_currently_attached, false));
    return txn_commit(txn, NULL);
}

/* --- settings ---------------------------------------------------------------------------------------------------- */
struct error *api_host_set_power_on_mode(struct api_call *c, const struct api_host_set_power_on_mode_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    TRY(txn_set_string(txn, CLASS_host, a->self, F_host_power_on_mode, a->power_on_mode));
    TRY(txn_set(txn, CLASS_host, a->self, F_host_power_on_config, *a->power_on_config));
    TRY(operations_update(c, txn, CLASS_host, a->self));
    return txn_commit(txn, NULL);
}

static const char *hostname_fault(const char *name)
{
    size_t len = strlen(name);

    if (len == 0)
        return "hostname empty";
    if (len > 63)
        return "hostname is too long";
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '.')
            return "hostname contains an invalid character";
    return name[0] == '-' || name[len - 1] == '-' ? "hostname contains an invalid character" : NULL;
}

struct error *api_host_set_hostname_live(struct api_call *c, const struct api_host_set_hostname_live_args *a, struct value *result_r)
{
    const struct member members[] = { member_of("name", value_string(a->hostname)) };
    struct value args = value_map(members, 1), ignored;

    if (hostname_fault(a->hostname) != NULL)
        return err_host_name_invalid(c->arena, hostname_fault(a->hostname));
    TRY(agent_call(c, a->host, "host.hostname", &args, &ignored));

    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_host, a->host, F_host_hostname, a->hostname));
    TRY(txn_map_put(txn, CLASS_host, a->host, F_host_software_version, "hostname", value_string(a->hostname)));
    return txn_commit(txn, NULL);
}

struct error *api_host_set_https_only(struct api_call *c, const struct api_host_set_https_only_args *a, struct value *result_r)
{
    const struct member members[] = { member_of("on", value_bool(!a->value)) };
    struct value args = value_map(members, 1), ignored;

    TRY(agent_call(c, a->self, "host.plain_http", &args, &ignored));
    return db_set(c->db, c->arena, CLASS_host, a->self, F_host_https_only, value_bool(a->value));
}

struct error *api_host_get_server_certificate(struct api_call *c, const struct api_host_get_server_certificate_args *a, struct value *result_r)
{
    struct value none = value_map(NULL, 0);
    return agent_call(c, a->host, "host.certificate", &none, result_r);
}
