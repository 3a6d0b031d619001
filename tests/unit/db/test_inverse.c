#include "db/inverse.h"

#include <string.h>

#include "gen/model_ids.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"

static void assert_set(struct db_fixture *f, unsigned class_id, const char *ref, unsigned field, const char *want)
{
    assert_string_equal(db_fixture_set_text(f, class_id, ref, field), want);
}

static void test_inverse_both_ends(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "a"), *vdi = db_fixture_create(&f, CLASS_VDI, NULL, 0);
    uint64_t before = db_generation(f.db);
    const char *vbd = db_fixture_vbd(&f, vm, vdi);

    assert_set(&f, CLASS_VM, vm, F_VM_VBDs, vbd);
    assert_set(&f, CLASS_VDI, vdi, F_VDI_VBDs, vbd);
    /* the VM and the VDI are new versions of the same commit */
    assert_int_equal(db_generation(f.db), before + 1);
    assert_int_equal(db_fixture_row(&f, CLASS_VM, vm)->generation, before + 1);
    assert_int_equal(db_fixture_row(&f, CLASS_VDI, vdi)->generation, before + 1);
}

static void test_inverse_ref_moves(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *a = db_fixture_vm(&f, "a"), *b = db_fixture_vm(&f, "b");
    const char *one = db_fixture_vbd(&f, a, REF_NULL), *two = db_fixture_vbd(&f, a, REF_NULL);

    assert_set(&f, CLASS_VM, a, F_VM_VBDs, arena_printf(f.arena, "%s %s", one, two));
    db_fixture_set(&f, CLASS_VBD, one, F_VBD_VM, value_string(b));
    assert_set(&f, CLASS_VM, a, F_VM_VBDs, two);
    assert_set(&f, CLASS_VM, b, F_VM_VBDs, one);
    db_fixture_set(&f, CLASS_VBD, one, F_VBD_VM, value_string(REF_NULL));
    assert_set(&f, CLASS_VM, b, F_VM_VBDs, "");
    db_fixture_delete(&f, CLASS_VBD, two);
    assert_set(&f, CLASS_VM, a, F_VM_VBDs, "");
}

static void test_inverse_target_deleted(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "a"), *vbd = db_fixture_vbd(&f, vm, REF_NULL);

    db_fixture_delete(&f, CLASS_VM, vm);
    assert_string_equal(row_string(db_fixture_row(&f, CLASS_VBD, vbd), F_VBD_VM), vm); /* dangles */
    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must(txn_create(txn, CLASS_VM, vm, NULL, NULL, 0, NULL)); /* comes back under its old ref */
    must(txn_commit(txn, NULL));
    assert_set(&f, CLASS_VM, vm, F_VM_VBDs, vbd);
    db_fixture_delete(&f, CLASS_VM, vm);
    db_fixture_delete(&f, CLASS_VBD, vbd);
    assert_int_equal(db_count(f.db, &model_classes[CLASS_VM]), 0);
}

static void test_inverse_target_made_later(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *early = db_fixture_vbd(&f, "OpaqueRef:later", REF_NULL),
               *other = db_fixture_vbd(&f, "OpaqueRef:later", REF_NULL);
    const char *wrong = db_fixture_create(
        &f, CLASS_VIF, (struct field_value[]){ { F_VIF_network, value_string("OpaqueRef:later") } }, 1);

    for (int round = 0; round < 3; round++) {
        struct txn *txn = txn_begin(f.db, f.arena);
        must(txn_create(txn, CLASS_VM, "OpaqueRef:later", NULL, NULL, 0, NULL));
        assert_int_equal(row_value(txn_get(txn, &model_classes[CLASS_VM], "OpaqueRef:later"), F_VM_VBDs)->len, 2);
        if (round == 2)
            must(txn_commit(txn, NULL));
        txn_abort(txn);
    }
    assert_set(&f, CLASS_VM, "OpaqueRef:later", F_VM_VBDs, arena_printf(f.arena, "%s %s", early, other));
    db_fixture_delete(&f, CLASS_VIF, wrong);
    db_fixture_delete(&f, CLASS_VBD, early);
    assert_set(&f, CLASS_VM, "OpaqueRef:later", F_VM_VBDs, other);
}

static void test_inverse_of_itself(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "a");

    db_fixture_set(&f, CLASS_VM, vm, F_VM_parent, value_string(vm));
    assert_set(&f, CLASS_VM, vm, F_VM_children, vm);
    const char *child = db_fixture_create(&f, CLASS_VM, (struct field_value[]){ { F_VM_parent, value_string(vm) } }, 1);
    assert_set(&f, CLASS_VM, vm, F_VM_children, arena_printf(f.arena, "%s %s", vm, child));
    db_fixture_delete(&f, CLASS_VM, vm);
    db_fixture_delete(&f, CLASS_VM, child);

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    struct field_value self[] = { { F_VM_parent, value_string("OpaqueRef:self") } };
    must(txn_create(txn, CLASS_VM, "OpaqueRef:self", NULL, self, 1, NULL));
    must(txn_commit(txn, NULL));
    assert_set(&f, CLASS_VM, "OpaqueRef:self", F_VM_children, "OpaqueRef:self");
}

static struct value refs(struct db_fixture *f, unsigned n, const char *const *items)
{
    struct value_list list = { 0 };
    for (unsigned i = 0; i < n; i++)
        value_list_add(f->arena, &list, value_string(items[i]));
    return value_list_value(&list);
}

static void test_inverse_many_to_many(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *u = db_fixture_create(&f, CLASS_pool_update, NULL, 0),
               *v = db_fixture_create(&f, CLASS_pool_update, NULL, 0);
    const char *host = db_fixture_create(&f, CLASS_host, NULL, 0), *second = db_fixture_create(&f, CLASS_host, NULL, 0);

    db_fixture_set(&f, CLASS_host, host, F_host_updates, refs(&f, 3, (const char *[]){ u, u, v }));
    db_fixture_set(&f, CLASS_host, second, F_host_updates, refs(&f, 1, (const char *[]){ u }));
    assert_set(&f, CLASS_pool_update, u, F_pool_update_hosts, arena_printf(f.arena, "%s %s", host, second));
    assert_set(&f, CLASS_pool_update, v, F_pool_update_hosts, host);
    db_fixture_set(&f, CLASS_host, host, F_host_updates, refs(&f, 1, (const char *[]){ v }));
    assert_set(&f, CLASS_pool_update, u, F_pool_update_hosts, second);
    assert_set(&f, CLASS_pool_update, v, F_pool_update_hosts, host);
    db_fixture_delete(&f, CLASS_host, host);
    assert_set(&f, CLASS_pool_update, v, F_pool_update_hosts, "");
}

/* The sets on disk are rebuilt, whatever the order of the tables. */
static void test_inverse_after_reopen(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "a"), *one = db_fixture_vbd(&f, vm, REF_NULL),
               *two = db_fixture_vbd(&f, vm, REF_NULL);
    const char *lost = db_fixture_vbd(&f, "OpaqueRef:lost", REF_NULL);
    db_fixture_set(&f, CLASS_VM, vm, F_VM_parent, value_string(vm));

    db_fixture_reopen(&f);
    assert_set(&f, CLASS_VM, vm, F_VM_VBDs, arena_printf(f.arena, "%s %s", one, two));
    assert_set(&f, CLASS_VM, vm, F_VM_children, vm);
    db_fixture_delete(&f, CLASS_VBD, one);
    assert_set(&f, CLASS_VM, vm, F_VM_VBDs, two);
    AUTO_TXN txn = txn_begin(f.db, f.arena);
    must(txn_create(txn, CLASS_VM, "OpaqueRef:lost", NULL, NULL, 0, NULL));
    must(txn_commit(txn, NULL));
    assert_set(&f, CLASS_VM, "OpaqueRef:lost", F_VM_VBDs, lost);
}

/* Adding to a large set within one transaction is not quadratic. */
static void test_inverse_large(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *sr = db_fixture_create(&f, CLASS_SR, NULL, 0);
    struct field_value fields[] = { { F_VDI_SR, value_string(sr) } };

    AUTO_TXN txn = txn_begin(f.db, f.arena);
    for (unsigned i = 0; i < 2000; i++)
        must(txn_create(txn, CLASS_VDI, NULL, NULL, fields, 1, NULL));
    must(txn_commit(txn, NULL));
    assert_int_equal(row_value(db_fixture_row(&f, CLASS_SR, sr), F_SR_VDIs)->len, 2000);
    AUTO_TXN end = txn_begin(f.db, f.arena);
    struct row_list all = txn_all(end, &model_classes[CLASS_VDI]);
    for (unsigned i = 0; i < all.n; i++)
        must(txn_delete(end, CLASS_VDI, all.rows[i]->ref));
    must(txn_commit(end, NULL));
    assert_int_equal(row_value(db_fixture_row(&f, CLASS_SR, sr), F_SR_VDIs)->len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverse_both_ends),      cmocka_unit_test(test_inverse_ref_moves),
        cmocka_unit_test(test_inverse_target_deleted), cmocka_unit_test(test_inverse_target_made_later),
        cmocka_unit_test(test_inverse_of_itself),      cmocka_unit_test(test_inverse_many_to_many),
        cmocka_unit_test(test_inverse_after_reopen),   cmocka_unit_test(test_inverse_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
