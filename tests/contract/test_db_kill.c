/* Kill -9 at any instant loses no acknowledged commit and shows no half of one.
 *
 * A child process commits from several threads and reports each acknowledged commit through a pipe.
 * It dies at a named point, or is killed after some number of reports; then the file is opened. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db/txn.h"
#include "gen/model_ids.h"
#include "rpc/base/check.h"
#include "rpc/base/child.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "rpc/base/work.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"

#define N_THREADS 4
#define N_COMMITS 400

struct report {
    int32_t thread, k;
    int64_t generation;
};

/* --- the child --------------------------------------------------------------------------------------- */

static struct db *child_db;

static const char *vm_ref(struct arena *arena, int thread) { return arena_printf(arena, "OpaqueRef:vm%d", thread); }
static const char *vbd_ref(struct arena *arena, int thread, int k)
{
    return arena_printf(arena, "OpaqueRef:vbd%d-%d", thread, k);
}

/* State k of a thread: its VM is called k, and has one VBD, number k. */
static struct error *step_to(struct arena *arena, int thread, int k, uint64_t *generation)
{
    const char *name = arena_printf(arena, "%d", k), *vm = vm_ref(arena, thread);
    struct field_value vbd[] = { { F_VBD_VM, value_string(vm) }, { F_VBD_device, value_string(name) } };
    AUTO_TXN txn = txn_begin(child_db, arena);
    if (txn_get(txn, &model_classes[CLASS_VM], vm) == NULL)
        TRY(txn_create(txn, CLASS_VM, vm, NULL, NULL, 0, NULL));
    TRY(txn_set_string(txn, CLASS_VM, vm, F_VM_name_label, name));
    TRY(txn_create(txn, CLASS_VBD, vbd_ref(arena, thread, k), NULL, vbd, 2, NULL));
    if (k > 1)
        TRY(txn_delete(txn, CLASS_VBD, vbd_ref(arena, thread, k - 1)));
    return txn_commit(txn, generation);
}

static void *child_thread(void *arg)
{
    const int thread = *(const int *)arg;
    for (int k = 1; k <= N_COMMITS; k++) {
        AUTO_ARENA arena = arena_new();
        uint64_t generation;
        CHECK(step_to(arena, thread, k, &generation) == NULL);
        struct report report = { .thread = thread, .k = k, .generation = (int64_t)generation };
        CHECK(fd_write_all(STDOUT_FILENO, &report, sizeof(report)) == 0);
    }
    return NULL;
}

static int child_main(const char *path)
{
    static int numbers[N_THREADS];
    AUTO_ARENA arena = arena_new();
    struct db_options options = { .path = path, .checkpoint_pages = 50 };
    pthread_t threads[N_THREADS];

    CHECK(db_open(arena, &options, &child_db) == NULL);
    fault_init_from_env();
    for (int i = 0; i < N_THREADS; i++) {
        numbers[i] = i;
        threads[i] = thread_start("commits", child_thread, &numbers[i]);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    db_close(child_db);
    return 0;
}

/* --- the parent -------------------------------------------------------------------------------------- */

struct outcome {
    int acknowledged[N_THREADS];
    int64_t generation;
    unsigned reports;
    int status;
};

/* kill_after: reports; 0: it dies by itself. */
static void run_child(struct db_fixture *f, const char *faults, unsigned kill_after, struct outcome *o)
{
    const char *argv[] = { "/proc/self/exe", "--child", f->options.path, NULL };
    const char *env[] = { arena_printf(f->arena, "FAULTS=%s", faults), NULL };
    int pipe_fds[2];
    pid_t pid;
    struct report r;

    memset(o, 0, sizeof(*o));
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    struct child_spec spec = { .argv = argv, .env = env, .stdin_fd = -1, .stdout_fd = pipe_fds[1], .stderr_fd = -1 };
    assert_int_equal(child_start(&spec, &pid), 0);
    close(pipe_fds[1]);
    while (fd_read_all(pipe_fds[0], &r, sizeof(r)) == 0) {
        assert_true(r.k == o->acknowledged[r.thread] + 1);
        o->acknowledged[r.thread] = r.k;
        if (r.generation > o->generation)
            o->generation = r.generation;
        if (++o->reports == kill_after)
            kill(pid, SIGKILL);
    }
    close(pipe_fds[0]);
    assert_int_equal(child_wait(pid, 60000, &o->status), 0);
}

static void verify_thread(struct db_fixture *f, int thread, int acknowledged)
{
    const struct row *vm = db_fixture_row(f, CLASS_VM, vm_ref(f->arena, thread));
    if (vm == NULL) {
        assert_int_equal(acknowledged, 0);
        return;
    }
    int64_t found = -1;
    assert_true(text_to_int(row_string(vm, F_VM_name_label), &found));
    if (found != acknowledged && found != acknowledged + 1)
        fail_msg("thread %d: acknowledged %d, found %d", thread, acknowledged, (int)found);
    assert_string_equal(db_fixture_set_text(f, CLASS_VM, vm->ref, F_VM_VBDs), vbd_ref(f->arena, thread, (int)found));
}

static void verify(struct db_fixture *f, const struct outcome *o)
{
    must(db_open(f->arena, &f->options, &f->db));
    for (int i = 0; i < N_THREADS; i++)
        verify_thread(f, i, o->acknowledged[i]);
    assert_true(db_generation(f->db) > (uint64_t)o->generation);
    assert_true(db_count(f->db, &model_classes[CLASS_VBD]) == db_count(f->db, &model_classes[CLASS_VM]));
    db_fixture_vm(f, "still works");
}

static void run(const char *faults, unsigned kill_after, struct outcome *o)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    db_close(f.db);
    f.db = NULL;
    run_child(&f, faults, kill_after, o);
    verify(&f, o);
}

static void test_db_killed_at_points(void **state)
{
    static const char *const points[] = { "db.before-sqlite", "db.after-sqlite", "db.before-publish" };
    static const unsigned visits[] = { 1, 2, 3, 7, 20, 55 };
    for (unsigned i = 0; i < ARRAY_LEN(points); i++) {
        for (unsigned k = 0; k < ARRAY_LEN(visits); k++) {
            AUTO_ARENA arena = arena_new();
            struct outcome o;
            run(arena_printf(arena, "%s=crash@%u", points[i], visits[k]), 0, &o);
            assert_true(WIFSIGNALED(o.status) && WTERMSIG(o.status) == SIGKILL);
            assert_true(o.reports < N_THREADS * N_COMMITS);
        }
    }
}

static void test_db_killed_anywhere(void **state)
{
    uint64_t random = 88172645463325252u ^ (uint64_t)getpid();
    for (int i = 0; i < 12; i++) {
        struct outcome o;
        random = random * 6364136223846793005u + 1442695040888963407u;
        run("", 1 + (unsigned)(random >> 33) % (N_THREADS * N_COMMITS / 2), &o);
        assert_true(WIFSIGNALED(o.status) && WTERMSIG(o.status) == SIGKILL);
    }
}

static void test_db_not_killed(void **state)
{
    struct outcome o;
    run("", 0, &o);
    assert_true(WIFEXITED(o.status) && WEXITSTATUS(o.status) == 0);
    assert_int_equal(o.reports, N_THREADS * N_COMMITS);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--child") == 0)
        return child_main(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_db_killed_at_points),
        cmocka_unit_test(test_db_killed_anywhere),
        cmocka_unit_test(test_db_not_killed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
