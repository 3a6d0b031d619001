/* What the tests of a move's checks stand on: hosts 0 and 1 are a pool, host 2 is another one; rows that are made and changed
 * directly, and one attempt as an object. One instance a test program. */
#ifndef TESTS_COMPONENT_SEND_WORLD_H
#define TESTS_COMPONENT_SEND_WORLD_H

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"
#include "xapi/core/session.h"
#include "xapi/migrate/send_checks.h"

static struct vm_world world;
#define W (&world)
#define P (&world.pool)

static const char *hosts[3], *stores[3]; /* refs; the local SR of each */
static const char *files;                /* a shared SR of the first pool */

/* --- rows made and changed directly ---------------------------------------------------------------------------------- */
static inline void ok(const struct error *e)
{
    if (e != NULL)
        fail_msg("%s", error_text(P->arena, e));
}

static inline const char *row(unsigned pool, unsigned class_id, const char *uuid, const struct field_value *fields, unsigned n)
{
    AUTO_TXN txn = txn_begin(pool_xapi(P, pool)->db, P->arena);
    const char *ref;

    ok(txn_create(txn, class_id, NULL, uuid, fields, n, &ref));
    ok(txn_commit(txn, NULL));
    return ref;
}

static inline void set(unsigned pool, unsigned class_id, const char *ref, unsigned field, struct value v)
{
    ok(db_set(pool_xapi(P, pool)->db, P->arena, class_id, ref, field, v));
}

static inline void put(unsigned pool, unsigned class_id, const char *ref, unsigned field, const char *key, const char *value)
{
    ok(db_map_put(pool_xapi(P, pool)->db, P->arena, class_id, ref, field, key, value));
}

static inline const struct row *look(unsigned pool, unsigned class_id, const char *ref)
{
    return db_get(pool_xapi(P, pool)->db, P->arena, &model_classes[class_id], ref);
}

static inline const char *first_of(unsigned pool, unsigned class_id)
{
    return db_all(pool_xapi(P, pool)->db, P->arena, &model_classes[class_id]).rows[0]->ref;
}

static inline const char *sr_make(unsigned pool, const char *host, const char *name, bool shared)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&P->dir, name))) };

    return pool_ok(P, pool, "SR.create", 9, S(host), value_map(config, 1), value_int(0), S(name), S(""), S("file"), S("user"), value_bool(shared),
                   value_map(NULL, 0)).s;
}

static inline const char *disk(const char *sr, int64_t size, int64_t snapshot_time)
{
    const struct field_value fields[] = {
        { F_VDI_name_label, S("disk") },  { F_VDI_SR, S(sr) },
        { F_VDI_location, S(uuid_make(P->arena)) }, { F_VDI_virtual_size, value_int(size) },
        { F_VDI_physical_utilisation, value_int(size) }, { F_VDI_snapshot_time, value_datetime(snapshot_time) },
    };
    return row(0, CLASS_VDI, NULL, fields, ARRAY_LEN(fields));
}

static inline const char *plug(const char *vm, const char *vdi, const char *mode, const char *type)
{
    const struct field_value fields[] = { { F_VBD_VM, S(vm) }, { F_VBD_VDI, S(vdi) }, { F_VBD_mode, S(mode) }, { F_VBD_type, S(type) },
                                          { F_VBD_userdevice, S(vdi) } };
    return row(0, CLASS_VBD, NULL, fields, ARRAY_LEN(fields));
}

static inline const char *snapshot(const char *vm, const char *power)
{
    const struct field_value fields[] = { { F_VM_name_label, S("snapshot") }, { F_VM_is_a_snapshot, value_bool(true) }, { F_VM_snapshot_of, S(vm) },
                                          { F_VM_power_state, S(power) } };
    return row(0, CLASS_VM, NULL, fields, ARRAY_LEN(fields));
}

/* --- asking ---------------------------------------------------------------------------------------------------------------- */
static inline struct value token_of(unsigned pool, const char *host)
{
    struct row_list pifs = db_all(pool_xapi(P, pool)->db, P->arena, &model_classes[CLASS_PIF]);

    for (unsigned i = 0; i < pifs.n; i++)
        if (strcmp(row_string(pifs.rows[i], F_PIF_host), host) == 0 && row_bool(pifs.rows[i], F_PIF_management))
            return pool_ok(P, pool, "host.migrate_receive", 3, S(host), S(row_string(pifs.rows[i], F_PIF_network)), value_map(NULL, 0));
    fail_msg("host %s has no management interface", host);
    return value_void();
}

/* One attempt; zero-initialise, then fill. */
struct try {
    const char *vm;
    struct value token;
    struct value_dict disks, vifs, formats, options;
    struct move move;
    const char *const *eject;
    unsigned n_eject;
};

static inline void say(struct value_dict *d, const char *key, const char *value)
{
    value_dict_set(P->arena, d, key, S(value));
}

static inline struct error *check(struct try *t, bool sending)
{
    struct value disks = value_dict_value(&t->disks), vifs = value_dict_value(&t->vifs), formats = value_dict_value(&t->formats),
                 options = value_dict_value(&t->options), none = value_map(NULL, 0);
    const struct send_request r = { .vm = t->vm, .dest = &t->token, .vdi_map = &disks, .vif_map = &vifs, .vgpu_map = &none, .format_map = &formats,
                                    .options = &options };
    struct api_call c;

    api_call_init(&c, pool_xapi(P, 0), P->arena, "test");
    c.superuser = true;
    c.session = P->hosts[0].session;
    t->move = (struct move){ 0 };
    return send_checks(&c, &r, sending, &t->move, &t->eject, &t->n_eject);
}

static inline void passes(struct try *t, bool sending)
{
    ok(check(t, sending));
}

/* The error through the API and, where it is not the sender's alone, in both ways of asking. */
static inline const struct error *fails(struct try *t, const char *code)
{
    struct error *sent = check(t, true);
    const struct error *e = pool_fails(P, 0, code, "VM.assert_can_migrate", 7, S(t->vm), t->token, value_bool(true), value_dict_value(&t->disks),
                                       value_dict_value(&t->vifs), value_dict_value(&t->options), value_map(NULL, 0));

    if (!error_is(sent, code))
        fail_msg("sending: %s, expected %s", sent == NULL ? "success" : error_text(P->arena, sent), code);
    return e;
}

static inline const struct error *fails_to_send(struct try *t, const char *code)
{
    struct error *e = check(t, true);

    if (!error_is(e, code))
        fail_msg("sending: %s, expected %s", e == NULL ? "success" : error_text(P->arena, e), code);
    return e;
}

static inline const struct move_disk *planned(const struct try *t, const char *vdi)
{
    for (unsigned i = 0; i < t->move.n_disks; i++)
        if (strcmp(t->move.disks[i].vdi, vdi) == 0)
            return &t->move.disks[i];
    fail_msg("disk %s is not in the plan", vdi);
    return NULL;
}

static inline void goes(const struct try *t, const char *vdi, enum move_disk_how how, const char *sr)
{
    const struct move_disk *d = planned(t, vdi);

    assert_int_equal(d->how, how);
    assert_string_equal(d->target_sr, sr);
}

/* --- faults ------------------------------------------------------------------------------------------------------------------ */
struct features { unsigned pool; const char *ref; struct value all; };

/* Takes a feature from the driver of file SRs of a pool. */
static inline struct features without(unsigned pool, const char *feature)
{
    struct row_list drivers = db_all(pool_xapi(P, pool)->db, P->arena, &model_classes[CLASS_SM]);
    struct features f = { .pool = pool };
    struct value_dict left = { 0 };

    for (unsigned i = 0; i < drivers.n; i++)
        if (strcmp(row_string(drivers.rows[i], F_SM_type), "file") == 0) {
            f.ref = drivers.rows[i]->ref;
            f.all = *row_value(drivers.rows[i], F_SM_features);
        }
    for (unsigned i = 0; i < f.all.len; i++)
        if (strcmp(f.all.members[i].name, feature) != 0 && strcmp(f.all.members[i].name, "VDI_MIRROR") != 0)
            value_dict_add(P->arena, &left, f.all.members[i].name, f.all.members[i].value);
    set(pool, CLASS_SM, f.ref, F_SM_features, value_dict_value(&left));
    return f;
}

static inline void give_back(struct features f)
{
    set(f.pool, CLASS_SM, f.ref, F_SM_features, f.all);
}

static inline const char *xen_version(unsigned pool, const char *host, const char *version)
{
    const char *was = row_map(look(pool, CLASS_host, host), F_host_software_version, "xen", "");

    put(pool, CLASS_host, host, F_host_software_version, "xen", version);
    return was;
}

static inline void rule(const char *key, const char *value)
{
    put(0, CLASS_pool, first_of(0, CLASS_pool), F_pool_other_config, key, value);
}

static inline const char *vif_make(const char *vm, const char *device)
{
    const struct member record[] = { member_of("VM", S(vm)), member_of("device", S(device)), member_of("network", S(first_of(0, CLASS_network))) };

    return vm_ok(W, "VIF.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

/* --- the world ----------------------------------------------------------------------------------------------------------------------------------- */
static inline const char *local_sr(unsigned pool, const char *host)
{
    struct row_list pbds = db_all(pool_xapi(P, pool)->db, P->arena, &model_classes[CLASS_PBD]);

    for (unsigned i = 0; i < pbds.n; i++)
        if (strcmp(row_string(pbds.rows[i], F_PBD_host), host) == 0 && row_bool(pbds.rows[i], F_PBD_currently_attached))
            return row_string(pbds.rows[i], F_PBD_SR);
    fail_msg("host %s has no local SR", host);
    return NULL;
}

static inline int send_world_setup(void **state)
{
    log_set_level(NULL, LOG_ERR);
    pool_world_init(P, 3);
    pool_world_option(P, "log-level", "err");
    pool_world_start(P);
    pool_world_join(P, 1);
    hosts[0] = world.host = pool_host_ref(P, 0);
    hosts[1] = pool_host_ref(P, 1);
    hosts[2] = pool_xapi(P, 2)->host_ref;
    POOL_UNTIL(pool_host_ready(P, 0));
    for (unsigned i = 0; i < 3; i++)
        stores[i] = local_sr(i == 2 ? 2 : 0, hosts[i]);
    files = world.sr = sr_make(0, hosts[0], "files", true);
    return 0;
}

/* What the tests made up is no disk that anybody could let go of. */
static inline int send_world_teardown(void **state)
{
    pool_world_release(P);
    return 0;
}

#endif
