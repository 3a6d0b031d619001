/* Which networks a VM's interfaces have at the destination: disk_plan.h. */
#include <string.h>
#include <strings.h>

#include "rpc/base/uuid.h"
#include "xapi/migrate/disk_plan.h"

struct vifs { const struct row **rows; unsigned n, cap; };

static void vifs_of(struct api_call *c, const struct row *vm, struct vifs *all)
{
    const struct value *refs = row_value(vm, F_VM_VIFs);

    for (unsigned i = 0; i < refs->len; i++) {
        const struct row *vif = db_get(c->db, c->arena, &model_classes[CLASS_VIF], refs->items[i].s);
        if (vif == NULL)
            continue;
        if (all->n == all->cap) {
            const struct row **grown = arena_calloc(c->arena, all->cap * 2 + 8, sizeof *grown);
            if (all->n > 0)
                memcpy(grown, all->rows, all->n * sizeof *grown);
            all->rows = grown;
            all->cap = all->cap * 2 + 8;
        }
        all->rows[all->n++] = vif;
    }
}

/* That of the VIF itself, else of one with its MAC. */
static const char *network_of(const struct vifs *all, const struct value *map, const struct row *vif)
{
    const char *network = value_get_string(map, vif->ref, NULL), *mac = row_string(vif, F_VIF_MAC);

    for (unsigned i = 0; i < all->n && network == NULL; i++)
        if (strcasecmp(row_string(all->rows[i], F_VIF_MAC), mac) == 0)
            network = value_get_string(map, all->rows[i]->ref, NULL);
    return network;
}

static struct error *plan(struct api_call *c, struct move *m, const struct value *map, const struct vifs *all)
{
    const struct value *networks;

    TRY(peer_pool_records(c, m->destination.peer, "network", &networks));
    m->vifs = arena_calloc(c->arena, all->n + 1, sizeof *m->vifs);
    for (unsigned i = 0; i < all->n; i++) {
        const char *network = network_of(all, map, all->rows[i]);
        if (network == NULL)
            return err_vif_not_in_map(c->arena, all->rows[i]->ref);
        if (value_get(networks, network) == NULL)
            return err_handle_invalid(c->arena, "network", network);
        m->vifs[m->n_vifs++] = (struct move_vif){ .vif = all->rows[i]->ref, .network = network };
    }
    return NULL;
}

struct error *vif_plan_make(struct api_call *c, struct move *m, const struct value *map)
{
    struct vifs all = { 0 };
    const struct row *vm;

    m->n_vifs = 0;
    if (m->destination.peer == NULL)
        return map->len == 0 ? NULL
                             : err_operation_not_allowed(c->arena, "VIF mapping is not allowed for intra-pool migration -all VIFs must be on the same network");
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    vifs_of(c, vm, &all);
    const struct value *snapshots = row_value(vm, F_VM_snapshots);
    for (unsigned i = 0; !m->options.copy && i < snapshots->len; i++) {
        const struct row *snapshot = db_get(c->db, c->arena, &model_classes[CLASS_VM], snapshots->items[i].s);
        if (snapshot != NULL)
            vifs_of(c, snapshot, &all);
    }
    return plan(c, m, map, &all);
}
