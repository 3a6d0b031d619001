/* The coordinator's part of pool.join: the rows of the joining host become rows of this pool.
 *
 * They keep their refs and uuids, so that the host and its disks stay what they were. Networks are
 * matched by bridge; the host gets a PBD for every shared SR. It is not live before its first hello. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/args.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/network_rows.h"
#include "xapi/pool/sr_rows.h"

LOG_MODULE(admit);

struct admission {
    struct api_call *c;
    struct txn *txn;
    struct value_dict networks; /* their ref -> ours */
};

/* What is the pool's, or of the moment, and not taken over. */
static bool left_out(const struct class_info *class, unsigned field)
{
    static const char *const names[] = { "allowed_operations", "current_operations", "scheduled_to_be_resident_on", "appliance",
                                         "snapshot_schedule", "protection_policy", "blobs", "groups" };

    if (field == 0 || class->fields[field].flags & FIELD_INVERSE)
        return true;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(class->fields[field].name, names[i]) == 0)
            return true;
    return false;
}

static struct value network_mapped(const struct admission *a, struct value ref)
{
    for (unsigned i = 0; i < a->networks.n; i++)
        if (strcmp(a->networks.members[i].name, ref.s) == 0)
            return a->networks.members[i].value;
    return ref;
}

static struct error *row_admit(struct admission *a, const struct class_info *class, const char *ref, const struct value *record)
{
    struct field_value *fields = arena_calloc(a->c->arena, class->n_fields, sizeof(*fields));
    const char *ref_r;
    unsigned n = 0;

    for (unsigned i = 0; i < class->n_fields; i++) {
        const struct field_info *f = &class->fields[i];
        const struct value *given = value_get(record, f->name);

        if (given == NULL || left_out(class, i))
            continue;
        TRY(args_value(a->c, f->type, f->name, PARAM_NULLABLE | PARAM_NO_CHECK, given, &fields[n].value));
        if (f->type->kind == TYPE_REF && f->type->class->id == CLASS_network)
            fields[n].value = network_mapped(a, fields[n].value);
        fields[n++].field = i;
    }
    return txn_create(a->txn, class->id, ref, value_get_string(record, "uuid", NULL), fields, n, &ref_r);
}

static struct error *network_admit(struct admission *a, const char *ref, const struct value *record)
{
    const char *bridge = value_get_string(record, "bridge", ""), *ours;

    TRY(network_of_bridge(a->txn, a->c->arena, bridge, value_get_string(record, "name_label", bridge), &ours));
    value_dict_add(a->c->arena, &a->networks, ref, value_string(ours));
    return NULL;
}

static struct error *record_admit(struct admission *a, const struct value *entry)
{
    const struct class_info *class = model_class(value_get_string(entry, "class", ""));
    const struct value *record = value_get(entry, "record");
    const char *ref = value_get_string(entry, "ref", "");

    if (class == NULL || record == NULL || record->kind != VALUE_MAP || ref_is_null(ref))
        return err_internal(a->c->arena, "a record of the joining host is malformed");
    if (class->id == CLASS_network)
        return network_admit(a, ref, record);
    if (txn_get(a->txn, class, ref) != NULL)
        return NULL;
    return row_admit(a, class, ref, record);
}

/* Where the pool's shared storage is, is the same for the new host as for the others. */
static struct error *shared_pbds(struct admission *a, const char *host_ref)
{
    struct row_list srs = txn_all(a->txn, &model_classes[CLASS_SR]);
    const char *ref;

    for (unsigned i = 0; i < srs.n; i++) {
        const struct value *pbds = row_value(srs.rows[i], F_SR_PBDs);
        const struct row *pbd;

        if (!row_bool(srs.rows[i], F_SR_shared) || pbds->len == 0 || pbd_of(a->txn, srs.rows[i], host_ref) != NULL)
            continue;
        TRY(txn_need(a->txn, CLASS_PBD, pbds->items[0].s, &pbd));
        TRY(pbd_row_create(a->txn, host_ref, srs.rows[i]->ref, row_value(pbd, F_PBD_device_config), &ref));
    }
    return NULL;
}

/* The rows as they are to stand until the host says hello. */
static struct error *host_settle(struct admission *a, const char *host_ref)
{
    const struct row *host;
    const struct value *pbds;

    TRY(txn_need(a->txn, CLASS_host, host_ref, &host));
    TRY(txn_set_bool(a->txn, CLASS_host, host_ref, F_host_enabled, false));
    TRY(txn_set_bool(a->txn, CLASS_host_metrics, row_string(host, F_host_metrics), F_host_metrics_live, false));
    pbds = row_value(host, F_host_PBDs);
    for (unsigned i = 0; i < pbds->len; i++)
        TRY(txn_set_bool(a->txn, CLASS_PBD, pbds->items[i].s, F_PBD_currently_attached, false));
    TRY(shared_pbds(a, host_ref));
    TRY(pool_cpu_update(a->txn, a->c->arena));
    return operations_update(a->c, a->txn, CLASS_host, host_ref);
}

struct error *coordinator_admit_host(struct call *call, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const struct value *records = value_get(args, "records");
    const char *host_ref;
    struct api_call c;

    if (!xapi->is_coordinator)
        return err_host_is_slave(call->arena, xapi->coordinator_address);
    TRY(agent_need(call, args, "host_ref", &host_ref));
    if (records == NULL || records->kind != VALUE_SET)
        return err_internal(call->arena, "a joining host without records");
    internal_call_init(&c, xapi, call->arena, call->id);
    AUTO_TXN txn = txn_begin(c.db, c.arena);
    struct admission a = { .c = &c, .txn = txn };
    for (unsigned i = 0; i < records->len; i++)
        TRY(record_admit(&a, &records->items[i]));
    TRY(host_settle(&a, host_ref));
    TRY(txn_commit(txn, NULL));
    heartbeat_shutting_down(xapi, host_ref);
    log_info("admitted host %s", host_ref);
    return NULL;
}
