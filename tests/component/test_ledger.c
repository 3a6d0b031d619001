/* The ledger of migrations: what was acknowledged is there after kill -9, a full disk or damage lose no more than they must,
 * and a hundred thousand rows are paged by indices. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "tests/lib/sql.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/ledger_store.h"
#include "xapi/migrate/ledger_totals.h"

#define must(error) assert_null(error)
#define N_ROWS 100000u
#define N_CHILD_ROWS 300

struct fixture { struct arena *arena; struct tempdir dir; const char *path; struct ledger *ledger; };

static int setup(void **state)
{
    static struct fixture f;
    f.arena = arena_new();
    tempdir_make(&f.dir);
    f.path = arena_printf(f.arena, "%s/migrations.db", f.dir.path);
    must(ledger_open(f.arena, f.path, &f.ledger));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ledger_close(f->ledger);
    tempdir_remove(&f->dir);
    arena_free(f->arena);
    return 0;
}

static void reopen(struct fixture *f)
{
    ledger_close(f->ledger);
    f->ledger = NULL;
    must(ledger_open(f->arena, f->path, &f->ledger));
}

static struct value one_fact(struct arena *a, const char *name, const char *value)
{
    struct value_dict d = { 0 };
    value_dict_add(a, &d, name, value_string(value));
    return value_dict_value(&d);
}

static struct ledger_row row_of(struct arena *a, const char *id, const char *stage, int64_t began_ms)
{
    return (struct ledger_row){ .id = id, .stage = stage, .kind = "migrate_send", .vm_uuid = "vm-uuid", .vm_name = "web <1> \"x\"",
                                .user = "root", .from_host = "host-a", .to_host = "host-b", .key = "key-of-it", .began_ms = began_ms,
                                .note = one_fact(a, "args", "all of them"), .facts = one_fact(a, "rounds", "1") };
}

static struct ledger_row need(struct fixture *f, const char *id, enum ledger_side side)
{
    struct ledger_row row;
    bool found;
    must(ledger_get(f->arena, f->ledger, id, side, &row, &found));
    assert_true(found);
    return row;
}

/* --- one row ------------------------------------------------------------------------------------------------------ */
static void test_a_row_comes_back_whole(void **state)
{
    struct fixture *f = *state;
    struct ledger_row row = row_of(f->arena, "m1", "open", 1700000000123);

    must(ledger_put(f->arena, f->ledger, &row));
    reopen(f);
    struct ledger_row back = need(f, "m1", LEDGER_OUT);
    assert_string_equal(back.vm_name, "web <1> \"x\"");
    assert_string_equal(back.stage, "open");
    assert_string_equal(back.cause, "");
    assert_string_equal(back.key, "key-of-it");
    assert_int_equal(back.began_ms, 1700000000123);
    assert_int_equal(back.ended_ms, 0);
    assert_true(value_equal(&back.note, &row.note));
    assert_true(value_equal(&back.facts, &row.facts));
    struct ledger_row none;
    bool found = true;
    must(ledger_get(f->arena, f->ledger, "m1", LEDGER_IN, &none, &found));
    assert_false(found);
    must(ledger_by_key(f->arena, f->ledger, "key-of-it", &none, &found));
    assert_true(found);
    must(ledger_by_key(f->arena, f->ledger, "", &none, &found));
    assert_false(found);
}

static void test_stages_facts_and_the_end(void **state)
{
    struct fixture *f = *state;
    struct ledger_row row = row_of(f->arena, "m1", "open", 1000), in = row_of(f->arena, "m1", "open", 1001);
    struct value note = one_fact(f->arena, "domid", "7"), facts = one_fact(f->arena, "bytes", "4096"), rounds = one_fact(f->arena, "rounds", "3");

    in.side = LEDGER_IN;
    must(ledger_put(f->arena, f->ledger, &row));
    must(ledger_put(f->arena, f->ledger, &in));
    must(ledger_stage(f->arena, f->ledger, "m1", LEDGER_OUT, "send", NULL));
    struct ledger_row sending = need(f, "m1", LEDGER_OUT);
    assert_string_equal(value_get_string(&sending.note, "args", ""), "all of them");
    must(ledger_stage(f->arena, f->ledger, "m1", LEDGER_OUT, "commit", &note));
    must(ledger_add_facts(f->arena, f->ledger, "m1", LEDGER_OUT, &facts));
    must(ledger_add_facts(f->arena, f->ledger, "m1", LEDGER_OUT, &rounds));
    must(ledger_add_facts(f->arena, f->ledger, "nobody", LEDGER_OUT, &facts));
    must(ledger_end(f->arena, f->ledger, "m1", LEDGER_OUT, "success", "", "committed by recovery", 5000));
    must(ledger_end(f->arena, f->ledger, "m1", LEDGER_OUT, "failed", "too late", "", 6000));
    must(ledger_end(f->arena, f->ledger, "nobody", LEDGER_OUT, "failed", "", "", 1));
    struct ledger_row back = need(f, "m1", LEDGER_OUT);
    assert_string_equal(back.stage, "done");
    assert_string_equal(back.outcome, "success");
    assert_string_equal(back.recovery, "committed by recovery");
    assert_int_equal(back.ended_ms, 5000);
    assert_string_equal(value_get_string(&back.note, "domid", ""), "7");
    assert_string_equal(value_get_string(&back.facts, "bytes", ""), "4096");
    assert_string_equal(value_get_string(&back.facts, "rounds", ""), "3");
    assert_string_equal(need(f, "m1", LEDGER_IN).stage, "open");
}

static void test_no_ledger_keeps_nothing(void **state)
{
    struct fixture *f = *state;
    struct ledger_row row = row_of(f->arena, "m1", "open", 1), *rows;
    struct ledger_query all = { 0 };
    unsigned n = 1;

    must(ledger_put(f->arena, NULL, &row));
    must(ledger_end(f->arena, NULL, "m1", LEDGER_OUT, "success", "", "", 1));
    must(ledger_list(f->arena, NULL, &all, &rows, &n));
    assert_int_equal(n, 0);
}

static unsigned listed(struct fixture *f, struct ledger_query q, struct ledger_row **rows_r)
{
    unsigned n;
    must(ledger_list(f->arena, f->ledger, &q, rows_r, &n));
    return n;
}

static void test_old_rows_go(void **state)
{
    struct fixture *f = *state;
    struct ledger_row *rows;
    unsigned gone;

    for (int i = 0; i < 4; i++) {
        const char *id = arena_printf(f->arena, "m%d", i);
        struct ledger_row row = row_of(f->arena, id, "send", 10 * i);
        must(ledger_put(f->arena, f->ledger, &row));
        if (i < 3)
            must(ledger_end(f->arena, f->ledger, id, LEDGER_OUT, "success", "", "", 100 * (i + 1)));
    }
    must(ledger_prune(f->arena, f->ledger, 300, &gone));
    assert_int_equal(gone, 2);
    assert_int_equal(listed(f, (struct ledger_query){ 0 }, &rows), 2);
    assert_string_equal(rows[0].id, "m3"); /* not ended, however old */
    assert_string_equal(rows[1].id, "m2");
}

/* --- totals --------------------------------------------------------------------------------------------------------- */
static void put_done(struct fixture *f, const char *id, const char *outcome, const char *bytes, int64_t ms)
{
    struct ledger_row row = row_of(f->arena, id, "send", 1000);
    struct value facts = one_fact(f->arena, "bytes", bytes);
    must(ledger_put(f->arena, f->ledger, &row));
    must(ledger_add_facts(f->arena, f->ledger, id, LEDGER_OUT, &facts));
    must(ledger_end(f->arena, f->ledger, id, LEDGER_OUT, outcome, "", "", 1000 + ms));
}

static void totals_are(struct fixture *f, int64_t successes, int64_t failures, int64_t bytes)
{
    struct ledger_totals t;
    must(ledger_totals(f->arena, f->ledger, &t));
    assert_int_equal(t.ended[0][1][0], successes);
    assert_int_equal(t.ended[0][1][2], failures);
    assert_int_equal((int64_t)t.bytes, bytes);
}

static void test_totals_follow_every_write(void **state)
{
    struct fixture *f = *state;
    struct value late = one_fact(f->arena, "blackout_us", "40000");
    struct ledger_totals t;

    put_done(f, "m1", "success", "100", 2000);
    totals_are(f, 1, 0, 100);
    put_done(f, "m2", "success", "10", 70000);
    put_done(f, "m3", "failed", "1", 1);
    must(ledger_add_facts(f->arena, f->ledger, "m1", LEDGER_OUT, &late));
    totals_are(f, 2, 1, 111);
    must(ledger_totals(f->arena, f->ledger, &t));
    assert_int_equal(t.duration.counts[1], 1); /* at most 5 s */
    assert_int_equal(t.duration.counts[4], 1); /* at most 300 s */
    assert_int_equal(t.blackout.counts[2], 1);
    put_done(f, "m3", "success", "1", 1); /* the same row again */
    totals_are(f, 3, 0, 111);
    struct ledger_totals kept;
    must(ledger_totals(f->arena, f->ledger, &kept));
    reopen(f);
    must(ledger_totals(f->arena, f->ledger, &t));
    assert_memory_equal(t.ended, kept.ended, sizeof(t.ended));
    assert_memory_equal(t.duration.counts, kept.duration.counts, sizeof(t.duration.counts));
}

/* --- a hundred thousand rows ------------------------------------------------------------------------------------------ */
static void fill(struct fixture *f, struct ledger *l)
{
    static const char *const outcomes[] = { "success", "success", "success", "failed", "cancelled" };

    for (unsigned i = 0; i < N_ROWS; i++) {
        AUTO_ARENA a = arena_new();
        bool active = i % 1000 == 0;
        struct ledger_row row = row_of(a, arena_printf(a, "m%06u", i), active ? "send" : "done", 1000 + (i / 2)); /* two begin at once */
        row.vm_uuid = arena_printf(a, "vm-%u", i % 100);
        row.outcome = active ? "" : outcomes[i % ARRAY_LEN(outcomes)];
        row.ended_ms = active ? 0 : row.began_ms + 1;
        must(ledger_put(a, l, &row));
    }
}

static void plan_has(struct fixture *f, struct ledger_store *s, struct ledger_query q, const char *index)
{
    const char *plan;
    must(ledger_store_plan(f->arena, s, &q, &plan));
    if (strstr(plan, index) == NULL || strstr(plan, "B-TREE") != NULL || strstr(plan, "SCAN migrations\n") != NULL)
        fail_msg("no %s: %s", index, plan);
}

static void page_through(struct fixture *f, struct ledger *l, struct ledger_query q, unsigned expected)
{
    char last[32] = "";
    int64_t last_ms = INT64_MAX;
    unsigned seen = 0, n = q.limit;

    for (; n == q.limit; q.offset += n) {
        AUTO_ARENA a = arena_new();
        struct ledger_row *rows;
        must(ledger_list(a, l, &q, &rows, &n));
        for (unsigned i = 0; i < n; i++, seen++) {
            assert_true(rows[i].began_ms < last_ms || (rows[i].began_ms == last_ms && strcmp(rows[i].id, last) < 0));
            last_ms = rows[i].began_ms;
            snprintf(last, sizeof(last), "%s", rows[i].id);
        }
    }
    assert_int_equal(seen, expected);
}

static void test_a_hundred_thousand_rows_are_paged(void **state)
{
    struct fixture *f = *state;
    struct ledger *l;

    must(ledger_open(f->arena, NULL, &l)); /* in memory: this is not about the disk */
    fill(f, l);
    page_through(f, l, (struct ledger_query){ .limit = 1000 }, N_ROWS);
    page_through(f, l, (struct ledger_query){ .limit = 10, .active = true }, N_ROWS / 1000);
    page_through(f, l, (struct ledger_query){ .limit = 100, .vm_uuid = "vm-7" }, N_ROWS / 100);
    page_through(f, l, (struct ledger_query){ .limit = 500, .outcome = "cancelled" }, N_ROWS / 5);
    page_through(f, l, (struct ledger_query){ .limit = 100, .since_ms = 2000, .before_ms = 2100 }, 200);
    ledger_close(l);
}

static void test_lists_use_indices(void **state)
{
    struct fixture *f = *state;
    struct ledger_store *s;

    must(ledger_store_open(f->arena, NULL, &s));
    plan_has(f, s, (struct ledger_query){ 0 }, "by_age");
    plan_has(f, s, (struct ledger_query){ .since_ms = 1, .before_ms = 2 }, "by_age");
    plan_has(f, s, (struct ledger_query){ .active = true }, "active");
    plan_has(f, s, (struct ledger_query){ .vm_uuid = "v" }, "by_vm");
    plan_has(f, s, (struct ledger_query){ .vm_uuid = "v", .since_ms = 1 }, "by_vm");
    plan_has(f, s, (struct ledger_query){ .outcome = "failed" }, "by_outcome");
    plan_has(f, s, (struct ledger_query){ .outcome = "failed", .before_ms = 1 }, "by_outcome");
    ledger_store_close(s);
}

/* --- harm ----------------------------------------------------------------------------------------------------------------- */
static unsigned asides(struct fixture *f)
{
    DIR *dir = opendir(f->dir.path);
    unsigned n = 0;

    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;)
        n += strstr(e->d_name, "migrations.db.corrupt-") == e->d_name && strstr(e->d_name, "-wal") == NULL && strstr(e->d_name, "-shm") == NULL;
    closedir(dir);
    return n;
}

static void scribble(struct fixture *f, off_t at, size_t n)
{
    AUTO_FD fd = open(f->path, O_WRONLY | O_CLOEXEC);
    char junk[4096];

    assert_true(fd >= 0);
    memset(junk, 0x5a, sizeof(junk));
    assert_true(n <= sizeof(junk));
    assert_int_equal(fd_pwrite_all(fd, junk, n, at), 0);
}

static void test_a_damaged_file_is_moved_aside(void **state)
{
    struct fixture *f = *state;
    static const struct { off_t at; size_t n; } damage[] = { { 0, 100 }, { 4096, 4096 }, { 2 * 4096, 4096 } };

    for (unsigned i = 0; i < ARRAY_LEN(damage); i++) {
        struct ledger_row row = row_of(f->arena, "m1", "send", 1), *rows;
        must(ledger_put(f->arena, f->ledger, &row));
        ledger_close(f->ledger);
        f->ledger = NULL;
        scribble(f, damage[i].at, damage[i].n);
        must(ledger_open(f->arena, f->path, &f->ledger));
        assert_int_equal(listed(f, (struct ledger_query){ 0 }, &rows), 0);
        must(ledger_put(f->arena, f->ledger, &row));
        assert_int_equal(asides(f), 1);
        ledger_close(f->ledger);
        tempdir_remove(&f->dir);
        tempdir_make(&f->dir);
        f->path = arena_printf(f->arena, "%s/migrations.db", f->dir.path);
        must(ledger_open(f->arena, f->path, &f->ledger));
    }
}

static void test_a_newer_file_is_refused(void **state)
{
    struct fixture *f = *state;
    struct ledger_row row = row_of(f->arena, "m1", "send", 1);

    must(ledger_put(f->arena, f->ledger, &row));
    ledger_close(f->ledger);
    f->ledger = NULL;
    sql_run(f->path, "PRAGMA user_version=2");
    struct error *e = ledger_open(f->arena, f->path, &f->ledger);
    assert_non_null(e);
    assert_non_null(strstr(e->params[0], "written by a newer xapi"));
    assert_int_equal(asides(f), 0);
    sql_run(f->path, "PRAGMA user_version=1");
    must(ledger_open(f->arena, f->path, &f->ledger));
    assert_string_equal(need(f, "m1", LEDGER_OUT).stage, "send");
}

static off_t size_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? st.st_size : 0;
}

/* A disk that takes no more is one whose files may not grow: the same path through SQLite. */
static void test_a_full_disk_fails_the_write_and_no_other(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, full;
    struct error *e = NULL;
    unsigned written = 0;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    full = before;
    full.rlim_cur = (rlim_t)size_of(arena_printf(f->arena, "%s-wal", f->path)) + 400000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    while (e == NULL && written < 1000) {
        struct ledger_row row = row_of(f->arena, arena_printf(f->arena, "m%u", written), "send", written);
        e = ledger_put(f->arena, f->ledger, &row);
        written += e == NULL;
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_non_null(e);
    assert_true(written > 3);
    struct ledger_row row = row_of(f->arena, "after", "send", 5000), *rows;
    must(ledger_put(f->arena, f->ledger, &row));
    reopen(f);
    assert_int_equal(listed(f, (struct ledger_query){ .limit = 2000 }, &rows), written + 1);
    assert_int_equal(asides(f), 0);
}

/* --- kill -9 ------------------------------------------------------------------------------------------------------------ */
struct report { int32_t k, ended; };

static int child_main(const char *path)
{
    AUTO_ARENA arena = arena_new();
    struct ledger *l;

    CHECK(ledger_open(arena, path, &l) == NULL);
    for (int k = 0; k < N_CHILD_ROWS; k++) {
        AUTO_ARENA a = arena_new();
        struct ledger_row row = row_of(a, arena_printf(a, "m%d", k), "send", k);
        struct report report = { .k = k };
        CHECK(ledger_put(a, l, &row) == NULL);
        CHECK(fd_write_all(STDOUT_FILENO, &report, sizeof(report)) == 0);
        report.ended = 1;
        CHECK(ledger_end(a, l, row.id, LEDGER_OUT, "success", "", "", 1000 + k) == NULL);
        CHECK(fd_write_all(STDOUT_FILENO, &report, sizeof(report)) == 0);
    }
    ledger_close(l);
    return 0;
}

/* The last report that came before the child was killed after so many of them. */
static struct report run_child(struct fixture *f, unsigned kill_after)
{
    const char *argv[] = { "/proc/self/exe", "--child", f->path, NULL };
    struct report r, last = { .k = -1 };
    int fds[2], status;
    unsigned n = 0;
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct child_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = fds[1], .stderr_fd = -1 };
    assert_int_equal(child_start(&spec, &pid), 0);
    close(fds[1]);
    while (fd_read_all(fds[0], &r, sizeof(r)) == 0) {
        last = r;
        if (++n == kill_after)
            kill(pid, SIGKILL);
    }
    close(fds[0]);
    assert_int_equal(child_wait(pid, 60000, &status), 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return last;
}

static void test_kill_loses_nothing_acknowledged(void **state)
{
    struct fixture *f = *state;
    static const unsigned after[] = { 1, 2, 7, 50, 201, 400 };

    for (unsigned i = 0; i < ARRAY_LEN(after); i++) {
        struct ledger_row *rows;
        ledger_close(f->ledger);
        f->ledger = NULL;
        struct report last = run_child(f, after[i]);
        must(ledger_open(f->arena, f->path, &f->ledger));
        for (int k = 0; k <= last.k; k++) {
            struct ledger_row row = need(f, arena_printf(f->arena, "m%d", k), LEDGER_OUT);
            if (k < last.k || last.ended)
                assert_string_equal(row.outcome, "success");
        }
        assert_int_equal(asides(f), 0);
        assert_true(listed(f, (struct ledger_query){ .limit = 2000 }, &rows) >= (unsigned)last.k + 1);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--child") == 0)
        return child_main(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_row_comes_back_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stages_facts_and_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_ledger_keeps_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_rows_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_totals_follow_every_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_hundred_thousand_rows_are_paged, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists_use_indices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_damaged_file_is_moved_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_newer_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_full_disk_fails_the_write_and_no_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kill_loses_nothing_acknowledged, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
