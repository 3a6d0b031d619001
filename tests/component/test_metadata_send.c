/* A VM's metadata from one pool to another: two real daemons, TLS between them; and what follows the VM afterwards. */
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/pool_world.h"
#include "tests/lib/unit.h"
#include "xapi/core/alert.h"
#include "xapi/core/internal_call.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/vm_files.h"

#define MIB (1ll << 20)

static struct pool_world world;
#define W (&world)
#define A (W->arena)

static int setup(void **state)
{
    pool_world_init(W, 2);
    pool_world_start(W);
    return 0;
}

static int teardown(void **state)
{
    fault_disarm(NULL);
    pool_world_release(W);
    return 0;
}

static struct api_call *call(unsigned i)
{
    struct api_call *c = arena_alloc(A, sizeof(*c));
    internal_call_init(c, pool_xapi(W, i), A, "test");
    return c;
}

static struct http_target there(void) { return (struct http_target) { .address = W->hosts[1].address, .port = pool_xapi(W, 1)->https_port, .tls = true }; }

static const char *make_vm(void)
{
    const struct member record[] = {
        member_of("name_label", S("traveller")),          member_of("memory_static_max", value_int(16 * MIB)), member_of("memory_dynamic_max", value_int(16 * MIB)),
        member_of("memory_dynamic_min", value_int(16 * MIB)), member_of("memory_static_min", value_int(16 * MIB)), member_of("VCPUs_max", value_int(1)),
        member_of("VCPUs_at_startup", value_int(1)),      member_of("domain_type", S("hvm")),
    };
    return pool_ok(W, 0, "VM.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

static const char *uuid_of(const char *vm) { return pool_text(W, 0, "VM.get_uuid", vm); }

static struct error *send(const char *vm, struct metadata_import how, const char *const **vms, unsigned *n)
{
    const struct metadata_export out = { .vms = &vm, .n_vms = 1, .snapshots = true, .preserve_power_state = true };
    const struct http_target target = there();

    return metadata_send(call(0), &target, W->hosts[1].session, &out, &how, vms, n);
}

static unsigned tasks_there(void) { return db_count(pool_xapi(W, 1)->db, &model_classes[CLASS_task]); }

static void a_vm_arrives(void **state)
{
    const char *vm = make_vm(), *const *vms;
    const char *host = pool_host_ref(W, 0); /* of the same name there is none */
    unsigned n, before = tasks_there();

    assert_non_null(host);
    assert_null(send(vm, (struct metadata_import) { .restore = true, .dry_run = true, .snapshots = true }, &vms, &n));
    assert_int_equal(n, 0);
    assert_null(send(vm, (struct metadata_import) { .restore = true, .snapshots = true, .incoming = "move-7 & more" }, &vms, &n));
    assert_int_equal(n, 1);
    assert_string_equal(pool_text(W, 1, "VM.get_uuid", vms[0]), uuid_of(vm));
    struct value other = pool_ok(W, 1, "VM.get_other_config", 1, S(vms[0]));
    assert_string_equal(value_get_string(&other, METADATA_INCOMING, ""), "move-7 & more");
    assert_int_equal(tasks_there(), before); /* none is left behind */
    must(metadata_remove(call(1), vms[0]));
    must(metadata_remove(call(1), vms[0])); /* again is fine */
}

static void refusals_come_back(void **state)
{
    const char *vm = make_vm(), *const *vms;
    unsigned n;

    assert_null(send(vm, (struct metadata_import) { .restore = true }, &vms, &n));
    const char *first = arena_strdup(A, vms[0]);
    struct error *e = send(vm, (struct metadata_import) { .restore = true }, &vms, &n);
    assert_true(error_is(e, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION"));
    assert_string_equal(e->params[0], first);
    must(metadata_remove(call(1), first));
    const struct metadata_export out = { .vms = &vm, .n_vms = 1 };
    struct http_target target = there();
    const struct metadata_import in = { .restore = true };
    assert_true(error_is(metadata_send(call(0), &target, "OpaqueRef:nobody", &out, &in, &vms, &n), "SESSION_INVALID"));
    target.port = pool_xapi(W, 1)->http_port; /* no TLS there */
    e = metadata_send(call(0), &target, W->hosts[1].session, &out, &in, &vms, &n);
    assert_true(error_is(e, "TLS_CONNECTION_FAILED") || error_is(e, "CANNOT_CONTACT_HOST"));
    assert_string_equal(e->params[0], W->hosts[1].address);
    target.port = 1;
    assert_true(error_is(metadata_send(call(0), &target, W->hosts[1].session, &out, &in, &vms, &n), "CANNOT_CONTACT_HOST"));
}

static void the_rest_follows(void **state)
{
    const char *vm = make_vm(), *uuid = uuid_of(vm), *const *vms, *bytes;
    const char *blob = pool_ok(W, 0, "VM.create_new_blob", 4, S(vm), S("picture"), S("image/png"), value_bool(true)).s;
    const struct http_target target = there();
    size_t len;
    bool found;
    unsigned n;

    must(vm_file_write(call(0), VM_FILE_RRD, uuid, "measured", 8));
    must(vm_file_write(call(0), VM_FILE_BLOB, blob, "painted", 7));
    message_post(pool_xapi(W, 0), "VM_STARTED", "VM", uuid, "it <started>");
    assert_null(send(vm, (struct metadata_import) { .restore = true }, &vms, &n));
    metadata_send_rest(call(0), &target, W->hosts[1].session, vm);

    must(vm_file_read(call(1), VM_FILE_RRD, uuid, &bytes, &len, &found));
    assert_true(found && len == 8 && memcmp(bytes, "measured", 8) == 0);
    must(vm_file_read(call(0), VM_FILE_RRD, uuid, &bytes, &len, &found));
    assert_false(found);
    struct value blobs = pool_ok(W, 1, "VM.get_blobs", 1, S(vms[0]));
    const char *blob_there = value_get_string(&blobs, "picture", "");
    assert_string_equal(pool_text(W, 1, "blob.get_mime_type", blob_there), "image/png");
    must(vm_file_read(call(1), VM_FILE_BLOB, blob_there, &bytes, &len, &found));
    assert_true(found && len == 7 && memcmp(bytes, "painted", 7) == 0);
    assert_null(db_get(pool_xapi(W, 0)->db, A, &model_classes[CLASS_blob], blob));
    struct value messages = pool_ok(W, 1, "message.get", 3, S("VM"), S(uuid), value_datetime(0));
    assert_int_equal(messages.len, 1);
    assert_string_equal(value_get_string(&messages.members[0].value, "body", ""), "it <started>");
    assert_int_equal(pool_ok(W, 0, "message.get", 3, S("VM"), S(uuid), value_datetime(0)).len, 0);
    metadata_send_rest(call(0), &target, "OpaqueRef:nobody", vm); /* nothing left, nothing fails */
    must(metadata_remove(call(1), vms[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_vm_arrives), cmocka_unit_test(refusals_come_back), cmocka_unit_test(the_rest_follows) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
