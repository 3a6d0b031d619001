/* Which disks and interfaces of a VM move, where to and how: maps, defaults, snapshots and images, CDs, rules, the same SR elsewhere. */
#include "tests/component/send_world.h"

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

/* --- to another pool ------------------------------------------------------------------------------------------ */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unmapped_local),
        cmocka_unit_test(test_snapshots_and_images),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_cds),
        cmocka_unit_test(test_same_sr_in_another_pool),
        cmocka_unit_test(test_vifs_by_mac),
    };

    return cmocka_run_group_tests(tests, send_world_setup, send_world_teardown);
}
