/* VM.migrate_send: a VM with its disks to other storage, another host, another pool (specs/migration-semantics.md §1.5). */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disks_only.h"
#include "xapi/migrate/queue.h"
#include "xapi/migrate/send_checks.h"

#define LONG_WAIT_MS 10000

static bool moves_disks(const struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].how != MOVE_DISK_STAYS)
            return true;
    return false;
}

/* CDs that do not follow; the client has said that they may be ejected. */
static struct error *eject(struct api_call *c, const char *const *vbds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        const struct api_VBD_eject_args args = { .vbd = vbds[i] };
        struct value ignored;
        TRY(api_run(c, M_VBD_eject, &args, &ignored));
    }
    return NULL;
}

/* Within the pool: room on the host, as any move has it. */
static struct error *move_here(struct api_call *c, struct move *m, const char **there_r)
{
    const char *reserved;
    if (disks_only_can(c, m)) {
        *there_r = m->vm;
        return disks_only_run(c, m);
    }
    if (m->guest != MOVE_RUNNING)
        return move_run(c, m, there_r);
    TRY(vm_run_reserve(c, m->vm, m->destination.host, "vm_migrate", PLACE_MEMORY, &reserved));
    OPERATION_SCOPE on_host = { c, CLASS_host, m->destination.host, "vm_migrate" };
    TRY(move_run(c, m, there_r));
    vm_run_tell(c, m->vm, "VM_MIGRATED", arena_printf(c->arena, "migrated to host '%s'", m->destination.host_name));
    return NULL;
}

static struct error *move_anywhere(struct api_call *c, struct move *m, const char **there_r)
{
    return m->destination.ops == &destination_local ? move_here(c, m, there_r) : move_run(c, m, there_r);
}

/* --- in its turn ------------------------------------------------------------------------------------------------------ */
static struct value args_value(struct api_call *c, const struct api_VM_migrate_send_args *a)
{
    struct value_dict d = { 0 };
    value_dict_add(c->arena, &d, "vm", value_string(a->vm));
    value_dict_add(c->arena, &d, "dest", *a->dest);
    value_dict_add(c->arena, &d, "live", value_bool(a->live));
    value_dict_add(c->arena, &d, "vdi_map", *a->vdi_map);
    value_dict_add(c->arena, &d, "vif_map", *a->vif_map);
    value_dict_add(c->arena, &d, "options", *a->options);
    value_dict_add(c->arena, &d, "vgpu_map", *a->vgpu_map);
    value_dict_add(c->arena, &d, "vdi_format_map", *a->vdi_format_map);
    return value_dict_value(&d);
}

/* What was checked before a long wait may be different now. */
static struct error *checked_again(struct api_call *c, const struct send_request *request, struct move *m, const struct queue_place *place)
{
    struct move now = { .id = m->id, .key = m->key, .kind = m->kind, .vm = m->vm };
    const char *const *vbds;
    unsigned n_vbds;
    if (place->waited_ms < LONG_WAIT_MS)
        return NULL;
    TRY(send_checks(c, request, true, &now, &vbds, &n_vbds));
    peer_pool_release(m->destination.peer);
    *m = now;
    return eject(c, vbds, n_vbds);
}

static struct error *move_in_turn(struct api_call *c, const struct api_VM_migrate_send_args *a, const struct send_request *checks, struct move *m,
                                  const char **there_r)
{
    const struct row *vm;
    struct queue_place place;
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    const struct queue_request request = { .id = m->id, .message = "VM.migrate_send", .args = args_value(c, a), .vm_uuid = m->vm_uuid,
                                           .vm_name = row_string(vm, F_VM_name_label), .host = m->from, .options = &m->options };
    TRY(queue_enter(c, &request, &place));
    struct error *e = checked_again(c, checks, m, &place);
    if (e == NULL)
        e = move_anywhere(c, m, there_r);
    queue_leave(c, &place);
    return e;
}

struct error *api_VM_migrate_send(struct api_call *c, const struct api_VM_migrate_send_args *a, struct value *result_r)
{
    const struct send_request request = { .vm = a->vm, .dest = a->dest, .vdi_map = a->vdi_map, .vif_map = a->vif_map, .vgpu_map = a->vgpu_map,
                                          .format_map = a->vdi_format_map, .options = a->options };
    struct move move = { .id = uuid_make(c->arena), .key = uuid_make(c->arena), .kind = "migrate_send", .vm = a->vm };
    const char *const *vbds;
    const char *there = a->vm;
    unsigned n_vbds = 0;

    task_set_cancellable(c, true);
    TRY(send_checks(c, &request, true, &move, &vbds, &n_vbds));
    TRY(eject(c, vbds, n_vbds));
    TRY(moves_disks(&move) ? move_in_turn(c, a, &request, &move, &there) : move_anywhere(c, &move, &there));
    *result_r = value_string(there);
    return NULL;
}
