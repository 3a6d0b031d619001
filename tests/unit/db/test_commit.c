/* Group commit: order of durability and visibility, failing disks, threads. */
#include <string.h>

#include "db/store.h"
#include "gen/model_ids.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/work.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"

struct job {
    struct db_fixture *f;
    const char *ref, *name;
    struct error *error;
    struct arena *arena;
    pthread_t thread;
};

static void *job_run(void *arg)
{
    struct job *job = arg;
    job->arena = arena_new();
    job->error = db_set(job->f->db, job->arena, CLASS_VM, job->ref, F_VM_name_label, value_string(job->name));
    return NULL;
}

static void job_start(struct job *job, struct db_fixture *f, const char *ref, const char *name)
{
    *job = (struct job){ .f = f, .ref = ref, .name = name };
    job->thread = thread_start("job", job_run, job);
}

static void job_end(struct job *job) { assert_int_equal(pthread_join(job->thread, NULL), 0); }

/* Waits until the job's change is queued: other transactions see it. */
static void wait_queued(struct db_fixture *f, const char *ref, const char *name)
{
    for (bool queued = false; !queued;) {
        AUTO_ARENA arena = arena_new();
        AUTO_TXN txn = txn_begin(f->db, arena);
        const struct row *row = txn_get(txn, &model_classes[CLASS_VM], ref);
        queued = row != NULL && strcmp(row_string(row, F_VM_name_label), name) == 0;
    }
}

static void test_commit_invisible_until_durable(void **state)
{
    static const char *const points[] = { "db.before-sqlite=stop", "db.after-sqlite=stop", "db.before-publish=stop" };
    for (unsigned i = 0; i < ARRAY_LEN(points); i++) {
        AUTO_DB_FIXTURE f;
        db_fixture_file(&f);
        const char *vm = db_fixture_vm(&f, "old");
        struct class_set all = db_fixture_classes(0, NULL);
        uint64_t before = db_generation(f.db);
        struct job job;

        assert_true(fault_arm(points[i]));
        job_start(&job, &f, vm, "new");
        wait_queued(&f, vm, "new");
        assert_string_equal(db_fixture_name(&f, vm), "old");
        assert_int_equal(db_by_name(f.db, f.arena, &model_classes[CLASS_VM], "new").n, 0);
        assert_false(change_log_newer(f.db, before, &all));
        assert_int_equal(db_generation(f.db), before);
        fault_disarm(NULL);
        job_end(&job);
        must(job.error);
        assert_string_equal(db_fixture_name(&f, vm), "new");
        assert_int_equal(db_generation(f.db), before + 1);
        arena_free(job.arena);
    }
}

/* What came to nothing because somebody else had queued it must not be acknowledged earlier. */
static void test_commit_equal_value_waits_for_the_first(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "old");
    struct job first, second;

    assert_true(fault_arm("db.before-sqlite=stop,db.disk=error@1"));
    job_start(&first, &f, vm, "new");
    wait_queued(&f, vm, "new");
    job_start(&second, &f, vm, "new"); /* equal to what is queued: no change of its own */
    fault_disarm("db.before-sqlite");
    job_end(&first);
    job_end(&second);
    fault_disarm(NULL);
    /* Either it queued behind the failure and shares it, or it came later and did its own write. */
    must_fail(first.error, "INTERNAL_ERROR");
    assert_string_equal(db_fixture_name(&f, vm), second.error == NULL ? "new" : "old");
    arena_free(first.arena);
    arena_free(second.arena);
}

static void test_commit_disk_failure(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *vm = db_fixture_vm(&f, "old"), *gone = db_fixture_vm(&f, "gone"), *made = NULL;
    uint64_t before = db_generation(f.db);
    log_set_level("db", LOG_ERR);

    assert_true(fault_arm("db.before-sqlite=error"));
    struct txn *txn = txn_begin(f.db, f.arena);
    must(txn_set_string(txn, CLASS_VM, vm, F_VM_name_label, "new"));
    must(txn_delete(txn, CLASS_VM, gone));
    struct field_value fields[] = { { F_VBD_VM, value_string(vm) } };
    must(txn_create(txn, CLASS_VBD, NULL, "u", fields, 1, &made));
    struct error *error = txn_commit(txn, NULL);
    must_fail(error, "INTERNAL_ERROR");
    assert_non_null(strstr(error->params[0], "made to fail"));

    assert_int_equal(db_generation(f.db), before);
    assert_string_equal(db_fixture_name(&f, vm), "old");
    assert_string_equal(db_fixture_name(&f, gone), "gone");
    assert_string_equal(db_fixture_set_text(&f, CLASS_VM, vm, F_VM_VBDs), "");
    assert_null(db_fixture_row(&f, CLASS_VBD, made));
    /* what needs no disk goes on */
    struct value operations[] = { value_string("start") };
    db_fixture_set(&f, CLASS_VM, vm, F_VM_allowed_operations, value_set(operations, 1));

    fault_disarm(NULL);
    struct txn *again = txn_begin(f.db, f.arena);
    assert_string_equal(row_string(txn_get(again, &model_classes[CLASS_VM], vm), F_VM_name_label), "old");
    assert_null(txn_get(again, &model_classes[CLASS_VBD], made));
    must(txn_create(again, CLASS_VBD, made, "u", fields, 1, NULL));
    must(txn_set_string(again, CLASS_VM, vm, F_VM_name_label, "newer"));
    uint64_t generation;
    must(txn_commit(again, &generation));
    assert_int_equal(generation, before + 2); /* numbers stay dense */
    db_fixture_reopen(&f);
    assert_string_equal(db_fixture_name(&f, vm), "newer");
    assert_string_equal(db_fixture_set_text(&f, CLASS_VM, vm, F_VM_VBDs), made);
}

/* The queue behind a failed batch fails with it, even where it touches other objects. */
static void test_commit_failure_takes_the_queue(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    const char *a = db_fixture_vm(&f, "a"), *b = db_fixture_vm(&f, "b");
    struct job jobs[4];

    assert_true(fault_arm("db.before-sqlite=stop,db.disk=error@1"));
    job_start(&jobs[0], &f, a, "a1");
    wait_queued(&f, a, "a1");
    job_start(&jobs[1], &f, a, "a2");
    wait_queued(&f, a, "a2");
    job_start(&jobs[2], &f, b, "b2");
    wait_queued(&f, b, "b2");
    fault_disarm("db.before-sqlite");
    for (int i = 0; i < 3; i++) {
        job_end(&jobs[i]);
        must_fail(jobs[i].error, "INTERNAL_ERROR");
        arena_free(jobs[i].arena);
    }
    fault_disarm(NULL);
    assert_string_equal(db_fixture_name(&f, a), "a");
    assert_string_equal(db_fixture_name(&f, b), "b");
    db_fixture_set(&f, CLASS_VM, a, F_VM_name_label, value_string("a3"));
    db_fixture_reopen(&f);
    assert_string_equal(db_fixture_name(&f, a), "a3");
}

/* --- many threads ------------------------------------------------------------------------------------ */

#define N_THREADS 8
#define N_ROUNDS 60

struct worker {
    struct db_fixture *f;
    unsigned number;
    pthread_t thread;
    const char *failure;
};

/* Adds 1 to a counter that all share, and 1 to its own; makes and deletes a VBD of the shared VM. */
static struct error *work_once(struct worker *w, struct arena *arena, const char *shared, unsigned round)
{
    const struct row *row;
    const char *vbd;
    struct field_value fields[] = { { F_VBD_VM, value_string(shared) }, { F_VBD_device, value_int(w->number) } };
    AUTO_TXN txn = txn_begin(w->f->db, arena);
    TRY(txn_need(txn, CLASS_VM, shared, &row));
    TRY(txn_set_int(txn, CLASS_VM, shared, F_VM_VCPUs_max, row_int(row, F_VM_VCPUs_max) + 1));
    fields[1].value = value_string("xvda");
    TRY(txn_create(txn, CLASS_VBD, NULL, NULL, fields, 2, &vbd));
    if (round % 5 == 0) {
        txn_abort(txn);
        return work_once(w, arena, shared, round + 1);
    }
    TRY(txn_commit(txn, NULL));
    return db_delete(w->f->db, arena, CLASS_VBD, vbd);
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; i < N_ROUNDS && w->failure == NULL; i++) {
        AUTO_ARENA arena = arena_new();
        if (work_once(w, arena, "OpaqueRef:shared", i) != NULL)
            w->failure = "a transaction failed";
    }
    return NULL;
}

/* Each list of changes is consistent: a VM's VBDs are all there, and nothing goes back. */
static void *reader_run(void *arg)
{
    struct worker *w = arg;
    int64_t last = 0;
    for (unsigned i = 0; i < N_ROUNDS * 4 && w->failure == NULL; i++) {
        AUTO_ARENA arena = arena_new();
        struct class_set both = db_fixture_classes(2, (unsigned[]){ CLASS_VM, CLASS_VBD });
        struct change_list list;
        unsigned n_vbds = 0, in_set = 0;
        change_log_since(w->f->db, arena, 0, &both, &list);
        for (unsigned k = 0; k < list.n; k++) {
            n_vbds += list.changes[k].class->id == CLASS_VBD;
            if (list.changes[k].class->id != CLASS_VM)
                continue;
            in_set = row_value(list.changes[k].row, F_VM_VBDs)->len;
            int64_t count = row_int(list.changes[k].row, F_VM_VCPUs_max);
            if (count < last)
                w->failure = "a counter went back";
            last = count;
        }
        if (n_vbds != in_set)
            w->failure = "the VBDs and the set differ";
        (void)db_all(w->f->db, arena, &model_classes[CLASS_VBD]);
        (void)db_by_name(w->f->db, arena, &model_classes[CLASS_VM], "x");
    }
    return NULL;
}

static void run_threads(struct db_fixture *f)
{
    struct worker workers[N_THREADS + 2];
    struct field_value fields[] = { { F_VM_VCPUs_max, value_int(0) }, { F_VM_name_label, value_string("x") } };
    struct txn *txn = txn_begin(f->db, f->arena);
    must(txn_create(txn, CLASS_VM, "OpaqueRef:shared", NULL, fields, 2, NULL));
    must(txn_commit(txn, NULL));

    for (unsigned i = 0; i < N_THREADS + 2; i++) {
        workers[i] = (struct worker){ .f = f, .number = i };
        workers[i].thread = thread_start("worker", i < N_THREADS ? worker_run : reader_run, &workers[i]);
    }
    for (unsigned i = 0; i < N_THREADS + 2; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        if (workers[i].failure != NULL)
            fail_msg("%s", workers[i].failure);
    }
    const struct row *row = db_fixture_row(f, CLASS_VM, "OpaqueRef:shared");
    assert_int_equal(row_int(row, F_VM_VCPUs_max), N_THREADS * N_ROUNDS);
    assert_int_equal(row_value(row, F_VM_VBDs)->len, 0);
}

static void test_commit_threads_memory(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_memory(&f);
    run_threads(&f);
}

static void test_commit_threads_file(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    run_threads(&f);
    struct db_stats stats;
    db_stats(f.db, &stats);
    assert_true(stats.batches < stats.commits); /* they were grouped */
    db_fixture_reopen(&f);
    assert_int_equal(row_int(db_fixture_row(&f, CLASS_VM, "OpaqueRef:shared"), F_VM_VCPUs_max), N_THREADS * N_ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commit_invisible_until_durable),
        cmocka_unit_test(test_commit_equal_value_waits_for_the_first),
        cmocka_unit_test(test_commit_disk_failure),
        cmocka_unit_test(test_commit_failure_takes_the_queue),
        cmocka_unit_test(test_commit_threads_memory),
        cmocka_unit_test(test_commit_threads_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
