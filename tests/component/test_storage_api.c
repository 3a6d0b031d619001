/* SR, PBD and VDI through the dispatcher of a real daemon: rows and files stay in step. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "tests/lib/pool_world.h"
#include "tests/lib/unit.h"
#include "xapi/core/vdi_path.h"

static struct pool_world world;
#define W (&world)

static const char *host_ref, *sr, *pbd;

static const char *create_sr(const char *name, const char *type, bool shared)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&W->dir, name))), member_of("image-format", S("raw")) };
    unsigned keys = strcmp(type, "file") == 0 ? 2 : 1; /* raw: the tests look into the files */

    return pool_ok(W, 0, "SR.create", 9, S(host_ref), value_map(config, keys), value_int(0), S(name), S("a test SR"), S(type),
                   S(strcmp(type, "iso") == 0 ? "iso" : "user"), value_bool(shared), value_map(NULL, 0)).s;
}

static const char *create_vdi(const char *in, int64_t size)
{
    const struct member record[] = {
        member_of("name_label", S("disk")), member_of("SR", S(in)), member_of("virtual_size", value_int(size)), member_of("type", S("user")),
    };

    return pool_ok(W, 0, "VDI.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

static int setup(void **state)
{
    pool_world_init(W, 1);
    pool_world_start(W);
    host_ref = pool_host_ref(W, 0);
    sr = create_sr("files", "file", false);
    pbd = pool_ok(W, 0, "SR.get_PBDs", 1, S(sr)).items[0].s;
    return 0;
}

static int teardown(void **state)
{
    fault_disarm(NULL);
    pool_world_release(W);
    return 0;
}

static const struct vdi_path_use direct = { .user = "test", .direct = true, .activate = true };

static const char *path_of(const char *vdi)
{
    struct api_call c;
    const char *path;
    struct error *error;

    api_call_init(&c, pool_xapi(W, 0), W->arena, "test");
    error = vdi_path(&c, vdi, host_ref, &direct, &path);
    if (error != NULL)
        fail_msg("vdi_path: %s", error_text(W->arena, error));
    vdi_path_release(&c, vdi, host_ref, direct.user);
    return path;
}

static bool has_operation(const char *class_name, const char *ref, const char *operation)
{
    struct value set = pool_ok(W, 0, arena_printf(W->arena, "%s.get_allowed_operations", class_name), 1, S(ref));

    return value_set_has(&set, operation);
}

/* --- SRs and PBDs -------------------------------------------------------------------------------------------- */
static void test_sr_create(void **state)
{
    const struct error *error;

    assert_string_equal(pool_text(W, 0, "SR.get_type", sr), "file");
    assert_string_equal(pool_text(W, 0, "PBD.get_currently_attached", pbd), "true");
    assert_true(strlen(pool_text(W, 0, "SR.get_physical_size", sr)) > 6);
    assert_true(has_operation("SR", sr, "vdi_create"));
    assert_false(has_operation("SR", sr, "destroy"));
    error = pool_fails(W, 0, "SR_UNKNOWN_DRIVER", "SR.create", 9, S(host_ref), value_map(NULL, 0), value_int(0), S("x"), S(""), S("tape"), S(""),
                       value_bool(false), value_map(NULL, 0));
    assert_string_equal(error->params[0], "tape");
    pool_fails(W, 0, "SR_BACKEND_FAILURE_90", "SR.create", 9, S(host_ref), value_map(NULL, 0), value_int(0), S("x"), S(""), S("file"), S(""),
               value_bool(false), value_map(NULL, 0));
}

static void test_sr_create_that_fails_leaves_nothing(void **state)
{
    unsigned before = pool_ok(W, 0, "SR.get_all", 0).len;
    const struct member config[] = { member_of("location", S(tempdir_file(&W->dir, "broken"))) };

    assert_true(fault_arm("sr.attach=error"));
    pool_fails(W, 0, "SR_BACKEND_FAILURE_5", "SR.create", 9, S(host_ref), value_map(config, 1), value_int(0), S("x"), S(""), S("file"), S(""),
               value_bool(false), value_map(NULL, 0));
    fault_disarm(NULL);
    assert_int_equal(pool_ok(W, 0, "SR.get_all", 0).len, before);
    assert_int_not_equal(access(tempdir_file(&W->dir, "broken"), F_OK), 0);
}

static void test_pbd_plug_and_unplug(void **state)
{
    const char *vdi = create_vdi(sr, 1 << 20);
    const struct member pbd_record[] = { member_of("host", S(host_ref)), member_of("SR", S(sr)), member_of("device_config", value_map(NULL, 0)) };

    pool_ok(W, 0, "PBD.plug", 1, S(pbd)); /* plugged already: fine */
    const struct error *error = pool_fails(W, 0, "PBD_EXISTS", "PBD.create", 1, value_map(pbd_record, 3));
    assert_string_equal(error->params[2], pbd);
    error = pool_fails(W, 0, "OPERATION_NOT_ALLOWED", "PBD.destroy", 1, S(pbd));
    pool_ok(W, 0, "PBD.unplug", 1, S(pbd));
    pool_ok(W, 0, "PBD.unplug", 1, S(pbd));
    assert_true(has_operation("SR", sr, "forget"));
    error = pool_fails(W, 0, "SR_HAS_NO_PBDS", "SR.scan", 1, S(sr));
    assert_string_equal(error->params[0], sr);
    error = pool_fails(W, 0, "SR_HAS_NO_PBDS", "VDI.resize", 2, S(vdi), value_int(1 << 21));
    struct api_call c;
    const char *path;
    api_call_init(&c, pool_xapi(W, 0), W->arena, "test");
    error = vdi_path(&c, vdi, host_ref, &direct, &path);
    assert_true(error_is(error, "SR_NOT_ATTACHED"));
    assert_string_equal(error->params[0], sr);
    pool_ok(W, 0, "PBD.plug", 1, S(pbd));
    pool_ok(W, 0, "VDI.destroy", 1, S(vdi));
}

static void test_pbd_in_use(void **state)
{
    struct xapi *xapi = pool_xapi(W, 0);
    const char *vdi = create_vdi(sr, 1 << 20), *vm, *vbd;
    const struct field_value vm_fields[] = { { F_VM_resident_on, S(host_ref) }, { F_VM_power_state, S("Running") } };
    AUTO_TXN txn = txn_begin(xapi->db, W->arena);

    assert_null(txn_create(txn, CLASS_VM, NULL, NULL, vm_fields, 2, &vm));
    const struct field_value vbd_fields[] = { { F_VBD_VM, S(vm) }, { F_VBD_VDI, S(vdi) }, { F_VBD_currently_attached, value_bool(true) }, { F_VBD_mode, S("RW") } };
    assert_null(txn_create(txn, CLASS_VBD, NULL, NULL, vbd_fields, 4, &vbd));
    assert_null(txn_commit(txn, NULL));
    const struct error *error = pool_fails(W, 0, "VDI_IN_USE", "PBD.unplug", 1, S(pbd));
    assert_string_equal(error->params[0], vdi);
    error = pool_fails(W, 0, "VDI_IN_USE", "VDI.destroy", 1, S(vdi));
    assert_string_equal(error->params[1], "destroy");
    assert_null(db_set(xapi->db, W->arena, CLASS_VBD, vbd, F_VBD_currently_attached, value_bool(false)));
    pool_ok(W, 0, "VDI.destroy", 1, S(vdi));
    pool_fails(W, 0, "HANDLE_INVALID", "VBD.get_uuid", 1, S(vbd));
    assert_null(db_delete(xapi->db, W->arena, CLASS_VM, vm));
}

static void test_sr_forget_and_introduce(void **state)
{
    const char *mine = create_sr("kept", "file", false), *uuid = pool_text(W, 0, "SR.get_uuid", mine);
    const char *vdi = create_vdi(mine, 1 << 20), *vdi_uuid = pool_text(W, 0, "VDI.get_uuid", vdi);
    const char *plugged = pool_ok(W, 0, "SR.get_PBDs", 1, S(mine)).items[0].s;
    struct value config = pool_ok(W, 0, "PBD.get_device_config", 1, S(plugged));

    config = value_dup(W->arena, &config);
    pool_fails(W, 0, "SR_HAS_PBD", "SR.forget", 1, S(mine));
    pool_fails(W, 0, "SR_HAS_PBD", "SR.destroy", 1, S(mine));
    pool_ok(W, 0, "PBD.unplug", 1, S(plugged));
    pool_ok(W, 0, "SR.forget", 1, S(mine));
    pool_fails(W, 0, "HANDLE_INVALID", "VDI.get_uuid", 1, S(vdi));
    mine = pool_ok(W, 0, "SR.introduce", 7, S(uuid), S("again"), S(""), S("file"), S("user"), value_bool(false), value_map(NULL, 0)).s;
    pool_fails(W, 0, "SR_UUID_EXISTS", "SR.introduce", 7, S(uuid), S("twice"), S(""), S("file"), S("user"), value_bool(false), value_map(NULL, 0));
    const struct error *e = pool_fails(W, 0, "UUID_INVALID", "SR.introduce", 7, S("../../x"), S(""), S(""), S("file"), S("user"), value_bool(false),
                                       value_map(NULL, 0));
    assert_string_equal(e->params[1], "../../x");
    const struct member record[] = { member_of("host", S(host_ref)), member_of("SR", S(mine)), member_of("device_config", config) };
    plugged = pool_ok(W, 0, "PBD.create", 1, value_map(record, 3)).s;
    pool_ok(W, 0, "PBD.plug", 1, S(plugged));
    pool_ok(W, 0, "SR.scan", 1, S(mine));
    struct value vdis = pool_ok(W, 0, "SR.get_VDIs", 1, S(mine));
    assert_int_equal(vdis.len, 1);
    assert_string_equal(pool_text(W, 0, "VDI.get_uuid", vdis.items[0].s), vdi_uuid);
    assert_string_equal(pool_text(W, 0, "VDI.get_virtual_size", vdis.items[0].s), "1048576");

    pool_ok(W, 0, "PBD.unplug", 1, S(plugged));
    pool_fails(W, 0, "SR_NOT_EMPTY", "SR.destroy", 1, S(mine));
    pool_ok(W, 0, "PBD.plug", 1, S(plugged));
    pool_ok(W, 0, "VDI.destroy", 1, S(vdis.items[0].s));
    pool_ok(W, 0, "PBD.unplug", 1, S(plugged));
    pool_ok(W, 0, "SR.destroy", 1, S(mine));
    assert_int_not_equal(access(tempdir_file(&W->dir, "kept"), F_OK), 0);
    pool_fails(W, 0, "HANDLE_INVALID", "PBD.get_uuid", 1, S(plugged));
}

static void test_iso_sr(void **state)
{
    assert_int_equal(mkdir(tempdir_file(&W->dir, "isos"), 0755), 0);
    tempdir_write(&W->dir, "isos/debian.iso", "not really");
    const char *iso = create_sr("isos", "iso", true);
    struct value vdis = pool_ok(W, 0, "SR.get_VDIs", 1, S(iso));

    assert_int_equal(vdis.len, 1);
    assert_string_equal(pool_text(W, 0, "VDI.get_name_label", vdis.items[0].s), "debian.iso");
    assert_string_equal(pool_text(W, 0, "VDI.get_read_only", vdis.items[0].s), "true");
    assert_false(has_operation("SR", iso, "vdi_create"));
    const struct member record[] = { member_of("SR", S(iso)), member_of("virtual_size", value_int(1 << 20)) };
    pool_fails(W, 0, "SR_OPERATION_NOT_SUPPORTED", "VDI.create", 1, value_map(record, 2));
    assert_int_equal(unlink(tempdir_file(&W->dir, "isos/debian.iso")), 0);
    pool_ok(W, 0, "SR.scan", 1, S(iso));
    assert_int_equal(pool_ok(W, 0, "SR.get_VDIs", 1, S(iso)).len, 0);
}

static void test_probe_and_types(void **state)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&W->dir, "files"))) };
    struct value types = pool_ok(W, 0, "SR.get_supported_types", 0);
    struct value xml = pool_ok(W, 0, "SR.probe", 4, S(host_ref), value_map(config, 1), S("file"), value_map(NULL, 0));

    assert_true(value_set_has(&types, "file") && value_set_has(&types, "iso"));
    assert_non_null(strstr(xml.s, "<location>"));
}

/* --- VDIs ----------------------------------------------------------------------------------------------------- */
static void test_vdi_life(void **state)
{
    const char *vdi = create_vdi(sr, 3 << 20), *path = path_of(vdi);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 3 << 20);
    assert_string_equal(pool_text(W, 0, "VDI.get_location", vdi), pool_text(W, 0, "VDI.get_uuid", vdi));
    assert_string_equal(pool_text(W, 0, "VDI.get_managed", vdi), "true");
    assert_true(has_operation("VDI", vdi, "resize") && has_operation("VDI", vdi, "clone"));
    assert_true(has_operation("VDI", vdi, "snapshot"));
    pool_ok(W, 0, "VDI.resize", 2, S(vdi), value_int(5 << 20));
    assert_string_equal(pool_text(W, 0, "VDI.get_virtual_size", vdi), "5242880");
    const struct error *error = pool_fails(W, 0, "VDI_TOO_SMALL", "VDI.resize", 2, S(vdi), value_int(1 << 20));
    assert_string_equal(error->params[0], vdi);
    pool_ok(W, 0, "VDI.set_name_label", 2, S(vdi), S("renamed"));
    assert_string_equal(pool_text(W, 0, "VDI.get_name_label", vdi), "renamed");
    pool_ok(W, 0, "VDI.destroy", 1, S(vdi));
    assert_int_not_equal(stat(path, &st), 0);
    pool_fails(W, 0, "HANDLE_INVALID", "VDI.destroy", 1, S(vdi));
}

static void write_at(const char *path, long at, const char *text)
{
    FILE *f = fopen(path, "r+e");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
}

static void has_at(const char *path, long at, const char *text)
{
    char read[32] = "";
    FILE *f = fopen(path, "re");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fread(read, 1, strlen(text), f), strlen(text));
    fclose(f);
    assert_string_equal(read, text);
}

static void test_vdi_clone_and_copy(void **state)
{
    const char *vdi = create_vdi(sr, 4 << 20), *other = create_sr("other", "file", false);

    write_at(path_of(vdi), 2 << 20, "hello");
    const char *clone = pool_ok(W, 0, "VDI.clone", 1, S(vdi)).s;
    const char *copy = pool_ok(W, 0, "VDI.copy", 2, S(vdi), S(other)).s;
    has_at(path_of(clone), 2 << 20, "hello");
    has_at(path_of(copy), 2 << 20, "hello");
    assert_string_equal(pool_text(W, 0, "VDI.get_SR", copy), other);
    assert_string_equal(pool_text(W, 0, "VDI.get_name_label", copy), "disk");
    assert_string_not_equal(pool_text(W, 0, "VDI.get_uuid", clone), pool_text(W, 0, "VDI.get_uuid", vdi));
    write_at(path_of(vdi), 2 << 20, "other");
    has_at(path_of(clone), 2 << 20, "hello");
    pool_ok(W, 0, "VDI.update", 1, S(vdi));
    assert_true(strcmp(pool_text(W, 0, "VDI.get_physical_utilisation", vdi), "0") != 0);
}

static struct error *introduce(const char *uuid, const char *name, struct value *result_r)
{
    struct value none = value_map(NULL, 0), no = value_bool(false);

    return pool_call(W, 0, "VDI.introduce", result_r, 18, S(uuid), S(name), S(""), S(sr), S("user"), no, no, none, S(uuid), none, none, value_bool(true),
                     value_int(0), value_int(0), S(REF_NULL), no, value_datetime(0), S(REF_NULL));
}

static void test_vdi_forget_and_introduce(void **state)
{
    const char *vdi = create_vdi(sr, 1 << 20), *uuid = pool_text(W, 0, "VDI.get_uuid", vdi), *path = path_of(vdi);
    struct value ref;

    pool_ok(W, 0, "VDI.forget", 1, S(vdi));
    assert_int_equal(access(path, F_OK), 0);
    assert_null(introduce(uuid, "back", &ref));
    assert_string_equal(pool_text(W, 0, "VDI.get_name_label", ref.s), "back");
    assert_string_equal(pool_text(W, 0, "VDI.get_uuid", ref.s), uuid);
    assert_string_equal(pool_text(W, 0, "VDI.get_virtual_size", ref.s), "1048576");
    assert_true(error_is(introduce(uuid, "twice", &ref), "LOCATION_NOT_UNIQUE"));
    struct error *error = introduce(uuid_make(W->arena), "nowhere", &ref);
    assert_true(error_is(error, "VDI_LOCATION_MISSING"));
    assert_string_equal(error->params[0], sr);
    assert_true(error_is(introduce("not-a-uuid", "bad", &ref), "UUID_INVALID"));
}

/* Forgotten, but for what a VM's configuration names. */
static void test_scan_of_what_is_gone(void **state)
{
    struct xapi *xapi = pool_xapi(W, 0);
    const char *free_one = create_vdi(sr, 1 << 20), *vdi = create_vdi(sr, 1 << 20), *vm, *vbd;
    const struct field_value vm_fields[] = { { F_VM_power_state, S("Halted") } };
    AUTO_TXN txn = txn_begin(xapi->db, W->arena);

    assert_null(txn_create(txn, CLASS_VM, NULL, NULL, vm_fields, 1, &vm));
    const struct field_value vbd_fields[] = { { F_VBD_VM, S(vm) }, { F_VBD_VDI, S(vdi) } };
    assert_null(txn_create(txn, CLASS_VBD, NULL, NULL, vbd_fields, 2, &vbd));
    assert_null(txn_commit(txn, NULL));
    assert_int_equal(unlink(path_of(free_one)), 0);
    assert_int_equal(unlink(path_of(vdi)), 0);
    pool_ok(W, 0, "SR.scan", 1, S(sr));
    pool_fails(W, 0, "HANDLE_INVALID", "VDI.get_uuid", 1, S(free_one));
    assert_string_equal(pool_text(W, 0, "VDI.get_missing", vdi), "true");
    const struct error *error = pool_fails(W, 0, "VDI_MISSING", "VDI.update", 1, S(vdi));
    assert_string_equal(error->params[0], sr);
    assert_string_equal(error->params[1], vdi);
    pool_ok(W, 0, "VDI.destroy", 1, S(vdi));
    assert_null(db_delete(xapi->db, W->arena, CLASS_VM, vm));
}

static void test_vdi_create_fault_leaves_nothing(void **state)
{
    unsigned before = pool_ok(W, 0, "SR.get_VDIs", 1, S(sr)).len;
    const struct member record[] = { member_of("SR", S(sr)), member_of("virtual_size", value_int(1 << 20)) };

    assert_true(fault_arm("sr.vdi_create=error"));
    pool_fails(W, 0, "SR_BACKEND_FAILURE_5", "VDI.create", 1, value_map(record, 2));
    fault_disarm(NULL);
    assert_int_equal(pool_ok(W, 0, "SR.get_VDIs", 1, S(sr)).len, before);
    assert_int_equal(pool_ok(W, 0, "SR.get_current_operations", 1, S(sr)).len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sr_create),
        cmocka_unit_test(test_sr_create_that_fails_leaves_nothing),
        cmocka_unit_test(test_pbd_plug_and_unplug),
        cmocka_unit_test(test_pbd_in_use),
        cmocka_unit_test(test_sr_forget_and_introduce),
        cmocka_unit_test(test_iso_sr),
        cmocka_unit_test(test_probe_and_types),
        cmocka_unit_test(test_vdi_life),
        cmocka_unit_test(test_vdi_clone_and_copy),
        cmocka_unit_test(test_vdi_forget_and_introduce),
        cmocka_unit_test(test_scan_of_what_is_gone),
        cmocka_unit_test(test_vdi_create_fault_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
