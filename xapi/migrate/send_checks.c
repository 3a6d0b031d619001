#include "xapi/migrate/send_checks.h"

#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/placement.h"
#include "xapi/core/version.h"
#include "xapi/core/xapi.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/disk_plan.h"
#include "xapi/migrate/move_rules.h"
#include "xapi/migrate/sr_there.h"

struct checks {
    struct api_call *c;
    const struct send_request *r;
    struct move *m;
    const struct row *vm, *source_host; /* where it runs; else the coordinator */
    const struct row *host;             /* the destination in this pool, or NULL */
    const struct value *remote_host;    /* its record in another one, or NULL */
};

static bool is_remote(const struct checks *k)
{
    return k->m->destination.peer != NULL;
}

static const char *power(const struct checks *k)
{
    return row_string(k->vm, F_VM_power_state);
}

/* --- what is asked for ------------------------------------------------------------------------------------------------ */
static struct error *read_guest(struct checks *k)
{
    struct api_call *c = k->c;
    struct move *m = k->m;
    const char *resident, *state;

    TRY(db_need(c->db, c->arena, CLASS_VM, k->r->vm, &k->vm));
    state = power(k);
    resident = row_string(k->vm, F_VM_resident_on);
    m->vm = k->vm->ref;
    m->vm_uuid = row_string(k->vm, F_VM_uuid);
    m->id = m->id != NULL ? m->id : uuid_make(c->arena);
    m->key = m->key != NULL ? m->key : uuid_make(c->arena);
    m->guest = strcmp(state, "Halted") == 0 ? MOVE_HALTED : strcmp(state, "Suspended") == 0 ? MOVE_SUSPENDED : MOVE_RUNNING;
    m->from = m->guest == MOVE_RUNNING ? resident : NULL;
    TRY(move_options_read(c->arena, k->r->options, &m->options));
    m->options.paused |= strcmp(state, "Paused") == 0;
    return db_need(c->db, c->arena, CLASS_host, ref_is_null(resident) ? c->xapi->host_ref : resident, &k->source_host);
}

static struct error *read_remote_host(struct checks *k, const struct migration_token *t)
{
    struct destination *d = &k->m->destination;
    const struct value *hosts;

    d->ops = &destination_remote;
    TRY(peer_pool_open(k->c, t, &d->peer));
    d->master = t->master;
    d->target = t->host_target;
    d->master.cookie = d->target.cookie = NULL; /* the key, once it is known there */
    TRY(peer_pool_records(k->c, d->peer, "host", &hosts));
    k->remote_host = value_get(hosts, t->host);
    if (k->remote_host == NULL)
        return err_handle_invalid(k->c->arena, "host", t->host);
    d->host_uuid = value_get_string(k->remote_host, "uuid", "");
    d->host_name = value_get_string(k->remote_host, "name_label", "");
    return NULL;
}

static void read_local_host(struct checks *k, const struct migration_token *t)
{
    struct destination *d = &k->m->destination;

    d->ops = &destination_local;
    d->host_uuid = row_string(k->host, F_host_uuid);
    d->host_name = row_string(k->host, F_host_name_label);
    d->target = t->host_target;
    d->target.cookie = NULL;
}

/* A host of ours is one whose ref we know. */
static struct error *read_destination(struct checks *k)
{
    struct migration_token token;

    TRY(migration_token_read(k->c, k->r->dest, &token));
    k->m->destination = (struct destination){ .host = token.host };
    k->host = db_get(k->c->db, k->c->arena, &model_classes[CLASS_host], token.host);
    if (k->host == NULL)
        return read_remote_host(k, &token);
    read_local_host(k, &token);
    return NULL;
}

static void read_vgpus(struct checks *k)
{
    const struct value *vgpus = row_value(k->vm, F_VM_VGPUs);

    k->m->n_vgpus = 0;
    k->m->vgpus = arena_calloc(k->c->arena, vgpus->len + 1, sizeof *k->m->vgpus);
    for (unsigned i = 0; i < vgpus->len; i++) {
        const char *group = value_get_string(k->r->vgpu_map, vgpus->items[i].s, NULL);
        if (group != NULL)
            k->m->vgpus[k->m->n_vgpus++] = (struct move_vgpu){ .vgpu = vgpus->items[i].s, .group = group };
    }
}

/* --- specs §1.6 step 4, within the pool --------------------------------------------------------------------------------- */
static struct error *check_boot(struct checks *k)
{
    AUTO_TXN txn = txn_begin(k->c->db, k->c->arena);

    return placement_check(k->c, txn, k->vm, k->host, PLACE_MEMORY | (k->m->options.force ? 0 : PLACE_CPU));
}

static struct error *check_local(struct checks *k)
{
    if (!version_not_decreasing(k->source_host, k->host))
        return err_not_supported_during_upgrade(k->c->arena);
    TRY(disk_plan_check_features(k->c, k->m));
    TRY(check_boot(k));
    return vif_plan_make(k->c, k->m, k->r->vif_map);
}

/* --- the same, to another pool -------------------------------------------------------------------------------------------- */
static bool remote_version_lower(struct checks *k)
{
    static const char *const keys[] = { "platform_version", "xapi_build", "xen" };
    const struct value *there = value_get(k->remote_host, "software_version");

    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (version_compare(value_get_string(there, keys[i], "0.0.0"), row_map(k->source_host, F_host_software_version, keys[i], "0.0.0")) < 0)
            return true;
    return false;
}

/* Numbers arrive as such, or as their text. */
static int64_t number_of(const struct value *v)
{
    int64_t n = -1;

    if (v->kind == VALUE_STRING)
        return text_to_int(v->s, &n) ? n : -1;
    return v->kind == VALUE_INT || v->kind == VALUE_INT32 ? v->i : -1;
}

static struct error *check_platform(struct checks *k)
{
    struct arena *a = k->c->arena;
    const struct value *versions = value_get(k->remote_host, "virtual_hardware_platform_versions");
    int64_t wanted = row_int(k->vm, F_VM_hardware_platform_version);
    AUTO_TEXT list = TEXT_INIT;

    text_add(&list, "[");
    for (unsigned i = 0; versions != NULL && versions->kind == VALUE_SET && i < versions->len; i++) {
        int64_t version = number_of(&versions->items[i]);
        if (version == wanted)
            return NULL;
        text_printf(&list, "%s%lld", i == 0 ? "" : "; ", (long long)version);
    }
    text_add(&list, "]");
    return err_vm_host_incompatible_virtual_hardware_platform_version(a, k->m->destination.host, list.bytes, k->vm->ref,
                                                                      arena_printf(a, "%lld", (long long)wanted));
}

static struct error *check_pcpus(struct checks *k)
{
    const struct value *cpus = value_get(k->remote_host, "host_CPUs");
    const char *unrestricted = row_map(k->vm, F_VM_platform, "vcpu-unrestricted", "false");
    int64_t vcpus = row_int(k->vm, F_VM_VCPUs_max), pcpus = cpus != NULL && cpus->kind == VALUE_SET ? cpus->len : 0;

    if (vcpus <= pcpus || strcmp(unrestricted, "true") == 0 || strcmp(unrestricted, "1") == 0)
        return NULL;
    return err_host_not_enough_pcpus(k->c->arena, arena_printf(k->c->arena, "%lld", (long long)vcpus),
                                     arena_printf(k->c->arena, "%lld", (long long)pcpus));
}

/* What is known of the mappings before anything exists there. */
static struct value maps_to(struct checks *k)
{
    const struct move *m = k->m;
    struct value_dict v = { 0 };

    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].target != NULL)
            value_dict_add(k->c->arena, &v, m->disks[i].vdi, value_string(m->disks[i].target));
    for (unsigned i = 0; i < m->n_vifs; i++)
        value_dict_add(k->c->arena, &v, m->vifs[i].vif, value_string(m->vifs[i].network));
    for (unsigned i = 0; i < m->n_vgpus; i++)
        value_dict_add(k->c->arena, &v, m->vgpus[i].vgpu, value_string(m->vgpus[i].group));
    return value_dict_value(&v);
}

static struct error *dry_run(struct checks *k)
{
    const struct move *m = k->m;
    const char *vms[] = { m->vm }, *const *made;
    struct value maps = maps_to(k);
    unsigned n = 0;
    const struct metadata_export out = { .vms = vms, .n_vms = 1, .snapshots = !m->options.copy, .preserve_power_state = true, .maps_to = &maps };
    const struct metadata_import in = { .restore = !m->options.copy, .live = m->guest == MOVE_RUNNING, .dry_run = true,
                                        .check_cpu = !m->options.force && m->guest != MOVE_HALTED, .force = m->options.force,
                                        .snapshots = !m->options.copy, .host = m->destination.host, .incoming = m->id };

    TRY(metadata_send(k->c, peer_pool_master(m->destination.peer), peer_pool_session(m->destination.peer), &out, &in, &made, &n));
    return n == 0 ? NULL : err_internal(k->c->arena, "the destination made %u VMs in a dry run of their import", n);
}

static struct error *check_remote(struct checks *k)
{
    struct api_call *c = k->c;
    struct move *m = k->m;

    if (remote_version_lower(k)) /* in this order, though declared the other way round (specs §1.6) */
        return err_vm_host_incompatible_version_migrate(c->arena, k->vm->ref, m->destination.host);
    TRY(disk_plan_check_features(c, m));
    if (m->options.copy && !m->options.force && m->guest != MOVE_HALTED)
        return err_vm_bad_power_state(c->arena, k->vm->ref, "halted", m->guest == MOVE_SUSPENDED ? "suspended" : m->options.paused ? "paused" : "running");
    TRY(check_platform(k));
    if (!value_get_bool(k->remote_host, "enabled", false))
        return err_host_disabled(c->arena, m->destination.host);
    TRY(check_pcpus(k));
    TRY(vif_plan_make(c, m, k->r->vif_map));
    return dry_run(k);
}

/* --- who sends ------------------------------------------------------------------------------------------------------------ */
static bool sees_disks(struct txn *txn, const struct move *m, const struct row *host)
{
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].how != MOVE_DISK_STAYS && !placement_sr_attached(txn, m->disks[i].sr, host->ref))
            return false;
    return true;
}

static bool is_live(struct txn *txn, const struct row *host)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));

    return metrics != NULL && row_bool(metrics, F_host_metrics_live);
}

/* A host that has the disks and could boot the VM: the destination itself, the VM's home, any. To another pool one that has
 * the disks will do. */
static struct error *choose_from(struct checks *k)
{
    struct move *m = k->m;
    AUTO_TXN txn = txn_begin(k->c->db, k->c->arena);
    struct row_list hosts = txn_all(txn, &model_classes[CLASS_host]);
    const char *best = NULL;
    int best_rank = 0;

    for (unsigned i = 0; i < hosts.n; i++) {
        const struct row *host = hosts.rows[i];
        if (!is_live(txn, host) || !sees_disks(txn, m, host))
            continue;
        bool boots = placement_check(k->c, txn, k->vm, host, PLACE_SR | PLACE_MEMORY) == NULL;
        int rank = !boots ? (is_remote(k) ? 1 : 0) : strcmp(host->ref, m->destination.host) == 0 ? 4 : strcmp(host->ref, row_string(k->vm, F_VM_affinity)) == 0 ? 3 : 2;
        if (rank <= best_rank)
            continue;
        best = host->ref;
        best_rank = rank;
    }
    if (best == NULL)
        return err_no_hosts_available(k->c->arena);
    m->from = arena_strdup(k->c->arena, best);
    return NULL;
}

static const char *vendor_there(const struct checks *k)
{
    return is_remote(k) ? value_get_string(value_get(k->remote_host, "cpu_info"), "vendor", "") : row_map(k->host, F_host_cpu_info, "vendor", "");
}

static struct error *check_sender(struct checks *k)
{
    if (k->m->from == NULL)
        TRY(choose_from(k));
    if (k->m->options.copy && !is_remote(k))
        return err_operation_not_allowed(k->c->arena, "Copy mode is disallowed on intra pool storage migration: VM.copy and VM.clone do that");
    TRY(disk_plan_check_source(k->c, k->m));
    TRY(disk_plan_check_places(k->c, k->m));
    return disk_plan_check_formats(k->c, k->m);
}

/* The way to the destination: of this pool's hosts the certificate is known; who names an address means it. */
static struct error *settle_target(struct checks *k)
{
    struct destination *d = &k->m->destination;
    const struct move_options *o = &k->m->options;
    struct http_target recorded;

    if (!is_remote(k) && d->target.tls) {
        TRY(agent_target(k->c, d->host, &recorded));
        d->target.fingerprint = recorded.fingerprint;
    }
    if (o->migrate_address != NULL)
        d->target.address = o->migrate_address;
    if (o->migrate_port != 0)
        d->target.port = o->migrate_port;
    return NULL;
}

struct error *send_checks(struct api_call *c, const struct send_request *r, bool sending, struct move *m, const char *const **eject_r,
                          unsigned *n_eject_r)
{
    struct checks k = { .c = c, .r = r, .m = m };

    TRY(read_guest(&k));
    TRY(read_destination(&k));
    read_vgpus(&k);
    TRY(disk_plan_make(c, m, r->vdi_map, r->format_map, eject_r, n_eject_r));
    TRY(move_rules_check(c, m, vendor_there(&k)));
    TRY(is_remote(&k) ? check_remote(&k) : check_local(&k));
    TRY(disk_plan_check_contents(c, m));
    if (sending)
        TRY(check_sender(&k));
    TRY(disk_plan_check_room(c, m));
    if (!sending)
        return NULL;
    TRY(settle_target(&k));
    return srs_there_plug(c, m);
}
