#include "db/txn.h"

#include <string.h>

#include "gen/model_ids.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"

static void test_txn_create_defaults(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "one");

    const struct row *row = db_fixture_row(&f, CLASS_VM, vm);
    assert_non_null(row);
    assert_string_equal(row->ref, vm);
    assert_string_equal(row_string(row, F_VM_name_label), "one");
    assert_int_equal(strlen(row_string(row, F_VM_uuid)), 36);
    for (unsigned i = 0; i < row->class->n_fields; i++)
        if (i != F_VM_uuid && i != F_VM_name_label && (row->class->fields[i].flags & FIELD_INVERSE) == 0)
            assert_true(value_equal(&row->class->fields[i].fallback, row_value(row, i)));
    assert_int_equal(row->generation, row->created);
    assert_int_equal(row->generation, db_generation(f.db));
    assert_ptr_equal(db_by_uuid(f.db, f.arena, row->class, row_string(row, F_VM_uuid)), row);
    assert_ptr_equal(db_find_ref(f.db, f.arena, vm), row);
    assert_int_equal(db_count(f.db, row->class), 1);
}

static void test_txn_sees_itself_others_do_not(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "before"), *made;

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must(txn_set_string(txn, CLASS_VM, vm, F_VM_name_label, "after"));
    must(txn_create(txn, CLASS_VM, NULL, "uuid-1", NULL, 0, &made));
    assert_string_equal(row_string(txn_get(txn, &model_classes[CLASS_VM], vm), F_VM_name_label), "after");
    assert_int_equal(txn_all(txn, &model_classes[CLASS_VM]).n, 2);
    assert_string_equal(txn_by_uuid(txn, &model_classes[CLASS_VM], "uuid-1")->ref, made);

    assert_string_equal(db_fixture_name(&f, vm), "before");
    assert_null(db_fixture_row(&f, CLASS_VM, made));
    assert_null(db_by_uuid(f.db, f.arena, &model_classes[CLASS_VM], "uuid-1"));
    assert_int_equal(db_all(f.db, f.arena, &model_classes[CLASS_VM]).n, 1);

    uint64_t generation = 0, before = db_generation(f.db);
    must(txn_commit(txn, &generation));
    assert_int_equal(generation, before + 1);
    assert_string_equal(db_fixture_name(&f, vm), "after");
    assert_non_null(db_fixture_row(&f, CLASS_VM, made));
}

static void test_txn_abort(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "before"), *made, *gone = db_fixture_vm(&f, "stays");

    struct txn *txn = txn_begin(f.db, f.arena);
    must(txn_set_string(txn, CLASS_VM, vm, F_VM_name_label, "after"));
    must(txn_create(txn, CLASS_VM, NULL, "uuid-1", NULL, 0, &made));
    must(txn_delete(txn, CLASS_VM, gone));
    assert_null(txn_get(txn, &model_classes[CLASS_VM], gone));
    uint64_t before = db_generation(f.db);
    txn_abort(txn);
    txn_abort(txn);
    assert_string_equal(db_fixture_name(&f, vm), "before");
    assert_string_equal(db_fixture_name(&f, gone), "stays");
    assert_null(db_fixture_row(&f, CLASS_VM, made));
    assert_int_equal(db_generation(f.db), before);

    /* nothing of it is left in the way */
    AUTO_TXN again = txn_begin(f.db, f.arena);
    must(txn_create(again, CLASS_VM, made, "uuid-1", NULL, 0, NULL));
    must(txn_commit(again, NULL));
}

static void test_txn_rows_outlive_the_change(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "0");

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    const struct row *first = txn_get(txn, &model_classes[CLASS_VM], vm);
    must(txn_set_string(txn, CLASS_VM, vm, F_VM_name_label, "1"));
    const struct row *second = txn_get(txn, &model_classes[CLASS_VM], vm);
    must(txn_set_string(txn, CLASS_VM, vm, F_VM_name_label, "2"));
    assert_string_equal(row_string(first, F_VM_name_label), "0");
    assert_string_equal(row_string(second, F_VM_name_label), "1");
    assert_string_equal(row_string(txn_get(txn, &model_classes[CLASS_VM], vm), F_VM_name_label), "2");
}

static void test_txn_set_equal_changes_nothing(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "same");
    const struct row *row = db_fixture_row(&f, CLASS_VM, vm);
    uint64_t before = db_generation(f.db);

    db_fixture_set(&f, CLASS_VM, vm, F_VM_name_label, value_string("same"));
    must(db_map_put(f.db, f.arena, CLASS_VM, vm, F_VM_other_config, "k", "v"));
    assert_int_equal(db_generation(f.db), before + 1);
    must(db_map_put(f.db, f.arena, CLASS_VM, vm, F_VM_other_config, "k", "v"));
    assert_int_equal(db_generation(f.db), before + 1);
    assert_ptr_not_equal(db_fixture_row(&f, CLASS_VM, vm), row);
}

static void test_txn_touch(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "x");
    struct db_stats before, after;
    db_stats(f.db, &before);

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    uint64_t generation;
    must(txn_touch(txn, CLASS_VM, vm));
    must(txn_commit(txn, &generation));
    assert_int_equal(db_fixture_row(&f, CLASS_VM, vm)->generation, generation);
    db_stats(f.db, &after);
    assert_int_equal(after.batches, before.batches); /* nothing for the disk */
    assert_int_equal(after.commits, before.commits + 1);
}

static void test_txn_absent_objects(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "x");
    const struct row *row;

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must_fail(txn_need(txn, CLASS_VM, "OpaqueRef:no", &row), "HANDLE_INVALID");
    must_fail(txn_need(txn, CLASS_VDI, vm, &row), "HANDLE_INVALID"); /* of another class */
    must_fail(txn_set_string(txn, CLASS_VM, "OpaqueRef:no", F_VM_name_label, "x"), "HANDLE_INVALID");
    must_fail(txn_delete(txn, CLASS_VM, "OpaqueRef:no"), "HANDLE_INVALID");
    must_fail(txn_touch(txn, CLASS_VM, "OpaqueRef:no"), "HANDLE_INVALID");
    must(txn_delete(txn, CLASS_VM, vm));
    must_fail(txn_delete(txn, CLASS_VM, vm), "HANDLE_INVALID");
    struct error *error = db_need(f.db, f.arena, CLASS_VM, "OpaqueRef:no", &row);
    must_fail(error, "HANDLE_INVALID");
    assert_int_equal(error->n_params, 2);
    assert_string_equal(error->params[0], "VM");
    assert_string_equal(error->params[1], "OpaqueRef:no");
}

static void test_txn_create_refuses(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    struct field_value wrong_type[] = { { F_VM_name_label, value_int(1) } };
    struct field_value inverse[] = { { F_VM_VBDs, value_set(NULL, 0) } };
    const char *vm;

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must(txn_create(txn, CLASS_VM, NULL, "u", NULL, 0, &vm));
    must_fail(txn_create(txn, CLASS_VM, NULL, "u", NULL, 0, NULL), "INTERNAL_ERROR");
    must_fail(txn_create(txn, CLASS_VM, vm, NULL, NULL, 0, NULL), "INTERNAL_ERROR");
    must_fail(txn_create(txn, CLASS_VM, NULL, NULL, wrong_type, 1, NULL), "INTERNAL_ERROR");
    must_fail(txn_create(txn, CLASS_VM, NULL, NULL, inverse, 1, NULL), "INTERNAL_ERROR");
    must(txn_create(txn, CLASS_VDI, NULL, "u", NULL, 0, NULL)); /* of another class */
    must_fail(txn_set_string(txn, CLASS_VM, vm, F_VM_uuid, "v"), "INTERNAL_ERROR");
    must_fail(txn_set(txn, CLASS_VM, vm, F_VM_other_config, value_string("x")), "INTERNAL_ERROR");
    must(txn_delete(txn, CLASS_VM, vm));
    must(txn_create(txn, CLASS_VM, vm, "u", NULL, 0, NULL)); /* free again */
    must(txn_commit(txn, NULL));
    assert_non_null(db_fixture_row(&f, CLASS_VM, vm));
    assert_int_equal(db_count(f.db, &model_classes[CLASS_VM]), 1);
}

static void test_txn_create_and_delete_is_nothing(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm;
    uint64_t before = db_generation(f.db), generation;

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must(txn_create(txn, CLASS_VM, NULL, NULL, NULL, 0, &vm));
    must(txn_delete(txn, CLASS_VM, vm));
    must(txn_commit(txn, &generation));
    assert_int_equal(generation, before);
    assert_int_equal(db_all(f.db, f.arena, &model_classes[CLASS_VM]).n, 0);
}

static void test_txn_maps(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "x");

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must(txn_map_add(txn, CLASS_VM, vm, F_VM_other_config, "a", value_string("1")));
    struct error *error = txn_map_add(txn, CLASS_VM, vm, F_VM_other_config, "a", value_string("2"));
    must_fail(error, "MAP_DUPLICATE_KEY");
    assert_int_equal(error->n_params, 4);
    assert_string_equal(error->params[0], "VM");
    assert_string_equal(error->params[1], "other_config");
    assert_string_equal(error->params[3], "a");
    must(txn_map_put(txn, CLASS_VM, vm, F_VM_other_config, "b", value_string("")));
    must(txn_map_put(txn, CLASS_VM, vm, F_VM_other_config, "a", value_string("3")));
    must(txn_map_remove(txn, CLASS_VM, vm, F_VM_other_config, "none"));
    must_fail(txn_map_put(txn, CLASS_VM, vm, F_VM_other_config, "c", value_int(1)), "INTERNAL_ERROR");
    must(txn_set_add(txn, CLASS_VM, vm, F_VM_tags, "red"));
    must(txn_set_add(txn, CLASS_VM, vm, F_VM_tags, "blue"));
    must(txn_set_add(txn, CLASS_VM, vm, F_VM_tags, "red"));
    must(txn_set_remove(txn, CLASS_VM, vm, F_VM_tags, "green"));
    must(txn_commit(txn, NULL));

    const struct row *row = db_fixture_row(&f, CLASS_VM, vm);
    assert_string_equal(row_map(row, F_VM_other_config, "a", ""), "3");
    assert_string_equal(row_map(row, F_VM_other_config, "b", "none"), "");
    assert_string_equal(row_map(row, F_VM_other_config, "c", "none"), "none");
    assert_string_equal(db_fixture_set_text(&f, CLASS_VM, vm, F_VM_tags), "red blue");

    AUTO_TXN second = txn_begin(f.db, f.arena);
    must(txn_map_remove(second, CLASS_VM, vm, F_VM_other_config, "a"));
    must(txn_set_remove(second, CLASS_VM, vm, F_VM_tags, "red"));
    must(txn_commit(second, NULL));
    assert_string_equal(row_map(db_fixture_row(&f, CLASS_VM, vm), F_VM_other_config, "a", "none"), "none");
    assert_string_equal(db_fixture_set_text(&f, CLASS_VM, vm, F_VM_tags), "blue");
}

static void test_db_by_name(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *one = db_fixture_vm(&f, "same"), *two = db_fixture_vm(&f, "same");
    const struct class_info *class = &model_classes[CLASS_VM];

    struct row_list list = db_by_name(f.db, f.arena, class, "same");
    assert_int_equal(list.n, 2);
    assert_string_equal(list.rows[0]->ref, one);
    assert_string_equal(list.rows[1]->ref, two);
    db_fixture_set(&f, CLASS_VM, one, F_VM_name_label, value_string("other"));
    assert_int_equal(db_by_name(f.db, f.arena, class, "same").n, 1);
    assert_string_equal(db_by_name(f.db, f.arena, class, "other").rows[0]->ref, one);
    db_fixture_delete(&f, CLASS_VM, one);
    assert_int_equal(db_by_name(f.db, f.arena, class, "other").n, 0);
    assert_int_equal(db_by_name(f.db, f.arena, &model_classes[CLASS_VDI], "same").n, 0);
}

static void test_db_all_in_order_of_creation(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *refs[300];

    for (unsigned i = 0; i < 300; i++)
        refs[i] = db_fixture_vm(&f, arena_printf(f.arena, "vm%u", i));
    for (unsigned i = 0; i < 300; i++)
        if (i % 3 != 0)
            db_fixture_delete(&f, CLASS_VM, refs[i]);
    const char *last = db_fixture_vm(&f, "last");
    db_fixture_set(&f, CLASS_VM, refs[0], F_VM_name_label, value_string("changed"));

    struct row_list all = db_all(f.db, f.arena, &model_classes[CLASS_VM]);
    assert_int_equal(all.n, 101);
    for (unsigned i = 0; i < 100; i++)
        assert_string_equal(all.rows[i]->ref, refs[i * 3]);
    assert_string_equal(all.rows[100]->ref, last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_txn_create_defaults),
        cmocka_unit_test(test_txn_sees_itself_others_do_not),
        cmocka_unit_test(test_txn_abort),
        cmocka_unit_test(test_txn_rows_outlive_the_change),
        cmocka_unit_test(test_txn_set_equal_changes_nothing),
        cmocka_unit_test(test_txn_touch),
        cmocka_unit_test(test_txn_absent_objects),
        cmocka_unit_test(test_txn_create_refuses),
        cmocka_unit_test(test_txn_create_and_delete_is_nothing),
        cmocka_unit_test(test_txn_maps),
        cmocka_unit_test(test_db_by_name),
        cmocka_unit_test(test_db_all_in_order_of_creation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
