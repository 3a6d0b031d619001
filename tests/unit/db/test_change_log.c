#include "db/change_log.h"

#include <string.h>

#include "gen/model_ids.h"
#include "rpc/base/work.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/unit.h"

/* "+name" added, "~name" modified, "-" deleted; joined by spaces. Names only of VMs, else the class. */
static const char *changes(struct db_fixture *f, uint64_t since, struct class_set classes)
{
    struct change_list list;
    const char *text = "";

    change_log_since(f->db, f->arena, since, &classes, &list);
    assert_int_equal(list.generation, db_generation(f->db));
    for (unsigned i = 0; i < list.n; i++) {
        const struct change *c = &list.changes[i];
        const char *name = c->class->id == CLASS_VM && c->row != NULL ? row_string(c->row, F_VM_name_label)
                                                                      : c->class->name;
        assert_true(c->generation > since);
        assert_int_equal(c->kind == CHANGE_DEL, c->row == NULL);
        text = arena_printf(f->arena, "%s%s%c%s", text, i > 0 ? " " : "", "+~-"[c->kind], name);
    }
    return text;
}

static const char *vm_changes(struct db_fixture *f, uint64_t since)
{
    return changes(f, since, db_fixture_classes(1, (unsigned[]){ CLASS_VM }));
}

static void test_change_log_kinds(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *a = db_fixture_vm(&f, "a"), *b = db_fixture_vm(&f, "b"), *c = db_fixture_vm(&f, "c");
    uint64_t since = db_generation(f.db);

    assert_string_equal(vm_changes(&f, since), "");
    assert_string_equal(vm_changes(&f, 0), "+a +b +c");
    db_fixture_delete(&f, CLASS_VM, b);
    const char *d = db_fixture_vm(&f, "d"), *e = db_fixture_vm(&f, "e");
    db_fixture_set(&f, CLASS_VM, c, F_VM_name_label, value_string("c2"));
    db_fixture_set(&f, CLASS_VM, a, F_VM_name_label, value_string("a2"));
    db_fixture_set(&f, CLASS_VM, d, F_VM_name_label, value_string("d2"));
    db_fixture_delete(&f, CLASS_VM, e); /* made and gone since: nothing */
    assert_string_equal(vm_changes(&f, since), "+d2 ~c2 ~a2 -VM");
    assert_string_equal(vm_changes(&f, 0), "+c2 +a2 +d2");
    assert_string_equal(vm_changes(&f, db_generation(f.db) + 10), "");
}

static void test_change_log_folds(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *a = db_fixture_vm(&f, "a");
    uint64_t since = db_generation(f.db);

    for (int i = 0; i < 5; i++)
        db_fixture_set(&f, CLASS_VM, a, F_VM_name_label, value_string(arena_printf(f.arena, "n%d", i)));
    assert_string_equal(vm_changes(&f, since), "~n4");
    assert_string_equal(vm_changes(&f, db_generation(f.db) - 1), "~n4");
}

static void test_change_log_related(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *vm = db_fixture_vm(&f, "a");
    uint64_t since = db_generation(f.db);
    const char *vbd = db_fixture_vbd(&f, vm, REF_NULL);

    assert_string_equal(changes(&f, since, db_fixture_classes(0, NULL)), "+VBD ~a");
    since = db_generation(f.db);
    db_fixture_delete(&f, CLASS_VBD, vbd);
    assert_string_equal(changes(&f, since, db_fixture_classes(0, NULL)), "~a -VBD");
}

static void test_change_log_newer(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    struct class_set vms = db_fixture_classes(1, (unsigned[]){ CLASS_VM });
    struct class_set vdis = db_fixture_classes(1, (unsigned[]){ CLASS_VDI });
    uint64_t since = db_generation(f.db);

    assert_false(change_log_newer(f.db, since, &vms));
    const char *a = db_fixture_vm(&f, "a");
    assert_true(change_log_newer(f.db, since, &vms));
    assert_false(change_log_newer(f.db, since, &vdis));
    since = db_generation(f.db);
    db_fixture_delete(&f, CLASS_VM, a);
    assert_true(change_log_newer(f.db, since, &vms));
    assert_false(change_log_newer(f.db, db_generation(f.db), &vms));
}

static unsigned count_dels(struct db_fixture *f, uint64_t since)
{
    struct class_set vms = db_fixture_classes(1, (unsigned[]){ CLASS_VM });
    struct change_list list;
    change_log_since(f->db, f->arena, since, &vms, &list);
    return list.n;
}

static void test_change_log_forgets_old_deletions(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    const char *refs[600];
    for (unsigned i = 0; i < 600; i++)
        refs[i] = db_fixture_vm(&f, "x");
    uint64_t since = db_generation(f.db);

    for (unsigned i = 0; i < 512; i++)
        db_fixture_delete(&f, CLASS_VM, refs[i]);
    assert_int_equal(count_dels(&f, since), 512);
    db_fixture_delete(&f, CLASS_VM, refs[512]);
    assert_int_equal(count_dels(&f, since), 257);
    assert_int_equal(count_dels(&f, db_generation(f.db) - 3), 3);
}

static void test_change_log_token_survives_restart(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    db_fixture_vm(&f, "a");
    uint64_t since = db_generation(f.db);
    db_fixture_vm(&f, "b");
    uint64_t last = db_generation(f.db);

    db_fixture_reopen(&f);
    assert_true(db_generation(f.db) > last);
    assert_string_equal(vm_changes(&f, since), "+b ~a");
    assert_string_equal(vm_changes(&f, last), "~a ~b");
    assert_string_equal(vm_changes(&f, db_generation(f.db)), "");
}

struct seen {
    uint64_t generation;
    const char *text;
    struct arena *arena;
};

static void watch(void *ctx, uint64_t generation, const struct class_set *classes, const struct commit_change *list,
                  unsigned n)
{
    struct seen *seen = ctx;
    assert_true(generation > seen->generation);
    assert_true(class_set_has(classes, CLASS_VM));
    seen->generation = generation;
    for (unsigned i = 0; i < n; i++)
        seen->text = arena_printf(seen->arena, "%s%c%s/%s ", seen->text, "+~-"[list[i].kind],
                                  list[i].old_row != NULL ? row_string(list[i].old_row, F_VM_name_label) : "",
                                  list[i].new_row != NULL ? row_string(list[i].new_row, F_VM_name_label) : "");
}

static void test_change_log_watch(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    struct seen seen = { .text = "", .arena = arena_new() };

    change_log_watch(f.db, watch, &seen);
    const char *a = db_fixture_vm(&f, "a");
    db_fixture_set(&f, CLASS_VM, a, F_VM_name_label, value_string("b"));
    assert_int_equal(seen.generation, db_generation(f.db)); /* told before the caller goes on */
    db_fixture_delete(&f, CLASS_VM, a);
    change_log_unwatch(f.db, watch, &seen);
    db_fixture_vm(&f, "unseen");
    assert_string_equal(seen.text, "+/a ~a/b -b/ ");
    arena_free(seen.arena);
}

static void *rename_it(void *arg)
{
    struct db_fixture *f = arg;
    AUTO_ARENA arena = arena_new();
    return db_set(f->db, arena, CLASS_VM, "OpaqueRef:vm", F_VM_name_label, value_string("new")) == NULL ? f : NULL;
}

static void test_change_log_wait(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    AUTO_FAKECALL call;
    fakecall_init(&call);
    struct class_set vms = db_fixture_classes(1, (unsigned[]){ CLASS_VM });
    struct txn *txn = txn_begin(f.db, f.arena);
    must(txn_create(txn, CLASS_VM, "OpaqueRef:vm", NULL, NULL, 0, NULL));
    must(txn_commit(txn, NULL));

    uint64_t since = db_generation(f.db);
    assert_true(change_log_wait(f.db, &call.call, since - 1, &vms, 0));
    assert_false(change_log_wait(f.db, &call.call, since, &vms, 0));
    pthread_t thread = thread_start("rename", rename_it, &f);
    assert_true(change_log_wait(f.db, &call.call, since, &vms, 60000));
    void *fine = NULL;
    assert_int_equal(pthread_join(thread, &fine), 0);
    assert_non_null(fine);
    cancel_raise(call.call.cancel);
    assert_false(change_log_wait(f.db, &call.call, db_generation(f.db), &vms, 60000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_change_log_kinds),
        cmocka_unit_test(test_change_log_folds),
        cmocka_unit_test(test_change_log_related),
        cmocka_unit_test(test_change_log_newer),
        cmocka_unit_test(test_change_log_forgets_old_deletions),
        cmocka_unit_test(test_change_log_token_survives_restart),
        cmocka_unit_test(test_change_log_watch),
        cmocka_unit_test(test_change_log_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
