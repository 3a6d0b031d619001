/* VDI.get_nbd_info: which hosts serve the disk over NBD, where, and by which certificate they are known. */
#include <string.h>

#include "xapi/core/agent.h"
#include "xapi/core/xapi.h"

static struct error *certificate_of(struct api_call *c, const char *host, struct value *pem_r)
{
    struct value none = value_map(NULL, 0);
    return agent_call(c, host, "host.certificate", &none, pem_r);
}

static bool serves(const struct row *network) { return value_set_has(row_value(network, F_network_purpose), "nbd"); }

/* The addresses of a host on networks for NBD. Its certificate names the management address. */
static void add_host(struct api_call *c, const struct row *vdi, const struct row *host, struct value_list *out)
{
    const struct value *pifs = row_value(host, F_host_PIFs);
    struct value pem = value_void();

    for (unsigned i = 0; i < pifs->len; i++) {
        const struct row *pif = db_get(c->db, c->arena, &model_classes[CLASS_PIF], pifs->items[i].s);
        const struct row *network = pif != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_network], row_string(pif, F_PIF_network)) : NULL;
        if (network == NULL || !serves(network) || !row_bool(pif, F_PIF_currently_attached) || row_string(pif, F_PIF_IP)[0] == '\0')
            continue;
        if (pem.kind == VALUE_VOID && certificate_of(c, host->ref, &pem) != NULL)
            return; /* a host that cannot be asked serves nothing */
        struct value_dict d = { 0 };
        value_dict_add(c->arena, &d, "exportname",
                       value_string(arena_printf(c->arena, "/%s?session_id=%s", row_string(vdi, F_VDI_uuid), c->session != NULL ? c->session : "")));
        value_dict_add(c->arena, &d, "address", value_string(row_string(pif, F_PIF_IP)));
        value_dict_add(c->arena, &d, "port", value_int(config_int(c->xapi->config, "nbd-port")));
        value_dict_add(c->arena, &d, "cert", pem);
        value_dict_add(c->arena, &d, "subject", value_string(row_string(host, F_host_address)));
        value_list_add(c->arena, out, value_dict_value(&d));
    }
}

static const char *runs_on(struct api_call *c, const struct row *vdi)
{
    const struct value *vbds = row_value(vdi, F_VDI_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = db_get(c->db, c->arena, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vm = vbd != NULL && row_bool(vbd, F_VBD_currently_attached)
                                   ? db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM)) : NULL;
        if (vm != NULL && strcmp(row_string(vm, F_VM_power_state), "Running") == 0)
            return row_string(vm, F_VM_resident_on);
    }
    return NULL;
}

/* Hosts that have the SR; of a disk in use only the one that uses it: it alone knows what is in flight. */
struct error *api_VDI_get_nbd_info(struct api_call *c, const struct api_VDI_get_nbd_info_args *a, struct value *result_r)
{
    const struct row *vdi, *sr, *host;
    struct value_list out = { 0 };

    TRY(db_need(c->db, c->arena, CLASS_VDI, a->self, &vdi));
    if (strcmp(row_string(vdi, F_VDI_type), "cbt_metadata") == 0)
        return err_vdi_incompatible_type(c->arena, a->self, "cbt_metadata");
    TRY(db_need(c->db, c->arena, CLASS_SR, row_string(vdi, F_VDI_SR), &sr));
    const char *only = runs_on(c, vdi);
    const struct value *pbds = row_value(sr, F_SR_PBDs);
    for (unsigned i = 0; i < pbds->len && config_int(c->xapi->config, "nbd-port") >= 0; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);
        if (pbd == NULL || !row_bool(pbd, F_PBD_currently_attached) || (only != NULL && strcmp(only, row_string(pbd, F_PBD_host)) != 0))
            continue;
        TRY(db_need(c->db, c->arena, CLASS_host, row_string(pbd, F_PBD_host), &host));
        add_host(c, vdi, host, &out);
    }
    *result_r = value_list_value(&out);
    return NULL;
}
