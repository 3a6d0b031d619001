/* VDI, SR and PBD messages beyond their plain life: copies into disks, online growth, tracking, reset, room, probes. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"
#include "tests/lib/vm_world.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/vdi_path.h"
#include "xapi/pool/sr_room.h"
#include "xapi/pool/sr_watch.h"
#include "xapi/pool/vdi_make.h"

#define MIB (1ll << 20)

static struct vm_world world;
#define W (&world)
#define A (W->pool.arena)

static int setup(void **state)
{
    vm_world_init(W);
    return 0;
}

static int teardown(void **state)
{
    fault_disarm(NULL);
    vm_world_release(W);
    return 0;
}

/* --- aids ---------------------------------------------------------------------------------------------------- */
static const char *disk(const char *sr, const char *name, int64_t size)
{
    const struct member type[] = { member_of("type", S("raw")) };
    const struct member record[] = { member_of("name_label", S(name)), member_of("SR", S(sr)), member_of("virtual_size", value_int(size)),
                                     member_of("type", S("user")), member_of("sm_config", value_map(type, 1)) };

    return vm_ok(W, "VDI.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

static const char *make_sr(const char *name, const char *type, bool shared)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&W->pool.dir, name))) };

    return vm_ok(W, "SR.create", 9, S(W->host), value_map(config, 1), value_int(0), S(name), S(""), S(type), S("user"), value_bool(shared),
                 value_map(NULL, 0)).s;
}

static const char *image_path(struct api_call *c, const char *vdi)
{
    const struct vdi_path_use use = { .user = "test", .direct = true, .activate = true };
    const char *path;

    internal_call_init(c, pool_xapi(&W->pool, 0), A, "test");
    struct error *error = vdi_path(c, vdi, W->host, &use, &path);
    if (error != NULL)
        fail_msg("vdi_path: %s", error_text(A, error));
    return path;
}

static void write_word(const char *vdi, long at, const char *word)
{
    struct api_call c;
    int fd = open(image_path(&c, vdi), O_WRONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, word, strlen(word), at), strlen(word));
    close(fd);
    vdi_path_release(&c, vdi, W->host, "test");
}

static void has_word(const char *vdi, long at, const char *word)
{
    struct api_call c;
    char found[16] = "";
    int fd = open(image_path(&c, vdi), O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_true(pread(fd, found, strlen(word), at) >= 0);
    close(fd);
    vdi_path_release(&c, vdi, W->host, "test");
    assert_memory_equal(found, word, strlen(word));
}

static const char *plugged(const char *vm, const char *vdi)
{
    return vm_ok(W, "VBD.create", 1, vm_world_vbd_record(W, vm, vdi, "0", "RW", "Disk")).s;
}

static const char *map_entry(const char *getter, const char *ref, const char *key)
{
    struct value map = vm_ok(W, getter, 1, S(ref));
    return arena_strdup(A, value_get_string(&map, key, "-"));
}

static struct error *copy(const char *vdi, const char *sr, const char *base, const char *into, struct value *result_r)
{
    return pool_call(&W->pool, 0, "VDI.copy", result_r, 4, S(vdi), S(sr), S(base), S(into));
}

/* As if a call were at it, or no more. */
static void mark(const char *vdi, const char *operation)
{
    const struct member members[] = { member_of("OpaqueRef:task", S(operation)) };
    AUTO_TXN txn = txn_begin(pool_xapi(&W->pool, 0)->db, A);

    assert_null(txn_set(txn, CLASS_VDI, vdi, F_VDI_current_operations, value_map(members, operation[0] != '\0' ? 1 : 0)));
    assert_null(txn_commit(txn, NULL));
}

static struct error *check(const char *vdi, const char *operation)
{
    AUTO_TXN txn = txn_begin(pool_xapi(&W->pool, 0)->db, A);
    const struct row *row;
    struct api_call c;

    internal_call_init(&c, pool_xapi(&W->pool, 0), A, "test");
    assert_null(txn_need(txn, CLASS_VDI, vdi, &row));
    return operation_check(&c, txn, CLASS_VDI, row, operation, true);
}

/* --- copies ------------------------------------------------------------------------------------------------------ */
/* Old contents do not shine through, wherever the source is empty. */
static void test_copy_into(void **state)
{
    const char *from = disk(W->sr, "from", MIB), *into = disk(W->sr, "into", 2 * MIB), *small = disk(W->sr, "small", MIB / 2);
    struct value result;

    write_word(from, 8192, "new");
    write_word(into, 65536, "old");
    assert_null(copy(from, REF_NULL, REF_NULL, into, &result));
    assert_string_equal(result.s, into);
    has_word(into, 8192, "new");
    has_word(into, 65536, "\0\0\0");
    assert_int_equal(vm_ok(W, "VDI.get_virtual_size", 1, S(into)).i, 2 * MIB);
    assert_null(copy(from, REF_NULL, into, into, &result)); /* with a base the result is the same */
    has_word(into, 8192, "new");
    struct error *e = copy(from, REF_NULL, REF_NULL, small, &result);
    assert_true(error_is(e, "VDI_TOO_SMALL"));
    error_has(e, 2, small, arena_printf(A, "%lld", MIB));
    vm_ok(W, "VDI.set_read_only", 2, S(into), value_bool(true));
    e = copy(from, REF_NULL, REF_NULL, into, &result);
    assert_true(error_is(e, "VDI_READONLY"));
    error_has(e, 1, into);
    assert_int_equal(vm_ok(W, "VDI.get_current_operations", 1, S(into)).len, 0);
}

static void test_copy_in_use(void **state)
{
    const char *vm = vm_world_vm(W, "uses", NULL), *from = disk(W->sr, "from", MIB), *used = disk(W->sr, "used", MIB);
    struct value result;

    plugged(vm, used);
    vm_world_start(W, vm);
    struct error *e = copy(from, REF_NULL, REF_NULL, used, &result);
    assert_true(error_is(e, "VDI_IN_USE"));
    error_has(e, 2, used, "copy");
    e = copy(used, W->sr, REF_NULL, REF_NULL, &result);
    assert_true(error_is(e, "VDI_IN_USE"));
    error_has(e, 2, used, "copy");
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* What is being copied or exported is neither deleted nor changed nor written to meanwhile: such calls wait. */
static void test_beside_a_copy(void **state)
{
    static const char *const fine[] = { "clone", "copy", "update", "list_changed_blocks", "enable_cbt", "data_destroy" };
    static const char *const waits[] = { "destroy", "forget", "resize", "mirror", "set_on_boot", "force_unlock", "blocked" };
    const char *vm = vm_world_vm(W, "beside", NULL), *vdi = disk(W->sr, "beside", MIB), *vbd = plugged(vm, vdi);

    mark(vdi, "copy");
    for (unsigned i = 0; i < ARRAY_LEN(fine); i++)
        assert_false(error_is(check(vdi, fine[i]), "OTHER_OPERATION_IN_PROGRESS"));
    for (unsigned i = 0; i < ARRAY_LEN(waits); i++) {
        struct error *e = check(vdi, waits[i]);
        assert_true(error_is(e, "OTHER_OPERATION_IN_PROGRESS"));
        error_has(e, 4, "VDI", vdi, "copy", "OpaqueRef:task");
    }
    error_has(vm_fails(W, "OTHER_OPERATION_IN_PROGRESS", "VBD.assert_attachable", 1, S(vbd)), 4, "VDI", vdi, "copy", "OpaqueRef:task");
    vm_ok(W, "VBD.set_mode", 2, S(vbd), S("RO"));
    vm_ok(W, "VBD.assert_attachable", 1, S(vbd));
    mark(vdi, "");
    vm_ok(W, "VDI.destroy", 1, S(vdi));
}

static const struct error *move_fails(const char *code, const char *vdi, const char *sr)
{
    return vm_fails(W, code, "VDI.pool_migrate", 3, S(vdi), S(sr), value_map(NULL, 0));
}

/* What the drivers of both ends cannot do is said before anything moves. */
static void test_move_refused(void **state)
{
    const char *vm = vm_world_vm(W, "moves", NULL), *vdi = disk(W->sr, "moves", MIB), *gfs2 = make_sr("gfs2", "gfs2", false);
    const char *there = disk(gfs2, "there", MIB);

    assert_int_equal(mkdir(tempdir_file(&W->pool.dir, "isos"), 0700), 0);
    const char *isos = make_sr("isos", "iso", true);
    error_has(move_fails("VDI_NEEDS_VM_FOR_MIGRATE", vdi, gfs2), 1, vdi);
    plugged(vm, vdi);
    error_has(move_fails("SR_DOES_NOT_SUPPORT_MIGRATION", vdi, gfs2), 2, gfs2, "VDI_MIRROR_IN");
    error_has(move_fails("SR_DOES_NOT_SUPPORT_MIGRATION", vdi, isos), 2, isos, "VDI_MIRROR_IN;VDI_SNAPSHOT");
    vm_ok(W, "VBD.create", 1, vm_world_vbd_record(W, vm, there, "1", "RW", "Disk"));
    error_has(move_fails("SR_OPERATION_NOT_SUPPORTED", there, W->sr), 1, gfs2); /* the disk's operation is asked first */
    vm_ok(W, "VDI.enable_cbt", 1, S(vdi));
    error_has(move_fails("VDI_CBT_ENABLED", vdi, gfs2), 1, vdi);
}

static void test_copy_that_fails(void **state)
{
    const char *from = disk(W->sr, "from", MIB), *other = make_sr("other", "file", false);
    unsigned before = vm_ok(W, "VDI.get_all", 0).len;
    struct value result;

    assert_true(fault_arm("sr.vdi_attach=error"));
    assert_non_null(copy(from, other, REF_NULL, REF_NULL, &result));
    fault_disarm(NULL);
    assert_int_equal(vm_ok(W, "VDI.get_all", 0).len, before);
    vm_ok(W, "SR.scan", 1, S(other));
    assert_int_equal(vm_ok(W, "SR.get_VDIs", 1, S(other)).len, 0);
    assert_null(copy(from, other, REF_NULL, REF_NULL, &result));
    assert_string_equal(vm_field(W, "VDI.get_SR", result.s), other);
    assert_string_equal(vm_field(W, "VDI.get_name_label", result.s), "from");
}

/* Of a disk that a guest writes to: still a clone. */
static void test_clone_in_use(void **state)
{
    const char *vm = vm_world_vm(W, "writes", NULL), *used = disk(W->sr, "used", MIB), *clone;

    plugged(vm, used);
    vm_world_start(W, vm);
    unsigned before = vm_ok(W, "VDI.get_all", 0).len;
    clone = vm_ok(W, "VDI.clone", 1, S(used)).s;
    assert_string_equal(vm_field(W, "VDI.get_is_a_snapshot", clone), "false");
    assert_string_equal(vm_field(W, "VDI.get_snapshot_of", clone), REF_NULL);
    vm_ok(W, "SR.scan", 1, S(W->sr));
    assert_int_equal(vm_ok(W, "VDI.get_all", 0).len, before + 1); /* and nothing on the medium beside it */
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
}

/* --- size --------------------------------------------------------------------------------------------------------- */
static void test_resize(void **state)
{
    const char *vm = vm_world_vm(W, "grows", NULL), *vdi = disk(W->sr, "grows", MIB);

    plugged(vm, vdi);
    vm_ok(W, "VDI.resize", 2, S(vdi), value_int(2 * MIB));
    assert_int_equal(vm_ok(W, "VDI.get_virtual_size", 1, S(vdi)).i, 2 * MIB);
    vm_world_start(W, vm);
    error_has(vm_fails(W, "VDI_IN_USE", "VDI.resize", 2, S(vdi), value_int(3 * MIB)), 2, vdi, "resize");
    vm_ok(W, "VDI.resize_online", 2, S(vdi), value_int(3 * MIB));
    assert_int_equal(vm_ok(W, "VDI.get_virtual_size", 1, S(vdi)).i, 3 * MIB);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    vm_fails(W, "VDI_TOO_SMALL", "VDI.resize", 2, S(vdi), value_int(MIB));
    assert_int_equal(vm_ok(W, "VDI.get_virtual_size", 1, S(vdi)).i, 3 * MIB);
}

/* --- changed blocks -------------------------------------------------------------------------------------------------- */
static void test_tracking(void **state)
{
    const char *vdi = disk(W->sr, "tracked", MIB), *from, *to;

    vm_ok(W, "VDI.enable_cbt", 1, S(vdi));
    vm_ok(W, "VDI.enable_cbt", 1, S(vdi));
    assert_string_equal(vm_field(W, "VDI.get_cbt_enabled", vdi), "true");
    error_has(vm_fails(W, "VDI_CBT_ENABLED", "VDI.set_on_boot", 2, S(vdi), S("reset")), 1, vdi);
    from = vm_ok(W, "VDI.snapshot", 1, S(vdi)).s;
    assert_string_equal(vm_field(W, "VDI.get_cbt_enabled", from), "true");
    to = vm_ok(W, "VDI.snapshot", 1, S(vdi)).s;
    assert_true(strlen(vm_ok(W, "VDI.list_changed_blocks", 2, S(from), S(to)).s) > 0);
    vm_fails(W, "OPERATION_NOT_ALLOWED", "VDI.data_destroy", 1, S(vdi));
    vm_ok(W, "VDI.data_destroy", 1, S(from));
    assert_string_equal(vm_field(W, "VDI.get_type", from), "cbt_metadata");
    error_has(vm_fails(W, "VDI_INCOMPATIBLE_TYPE", "VDI.clone", 1, S(from)), 2, from, "cbt_metadata");
    assert_true(strlen(vm_ok(W, "VDI.list_changed_blocks", 2, S(from), S(to)).s) > 0);
    vm_ok(W, "VDI.disable_cbt", 1, S(vdi));
    assert_string_equal(vm_field(W, "VDI.get_cbt_enabled", vdi), "false");
    const char *plain = vm_ok(W, "VDI.snapshot", 1, S(vdi)).s;
    error_has(vm_fails(W, "VDI_NO_CBT_METADATA", "VDI.data_destroy", 1, S(plain)), 1, plain);
}

/* Somebody still reads the snapshot: it is waited for a moment, and all is as before. */
static void test_data_destroy_in_use(void **state)
{
    const char *vdi = disk(W->sr, "tracked", MIB), *vm = vm_world_vm(W, "reads", NULL), *snap;

    vm_ok(W, "VDI.enable_cbt", 1, S(vdi));
    snap = vm_ok(W, "VDI.snapshot", 1, S(vdi)).s;
    const char *vbd = plugged(vm, snap);
    error_has(vm_fails(W, "VDI_IN_USE", "VDI.data_destroy", 1, S(snap)), 2, snap, "data_destroy");
    assert_string_equal(vm_field(W, "VDI.get_type", snap), "user");
    vm_ok(W, "VBD.destroy", 1, S(vbd));
    mark(snap, "copy");
    error_has(vm_fails(W, "VDI_IN_USE", "VDI.data_destroy", 1, S(snap)), 2, snap, "data_destroy");
    mark(snap, "");
    vm_ok(W, "VDI.data_destroy", 1, S(snap));
}

/* --- reset on boot ---------------------------------------------------------------------------------------------------- */
static void test_reset(void **state)
{
    const char *vm = vm_world_vm(W, "kiosk", NULL), *vdi = disk(W->sr, "kiosk", MIB);

    plugged(vm, vdi);
    write_word(vdi, 4096, "clean");
    vm_ok(W, "VDI.set_on_boot", 2, S(vdi), S("reset"));
    assert_string_equal(vm_field(W, "VDI.get_on_boot", vdi), "reset");
    vm_fails(W, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", "VDI.snapshot", 1, S(vdi));
    vm_fails(W, "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", "VM.snapshot", 2, S(vm), S("x"));
    unsigned before = vm_ok(W, "VDI.get_all", 0).len;
    for (unsigned i = 0; i < 2; i++) {
        vm_world_start(W, vm);
        assert_int_equal(vm_ok(W, "VDI.get_all", 0).len, before + 1); /* the point it is reset to */
        vm_ok(W, "VM.hard_reboot", 1, S(vm));
        assert_true(vm_state_is(W, vm, "Running"));
        vm_ok(W, "VM.hard_shutdown", 1, S(vm));
        write_word(vdi, 4096, "dirty");
        vm_ok(W, "SR.scan", 1, S(W->sr));
    }
    vm_world_start(W, vm);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    has_word(vdi, 4096, "clean");
    vm_ok(W, "VDI.set_on_boot", 2, S(vdi), S("persist"));
    assert_int_equal(vm_ok(W, "VDI.get_all", 0).len, before);
    write_word(vdi, 4096, "stays");
    vm_world_start(W, vm);
    vm_ok(W, "VM.hard_shutdown", 1, S(vm));
    has_word(vdi, 4096, "stays");
}

/* --- room -------------------------------------------------------------------------------------------------------------- */
static void test_room(void **state)
{
    struct api_call c;
    struct sr_room room;

    internal_call_init(&c, pool_xapi(&W->pool, 0), A, "test");
    assert_null(sr_room_look(&c, W->sr, SR_ROOM_COPY, MIB, &room));
    assert_true(room.fits && room.comfortable && room.wanted == 3 * MIB);
    assert_null(sr_room_look(&c, W->sr, SR_ROOM_CONVERT, MIB, &room));
    assert_true(room.wanted == 2 * MIB);
    assert_null(sr_room_check(&c, W->sr, SR_ROOM_COPY, room.available / 2)); /* twice is short of three times: a warning */
    struct error *e = sr_room_check(&c, W->sr, SR_ROOM_COPY, INT64_MAX / 2);
    assert_true(error_is(e, "SR_FULL") && e->n_params == 2);
    assert_string_equal(e->params[0], arena_printf(A, "%lld", (long long)(INT64_MAX / 2)));
    e = sr_room_check(&c, W->sr, SR_ROOM_SNAPSHOT, INT64_MAX / 2);
    assert_true(error_is(e, "SR_SOURCE_SPACE_INSUFFICIENT"));
    error_has(e, 1, W->sr);
}

/* --- SRs ----------------------------------------------------------------------------------------------------------------- */
static void test_probe_ext(void **state)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&W->pool.dir, "files"))) };
    struct value found = vm_ok(W, "SR.probe_ext", 4, S(W->host), value_map(config, 1), S("FILE"), value_map(NULL, 0));

    assert_int_equal(found.len, 1);
    assert_true(value_get_bool(&found.items[0], "complete", false));
    assert_string_equal(value_get_string(value_get(&found.items[0], "configuration"), "location", ""), config[0].value.s);
    vm_fails(W, "SR_UNKNOWN_DRIVER", "SR.probe_ext", 4, S(W->host), value_map(NULL, 0), S("tape"), value_map(NULL, 0));
    vm_fails(W, "MESSAGE_DEPRECATED", "SR.make", 8, S(W->host), value_map(NULL, 0), value_int(0), S(""), S(""), S("file"), S(""), value_map(NULL, 0));
}

static void test_asserts(void **state)
{
    const char *sr = make_sr("asserts", "file", false), *pbd = vm_ok(W, "SR.get_PBDs", 1, S(sr)).items[0].s;

    error_has(vm_fails(W, "SR_OPERATION_NOT_SUPPORTED", "SR.assert_can_host_ha_statefile", 1, S(sr)), 1, sr);
    error_has(vm_fails(W, "SR_OPERATION_NOT_SUPPORTED", "SR.assert_supports_database_replication", 1, S(sr)), 1, sr);
    vm_ok(W, "PBD.unplug", 1, S(pbd));
    error_has(vm_fails(W, "SR_HAS_NO_PBDS", "SR.assert_can_host_ha_statefile", 1, S(sr)), 1, sr);
    error_has(vm_fails(W, "SR_HAS_NO_PBDS", "VDI.create", 1, value_map((struct member[]){ member_of("SR", S(sr)), member_of("virtual_size", value_int(MIB)) }, 2)), 1, sr);
    vm_ok(W, "SR.add_to_other_config", 3, S(sr), S("indestructible"), S("true"));
    error_has(vm_fails(W, "SR_INDESTRUCTIBLE", "SR.forget", 1, S(sr)), 1, sr);
    vm_ok(W, "SR.remove_from_other_config", 2, S(sr), S("indestructible"));
    vm_ok(W, "SR.destroy", 1, S(sr));
}

/* What was destroyed makes its SR dirty; a round of the watch clears that. */
static void test_watch(void **state)
{
    const char *sr = make_sr("watched", "file", false), *vdi = disk(sr, "short-lived", MIB);

    vm_ok(W, "VDI.destroy", 1, S(vdi));
    sr_watch_round(pool_xapi(&W->pool, 0), true);
    POOL_UNTIL(strcmp(map_entry("SR.get_other_config", sr, "dirty"), "-") == 0);
    assert_int_equal(vm_ok(W, "SR.get_VDIs", 1, S(sr)).len, 0);
}

/* Disks that a coordinator which died was making go, with their images; those of this one stay. */
static void test_left_overs(void **state)
{
    const char *ours = disk(W->sr, "ours", MIB), *theirs = disk(W->sr, "theirs", MIB);
    struct xapi *xapi = pool_xapi(&W->pool, 0);
    struct api_call c;

    internal_call_init(&c, xapi, A, "test");
    AUTO_TXN txn = txn_begin(xapi->db, A);
    assert_null(vdi_doom(&c, txn, ours));
    assert_null(vdi_doom(&c, txn, theirs));
    assert_null(txn_map_put(txn, CLASS_VDI, theirs, F_VDI_sm_config, "provisional", S("another start")));
    assert_null(txn_commit(txn, NULL));
    sr_watch_round(xapi, true);
    vm_fails(W, "HANDLE_INVALID", "VDI.get_uuid", 1, S(theirs));
    assert_string_equal(vm_field(W, "VDI.get_managed", ours), "false");
    vm_fails(W, "VDI_NOT_MANAGED", "VDI.clone", 1, S(ours));
    unsigned before = vm_ok(W, "SR.get_VDIs", 1, S(W->sr)).len;
    vm_ok(W, "SR.scan", 1, S(W->sr));
    assert_int_equal(vm_ok(W, "SR.get_VDIs", 1, S(W->sr)).len, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_into),
        cmocka_unit_test(test_copy_in_use),
        cmocka_unit_test(test_beside_a_copy),
        cmocka_unit_test(test_move_refused),
        cmocka_unit_test(test_copy_that_fails),
        cmocka_unit_test(test_clone_in_use),
        cmocka_unit_test(test_resize),
        cmocka_unit_test(test_tracking),
        cmocka_unit_test(test_data_destroy_in_use),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_probe_ext),
        cmocka_unit_test(test_asserts),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_left_overs),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
