#include "db/idlc/lexer.h"

#include <ctype.h>
#include <string.h>

static bool is_word_byte(char c) { return isalnum((unsigned char)c) || (c != '\0' && strchr("_.:+*/<>-", c) != NULL); }

/* The string whose opening quote is at line[at]; *at_r is set behind the closing one. */
static const char *cut_string(struct arena *arena, const char *line, size_t len, size_t *at, const char **text_r)
{
    char *out = arena_alloc(arena, len - *at + 1);
    size_t n = 0, i = *at + 1;

    for (; i < len && line[i] != '"'; i++) {
        if (line[i] == '\\') {
            i++;
            if (i >= len || (line[i] != '"' && line[i] != '\\'))
                return "bad escape in a string: only \\\" and \\\\ are known";
        }
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            return "control character in a string";
        out[n++] = line[i];
    }
    if (i >= len)
        return "string without an end";
    *text_r = out;
    *at = i + 1;
    return NULL;
}

static enum token_kind mark_kind(char c)
{
    switch (c) {
    case '(':
        return TOKEN_OPEN;
    case ')':
        return TOKEN_CLOSE;
    case '{':
        return TOKEN_BRACE_OPEN;
    case '}':
        return TOKEN_BRACE_CLOSE;
    case ',':
        return TOKEN_COMMA;
    }
    return TOKEN_END;
}

static size_t word_end(const char *line, size_t len, size_t i)
{
    while (i < len && is_word_byte(line[i]) && !(line[i] == '-' && i + 1 < len && line[i + 1] == '>'))
        i++;
    return i;
}

/* One token at line[*at], which is no blank. */
static const char *cut_token(struct arena *arena, const char *line, size_t len, size_t *at, struct token *t)
{
    char c = line[*at];

    if (c == '"') {
        t->kind = TOKEN_STRING;
        return cut_string(arena, line, len, at, &t->text);
    }
    if (c == '-' && *at + 1 < len && line[*at + 1] == '>') {
        *t = (struct token){ TOKEN_ARROW, "->" };
        *at += 2;
        return NULL;
    }
    t->kind = mark_kind(c);
    if (t->kind != TOKEN_END) {
        t->text = arena_strndup(arena, line + *at, 1);
        (*at)++;
        return NULL;
    }
    size_t end = word_end(line, len, *at);

    if (end == *at)
        return arena_printf(arena, "unexpected byte 0x%02x", (unsigned char)c);
    *t = (struct token){ TOKEN_WORD, arena_strndup(arena, line + *at, end - *at) };
    *at = end;
    return NULL;
}

const char *lexer_cut(struct lexer *lexer, struct arena *arena, const char *line, size_t len)
{
    *lexer = (struct lexer){ .tokens = arena_calloc(arena, len + 1, sizeof(struct token)) };
    for (size_t at = 0; at < len && line[at] != '#';) {
        if (line[at] == ' ' || line[at] == '\t' || line[at] == '\r') {
            at++;
            continue;
        }
        const char *wrong = cut_token(arena, line, len, &at, &lexer->tokens[lexer->n]);

        if (wrong != NULL)
            return wrong;
        lexer->n++;
    }
    lexer->tokens[lexer->n] = (struct token){ TOKEN_END, "end of line" };
    return NULL;
}

const struct token *lexer_peek(const struct lexer *lexer) { return &lexer->tokens[lexer->at]; }

const struct token *lexer_next(struct lexer *lexer)
{
    const struct token *t = lexer_peek(lexer);

    if (t->kind != TOKEN_END)
        lexer->at++;
    return t;
}

bool lexer_take(struct lexer *lexer, enum token_kind kind)
{
    if (lexer_peek(lexer)->kind != kind)
        return false;
    lexer_next(lexer);
    return true;
}

bool lexer_at_word(const struct lexer *lexer, const char *word)
{
    const struct token *t = lexer_peek(lexer);

    return t->kind == TOKEN_WORD && strcmp(t->text, word) == 0;
}

bool lexer_take_word(struct lexer *lexer, const char *word)
{
    if (!lexer_at_word(lexer, word))
        return false;
    lexer_next(lexer);
    return true;
}
