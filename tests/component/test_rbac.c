/* Roles: who may do what, protected keys, the rows of roles and subjects. */
#include <string.h>

#include "tests/lib/core_world.h"
#include "tests/lib/unit.h"
#include "xapi/core/rbac.h"

static int setup(void **state)
{
    static struct core_world w;

    core_world_init(&w);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    core_world_release(*state);
    return 0;
}

static void test_reader_cannot_write(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one"), *reader = core_session_with_role(w, "read-only");
    const struct error *e;

    core_ok_as(w, reader, "VM.get_record", 1, S(vm));
    e = core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "VM.set_name_label", 2, S(vm), S("x"));
    assert_string_equal(e->params[0], "vm.set_name_label");
    assert_non_null(strstr(e->params[1], "No permission in user session. (Roles with this permission: pool-admin, "));
    e = core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "VM_set_name_label", 2, S(vm), S("x"));
    assert_string_equal(e->params[0], "vm.set_name_label");
}

static void test_minimum_roles(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one"), *admin = core_session_with_role(w, "vm-admin"), *operator_ = core_session_with_role(w, "vm-operator");

    core_ok_as(w, admin, "VM.set_name_label", 2, S(vm), S("x"));
    core_fails_as(w, operator_, "RBAC_PERMISSION_DENIED", "VM.set_name_label", 2, S(vm), S("x"));
    core_fails_as(w, admin, "RBAC_PERMISSION_DENIED", "secret.create", 1, S(""));
    core_fails_as(w, admin, "RBAC_PERMISSION_DENIED", "secret.get_all", 0);
}

static void test_role_is_checked_before_arguments(void **state)
{
    struct core_world *w = *state;
    const char *reader = core_session_with_role(w, "read-only");

    core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "VM.set_name_label", 1, S("OpaqueRef:no"));
}

static void test_local_root_only(void **state)
{
    struct core_world *w = *state;
    const char *admin = core_session_with_role(w, "pool-admin");

    core_fails_as(w, admin, "RBAC_PERMISSION_DENIED", "session.change_password", 2, S("a"), S("b"));
}

static void test_protected_keys(void **state)
{
    struct core_world *w = *state;
    const char *reader = core_session_with_role(w, "read-only"), *operator_ = core_session_with_role(w, "vm-operator");
    struct value task = core_ok_as(w, reader, "task.create", 2, S("t"), S(""));
    const struct member kept[] = { member_of("applies_to", S("x")), member_of("free", S("y")) }, other[] = { member_of("applies_to", S("z")) };
    const struct error *e;

    core_ok_as(w, reader, "task.add_to_other_config", 3, task, S("free"), S("1"));
    e = core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "task.add_to_other_config", 3, task, S("applies_to"), S("x"));
    assert_string_equal(e->params[0], "task.add_to_other_config/key:applies_to");
    core_ok_as(w, operator_, "task.add_to_other_config", 3, task, S("applies_to"), S("x"));
    core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "task.remove_from_other_config", 2, task, S("applies_to"));
    core_ok_as(w, reader, "task.set_other_config", 2, task, value_map(kept, 2)); /* left as it was */
    core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "task.set_other_config", 2, task, value_map(other, 1));
    core_fails_as(w, reader, "RBAC_PERMISSION_DENIED", "task.set_other_config", 2, task, value_map(NULL, 0));
}

static void test_role_rows(void **state)
{
    struct core_world *w = *state;
    struct value records = core_ok(w, "role.get_all_records", 0), names, map;
    const char *admin = "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba";

    core_is_string(core_ok(w, "role.get_by_uuid", 1, S("0165f154-ba3e-034e-6b27-5d271af109ba")), admin);
    for (unsigned i = 0; i < N_ROLES; i++) {
        const struct value *record = value_get(&records, rbac_role_ref(role_names[i]));
        assert_non_null(record);
        map = value_dup(w->arena, record);
        assert_string_equal(value_get_string(&map, "name_label", ""), role_names[i]);
        assert_true(value_get(&map, "subroles")->len > 0); /* XenCenter tells roles from permissions by it */
    }
    names = core_ok(w, "role.get_permissions_name_label", 1, S(admin));
    assert_true(value_set_has(&names, "vm.pool_migrate"));
    assert_true(value_set_has(&names, "task.destroy/any"));
    names = core_ok(w, "role.get_permissions_name_label", 1, S(rbac_role_ref("read-only")));
    assert_false(value_set_has(&names, "vm.pool_migrate"));
    assert_true(value_set_has(&names, "vm.get_record"));
}

static void test_roles_by_permission(void **state)
{
    struct core_world *w = *state;
    struct value roles = core_ok(w, "role.get_by_permission_name_label", 1, S("vm.pool_migrate"));

    assert_true(value_set_has(&roles, rbac_role_ref("vm-power-admin")));
    assert_false(value_set_has(&roles, rbac_role_ref("vm-admin")));
    assert_int_equal(core_ok(w, "role.get_by_permission_name_label", 1, S("no.such")).len, 0);
}

static void test_subjects(void **state)
{
    struct core_world *w = *state;
    const struct member record[] = { member_of("subject_identifier", S("u:ann")) };
    struct value subject = core_ok(w, "subject.create", 1, value_map(record, 1)), roles;
    const char *admin = rbac_role_ref("pool-admin"), *reader = rbac_role_ref("read-only");

    roles = core_ok(w, "subject.get_roles", 1, subject);
    assert_true(value_set_has(&roles, admin)); /* as in xapi: the strongest, to be taken away */
    core_fails(w, "SUBJECT_ALREADY_EXISTS", "subject.create", 1, value_map(record, 1));
    core_fails(w, "ROLE_ALREADY_EXISTS", "subject.add_to_roles", 2, subject, S(admin));
    core_ok(w, "subject.add_to_roles", 2, subject, S(reader));
    core_ok(w, "subject.remove_from_roles", 2, subject, S(admin));
    core_fails(w, "ROLE_NOT_FOUND", "subject.remove_from_roles", 2, subject, S(admin));
    struct value names = core_ok(w, "subject.get_permissions_name_label", 1, subject);
    assert_true(value_set_has(&names, "vm.get_record"));
    assert_false(value_set_has(&names, "vm.pool_migrate"));
    core_ok(w, "subject.destroy", 1, subject);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_cannot_write),
        cmocka_unit_test(test_minimum_roles),
        cmocka_unit_test(test_role_is_checked_before_arguments),
        cmocka_unit_test(test_local_root_only),
        cmocka_unit_test(test_protected_keys),
        cmocka_unit_test(test_role_rows),
        cmocka_unit_test(test_roles_by_permission),
        cmocka_unit_test(test_subjects),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
