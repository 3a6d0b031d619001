#include "db/idlc/lexer.h"

#include <string.h>

#include "tests/lib/unit.h"

static void assert_token(struct lexer *l, enum token_kind kind, const char *text)
{
    const struct token *t = lexer_next(l);

    assert_int_equal(t->kind, kind);
    assert_string_equal(t->text, text);
}

static void test_lexer_cut_kinds(void **state)
{
    AUTO_ARENA a = arena_new();
    struct lexer l;
    const char *line = "field a-b\t(string->VM ref) { \"x \\\"y\\\\\" } -1.5, # rest \"";

    assert_null(lexer_cut(&l, a, line, strlen(line)));
    assert_token(&l, TOKEN_WORD, "field");
    assert_token(&l, TOKEN_WORD, "a-b");
    assert_token(&l, TOKEN_OPEN, "(");
    assert_token(&l, TOKEN_WORD, "string");
    assert_token(&l, TOKEN_ARROW, "->");
    assert_token(&l, TOKEN_WORD, "VM");
    assert_true(lexer_at_word(&l, "ref"));
    assert_false(lexer_take_word(&l, "set"));
    assert_true(lexer_take_word(&l, "ref"));
    assert_true(lexer_take(&l, TOKEN_CLOSE));
    assert_token(&l, TOKEN_BRACE_OPEN, "{");
    assert_token(&l, TOKEN_STRING, "x \"y\\");
    assert_token(&l, TOKEN_BRACE_CLOSE, "}");
    assert_token(&l, TOKEN_WORD, "-1.5");
    assert_token(&l, TOKEN_COMMA, ",");
    assert_token(&l, TOKEN_END, "end of line");
    assert_token(&l, TOKEN_END, "end of line");
}

static void test_lexer_cut_empty(void **state)
{
    AUTO_ARENA a = arena_new();
    struct lexer l;

    assert_null(lexer_cut(&l, a, "", 0));
    assert_int_equal(lexer_peek(&l)->kind, TOKEN_END);
    assert_null(lexer_cut(&l, a, "  \t\r# only a comment", 20));
    assert_int_equal(lexer_peek(&l)->kind, TOKEN_END);
}

static void test_lexer_cut_refuses(void **state)
{
    static const struct {
        const char *line, *wrong;
    } cases[] = {
        { "\"no end", "string without an end" },
        { "\"no end\\", "bad escape in a string: only \\\" and \\\\ are known" },
        { "\"\\n\"", "bad escape in a string: only \\\" and \\\\ are known" },
        { "\"a\tb\"", "control character in a string" },
        { "a ; b", "unexpected byte 0x3b" },
        { "\xff", "unexpected byte 0xff" },
    };
    AUTO_ARENA a = arena_new();
    struct lexer l;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(lexer_cut(&l, a, cases[i].line, strlen(cases[i].line)), cases[i].wrong);
    assert_string_equal(lexer_cut(&l, a, "a\0b", 3), "unexpected byte 0x00");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lexer_cut_kinds),
        cmocka_unit_test(test_lexer_cut_empty),
        cmocka_unit_test(test_lexer_cut_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
