/* The migration journal: what was written durably is what is read, whatever the last line looks like. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"
#include "xapi/migrate/journal.h"

#define ID "11111111-2222-4333-8444-555555555555"

struct fixture { struct arena *arena; struct tempdir dir; struct journal *journal; };

static int setup(void **state)
{
    static struct fixture f;
    f.arena = arena_new();
    tempdir_make(&f.dir);
    assert_null(journal_open(f.arena, f.dir.path, &f.journal));
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    journal_close(f->journal);
    tempdir_remove(&f->dir);
    arena_free(f->arena);
    return 0;
}

static void write_state(struct fixture *f, enum journal_side side, enum journal_state state)
{
    struct member facts[] = { member_of("vm", value_string("some-vm")) };
    struct value v = value_map(facts, 1);
    assert_null(journal_write(f->arena, f->journal, ID, side, state, &v));
}

static void damage(struct fixture *f, const char *bytes)
{
    AUTO_FD fd = open(arena_printf(f->arena, "%s/%s.source", f->dir.path, ID), O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_all(fd, bytes, strlen(bytes)), 0);
}

static void test_last_record_wins(void **state)
{
    struct fixture *f = *state;
    enum journal_state s;
    assert_false(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    write_state(f, JOURNAL_SOURCE, JOURNAL_PREPARED);
    write_state(f, JOURNAL_SOURCE, JOURNAL_GO_SENT);
    assert_true(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    assert_int_equal(s, JOURNAL_GO_SENT);
    assert_false(journal_state(f->journal, ID, JOURNAL_DESTINATION, &s));
}

static void test_torn_line_is_ignored_and_closed_off(void **state)
{
    struct fixture *f = *state;
    enum journal_state s;
    write_state(f, JOURNAL_SOURCE, JOURNAL_STREAMING);
    damage(f, "00000000000000000001 {\"id\":\"x\",\"state\":\"DO");
    assert_true(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    assert_int_equal(s, JOURNAL_STREAMING);
    write_state(f, JOURNAL_SOURCE, JOURNAL_RESUMED);
    assert_true(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    assert_int_equal(s, JOURNAL_RESUMED);
}

static void test_foreign_lines_do_not_count(void **state)
{
    struct fixture *f = *state;
    enum journal_state s;
    write_state(f, JOURNAL_SOURCE, JOURNAL_SUSPENDED);
    damage(f, "12345678901234567890 {\"id\":\"" ID "\",\"state\":\"DONE\",\"facts\":{}}\nnonsense\n\n");
    assert_true(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    assert_int_equal(s, JOURNAL_SUSPENDED);
}

static void test_forget_only_what_is_final(void **state)
{
    struct fixture *f = *state;
    enum journal_state s;
    write_state(f, JOURNAL_SOURCE, JOURNAL_GO_SENT);
    journal_forget(f->journal, ID, JOURNAL_SOURCE);
    assert_true(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    write_state(f, JOURNAL_SOURCE, JOURNAL_DONE);
    journal_forget(f->journal, ID, JOURNAL_SOURCE);
    assert_false(journal_state(f->journal, ID, JOURNAL_SOURCE, &s));
    write_state(f, JOURNAL_DESTINATION, JOURNAL_ABORTED);
    journal_forget(f->journal, ID, JOURNAL_DESTINATION);
    assert_true(journal_state(f->journal, ID, JOURNAL_DESTINATION, &s)); /* a tombstone */
}

static void test_list_has_facts_and_unfinished_first(void **state)
{
    struct fixture *f = *state;
    write_state(f, JOURNAL_DESTINATION, JOURNAL_RUNNING);
    write_state(f, JOURNAL_SOURCE, JOURNAL_STREAMING);
    struct journal_entry *entries;
    unsigned n;
    assert_null(journal_list(f->arena, f->journal, &entries, &n));
    assert_int_equal(n, 2);
    assert_int_equal(entries[0].state, JOURNAL_STREAMING);
    assert_string_equal(value_get_string(&entries[0].facts, "vm", ""), "some-vm");
    assert_int_equal(entries[1].side, JOURNAL_DESTINATION);
}

static void test_hostile_ids_are_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const ids[] = { "", "../../etc/passwd", "a/b", "x y" };
    for (unsigned i = 0; i < ARRAY_LEN(ids); i++) {
        enum journal_state s;
        assert_non_null(journal_write(f->arena, f->journal, ids[i], JOURNAL_SOURCE, JOURNAL_PREPARED, NULL));
        assert_false(journal_state(f->journal, ids[i], JOURNAL_SOURCE, &s));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_last_record_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_line_is_ignored_and_closed_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_lines_do_not_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forget_only_what_is_final, setup, teardown),
        cmocka_unit_test_setup_teardown(test_list_has_facts_and_unfinished_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_ids_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
