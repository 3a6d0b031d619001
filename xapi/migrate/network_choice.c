#include "xapi/migrate/network_choice.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/task.h"

LOG_MODULE(network_choice);

/* --- a host's interface on a network ---------------------------------------------------------------------------- */
/* Members of a bond carry nothing of their own. */
static const struct row *host_pif(struct api_call *c, const char *host, const char *network)
{
    struct row_list pifs = db_all(c->db, c->arena, &model_classes[CLASS_PIF]);
    for (unsigned i = 0; i < pifs.n; i++) {
        const struct row *pif = pifs.rows[i];
        if (strcmp(row_string(pif, F_PIF_host), host) == 0 && strcmp(row_string(pif, F_PIF_network), network) == 0 &&
            strcmp(row_string(pif, F_PIF_bond_slave_of), REF_NULL) == 0)
            return pif;
    }
    return NULL;
}

/* The PIF's primary address without a prefix length; "" where it has none. */
static const char *pif_address(struct api_call *c, const struct row *pif)
{
    if (strcmp(row_string(pif, F_PIF_primary_address_type), "IPv6") != 0)
        return row_string(pif, F_PIF_IP);
    const struct value *all = row_value(pif, F_PIF_IPv6);
    for (unsigned i = 0; i < all->len; i++) {
        const char *address = all->items[i].s;
        if (*address != '\0' && strncasecmp(address, "fe80:", 5) != 0) /* a link-local one needs an interface's name */
            return arena_strndup(c->arena, address, strcspn(address, "/"));
    }
    return "";
}

static struct error *network_address(struct api_call *c, const char *host, const char *network, const char **address_r)
{
    const struct row *pif = host_pif(c, host, network);
    if (pif == NULL)
        return err_pif_not_present(c->arena, host, network);
    if (!row_bool(pif, F_PIF_currently_attached))
        return err_required_pif_is_unplugged(c->arena, pif->ref);
    *address_r = pif_address(c, pif);
    return (*address_r)[0] != '\0' ? NULL : err_interface_has_no_ip(c->arena, pif->ref);
}

struct error *network_receive_address(struct api_call *c, const char *host, const char *network, const char **address_r)
{
    const struct row *pif = host_pif(c, host, network);
    if (pif == NULL)
        return err_host_cannot_attach_network(c->arena, host, network);
    *address_r = pif_address(c, pif);
    if ((*address_r)[0] != '\0')
        return NULL;
    bool v6 = strcmp(row_string(pif, F_PIF_primary_address_type), "IPv6") == 0;
    if (strcmp(row_string(pif, v6 ? F_PIF_ipv6_configuration_mode : F_PIF_ip_configuration_mode), "None") == 0)
        return err_pif_has_no_network_configuration(c->arena, pif->ref);
    return err_interface_has_no_ip(c->arena, pif->ref);
}

/* --- the choice ----------------------------------------------------------------------------------------------------- */
/* What was chosen: a network's ref, or NULL for management and why. */
struct choice { const char *network, *fallback; };

static const struct row *migration_network(struct api_call *c, const char *named)
{
    const struct row *network = db_get(c->db, c->arena, &model_classes[CLASS_network], named);
    return network != NULL ? network : db_by_uuid(c->db, c->arena, &model_classes[CLASS_network], named);
}

static const char *host_name(struct api_call *c, const char *host)
{
    const struct row *row = db_get(c->db, c->arena, &model_classes[CLASS_host], host);
    return row != NULL ? row_string(row, F_host_name_label) : host;
}

static struct choice choose(struct api_call *c, const char *from_host, const char *to_host, const struct move_options *options)
{
    if (options->network != NULL)
        return (struct choice){ .network = options->network };
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    const char *named = pools.n > 0 ? row_map(pools.rows[0], F_pool_other_config, "migration_network", "") : "";
    if (*named == '\0')
        return (struct choice){ .fallback = "the pool has no migration network (other_config:migration_network)" };
    const struct row *network = migration_network(c, named);
    if (network == NULL)
        return (struct choice){ .fallback = arena_printf(c->arena, "the pool's migration network %s does not exist", named) };
    const char *const hosts[] = { from_host, to_host };
    for (unsigned i = 0; i < ARRAY_LEN(hosts); i++) {
        const char *address;
        if (network_address(c, hosts[i], network->ref, &address) != NULL)
            return (struct choice){ .fallback = arena_printf(c->arena, "host '%s' has no address on the migration network '%s'",
                                                             host_name(c, hosts[i]), row_string(network, F_network_name_label)) };
    }
    return (struct choice){ .network = network->ref };
}

static bool pool_names_one(struct api_call *c)
{
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    return pools.n > 0 && *row_map(pools.rows[0], F_pool_other_config, "migration_network", "") != '\0';
}

const char *network_fallback(struct api_call *c, const char *from_host, const char *to_host, const struct move_options *options)
{
    return options->migrate_address != NULL ? NULL : choose(c, from_host, to_host, options).fallback;
}

static void tell_fallback(struct api_call *c, const char *why)
{
    if (pool_names_one(c))
        log_warn("migrating over the management network: %s", why);
    task_note(c, "migrate:network_fallback", why);
}

/* Plain where TLS is not wanted; what else a target has stays. */
static void plain_where_allowed(struct api_call *c, struct http_target *target)
{
    if (config_bool(c->xapi->config, "migration-https-only"))
        return;
    target->tls = false;
    target->port = c->xapi->http_port;
    target->fingerprint = NULL;
}

struct error *network_choose(struct api_call *c, const char *from_host, const char *to_host, const struct move_options *options,
                             struct http_target *target_r)
{
    TRY(agent_target(c, to_host, target_r));
    plain_where_allowed(c, target_r);
    if (options->migrate_address != NULL) {
        target_r->address = options->migrate_address;
        if (options->migrate_port != 0)
            target_r->port = options->migrate_port;
        return NULL;
    }
    struct choice choice = choose(c, from_host, to_host, options);
    if (choice.network != NULL)
        return network_address(c, to_host, choice.network, &target_r->address);
    tell_fallback(c, choice.fallback);
    return NULL;
}

struct error *network_back(struct api_call *c, const char *from_host, const char *to_host, const struct move_options *options, struct http_target *target_r)
{
    TRY(agent_target(c, from_host, target_r));
    plain_where_allowed(c, target_r);
    if (to_host == NULL || options->migrate_address != NULL)
        return NULL;
    struct choice choice = choose(c, from_host, to_host, options);
    const char *address;
    if (choice.network != NULL && network_address(c, from_host, choice.network, &address) == NULL)
        target_r->address = address;
    return NULL;
}
