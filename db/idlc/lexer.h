/* Cuts one line of IDL into tokens: words, "strings" and the marks ( ) { } , ->
 *
 * '#' starts a comment. A word is a run of letters, digits and _ . : + * / < > -, ended by "->".
 * Strings hold printable bytes; \" and \\ are the only escapes. */
#ifndef DB_IDLC_LEXER_H
#define DB_IDLC_LEXER_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/arena.h"

enum token_kind {
    TOKEN_END,
    TOKEN_WORD,
    TOKEN_STRING,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_BRACE_OPEN,
    TOKEN_BRACE_CLOSE,
    TOKEN_COMMA,
    TOKEN_ARROW
};

struct token {
    enum token_kind kind;
    const char *text;
};

struct lexer {
    struct token *tokens; /* ends with TOKEN_END */
    unsigned n, at;
};

/* Cuts line[0..len) into the arena. NULL on success, else what is wrong. */
const char *lexer_cut(struct lexer *, struct arena *, const char *line, size_t len);

const struct token *lexer_peek(const struct lexer *); /* TOKEN_END at the end */
const struct token *lexer_next(struct lexer *);
bool lexer_take(struct lexer *, enum token_kind);       /* takes the next token if it is of the kind */
bool lexer_take_word(struct lexer *, const char *word); /* takes the next token if it is that word */
bool lexer_at_word(const struct lexer *, const char *word);

#endif
