#include "xapi/migrate/move_source.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/disk_move.h"
#include "xapi/migrate/disk_send.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/migrations.h"
#include "xapi/pool/vdi_make.h"

LOG_MODULE(move);

/* --- rows --------------------------------------------------------------------------------------------------------- */
static struct error *halt(struct api_call *c, const char *vm_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(vm_set_power_state(c, txn, vm_ref, "Halted", NULL, -1));
    return txn_commit(txn, NULL);
}

/* The host lets go of the disks while the rows still name them; nothing runs there any more. */
static struct error *source_rows(struct api_call *c, const struct move *m)
{
    if (db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm) == NULL)
        return NULL; /* done before */
    if (m->guest == MOVE_RUNNING)
        vm_disks_release(c, m->vm, m->from);
    if (m->guest == MOVE_RUNNING || !(m->options.copy || m->options.keep_source))
        TRY(halt(c, m->vm));
    return NULL;
}

struct error *move_source_commit(struct api_call *c, struct move *m, const char *power, int domid)
{
    TRY(m->destination.ops->commit(c, m, power, domid));
    return m->destination.ops == &destination_local ? NULL : source_rows(c, m);
}

/* --- old disks ------------------------------------------------------------------------------------------------------ */
static struct error *quarantine(struct api_call *c, const char *vdi_ref, int64_t seconds)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    if (txn_get(txn, &model_classes[CLASS_VDI], vdi_ref) == NULL)
        return NULL;
    const char *until = arena_printf(c->arena, "%lld", (long long)(clock_wall(c->call.clock) + seconds));
    TRY(txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_other_config, DISK_QUARANTINE_KEY, value_string(until)));
    return txn_commit(txn, NULL);
}

static struct error *old_disk_away(struct api_call *c, const struct move_disk *d)
{
    int64_t keep = config_int(c->xapi->config, "vdi-quarantine");
    if (db_get(c->db, c->arena, &model_classes[CLASS_VDI], d->vdi) == NULL)
        return NULL;
    return keep > 0 && !d->is_suspend_image ? quarantine(c, d->vdi, keep) : vdi_unmake(c, d->vdi);
}

/* The newest first: a chain's leaf goes before what it stands on. */
static struct error *old_disks_away(struct api_call *c, const struct move *m)
{
    struct error *first = NULL;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = m->n_disks; i-- > 0;) {
            const struct move_disk *d = &m->disks[i];
            if (d->how == MOVE_DISK_STAYS || d->is_snapshot != (pass == 1))
                continue;
            struct error *e = old_disk_away(c, d);
            if (e != NULL)
                log_warn("the old disk %s of migration %s stays for now: %s", d->uuid, m->id, error_text(c->arena, e));
            first = first != NULL ? first : e;
        }
    return first;
}

/* The VM's own records go last: until then they say what is left to do. */
static struct error *source_away(struct api_call *c, const struct move *m)
{
    bool leaves = m->destination.ops != &destination_local && !m->options.copy && !m->options.keep_source;
    if (m->options.copy || (m->destination.ops != &destination_local && !leaves))
        return NULL;
    if (leaves && db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm) != NULL) {
        const char *session = m->destination.peer != NULL ? peer_pool_session(m->destination.peer) : NULL;
        if (session != NULL)
            metadata_send_rest(c, peer_pool_master(m->destination.peer), session, m->vm);
        TRY(metadata_remove(c, m->vm));
    }
    return old_disks_away(c, m);
}

/* --- the hosts ---------------------------------------------------------------------------------------------------- */
void move_source_forget(struct api_call *c, const struct move *m)
{
    struct member members[] = { member_of("migration_id", value_string(m->attempt != NULL ? m->attempt : "")) };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;
    if (m->attempt == NULL || m->attempt[0] == '\0')
        return;
    struct error *e = agent_call(c, m->from, "migrate.settled", &args, &ignored);
    if (e != NULL)
        log_debug("migration %s: the source keeps its record: %s", m->id, error_text(c->arena, e));
    e = m->destination.ops == &destination_local ? agent_call(c, m->destination.host, "migrate.settled", &args, &ignored)
                                                 : agent_call_at(&c->call, c->xapi, &m->destination.target, "migrate.settled", &args, &ignored);
    if (e != NULL)
        log_debug("migration %s: the destination keeps its record: %s", m->id, error_text(c->arena, e));
}

struct error *move_source_clean(struct api_call *c, struct move *m)
{
    disk_send_end(c, m);
    TRY(source_away(c, m));
    move_source_forget(c, m);
    return ledger_end(c->arena, c->xapi->ledger, m->id, LEDGER_OUT, "success", "", "", clock_wall(c->call.clock) * 1000);
}
