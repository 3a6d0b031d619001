#include "xapi/migrate/move_rules.h"

#include <string.h>

#include "xapi/core/xapi.h"

static const char *pool_says(struct api_call *c, const char *key)
{
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);

    return pools.n > 0 ? row_map(pools.rows[0], F_pool_other_config, key, "") : "";
}

bool move_rule_holds(struct api_call *c, const char *name)
{
    const char *alone = pool_says(c, arena_printf(c->arena, "migration-rule-%s", name)), *profile = pool_says(c, "migration-profile");

    if (strcmp(alone, "on") == 0 || strcmp(alone, "off") == 0)
        return alone[1] == 'n';
    return strcmp(profile[0] != '\0' ? profile : config_string(c->xapi->config, "migration-profile"), "xapi") != 0;
}

static struct error *check_checkpoint(struct api_call *c, const struct row *vm)
{
    const struct value *snapshots = row_value(vm, F_VM_snapshots);

    for (unsigned i = 0; i < snapshots->len; i++) {
        const struct row *snapshot = db_get(c->db, c->arena, &model_classes[CLASS_VM], snapshots->items[i].s);
        if (snapshot != NULL && strcmp(row_string(snapshot, F_VM_power_state), "Suspended") == 0)
            return err_vm_has_checkpoint(c->arena, vm->ref);
    }
    return NULL;
}

static struct error *check_disks(struct api_call *c, const struct move *m)
{
    int64_t most = config_int(c->xapi->config, "sxm-max-vdis"), n = 0;

    for (unsigned i = 0; i < m->n_disks; i++)
        n += m->disks[i].how != MOVE_DISK_STAYS && !m->disks[i].is_snapshot && !m->disks[i].is_suspend_image;
    if (n <= most)
        return NULL;
    return err_operation_not_allowed(c->arena, arena_printf(c->arena, "The VM has %lld disks that would move, at most %lld may (sxm-max-vdis)",
                                                            (long long)n, (long long)most));
}

static struct error *check_vendor(struct api_call *c, const struct move *m, const struct row *vm, const char *host_vendor)
{
    const char *vendor = row_map(vm, F_VM_last_boot_CPU_flags, "vendor", "");

    if (m->guest == MOVE_HALTED || vendor[0] == '\0' || host_vendor[0] == '\0' || strcmp(vendor, host_vendor) == 0)
        return NULL;
    return err_vm_incompatible_with_this_host(c->arena, vm->ref, m->destination.host,
                                              "VM last booted on a host which had a CPU from a different vendor.");
}

struct error *move_rules_check(struct api_call *c, const struct move *m, const char *host_vendor)
{
    const struct row *vm;

    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    if (!m->options.copy && move_rule_holds(c, "checkpoint")) /* a copy goes without its snapshots */
        TRY(check_checkpoint(c, vm));
    if (move_rule_holds(c, "disks"))
        TRY(check_disks(c, m));
    return move_rule_holds(c, "cpu-vendor") ? check_vendor(c, m, vm, host_vendor) : NULL;
}
