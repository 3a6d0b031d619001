#include "rpc/base/arena.h"

#include <stdio.h>
#include <string.h>

#include "rpc/base/text.h"
#include "tests/lib/death.h"
#include "tests/lib/unit.h"

static void test_arena_alloc_sizes(void **state)
{
    static const size_t sizes[] = { 0, 1, 7, 16, 100, 1000, 1023, 1024, 1025, 4096, 70000, 1 << 20 };
    AUTO_ARENA a = arena_new();
    size_t total = 0;

    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
            unsigned char *p = arena_alloc(a, sizes[i]);
            assert_non_null(p);
            assert_int_equal((uintptr_t)p % _Alignof(max_align_t), 0);
            for (size_t b = 0; b < sizes[i]; b++)
                assert_int_equal(p[b], 0);
            memset(p, 0xee, sizes[i]);
            total += sizes[i];
        }
    }
    assert_int_equal(arena_used(a), total);
}

static void test_arena_alloc_pieces_do_not_overlap(void **state)
{
    AUTO_ARENA a = arena_new();
    unsigned *pieces[2000];

    for (unsigned i = 0; i < ARRAY_LEN(pieces); i++) {
        pieces[i] = arena_calloc(a, 1 + i % 50, sizeof(unsigned));
        for (unsigned k = 0; k < 1 + i % 50; k++)
            pieces[i][k] = i;
    }
    for (unsigned i = 0; i < ARRAY_LEN(pieces); i++)
        for (unsigned k = 0; k < 1 + i % 50; k++)
            assert_int_equal(pieces[i][k], i);
}

static void test_arena_strings(void **state)
{
    AUTO_ARENA a = arena_new();
    char large[5000];

    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    assert_string_equal(arena_strdup(a, ""), "");
    assert_string_equal(arena_strdup(a, "abc"), "abc");
    assert_string_equal(arena_strndup(a, "abcdef", 3), "abc");
    assert_string_equal(arena_strndup(a, "ab", 30), "ab");
    assert_string_equal(arena_printf(a, "%d-%s", 7, "x"), "7-x");
    assert_string_equal(arena_printf(a, "%s", large), large);
    assert_memory_equal(arena_memdup(a, "a\0b", 3), "a\0b", 3);
    assert_non_null(arena_memdup(a, NULL, 0));
}

static struct text order = TEXT_INIT;
static struct arena *hooked;

static void note(void *name) { text_add(&order, name); }

static void note_and_use_arena(void *name) { text_add(&order, arena_strdup(hooked, name)); }

static void test_arena_on_free_newest_first(void **state)
{
    char one[] = "1", two[] = "2", three[] = "3";

    hooked = arena_new();
    arena_on_free(hooked, note, one);
    arena_on_free(hooked, note_and_use_arena, two);
    arena_on_free(hooked, note, three);
    assert_int_equal(order.len, 0);
    arena_free(hooked);
    assert_string_equal(order.bytes, "321");
    text_release(&order);
}

static void test_arena_free_null(void **state) { arena_free(NULL); }

static void calloc_overflow(void)
{
    AUTO_ARENA a = arena_new();

    arena_calloc(a, SIZE_MAX / 2, 3);
}

static void test_arena_calloc_overflow(void **state) { assert_true(death_of("overflow", "mul_overflow")); }

static const struct deed deeds[] = { { "overflow", calloc_overflow }, { 0 } };

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena_alloc_sizes), cmocka_unit_test(test_arena_alloc_pieces_do_not_overlap),
        cmocka_unit_test(test_arena_strings),     cmocka_unit_test(test_arena_on_free_newest_first),
        cmocka_unit_test(test_arena_free_null),   cmocka_unit_test(test_arena_calloc_overflow),
    };

    death_main(argc, argv, deeds);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
