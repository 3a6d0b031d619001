/* VM.assert_can_migrate, host.migrate_receive and what VM.migrate_send asks before it moves anything: hosts 0 and 1 are a pool,
 * host 2 is another one. All faults stand at once and are taken away one by one: that is how their order is seen. */
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
static void ok(const struct error *e)
{
    if (e != NULL)
        fail_msg("%s", error_text(P->arena, e));
}

static const char *row(unsigned pool, unsigned class_id, const char *uuid, const struct field_value *fields, unsigned n)
{
    AUTO_TXN txn = txn_begin(pool_xapi(P, pool)->db, P->arena);
    const char *ref;

    ok(txn_create(txn, class_id, NULL, uuid, fields, n, &ref));
    ok(txn_commit(txn, NULL));
    return ref;
}

static void set(unsigned pool, unsigned class_id, const char *ref, unsigned field, struct value v)
{
    ok(db_set(pool_xapi(P, pool)->db, P->arena, class_id, ref, field, v));
}

static void put(unsigned pool, unsigned class_id, const char *ref, unsigned field, const char *key, const char *value)
{
    ok(db_map_put(pool_xapi(P, pool)->db, P->arena, class_id, ref, field, key, value));
}

static const struct row *look(unsigned pool, unsigned class_id, const char *ref)
{
    return db_get(pool_xapi(P, pool)->db, P->arena, &model_classes[class_id], ref);
}

static const char *first_of(unsigned pool, unsigned class_id)
{
    return db_all(pool_xapi(P, pool)->db, P->arena, &model_classes[class_id]).rows[0]->ref;
}

static const char *sr_make(unsigned pool, const char *host, const char *name, bool shared)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&P->dir, name))) };

    return pool_ok(P, pool, "SR.create", 9, S(host), value_map(config, 1), value_int(0), S(name), S(""), S("file"), S("user"), value_bool(shared),
                   value_map(NULL, 0)).s;
}

static const char *disk(const char *sr, int64_t size, int64_t snapshot_time)
{
    const struct field_value fields[] = {
        { F_VDI_name_label, S("disk") },  { F_VDI_SR, S(sr) },
        { F_VDI_location, S(uuid_make(P->arena)) }, { F_VDI_virtual_size, value_int(size) },
        { F_VDI_physical_utilisation, value_int(size) }, { F_VDI_snapshot_time, value_datetime(snapshot_time) },
    };
    return row(0, CLASS_VDI, NULL, fields, ARRAY_LEN(fields));
}

static const char *plug(const char *vm, const char *vdi, const char *mode, const char *type)
{
    const struct field_value fields[] = { { F_VBD_VM, S(vm) }, { F_VBD_VDI, S(vdi) }, { F_VBD_mode, S(mode) }, { F_VBD_type, S(type) },
                                          { F_VBD_userdevice, S(vdi) } };
    return row(0, CLASS_VBD, NULL, fields, ARRAY_LEN(fields));
}

static const char *snapshot(const char *vm, const char *power)
{
    const struct field_value fields[] = { { F_VM_name_label, S("snapshot") }, { F_VM_is_a_snapshot, value_bool(true) }, { F_VM_snapshot_of, S(vm) },
                                          { F_VM_power_state, S(power) } };
    return row(0, CLASS_VM, NULL, fields, ARRAY_LEN(fields));
}

/* --- asking ---------------------------------------------------------------------------------------------------------------- */
static struct value token_of(unsigned pool, const char *host)
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

static void say(struct value_dict *d, const char *key, const char *value)
{
    value_dict_set(P->arena, d, key, S(value));
}

static struct error *check(struct try *t, bool sending)
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

static void passes(struct try *t, bool sending)
{
    ok(check(t, sending));
}

/* The error through the API and, where it is not the sender's alone, in both ways of asking. */
static const struct error *fails(struct try *t, const char *code)
{
    struct error *sent = check(t, true);
    const struct error *e = pool_fails(P, 0, code, "VM.assert_can_migrate", 7, S(t->vm), t->token, value_bool(true), value_dict_value(&t->disks),
                                       value_dict_value(&t->vifs), value_dict_value(&t->options), value_map(NULL, 0));

    if (!error_is(sent, code))
        fail_msg("sending: %s, expected %s", sent == NULL ? "success" : error_text(P->arena, sent), code);
    return e;
}

static const struct error *fails_to_send(struct try *t, const char *code)
{
    struct error *e = check(t, true);

    if (!error_is(e, code))
        fail_msg("sending: %s, expected %s", e == NULL ? "success" : error_text(P->arena, e), code);
    return e;
}

static const struct move_disk *planned(const struct try *t, const char *vdi)
{
    for (unsigned i = 0; i < t->move.n_disks; i++)
        if (strcmp(t->move.disks[i].vdi, vdi) == 0)
            return &t->move.disks[i];
    fail_msg("disk %s is not in the plan", vdi);
    return NULL;
}

static void goes(const struct try *t, const char *vdi, enum move_disk_how how, const char *sr)
{
    const struct move_disk *d = planned(t, vdi);

    assert_int_equal(d->how, how);
    assert_string_equal(d->target_sr, sr);
}

/* --- faults ------------------------------------------------------------------------------------------------------------------ */
struct features { unsigned pool; const char *ref; struct value all; };

/* Takes a feature from the driver of file SRs of a pool. */
static struct features without(unsigned pool, const char *feature)
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

static void give_back(struct features f)
{
    set(f.pool, CLASS_SM, f.ref, F_SM_features, f.all);
}

static const char *xen_version(unsigned pool, const char *host, const char *version)
{
    const char *was = row_map(look(pool, CLASS_host, host), F_host_software_version, "xen", "");

    put(pool, CLASS_host, host, F_host_software_version, "xen", version);
    return was;
}

static void rule(const char *key, const char *value)
{
    put(0, CLASS_pool, first_of(0, CLASS_pool), F_pool_other_config, key, value);
}

static const char *vif_make(const char *vm, const char *device)
{
    const struct member record[] = { member_of("VM", S(vm)), member_of("device", S(device)), member_of("network", S(first_of(0, CLASS_network))) };

    return vm_ok(W, "VIF.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

/* --- within the pool: all errors, in their order --------------------------------------------------------------------------------- */
static void test_order_local(void **state)
{
    const char *vm = vm_world_vm(W, "order-local", NULL), *odd = sr_make(0, hosts[0], "odd", false), *d = disk(odd, 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };
    const char *pool = first_of(0, CLASS_pool), *was = row_string(look(0, CLASS_pool, pool), F_pool_default_SR);

    plug(vm, d, "RW", "Disk");
    set(0, CLASS_pool, pool, F_pool_default_SR, S(REF_NULL));
    const char *version = xen_version(0, hosts[1], "1.0");
    struct features taken = without(0, "VDI_SNAPSHOT");
    set(0, CLASS_host, hosts[1], F_host_enabled, value_bool(false));
    say(&t.vifs, vif_make(vm, "0"), first_of(0, CLASS_network));
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(true));
    put(0, CLASS_VDI, d, F_VDI_sm_config, "key_hash", "x");
    set(0, CLASS_host, hosts[0], F_host_enabled, value_bool(false));
    say(&t.options, "copy", "true");
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("reset"));
    say(&t.formats, d, "vmdk");
    set(0, CLASS_VDI, d, F_VDI_virtual_size, value_int(1ll << 60));
    set(0, CLASS_VDI, d, F_VDI_physical_utilisation, value_int(1ll << 60));

    error_has(fails(&t, "VDI_NOT_IN_MAP"), 1, d);
    say(&t.disks, d, stores[1]);
    error_has(fails(&t, "NOT_SUPPORTED_DURING_UPGRADE"), 0);
    xen_version(0, hosts[1], version);
    error_has(fails(&t, "SR_DOES_NOT_SUPPORT_MIGRATION"), 2, odd, "VDI_SNAPSHOT;VDI_MIRROR");
    give_back(taken);
    error_has(fails(&t, "HOST_DISABLED"), 1, hosts[1]);
    set(0, CLASS_host, hosts[1], F_host_enabled, value_bool(true));
    assert_int_equal(fails(&t, "OPERATION_NOT_ALLOWED")->n_params, 1);
    t.vifs = (struct value_dict){ 0 };
    error_has(fails(&t, "VDI_CBT_ENABLED"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(false));
    error_has(fails(&t, "VDI_IS_ENCRYPTED"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_sm_config, value_map(NULL, 0));
    error_has(fails_to_send(&t, "NO_HOSTS_AVAILABLE"), 0);
    set(0, CLASS_host, hosts[0], F_host_enabled, value_bool(true));
    assert_int_equal(fails_to_send(&t, "OPERATION_NOT_ALLOWED")->n_params, 1);
    t.options = (struct value_dict){ 0 };
    error_has(fails_to_send(&t, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("persist"));
    assert_int_equal(fails_to_send(&t, "VDI_INCOMPATIBLE_TYPE")->n_params, 1);
    say(&t.formats, d, "qcow2");
    const struct error *full = fails(&t, "SR_FULL");
    assert_string_equal(full->params[0], "1152921504606846976");
    set(0, CLASS_VDI, d, F_VDI_virtual_size, value_int(1 << 20));
    set(0, CLASS_VDI, d, F_VDI_physical_utilisation, value_int(1 << 20));
    passes(&t, true);
    goes(&t, d, MOVE_DISK_MIRROR, stores[1]);
    assert_string_equal(planned(&t, d)->format, "qcow2");
    assert_string_equal(t.move.from, hosts[0]);
    assert_ptr_equal(t.move.destination.ops, &destination_local);
    assert_string_equal(t.move.destination.target.address, P->hosts[1].address);
    assert_non_null(t.move.destination.target.fingerprint);
    set(0, CLASS_pool, pool, F_pool_default_SR, S(was));
}

static void test_boot_checks_local(void **state)
{
    const char *vm = vm_world_vm(W, "boot-local", NULL);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };

    passes(&t, true);
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(5000));
    assert_string_equal(fails(&t, "HOST_NOT_ENOUGH_PCPUS")->params[0], "5000");
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(1));
    set(0, CLASS_VM, vm, F_VM_memory_static_max, value_int(1ll << 50));
    set(0, CLASS_VM, vm, F_VM_memory_dynamic_max, value_int(1ll << 50));
    set(0, CLASS_VM, vm, F_VM_memory_dynamic_min, value_int(1ll << 50));
    assert_int_equal(fails(&t, "HOST_NOT_ENOUGH_FREE_MEMORY")->n_params, 2);
}

/* --- where disks go ------------------------------------------------------------------------------------------------------------------ */
static void test_unmapped_local(void **state)
{
    const char *vm = vm_world_vm(W, "unmapped", NULL), *shared = disk(files, 3 << 20, 0), *own = disk(stores[0], 2 << 20, 0),
               *odd = disk(sr_make(0, hosts[0], "odd-too", false), 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };
    const char *pool = first_of(0, CLASS_pool), *was = row_string(look(0, CLASS_pool, pool), F_pool_default_SR);

    plug(vm, shared, "RW", "Disk");
    plug(vm, own, "RO", "Disk");
    plug(vm, odd, "RW", "Disk");
    set(0, CLASS_pool, pool, F_pool_default_SR, S(files));
    passes(&t, true);
    assert_int_equal(t.move.n_disks, 3);
    goes(&t, shared, MOVE_DISK_STAYS, files);
    assert_string_equal(planned(&t, shared)->target, shared);
    goes(&t, own, MOVE_DISK_COPY, stores[1]); /* the SR of the same name and type */
    goes(&t, odd, MOVE_DISK_MIRROR, files);   /* the default SR */
    assert_string_equal(t.move.disks[0].vdi, odd);
    assert_string_equal(t.move.disks[2].vdi, shared);
    /* an SR that is only unplugged there is plugged for the sender */
    const char *idle = sr_make(0, hosts[1], "idle", false), *pbd = vm_ok(W, "SR.get_PBDs", 1, S(idle)).items[0].s;
    vm_ok(W, "PBD.unplug", 1, S(pbd));
    say(&t.disks, odd, idle);
    passes(&t, false);
    assert_string_equal(vm_field(W, "PBD.get_currently_attached", pbd), "false");
    passes(&t, true);
    goes(&t, odd, MOVE_DISK_MIRROR, idle);
    assert_string_equal(vm_field(W, "PBD.get_currently_attached", pbd), "true");
    say(&t.disks, shared, "OpaqueRef:none");
    error_has(fails(&t, "HANDLE_INVALID"), 2, "SR", "OpaqueRef:none");
    say(&t.disks, shared, stores[0]); /* which the destination does not see */
    error_has(fails(&t, "VM_REQUIRES_SR"), 2, vm, stores[0]);
    set(0, CLASS_pool, pool, F_pool_default_SR, S(was));
}

static void test_snapshots_and_images(void **state)
{
    const char *vm = vm_world_vm(W, "snapshots", NULL), *d = disk(stores[0], 2 << 20, 0), *older = disk(stores[0], 2 << 20, 100),
               *younger = disk(stores[0], 2 << 20, 200), *image = disk(stores[0], 1 << 20, 0), *late = disk(stores[0], 1 << 20, 5);
    const char *one = snapshot(vm, "Halted"), *two = snapshot(vm, "Suspended");
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };

    plug(vm, d, "RW", "Disk");
    plug(one, younger, "RW", "Disk");
    plug(two, older, "RW", "Disk");
    set(0, CLASS_VDI, younger, F_VDI_snapshot_of, S(d));
    set(0, CLASS_VDI, older, F_VDI_snapshot_of, S(d));
    set(0, CLASS_VM, two, F_VM_suspend_VDI, S(image));
    say(&t.disks, d, files);
    error_has(fails(&t, "VM_HAS_CHECKPOINT"), 1, vm);
    rule("migration-profile", "xapi");
    passes(&t, true);
    goes(&t, d, MOVE_DISK_MIRROR, files);
    goes(&t, older, MOVE_DISK_COPY, files);
    goes(&t, younger, MOVE_DISK_COPY, files);
    goes(&t, image, MOVE_DISK_COPY, stores[1]);
    assert_true(planned(&t, image)->is_suspend_image && planned(&t, image)->is_snapshot && planned(&t, older)->is_snapshot);
    assert_string_equal(t.move.disks[0].vdi, image);
    assert_string_equal(t.move.disks[1].vdi, d);
    assert_string_equal(t.move.disks[2].vdi, older);
    assert_string_equal(t.move.disks[3].vdi, younger);
    /* images: the pool's SR for them before one that merely looks alike */
    set(0, CLASS_pool, first_of(0, CLASS_pool), F_pool_suspend_image_SR, S(files));
    passes(&t, true);
    goes(&t, image, MOVE_DISK_COPY, files);
    set(0, CLASS_pool, first_of(0, CLASS_pool), F_pool_suspend_image_SR, S(REF_NULL));
    /* an image that the sender cannot read */
    set(0, CLASS_VDI, image, F_VDI_SR, S(stores[1]));
    set(0, CLASS_VM, vm, F_VM_power_state, S("Suspended"));
    set(0, CLASS_VM, vm, F_VM_suspend_VDI, S(late));
    t.token = token_of(0, hosts[0]);
    say(&t.disks, image, files);
    set(0, CLASS_VM, vm, F_VM_power_state, S("Running"));
    set(0, CLASS_VM, vm, F_VM_resident_on, S(hosts[0]));
    error_has(fails_to_send(&t, "SUSPEND_IMAGE_NOT_ACCESSIBLE"), 1, image);
    set(0, CLASS_VM, vm, F_VM_resident_on, S(REF_NULL));
    set(0, CLASS_VM, vm, F_VM_power_state, S("Halted"));
    rule("migration-profile", "");
}

static void test_rules(void **state)
{
    const char *vm = vm_world_vm(W, "rules", NULL);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };

    for (unsigned i = 0; i < 6; i++)
        plug(vm, disk(stores[0], 1 << 20, 0), "RW", "Disk");
    passes(&t, false);
    plug(vm, disk(files, 1 << 20, 0), "RW", "Disk"); /* it stays */
    passes(&t, false);
    plug(vm, disk(stores[0], 1 << 20, 0), "RO", "Disk");
    const struct error *e = fails(&t, "OPERATION_NOT_ALLOWED");
    assert_non_null(strstr(e->params[0], "7 disks"));
    rule("migration-rule-disks", "off");
    passes(&t, false);
    set(0, CLASS_VM, vm, F_VM_power_state, S("Suspended"));
    put(0, CLASS_VM, vm, F_VM_last_boot_CPU_flags, "vendor", "CyrixInstead");
    say(&t.options, "force", "true");
    error_has(fails(&t, "VM_INCOMPATIBLE_WITH_THIS_HOST"), 3, vm, hosts[1], "VM last booted on a host which had a CPU from a different vendor.");
    rule("migration-rule-disks", "on");
    rule("migration-rule-cpu-vendor", "off");
    (void)fails(&t, "OPERATION_NOT_ALLOWED");
    rule("migration-rule-disks", "");
    rule("migration-profile", "xapi");
    passes(&t, false);
    rule("migration-profile", "");
    rule("migration-rule-cpu-vendor", "");
}

static void test_cds(void **state)
{
    const char *vm = vm_world_vm(W, "cds", NULL), *follows = disk(files, 1 << 20, 0), *stays = disk(stores[0], 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(0, hosts[1]) };

    plug(vm, follows, "RO", "CD");
    const char *vbd = plug(vm, stays, "RO", "CD");
    error_has(fails(&t, "VDI_NOT_IN_MAP"), 1, stays);
    say(&t.options, "cd", "eject");
    passes(&t, true);
    assert_int_equal(t.move.n_disks, 1);
    goes(&t, follows, MOVE_DISK_STAYS, files);
    assert_int_equal(t.n_eject, 1);
    assert_string_equal(t.eject[0], vbd);
    set(0, CLASS_VM, vm, F_VM_power_state, S("Suspended"));
    error_has(fails_to_send(&t, "VDI_NOT_IN_MAP"), 1, stays);
    set(0, CLASS_VM, vm, F_VM_power_state, S("Halted"));
}

/* --- the token and the options ----------------------------------------------------------------------------------------------------------- */
static void test_receive(void **state)
{
    const char *network = row_string(look(0, CLASS_PIF, first_of(0, CLASS_PIF)), F_PIF_network);
    struct value t = token_of(0, hosts[1]);
    const char *session = value_get_string(&t, "session_id", "");
    const struct row *made = look(0, CLASS_session, session);

    assert_int_equal(t.len, 5);
    assert_string_equal(value_get_string(&t, "host", ""), hosts[1]);
    assert_string_equal(value_get_string(&t, "SM", ""), arena_printf(P->arena, "http://%s/services/SM?session_id=%s", P->hosts[1].address, session));
    assert_string_equal(value_get_string(&t, "xenops", ""), arena_printf(P->arena, "http://%s/services/xenops?session_id=%s", P->hosts[1].address, session));
    assert_string_equal(value_get_string(&t, "master", ""), arena_printf(P->arena, "http://%s", P->hosts[0].address));
    assert_string_not_equal(session, P->hosts[0].session);
    assert_non_null(made);
    assert_true(row_bool(made, F_session_is_local_superuser));
    const char *nowhere = row(0, CLASS_network, NULL, (struct field_value[]){ { F_network_name_label, S("nowhere") } }, 1);
    error_has(vm_fails(W, "HOST_CANNOT_ATTACH_NETWORK", "host.migrate_receive", 3, S(hosts[1]), S(nowhere), value_map(NULL, 0)), 2, hosts[1], nowhere);
    assert_non_null(network);
}

static void test_token_and_options(void **state)
{
    static const char *const keys[] = { "SM", "xenops", "master", "host", "session_id" };
    struct try t = { .vm = vm_world_vm(W, "token", NULL) };
    struct value whole = token_of(0, hosts[1]);

    for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
        struct value_dict part = { 0 };
        for (unsigned k = 0; k < whole.len; k++)
            if (strcmp(whole.members[k].name, keys[i]) != 0)
                value_dict_add(P->arena, &part, whole.members[k].name, whole.members[k].value);
        t.token = value_dict_value(&part);
        const struct error *e = fails(&t, "INTERNAL_ERROR");
        assert_non_null(strstr(e->params[0], keys[i]));
        assert_null(strstr(e->params[0], value_get_string(&whole, "session_id", "?")));
    }
    t.token = whole;
    say(&t.options, "streams", "99");
    error_has(fails(&t, "INVALID_VALUE"), 2, "streams", "99");
    say(&t.options, "streams", "2");
    say(&t.options, "migrate_uri", "tcp://127.0.0.9:4444");
    passes(&t, true);
    assert_string_equal(t.move.destination.target.address, "127.0.0.9");
    assert_int_equal(t.move.destination.target.port, 4444);
}

/* --- to another pool: all errors, in their order --------------------------------------------------------------------------------------------- */
static void test_order_remote(void **state)
{
    const char *vm = vm_world_vm(W, "order-remote", NULL), *odd = sr_make(0, hosts[0], "odd-remote", false), *d = disk(odd, 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(2, hosts[2]) };
    const char *pool = first_of(2, CLASS_pool), *was = row_string(look(2, CLASS_pool, pool), F_pool_default_SR), *uuid = vm_field(W, "VM.get_uuid", vm);
    const char *vif = vif_make(vm, "0");

    plug(vm, d, "RW", "Disk");
    set(2, CLASS_pool, pool, F_pool_default_SR, S(REF_NULL));
    const char *version = xen_version(2, hosts[2], "1.0");
    struct features taken = without(2, "VDI_MIRROR_IN");
    say(&t.options, "copy", "true");
    set(0, CLASS_VM, vm, F_VM_power_state, S("Suspended"));
    set(0, CLASS_VM, vm, F_VM_hardware_platform_version, value_int(99));
    set(2, CLASS_host, hosts[2], F_host_enabled, value_bool(false));
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(5000));
    const char *twin = row(2, CLASS_VM, uuid, (struct field_value[]){ { F_VM_name_label, S("twin") }, { F_VM_power_state, S("Halted") }, { F_VM_version, value_int(7) } }, 3);
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(true));
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("reset"));

    error_has(fails(&t, "VDI_NOT_IN_MAP"), 1, d);
    say(&t.disks, d, stores[2]);
    error_has(fails(&t, "VM_HOST_INCOMPATIBLE_VERSION_MIGRATE"), 2, vm, hosts[2]);
    xen_version(2, hosts[2], version);
    error_has(fails(&t, "SR_DOES_NOT_SUPPORT_MIGRATION"), 2, stores[2], "VDI_MIRROR_IN");
    give_back(taken);
    error_has(fails(&t, "VM_BAD_POWER_STATE"), 3, vm, "halted", "suspended");
    t.options = (struct value_dict){ 0 };
    set(0, CLASS_VM, vm, F_VM_power_state, S("Halted"));
    const struct error *e = fails(&t, "VM_HOST_INCOMPATIBLE_VIRTUAL_HARDWARE_PLATFORM_VERSION");
    error_has(e, 4, hosts[2], e->params[1], vm, "99");
    assert_int_equal(e->params[1][0], '[');
    set(0, CLASS_VM, vm, F_VM_hardware_platform_version, value_int(0));
    error_has(fails(&t, "HOST_DISABLED"), 1, hosts[2]);
    set(2, CLASS_host, hosts[2], F_host_enabled, value_bool(true));
    assert_string_equal(fails(&t, "HOST_NOT_ENOUGH_PCPUS")->params[0], "5000");
    set(0, CLASS_VM, vm, F_VM_VCPUs_max, value_int(1));
    error_has(fails(&t, "VIF_NOT_IN_MAP"), 1, vif);
    say(&t.vifs, vif, first_of(2, CLASS_network));
    e = fails(&t, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION"); /* the dry run */
    assert_string_equal(e->params[0], twin);
    ok(db_delete(pool_xapi(P, 2)->db, P->arena, CLASS_VM, twin));
    error_has(fails(&t, "VDI_CBT_ENABLED"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_cbt_enabled, value_bool(false));
    error_has(fails_to_send(&t, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION"), 1, d);
    set(0, CLASS_VDI, d, F_VDI_on_boot, S("persist"));
    passes(&t, true);
    goes(&t, d, MOVE_DISK_MIRROR, stores[2]);
    assert_string_equal(t.move.vifs[0].network, first_of(2, CLASS_network));
    assert_ptr_equal(t.move.destination.ops, &destination_remote);
    assert_string_equal(t.move.destination.target.address, P->hosts[2].address);
    assert_true(t.move.destination.target.tls && t.move.destination.target.port == P->port);
    assert_string_equal(t.move.destination.host_uuid, pool_xapi(P, 2)->host_uuid);
    assert_null(db_by_uuid(pool_xapi(P, 2)->db, P->arena, &model_classes[CLASS_VM], uuid)); /* nothing was made */
    set(2, CLASS_pool, pool, F_pool_default_SR, S(was));
}

static void test_remote_room_and_memory(void **state)
{
    const char *vm = vm_world_vm(W, "room-remote", NULL), *d = disk(stores[0], 1 << 20, 0);
    struct try t = { .vm = vm, .token = token_of(2, hosts[2]) };

    plug(vm, d, "RW", "Disk");
    passes(&t, false);
    goes(&t, d, MOVE_DISK_MIRROR, stores[2]); /* of the same name and type */
    int64_t size = row_int(look(2, CLASS_SR, stores[2]), F_SR_physical_size), used = row_int(look(2, CLASS_SR, stores[2]), F_SR_physical_utilisation);
    set(2, CLASS_SR, stores[2], F_SR_physical_size, value_int(1 << 20));
    set(2, CLASS_SR, stores[2], F_SR_physical_utilisation, value_int(4096));
    error_has(fails(&t, "SR_FULL"), 2, "1048576", "1044480");
    set(2, CLASS_SR, stores[2], F_SR_physical_size, value_int(size));
    set(2, CLASS_SR, stores[2], F_SR_physical_utilisation, value_int(used));
    struct value dead = t.token;
    say(&t.disks, d, stores[2]);
    assert_true(session_destroy(pool_xapi(P, 2), P->arena, value_get_string(&dead, "session_id", "")));
    assert_string_equal(fails(&t, "SESSION_INVALID")->params[0], value_get_string(&dead, "session_id", ""));
}

/* A shared SR that both pools have, by its uuid. */
static void test_same_sr_in_another_pool(void **state)
{
    const char *vm = vm_world_vm(W, "same-sr", NULL), *d = disk(files, 1 << 20, 0), *sr_uuid = vm_field(W, "SR.get_uuid", files);
    struct try t = { .vm = vm, .token = token_of(2, hosts[2]) };
    const char *twin = row(2, CLASS_SR, sr_uuid, (struct field_value[]){ { F_SR_name_label, S("twin") }, { F_SR_type, S("file") } }, 2);
    const struct field_value pbd[] = { { F_PBD_host, S(hosts[2]) }, { F_PBD_SR, S(twin) }, { F_PBD_currently_attached, value_bool(true) } };

    plug(vm, d, "RW", "Disk");
    (void)row(2, CLASS_PBD, NULL, pbd, ARRAY_LEN(pbd));
    const struct error *e = fails(&t, "INTERNAL_ERROR");
    assert_non_null(strstr(e->params[0], "SR UUID matches on destination but VDI does not exist"));
    const char *other = row(2, CLASS_VDI, vm_field(W, "VDI.get_uuid", d),
                            (struct field_value[]){ { F_VDI_SR, S(twin) }, { F_VDI_location, S("there") }, { F_VDI_virtual_size, value_int(1 << 20) } }, 3);
    passes(&t, true);
    goes(&t, d, MOVE_DISK_STAYS, twin);
    assert_string_equal(planned(&t, d)->target, other);
    assert_string_equal(planned(&t, d)->target_location, "there");
    say(&t.options, "copy", "true"); /* two VMs must not write one disk */
    passes(&t, false);
    goes(&t, d, MOVE_DISK_MIRROR, twin);
    ok(db_delete(pool_xapi(P, 2)->db, P->arena, CLASS_VDI, other));
    ok(db_delete(pool_xapi(P, 2)->db, P->arena, CLASS_SR, twin));
}

static void test_vifs_by_mac(void **state)
{
    const char *vm = vm_world_vm(W, "vifs", NULL), *one = vif_make(vm, "0"), *two = vif_make(vm, "1"), *s = snapshot(vm, "Halted");
    const char *theirs = first_of(2, CLASS_network);
    const struct field_value same[] = { { F_VIF_VM, S(s) }, { F_VIF_MAC, S(vm_field(W, "VIF.get_MAC", one)) }, { F_VIF_device, S("0") },
                                        { F_VIF_network, S(first_of(0, CLASS_network)) } };
    const char *old = row(0, CLASS_VIF, NULL, same, ARRAY_LEN(same));
    struct try t = { .vm = vm, .token = token_of(2, hosts[2]) };

    say(&t.vifs, one, theirs);
    error_has(fails(&t, "VIF_NOT_IN_MAP"), 1, two);
    say(&t.vifs, two, "OpaqueRef:none");
    error_has(fails(&t, "HANDLE_INVALID"), 2, "network", "OpaqueRef:none");
    say(&t.vifs, two, theirs);
    passes(&t, true);
    assert_int_equal(t.move.n_vifs, 3);
    assert_string_equal(t.move.vifs[2].vif, old);
    assert_string_equal(t.move.vifs[2].network, theirs);
}

static void test_unreachable_pool(void **state)
{
    struct try t = { .vm = vm_world_vm(W, "unreachable", NULL), .token = token_of(2, hosts[2]) };
    struct value_dict changed = { 0 };

    for (unsigned i = 0; i < t.token.len; i++)
        value_dict_add(P->arena, &changed, t.token.members[i].name, t.token.members[i].value);
    say(&changed, "master", "http://127.0.0.1:9");
    t.token = value_dict_value(&changed);
    error_has(fails(&t, "CANNOT_CONTACT_HOST"), 1, "127.0.0.1");
}

/* The thread that keeps the session ends with the memory of the call, and at once. */
static void test_session_is_kept(void **state)
{
    struct value map = token_of(2, hosts[2]);
    struct arena *a = arena_new();
    struct migration_token token;
    struct peer_pool *peer;
    struct value record;
    struct api_call c;
    bool found;

    api_call_init(&c, pool_xapi(P, 0), a, "test");
    ok(migration_token_read(&c, &map, &token));
    ok(peer_pool_open(&c, &token, &peer));
    peer_pool_keep(peer, pool_xapi(P, 0));
    peer_pool_keep(peer, pool_xapi(P, 0));
    ok(peer_pool_record(&c, peer, "host", hosts[2], &record, &found));
    assert_true(found);
    ok(peer_pool_record(&c, peer, "host", hosts[1], &record, &found));
    assert_false(found);
    arena_free(a);
}

/* --- the world ----------------------------------------------------------------------------------------------------------------------------------- */
static const char *local_sr(unsigned pool, const char *host)
{
    struct row_list pbds = db_all(pool_xapi(P, pool)->db, P->arena, &model_classes[CLASS_PBD]);

    for (unsigned i = 0; i < pbds.n; i++)
        if (strcmp(row_string(pbds.rows[i], F_PBD_host), host) == 0 && row_bool(pbds.rows[i], F_PBD_currently_attached))
            return row_string(pbds.rows[i], F_PBD_SR);
    fail_msg("host %s has no local SR", host);
    return NULL;
}

static int group_setup(void **state)
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
static int group_teardown(void **state)
{
    pool_world_release(P);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_receive),
        cmocka_unit_test(test_order_local),
        cmocka_unit_test(test_boot_checks_local),
        cmocka_unit_test(test_unmapped_local),
        cmocka_unit_test(test_snapshots_and_images),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_cds),
        cmocka_unit_test(test_token_and_options),
        cmocka_unit_test(test_order_remote),
        cmocka_unit_test(test_remote_room_and_memory),
        cmocka_unit_test(test_same_sr_in_another_pool),
        cmocka_unit_test(test_vifs_by_mac),
        cmocka_unit_test(test_unreachable_pool),
        cmocka_unit_test(test_session_is_kept),
    };

    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
