/* The accessors that every class has: reading, writing, queries. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "tests/lib/core_world.h"
#include "tests/lib/unit.h"

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

static void test_get_record_has_every_published_field(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    struct value record = core_ok(w, "VM.get_record", 1, S(vm)), map = value_dup(w->arena, &record);
    const struct class_info *class = &model_classes[CLASS_VM];
    unsigned published = 0;

    assert_int_equal(record.kind, VALUE_RECORD);
    for (unsigned i = 0; i < class->n_fields; i++)
        published += (class->fields[i].flags & FIELD_UNPUBLISHED) == 0;
    assert_int_equal(map.len, published);
    assert_string_equal(value_get_string(&map, "name_label", ""), "one");
    assert_string_equal(value_get_string(&map, "power_state", ""), "Halted");
    assert_true(uuid_valid(value_get_string(&map, "uuid", "")));
}

static void test_get_all(void **state)
{
    struct core_world *w = *state;
    const char *sr = core_row(w, CLASS_SR, NULL, 0);
    struct value all = core_ok(w, "SR.get_all", 0), records = core_ok(w, "SR.get_all_records", 0);

    assert_true(value_set_has(&all, sr));
    assert_int_equal(records.kind, VALUE_MAP);
    assert_int_equal(records.len, all.len);
    assert_non_null(value_get(&records, sr));
}

static void test_get_by_uuid(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    struct value uuid = core_ok(w, "VM.get_uuid", 1, S(vm));
    const struct error *e;

    core_is_string(core_ok(w, "VM.get_by_uuid", 1, uuid), vm);
    e = core_fails(w, "UUID_INVALID", "VM.get_by_uuid", 1, S("00000000-0000-0000-0000-000000000000"));
    assert_string_equal(e->params[0], "VM");
    assert_string_equal(e->params[1], "00000000-0000-0000-0000-000000000000");
    core_fails(w, "UUID_INVALID", "SR.get_by_uuid", 1, uuid);
}

static void test_get_by_name_label(void **state)
{
    struct core_world *w = *state;
    const char *a = core_vm(w, "twins"), *b = core_vm(w, "twins");
    struct value found = core_ok(w, "VM.get_by_name_label", 1, S("twins"));

    assert_int_equal(found.len, 2);
    assert_true(value_set_has(&found, a) && value_set_has(&found, b));
    assert_int_equal(core_ok(w, "VM.get_by_name_label", 1, S("nobody")).len, 0);
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "VBD.get_by_name_label", 1, S("x"));
}

static void test_set_field(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");

    core_ok(w, "VM.set_name_description", 2, S(vm), S("what it is"));
    core_is_string(core_ok(w, "VM.get_name_description", 1, S(vm)), "what it is");
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "VM.set_uuid", 2, S(vm), S("x"));
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "VM.set_power_state", 2, S(vm), S("Running"));
    core_fails(w, "HANDLE_INVALID", "VM.set_name_description", 2, S("OpaqueRef:no"), S("x"));
}

static void test_set_enum(void **state)
{
    struct core_world *w = *state;
    const char *vbd = core_row(w, CLASS_VBD, NULL, 0);
    const struct error *e;

    core_ok(w, "VBD.set_type", 2, S(vbd), S("CD"));
    core_is_string(core_ok(w, "VBD.get_type", 1, S(vbd)), "CD");
    e = core_fails(w, "INVALID_VALUE", "VBD.set_type", 2, S(vbd), S("cd"));
    assert_string_equal(e->params[1], "cd");
}

static void test_map_entries(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    const struct error *e;

    core_ok(w, "VM.add_to_other_config", 3, S(vm), S("key"), S("value"));
    e = core_fails(w, "MAP_DUPLICATE_KEY", "VM.add_to_other_config", 3, S(vm), S("key"), S("again"));
    assert_int_equal(e->n_params, 4);
    assert_string_equal(e->params[0], "VM");
    assert_string_equal(e->params[1], "other_config");
    assert_string_equal(e->params[3], "key");
    core_ok(w, "VM.remove_from_other_config", 2, S(vm), S("key"));
    core_ok(w, "VM.remove_from_other_config", 2, S(vm), S("key")); /* absent is fine */
    assert_int_equal(core_ok(w, "VM.get_other_config", 1, S(vm)).len, 0);
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "VM.add_to_tags", 2, S(vm), S("x"));
}

static void test_set_items(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");

    core_ok(w, "VM.add_tags", 2, S(vm), S("red"));
    core_ok(w, "VM.add_tags", 2, S(vm), S("red"));
    core_ok(w, "VM.add_tags", 2, S(vm), S("blue"));
    assert_int_equal(core_ok(w, "VM.get_tags", 1, S(vm)).len, 2);
    core_ok(w, "VM.remove_tags", 2, S(vm), S("red"));
    core_ok(w, "VM.remove_tags", 2, S(vm), S("red"));
    core_is_string(core_ok(w, "VM.get_tags", 1, S(vm)).items[0], "blue");
}

static unsigned n_where(struct core_world *w, const char *expr)
{
    return core_ok(w, "VM.get_all_records_where", 1, S(expr)).len;
}

static void test_where(void **state)
{
    struct core_world *w = *state;
    const char *a = core_vm(w, "where-a");

    core_vm(w, "where-b");
    core_ok(w, "VM.add_tags", 2, S(a), S("t"));
    assert_int_equal(n_where(w, "field \"name_label\" = \"where-a\""), 1);
    assert_int_equal(n_where(w, "field \"name__label\" = \"where-a\""), 1);
    assert_int_equal(n_where(w, "(field \"name/label\"=\"where-a\")or(field \"name_label\"='where-b')"), 2);
    assert_int_equal(n_where(w, "field \"name_label\" = \"where-a\" and not field \"is_a_template\" = \"true\""), 1);
    assert_int_equal(n_where(w, "field \"name_label\" = \"where-a\" and false"), 0);
    assert_int_equal(n_where(w, "not (true) or not true"), 0);
    assert_int_equal(n_where(w, "field \"power_state\" = \"halted\" and field \"name_label\" = \"where-b\""), 1);
    assert_int_equal(n_where(w, "field \"domid\" = \"-1\" and field \"name_label\" = \"where-b\""), 1);
    assert_int_equal(n_where(w, "field \"tags\" = \"t\""), 0);
    assert_true(n_where(w, "true") >= 2);
}

static void test_where_malformed(void **state)
{
    struct core_world *w = *state;
    static const char *const bad[] = { "", "field", "field \"name_label\"", "field \"name_label\" =", "field \"nope\" = \"x\"",
                                       "true true", "(true", "not", "field \"name_label\" = \"x", "and", "true and", "\"a\\" };
    char deep[2000];

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        core_fails(w, "INTERNAL_ERROR", "VM.get_all_records_where", 1, S(bad[i]));
    memset(deep, '(', sizeof(deep) - 1);
    deep[sizeof(deep) - 1] = '\0';
    core_fails(w, "INTERNAL_ERROR", "VM.get_all_records_where", 1, S(deep));
}

static void test_unpublished_fields_have_no_accessors(void **state)
{
    struct core_world *w = *state;

    for (unsigned i = 0; i < model_n_classes; i++) {
        const struct class_info *class = &model_classes[i];
        for (unsigned j = 0; j < class->n_fields; j++) {
            struct accessor a;
            if (class->fields[j].flags & FIELD_UNPUBLISHED)
                assert_false(accessor_find(class, arena_printf(w->arena, "get_%s", class->fields[j].name), &a));
        }
    }
}

static void test_create_takes_partial_records(void **state)
{
    struct core_world *w = *state;
    const struct member few[] = { member_of("value", S("hidden")), member_of("unheard_of", S("x")), member_of("uuid", S("x")) };
    struct value ref = core_ok(w, "secret.create", 1, value_map(few, 3));

    core_is_string(core_ok(w, "secret.get_value", 1, ref), "hidden");
    assert_int_equal(core_ok(w, "secret.get_other_config", 1, ref).len, 0);
    core_ok(w, "secret.destroy", 1, ref);
    core_fails(w, "HANDLE_INVALID", "secret.destroy", 1, ref);
    core_fails(w, "INTERNAL_ERROR", "secret.create", 1, S("no record"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get_record_has_every_published_field),
        cmocka_unit_test(test_get_all),
        cmocka_unit_test(test_get_by_uuid),
        cmocka_unit_test(test_get_by_name_label),
        cmocka_unit_test(test_set_field),
        cmocka_unit_test(test_set_enum),
        cmocka_unit_test(test_map_entries),
        cmocka_unit_test(test_set_items),
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_where_malformed),
        cmocka_unit_test(test_unpublished_fields_have_no_accessors),
        cmocka_unit_test(test_create_takes_partial_records),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
