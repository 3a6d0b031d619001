#include "xapi/pool/network_rows.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/base/uuid.h"

#define FIELD(class_field, v) { F_##class_field, v }

static const struct row *find_bridge(struct txn *txn, const char *bridge)
{
    struct row_list networks = txn_all(txn, &model_classes[CLASS_network]);

    for (unsigned i = 0; i < networks.n; i++)
        if (strcmp(row_string(networks.rows[i], F_network_bridge), bridge) == 0)
            return networks.rows[i];
    return NULL;
}

struct error *network_of_bridge(struct txn *txn, struct arena *arena, const char *bridge, const char *name_label, const char **ref_r)
{
    const struct row *network = find_bridge(txn, bridge);
    const struct field_value fields[] = {
        FIELD(network_name_label, value_string(name_label)),
        FIELD(network_bridge, value_string(bridge)),
        FIELD(network_MTU, value_int(1500)),
        FIELD(network_managed, value_bool(true)),
    };

    if (network == NULL)
        return txn_create(txn, CLASS_network, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
    *ref_r = arena_strdup(arena, network->ref);
    return NULL;
}

struct error *network_internal_create(struct txn *txn, struct arena *arena)
{
    static const char *const other_config[][2] = {
        { "is_guest_installer_network", "true" }, { "is_host_internal_management_network", "true" },
        { "ip_begin", "169.254.0.1" }, { "ip_end", "169.254.255.254" }, { "netmask", "255.255.0.0" },
    };
    struct value_dict d = { 0 };
    const char *ref;

    for (unsigned i = 0; i < ARRAY_LEN(other_config); i++)
        value_dict_add(arena, &d, other_config[i][0], value_string(other_config[i][1]));
    const struct field_value fields[] = {
        FIELD(network_name_label, value_string("Host internal management network")),
        FIELD(network_name_description, value_string("Network on which guests will be assigned a private link-local IP address which can be used to talk XenAPI")),
        FIELD(network_bridge, value_string(INTERNAL_BRIDGE)),
        FIELD(network_other_config, value_dict_value(&d)),
    };
    return txn_create(txn, CLASS_network, NULL, NULL, fields, ARRAY_LEN(fields), &ref);
}

static struct error *pif_metrics_create(struct txn *txn, const char **ref_r)
{
    const struct field_value fields[] = {
        FIELD(PIF_metrics_carrier, value_bool(true)),
        FIELD(PIF_metrics_vendor_name, value_string("")),
        FIELD(PIF_metrics_device_name, value_string("")),
        FIELD(PIF_metrics_speed, value_int(1000)),
        FIELD(PIF_metrics_duplex, value_bool(true)),
        FIELD(PIF_metrics_pci_bus_path, value_string("N/A")),
    };

    return txn_create(txn, CLASS_PIF_metrics, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

struct error *pif_create(struct txn *txn, struct arena *arena, const char *host_ref, const struct pif_spec *spec, const char **ref_r)
{
    const char *network, *metrics, *name = arena_printf(arena, "Pool-wide network associated with %s", spec->device);

    TRY(network_of_bridge(txn, arena, spec->bridge, name, &network));
    TRY(pif_metrics_create(txn, &metrics));
    const struct field_value fields[] = {
        FIELD(PIF_device, value_string(spec->device)),
        FIELD(PIF_network, value_string(network)),
        FIELD(PIF_host, value_string(host_ref)),
        FIELD(PIF_MAC, value_string(spec->mac)),
        FIELD(PIF_MTU, value_int(spec->mtu)),
        FIELD(PIF_VLAN, value_int(spec->vlan)),
        FIELD(PIF_metrics, value_string(metrics)),
        FIELD(PIF_physical, value_bool(spec->physical)),
        FIELD(PIF_currently_attached, value_bool(true)),
        FIELD(PIF_ip_configuration_mode, value_string(spec->mode)),
        FIELD(PIF_IP, value_string(spec->ip)),
        FIELD(PIF_netmask, value_string(spec->netmask)),
        FIELD(PIF_gateway, value_string(spec->gateway)),
        FIELD(PIF_DNS, value_string(spec->dns)),
        FIELD(PIF_management, value_bool(spec->management)),
        FIELD(PIF_managed, value_bool(true)),
    };
    return txn_create(txn, CLASS_PIF, NULL, NULL, fields, ARRAY_LEN(fields), ref_r);
}

/* A locally administered address that belongs to this host and device for ever. */
static const char *mac_of(struct arena *arena, const char *host_uuid, unsigned device)
{
    char digits[11] = "";
    unsigned n = 0;

    for (unsigned i = 0; host_uuid[i] != '\0' && n < 8; i++)
        if (host_uuid[i] != '-')
            digits[n++] = host_uuid[i];
    return arena_printf(arena, "02:%.2s:%.2s:%.2s:%.2s:%02x", digits, digits + 2, digits + 4, digits + 6, device);
}

struct error *pifs_create(struct txn *txn, struct arena *arena, const char *host_ref, const char *host_uuid, const char *address, unsigned n)
{
    const char *ref;

    for (unsigned i = 0; i < n; i++) {
        bool management = i == 0;
        const struct pif_spec spec = {
            .device = arena_printf(arena, "eth%u", i),
            .mac = mac_of(arena, host_uuid, i),
            .bridge = arena_printf(arena, "xenbr%u", i),
            .ip = management ? address : "",
            .netmask = management ? (strncmp(address, "127.", 4) == 0 ? "255.0.0.0" : "255.255.255.0") : "",
            .gateway = "",
            .dns = "",
            .mode = management ? "Static" : "None",
            .mtu = 1500,
            .vlan = -1,
            .physical = true,
            .management = management,
        };
        TRY(pif_create(txn, arena, host_ref, &spec, &ref));
    }
    return NULL;
}

const struct row *pif_management(struct txn *txn, const struct row *host)
{
    const struct value *pifs = row_value(host, F_host_PIFs);

    for (unsigned i = 0; i < pifs->len; i++) {
        const struct row *pif = txn_get(txn, &model_classes[CLASS_PIF], pifs->items[i].s);

        if (pif != NULL && row_bool(pif, F_PIF_management))
            return pif;
    }
    return NULL;
}
