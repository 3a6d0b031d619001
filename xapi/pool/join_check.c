/* May this host join that pool? First failure wins; nothing has changed then. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/pool/join.h"

static const char *local_software(const struct join *j, const char *key)
{
    return row_map(j->local, F_host_software_version, key, "");
}

static const char *remote_software(const struct join *j, const char *key)
{
    return value_get_string(value_get(j->master, "software_version"), key, "");
}

static bool same_software(const struct join *j, const char *key)
{
    return strcmp(local_software(j, key), remote_software(j, key)) == 0;
}

static struct row_list rows(const struct join *j, unsigned class_id)
{
    return db_all(j->c->db, j->c->arena, &model_classes[class_id]);
}

/* Does the pool have this host already? The rows of a join that a crash cut short do not count: the host
 * never said hello, and admitting it again changes nothing. */
static bool already_member(const struct join *j)
{
    for (unsigned i = 0; i < j->hosts.len; i++) {
        const struct value *host = &j->hosts.members[i].value, *metrics;

        if (strcmp(value_get_string(host, "uuid", ""), row_string(j->local, F_host_uuid)) != 0)
            continue;
        metrics = value_get(&j->metrics, value_get_string(host, "metrics", ""));
        return strcmp(j->hosts.members[i].name, j->local->ref) != 0 || value_get_bool(metrics, "live", false);
    }
    return false;
}

/* --- 4 to 10: the state of the two pools ----------------------------------------------------------------- */
static struct error *check_pools(struct join *j)
{
    struct arena *arena = j->c->arena;
    struct row_list pools = rows(j, CLASS_pool);

    if (j->management == NULL)
        return err_host_still_booting(arena);
    if (pools.n > 0 && row_bool(pools.rows[0], F_pool_ha_enabled))
        return err_ha_is_enabled(arena);
    if (rows(j, CLASS_Cluster_host).n > 0)
        return err_clustering_enabled(arena, rows(j, CLASS_Cluster_host).rows[0]->ref);
    if (value_get_bool(&j->pool, "ha_enabled", false))
        return err_ha_is_enabled(arena);
    if (strcmp(value_get_string(j->master, "uuid", ""), row_string(j->local, F_host_uuid)) == 0)
        return err_operation_not_allowed(arena, "Host cannot become slave of itself");
    if (already_member(j))
        return err_operation_not_allowed(arena, "Host is already part of a pool");
    return rows(j, CLASS_host).n > 1 ? err_joining_host_cannot_be_master_of_other_hosts(arena) : NULL;
}

/* --- 11 to 13: nothing under way -------------------------------------------------------------------------- */
static struct error *check_idle(struct join *j)
{
    struct row_list vms = rows(j, CLASS_VM);

    for (unsigned i = 0; i < vms.n; i++)
        if (!row_bool(vms.rows[i], F_VM_is_control_domain) && strcmp(row_string(vms.rows[i], F_VM_power_state), "Running") == 0)
            return err_joining_host_cannot_have_running_vms(j->c->arena);
    for (unsigned i = 0; i < vms.n; i++)
        if (row_value(vms.rows[i], F_VM_current_operations)->len > 0)
            return err_joining_host_cannot_have_vms_with_current_operations(j->c->arena);
    if (row_value(j->local, F_host_pending_guidances)->len > 0)
        return err_host_pending_mandatory_guidance_not_empty(j->c->arena, j->local->ref);
    for (unsigned i = 0; i < j->hosts.len; i++) {
        const struct value *pending = value_get(&j->hosts.members[i].value, "pending_guidances");

        if (pending != NULL && pending->kind == VALUE_SET && pending->len > 0)
            return err_host_pending_mandatory_guidance_not_empty(j->c->arena, j->hosts.members[i].name);
    }
    return NULL;
}

/* --- 14 to 16: the same product --------------------------------------------------------------------------- */
static struct error *check_versions(struct join *j)
{
    if (!same_software(j, "platform_version") || !same_software(j, "product_brand"))
        return err_hosts_not_compatible(j->c->arena);
    if (j->force)
        return NULL;
    if (!same_software(j, "xapi") || !same_software(j, "git_id") || !same_software(j, "xs:linux"))
        return err_hosts_not_homogeneous(j->c->arena, "Software version differs");
    if (strcmp(row_map(j->local, F_host_cpu_info, "vendor", ""), value_get_string(value_get(j->master, "cpu_info"), "vendor", "")) != 0)
        return err_hosts_not_homogeneous(j->c->arena, "CPUs differ");
    return NULL;
}

/* --- 17 to 20: what the host has ----------------------------------------------------------------------------- */
static const struct value *remote_management(const struct join *j)
{
    for (unsigned i = 0; i < j->pifs.len; i++) {
        const struct value *pif = &j->pifs.members[i].value;

        if (value_get_bool(pif, "management", false) && strcmp(value_get_string(pif, "host", ""), j->master_ref) == 0)
            return pif;
    }
    return NULL;
}

static struct error *check_vlans(struct join *j)
{
    struct row_list vlans = rows(j, CLASS_VLAN);
    const struct value *remote = remote_management(j);
    long long local_tag = row_int(j->management, F_PIF_VLAN), remote_tag = remote == NULL ? -1 : value_get_int(remote, "VLAN", -1);

    for (unsigned i = 0; i < vlans.n; i++)
        if (strcmp(row_string(vlans.rows[i], F_VLAN_untagged_PIF), j->management->ref) != 0)
            return err_pool_joining_host_has_non_management_vlans(j->c->arena);
    if (local_tag == remote_tag)
        return NULL;
    return err_pool_joining_host_management_vlan_does_not_match(j->c->arena, arena_printf(j->c->arena, "%lld", local_tag),
                                                                arena_printf(j->c->arena, "%lld", remote_tag));
}

static struct error *check_contents(struct join *j)
{
    struct row_list srs = rows(j, CLASS_SR);

    for (unsigned i = 0; i < srs.n; i++)
        if (row_bool(srs.rows[i], F_SR_shared) && !row_bool(srs.rows[i], F_SR_is_tools_sr))
            return err_joining_host_cannot_contain_shared_srs(j->c->arena);
    if (rows(j, CLASS_Bond).n > 0)
        return err_pool_joining_host_has_bonds(j->c->arena);
    if (rows(j, CLASS_tunnel).n > 0)
        return err_pool_joining_host_has_tunnels(j->c->arena);
    if (rows(j, CLASS_network_sriov).n > 0)
        return err_pool_joining_host_has_network_sriovs(j->c->arena);
    return check_vlans(j);
}

/* --- 21 to 29: settings ------------------------------------------------------------------------------------------ */
static bool has_purpose(const struct value *network, const char *purpose)
{
    const struct value *purposes = value_get(network, "purpose");

    return purposes != NULL && value_set_has(purposes, purpose);
}

static bool local_purpose(struct join *j, const char *purpose)
{
    struct row_list networks = rows(j, CLASS_network);

    for (unsigned i = 0; i < networks.n; i++)
        if (value_set_has(row_value(networks.rows[i], F_network_purpose), purpose))
            return true;
    return false;
}

static struct error *check_purposes(struct join *j)
{
    bool nbd = local_purpose(j, "nbd"), insecure = local_purpose(j, "insecure_nbd");

    for (unsigned i = 0; i < j->networks.len; i++)
        if ((nbd && has_purpose(&j->networks.members[i].value, "insecure_nbd")) || (insecure && has_purpose(&j->networks.members[i].value, "nbd")))
            return err_operation_not_allowed(j->c->arena, "Incompatible network purposes: nbd and insecure_nbd");
    return NULL;
}

static struct error *check_api(struct join *j)
{
    struct arena *arena = j->c->arena;
    const char *local = arena_printf(arena, "%lld.%lld", (long long)row_int(j->local, F_host_API_version_major),
                                     (long long)row_int(j->local, F_host_API_version_minor));
    const char *remote = arena_printf(arena, "%lld.%lld", (long long)value_get_int(j->master, "API_version_major", 0),
                                      (long long)value_get_int(j->master, "API_version_minor", 0));

    if (strcmp(local, remote) != 0)
        return err_pool_joining_host_must_have_same_api_version(arena, local, remote);
    if (local_software(j, "db_schema")[0] == '\0' || !same_software(j, "db_schema"))
        return err_pool_joining_host_must_have_same_db_schema(arena, local_software(j, "db_schema"), remote_software(j, "db_schema"));
    return NULL;
}

static struct error *check_settings(struct join *j)
{
    struct arena *arena = j->c->arena;
    const struct value *management = remote_management(j);
    struct row_list pools = rows(j, CLASS_pool);
    const char *edition = row_string(j->local, F_host_edition), *remote_edition = value_get_string(j->master, "edition", "");

    if (strcmp(row_string(j->local, F_host_external_auth_type), value_get_string(j->master, "external_auth_type", "")) != 0 ||
        strcmp(row_string(j->local, F_host_external_auth_service_name), value_get_string(j->master, "external_auth_service_name", "")) != 0)
        return err_pool_joining_external_auth_mismatch(arena);
    if (strcmp(edition, remote_edition) != 0)
        return error_from_strings(arena, "LICENSE_HOST_POOL_MISMATCH", 2, (const char *[]) { edition, remote_edition });
    if (!same_software(j, "network_backend"))
        return err_operation_not_allowed(arena, "Network backends differ");
    TRY(check_api(j));
    if (management != NULL &&
        strcmp(row_string(j->management, F_PIF_primary_address_type), value_get_string(management, "primary_address_type", "IPv4")) != 0)
        return err_operation_not_allowed(arena, "Primary address type differs");
    TRY(check_purposes(j));
    if (pools.n > 0 && row_bool(pools.rows[0], F_pool_tls_verification_enabled) != value_get_bool(&j->pool, "tls_verification_enabled", false))
        return err_pool_joining_host_tls_verification_mismatch(arena);
    return NULL;
}

/* --- 33: storage drivers ------------------------------------------------------------------------------------------- */
static bool has_features(const struct row *sm, const struct value *wanted)
{
    for (unsigned i = 0; wanted != NULL && wanted->kind == VALUE_MAP && i < wanted->len; i++)
        if (value_get(row_value(sm, F_SM_features), wanted->members[i].name) == NULL)
            return false;
    return true;
}

static struct error *check_drivers(struct join *j)
{
    struct row_list sms = rows(j, CLASS_SM);

    for (unsigned i = 0; i < j->sms.len; i++) {
        const struct value *sm = &j->sms.members[i].value;
        const struct row *local = NULL;

        for (unsigned k = 0; k < sms.n; k++)
            if (strcmp(row_string(sms.rows[k], F_SM_type), value_get_string(sm, "type", "")) == 0)
                local = sms.rows[k];
        if (local == NULL || !has_features(local, value_get(sm, "features")))
            return err_pool_joining_sm_features_incompatible(j->c->arena, j->sms.members[i].name, local == NULL ? "" : local->ref);
    }
    return NULL;
}

struct error *join_check(struct join *j)
{
    TRY(check_pools(j));
    TRY(check_idle(j));
    TRY(check_versions(j));
    TRY(check_contents(j));
    TRY(check_settings(j));
    return check_drivers(j);
}
