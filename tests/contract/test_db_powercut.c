/* No power cut, at any write, sync or delete that SQLite does, loses an acknowledged commit or shows
 * half of one. Every point is tried, with several kinds of loss. The same sweep with synchronous=OFF
 * must lose something, or it would prove nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db/txn.h"
#include "gen/model_ids.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "tests/lib/vfs_powercut.h"

#define N_COMMITS 14
#define A "OpaqueRef:a"
#define B "OpaqueRef:b"

struct sweep {
    struct tempdir dir;
    struct arena *arena; /* of one run */
    struct db_options options;
    enum powercut_loss loss;
    uint64_t seed;
    unsigned runs, lost; /* lost: runs that broke a promise */
    unsigned forgotten;  /* of these, runs that lost an acknowledged commit */
};

/* State k: a and b are both called k, and the VBDs k and k-1 exist. */
static const char *vbd_ref(struct arena *arena, int k) { return arena_printf(arena, "OpaqueRef:vbd%d", k); }

static struct error *step_to(struct db *db, struct arena *arena, int k)
{
    const char *name = arena_printf(arena, "%d", k);
    struct field_value vbd[] = { { F_VBD_VM, value_string(A) }, { F_VBD_device, value_string(name) } };
    AUTO_TXN txn = txn_begin(db, arena);
    TRY(txn_set_string(txn, CLASS_VM, A, F_VM_name_label, name));
    TRY(txn_set_string(txn, CLASS_VM, B, F_VM_name_label, name));
    TRY(txn_map_put(txn, CLASS_VM, B, F_VM_other_config, name, value_string(name)));
    TRY(txn_create(txn, CLASS_VBD, vbd_ref(arena, k), NULL, vbd, 2, NULL));
    if (k > 2)
        TRY(txn_delete(txn, CLASS_VBD, vbd_ref(arena, k - 2)));
    return txn_commit(txn, NULL);
}

static struct error *start(struct db *db, struct arena *arena)
{
    struct field_value name[] = { { F_VM_name_label, value_string("0") } };
    AUTO_TXN txn = txn_begin(db, arena);
    TRY(txn_create(txn, CLASS_VM, A, NULL, name, 1, NULL));
    TRY(txn_create(txn, CLASS_VM, B, NULL, name, 1, NULL));
    return txn_commit(txn, NULL);
}

/* The state that the file holds, -1: not even the start; -2: half a state. */
static int state_of(struct db *db, struct arena *arena)
{
    const struct row *a = db_get(db, arena, &model_classes[CLASS_VM], A),
                     *b = db_get(db, arena, &model_classes[CLASS_VM], B);
    if (a == NULL && b == NULL)
        return -1;
    if (a == NULL || b == NULL)
        return -2;
    const char *name = row_string(a, F_VM_name_label);
    int64_t number;
    if (!text_to_int(name, &number))
        return -2;
    int k = (int)number;
    bool whole = strcmp(name, row_string(b, F_VM_name_label)) == 0 &&
                 row_value(b, F_VM_other_config)->len == (unsigned)k &&
                 row_value(a, F_VM_VBDs)->len == (k < 2 ? (unsigned)k : 2u) &&
                 db_count(db, &model_classes[CLASS_VBD]) == (k < 2 ? (unsigned)k : 2u);
    for (int i = k; whole && i > 0 && i > k - 2; i--)
        whole = db_get(db, arena, &model_classes[CLASS_VBD], vbd_ref(arena, i)) != NULL;
    return whole ? k : -2;
}

/* Works until the power fails; the last acknowledged state, and generation. */
static int work(struct sweep *s, uint64_t *generation)
{
    struct db *db;
    int k = -1;

    if (db_open(s->arena, &s->options, &db) != NULL)
        return -1;
    int before = state_of(db, s->arena);
    if (before >= 0 || start(db, s->arena) == NULL)
        k = before >= 0 ? before : 0;
    *generation = db_generation(db);
    for (int i = 0; k >= 0 && i < N_COMMITS && step_to(db, s->arena, k + 1) == NULL; i++) {
        k++;
        *generation = db_generation(db);
    }
    db_close(db);
    return k;
}

static bool promise_kept(struct sweep *s, int acknowledged, uint64_t generation)
{
    struct db *db;
    if (db_open(s->arena, &s->options, &db) != NULL)
        return false;
    int found = state_of(db, s->arena);
    bool kept = (found == acknowledged || found == acknowledged + 1) && db_generation(db) > generation;
    if (found >= -1 && found < acknowledged)
        s->forgotten++;
    if (kept && found >= 0)
        kept = step_to(db, s->arena, found + 1) == NULL && state_of(db, s->arena) == found + 1;
    db_close(db);
    return kept;
}

/* One run with the power failing at that operation; false when it survived to the end. */
static bool run_once(struct sweep *s, const char *template, unsigned long at)
{
    AUTO_ARENA arena = arena_new();
    uint64_t generation = 0;
    char *bytes;
    size_t len;

    s->arena = arena;
    (void)unlink(s->options.path);
    (void)unlink(arena_printf(arena, "%s-wal", s->options.path));
    (void)unlink(arena_printf(arena, "%s-journal", s->options.path));
    if (template != NULL) {
        assert_int_equal(file_read(arena, template, 64u << 20, &bytes, &len), 0);
        assert_int_equal(file_replace(s->options.path, bytes, len, 0600), 0);
    }
    powercut_arm(at);
    int acknowledged = work(s, &generation);
    if (acknowledged < 0 && template != NULL) /* could not even be opened: nothing may have changed */
        acknowledged = N_COMMITS;
    bool cut = powercut_happened();
    powercut_settle(s->loss, s->seed + at);
    s->runs++;
    if (!promise_kept(s, acknowledged, generation))
        s->lost++;
    powercut_settle(POWERCUT_LOSE_NONE, 0);
    return cut;
}

static void sweep_init(struct sweep *s)
{
    *s = (struct sweep){ .options = { .clock = &clock_real, .vfs = POWERCUT_VFS, .checkpoint_pages = 40 } };
    tempdir_make(&s->dir);
    s->options.path = tempdir_file(&s->dir, "pool.db");
    log_set_level("db", LOG_ERR);
    (void)log_open("/dev/null");
    powercut_install();
}

/* A file in state N_COMMITS, closed. */
static const char *make_template(struct sweep *s)
{
    AUTO_ARENA arena = arena_new();
    uint64_t generation;
    char *bytes;
    size_t len;

    s->arena = arena;
    powercut_arm(0);
    assert_int_equal(work(s, &generation), N_COMMITS);
    powercut_settle(POWERCUT_LOSE_NONE, 0);
    assert_int_equal(file_read(arena, s->options.path, 64u << 20, &bytes, &len), 0);
    const char *template = tempdir_file(&s->dir, "template.db");
    assert_int_equal(file_replace(template, bytes, len, 0600), 0);
    return template;
}

static void sweep(struct sweep *s, const char *template, unsigned long stride, const char *what)
{
    unsigned long at = 1;
    while (run_once(s, template, at))
        at += stride;
    print_message("%s: %u runs to operation %lu, %u broke a promise, %u forgot a commit\n", what, s->runs, at, s->lost,
                  s->forgotten);
}

static void test_db_powercut_commits(void **state)
{
    static const struct {
        enum powercut_loss loss;
        uint64_t seed;
        const char *what;
    } kinds[] = {
        { POWERCUT_LOSE_ALL, 0, "all unsynced writes lost" },
        { POWERCUT_LOSE_SOME, 1, "some lost or torn" },
        { POWERCUT_LOSE_SOME, 2, "some lost or torn, again" },
        { POWERCUT_LOSE_NONE, 0, "none lost" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++) {
        struct sweep s;
        sweep_init(&s);
        const char *template = make_template(&s);
        s.loss = kinds[i].loss;
        s.seed = kinds[i].seed;
        sweep(&s, template, 1, kinds[i].what);
        assert_int_equal(s.lost, 0);
        assert_true(s.runs > 4 * N_COMMITS);
        tempdir_remove(&s.dir);
    }
}

static void test_db_powercut_creation(void **state)
{
    struct sweep s;
    unsigned long stride = getenv("SWEEP_ALL") != NULL ? 1 : 7;
    sweep_init(&s);
    s.loss = POWERCUT_LOSE_ALL;
    sweep(&s, NULL, stride, "creation, all lost");
    s.loss = POWERCUT_LOSE_SOME;
    sweep(&s, NULL, stride, "creation, some lost");
    assert_int_equal(s.lost, 0);
    tempdir_remove(&s.dir);
}

static void test_db_powercut_needs_full(void **state)
{
    struct sweep s;
    sweep_init(&s);
    const char *template = make_template(&s);
    s.options.synchronous_off = true;
    s.loss = POWERCUT_LOSE_ALL;
    sweep(&s, template, 1, "synchronous=OFF");
    assert_true(s.forgotten > 0);
    tempdir_remove(&s.dir);
}

/* A sync that fails without a power cut: the commit fails, the next ones work, nothing is half there. */
static void test_db_sync_error(void **state)
{
    struct sweep s;
    sweep_init(&s);
    AUTO_ARENA arena = arena_new();
    struct db *db;
    powercut_arm(0);
    must(db_open(arena, &s.options, &db));
    must(start(db, arena));
    must(step_to(db, arena, 1));
    powercut_fail_syncs(1);
    must_fail(step_to(db, arena, 2), "INTERNAL_ERROR");
    powercut_fail_syncs(0);
    assert_int_equal(state_of(db, arena), 1);
    must(step_to(db, arena, 2));
    must(step_to(db, arena, 3));
    assert_int_equal(state_of(db, arena), 3);
    db_close(db);
    must(db_open(arena, &s.options, &db));
    assert_int_equal(state_of(db, arena), 3);
    db_close(db);
    powercut_settle(POWERCUT_LOSE_NONE, 0);
    tempdir_remove(&s.dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_db_sync_error),
        cmocka_unit_test(test_db_powercut_commits),
        cmocka_unit_test(test_db_powercut_creation),
        cmocka_unit_test(test_db_powercut_needs_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
