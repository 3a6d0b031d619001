#include "db/idlc/type.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/attributes.h"
#include "rpc/base/datetime.h"
#include "rpc/base/text.h"

#define MAX_DEPTH 8

static const struct {
    const char *word;
    enum type_kind kind;
} plain_types[] = {
    { "void", TYPE_VOID }, { "string", TYPE_STRING }, { "int", TYPE_INT },
    { "bool", TYPE_BOOL }, { "float", TYPE_FLOAT },   { "datetime", TYPE_DATETIME },
};

static struct idl_type *type_new(struct arena *arena, enum type_kind kind, const char *spelling)
{
    struct idl_type *t = arena_alloc(arena, sizeof(*t));

    t->kind = kind;
    t->spelling = spelling;
    t->index = -1;
    return t;
}

static struct idl_type *parse_type(struct arena *, struct lexer *, unsigned depth, const char **wrong_r);

/* "(T -> T) map", behind the opening bracket. */
static struct idl_type *parse_map(struct arena *arena, struct lexer *lexer, unsigned depth, const char **wrong_r)
{
    struct idl_type *key = parse_type(arena, lexer, depth + 1, wrong_r), *item;

    if (key == NULL)
        return NULL;
    if (!lexer_take(lexer, TOKEN_ARROW)) {
        *wrong_r = "a map type is spelt (T -> T) map: '->' expected";
        return NULL;
    }
    item = parse_type(arena, lexer, depth + 1, wrong_r);
    if (item == NULL)
        return NULL;
    if (!lexer_take(lexer, TOKEN_CLOSE) || !lexer_take_word(lexer, "map")) {
        *wrong_r = "a map type is spelt (T -> T) map: ') map' expected";
        return NULL;
    }
    struct idl_type *t = type_new(arena, TYPE_MAP,
                                  arena_printf(arena, "(%s -> %s) map", key->spelling, item->spelling));

    t->key = key;
    t->item = item;
    return t;
}

/* "enum NAME", "CLASS ref", "CLASS record", "<class> record", "an event batch". */
static struct idl_type *parse_named(struct arena *arena, struct lexer *lexer, const char *word, const char **wrong_r)
{
    struct idl_type *t;

    if (strcmp(word, "enum") == 0 && lexer_peek(lexer)->kind == TOKEN_WORD) {
        const char *name = lexer_next(lexer)->text;

        t = type_new(arena, TYPE_ENUM, arena_printf(arena, "enum %s", name));
        t->name = name;
        return t;
    }
    if (strcmp(word, "an") == 0 && lexer_take_word(lexer, "event") && lexer_take_word(lexer, "batch"))
        return type_new(arena, TYPE_ANY, "an event batch");
    if (lexer_take_word(lexer, "record")) {
        t = type_new(arena, TYPE_RECORD, arena_printf(arena, "%s record", word));
        t->name = strcmp(word, "<class>") == 0 ? NULL : word;
        return t;
    }
    if (lexer_take_word(lexer, "ref")) {
        t = type_new(arena, TYPE_REF, arena_printf(arena, "%s ref", word));
        t->name = word;
        return t;
    }
    *wrong_r = arena_printf(arena, "unknown type '%s'", word);
    return NULL;
}

static struct idl_type *parse_base(struct arena *arena, struct lexer *lexer, unsigned depth, const char **wrong_r)
{
    const struct token *t = lexer_next(lexer);

    if (t->kind == TOKEN_OPEN)
        return parse_map(arena, lexer, depth, wrong_r);
    if (t->kind != TOKEN_WORD) {
        *wrong_r = arena_printf(arena, "type expected, not '%s'", t->text);
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(plain_types); i++)
        if (strcmp(t->text, plain_types[i].word) == 0)
            return type_new(arena, plain_types[i].kind, plain_types[i].word);
    return parse_named(arena, lexer, t->text, wrong_r);
}

static struct idl_type *parse_type(struct arena *arena, struct lexer *lexer, unsigned depth, const char **wrong_r)
{
    struct idl_type *t;

    if (depth > MAX_DEPTH) {
        *wrong_r = "type nested too deeply";
        return NULL;
    }
    t = parse_base(arena, lexer, depth, wrong_r);
    for (unsigned n = depth; t != NULL; n++) {
        bool set = lexer_take_word(lexer, "set");

        if (!set && !lexer_take_word(lexer, "option"))
            return t;
        if (n >= MAX_DEPTH) {
            *wrong_r = "type nested too deeply";
            return NULL;
        }
        struct idl_type *outer = type_new(arena, set ? TYPE_SET : TYPE_OPTION,
                                          arena_printf(arena, "%s %s", t->spelling, set ? "set" : "option"));

        outer->item = t;
        t = outer;
    }
    return NULL;
}

struct idl_type *type_parse(struct arena *arena, struct lexer *lexer, const char **wrong_r)
{
    return parse_type(arena, lexer, 0, wrong_r);
}

/* One word or string. */
static struct idl_literal *parse_scalar(struct arena *arena, struct lexer *lexer, const char **wrong_r)
{
    const struct token *t = lexer_next(lexer);
    struct idl_literal *l;

    if (t->kind != TOKEN_WORD && t->kind != TOKEN_STRING) {
        *wrong_r = arena_printf(arena, "value expected, not '%s'", t->text);
        return NULL;
    }
    l = arena_alloc(arena, sizeof(*l));
    l->kind = t->kind == TOKEN_WORD ? LITERAL_WORD : LITERAL_STRING;
    l->text = t->text;
    return l;
}

/* One item of a set or one 'key -> value' of a map. */
static bool parse_item(struct arena *arena, struct lexer *lexer, struct idl_literal *l, const char **wrong_r)
{
    struct idl_literal *item = parse_scalar(arena, lexer, wrong_r);

    if (item == NULL)
        return false;
    if (lexer_take(lexer, TOKEN_ARROW)) {
        idl_list_add(arena, &l->keys, item);
        item = parse_scalar(arena, lexer, wrong_r);
        if (item == NULL)
            return false;
        l->kind = LITERAL_MAP;
    }
    idl_list_add(arena, &l->items, item);
    if (l->kind == LITERAL_MAP && l->keys.n != l->items.n) {
        *wrong_r = "a value is either { a, b } or { k -> v }, not both";
        return false;
    }
    return true;
}

struct idl_literal *literal_parse(struct arena *arena, struct lexer *lexer, const char **wrong_r)
{
    struct idl_literal *l;

    if (!lexer_take(lexer, TOKEN_BRACE_OPEN))
        return parse_scalar(arena, lexer, wrong_r);
    l = arena_alloc(arena, sizeof(*l));
    l->kind = LITERAL_SET;
    while (!lexer_take(lexer, TOKEN_BRACE_CLOSE)) {
        if (l->items.n > 0 && !lexer_take(lexer, TOKEN_COMMA)) {
            *wrong_r = "',' or '}' expected in a value";
            return NULL;
        }
        if (!parse_item(arena, lexer, l, wrong_r))
            return NULL;
    }
    return l;
}

static bool parse_float(const char *text, double *f_r)
{
    char *end;

    errno = 0;
    *f_r = strtod(text, &end);
    return errno == 0 && *end == '\0' && end != text && isfinite(*f_r) && strpbrk(text, "xXpP") == NULL;
}

static bool word_fits(const struct idl_type *type, const char *text)
{
    int64_t i;
    double f;

    switch (type->kind) {
    case TYPE_INT:
        return text_to_int(text, &i);
    case TYPE_BOOL:
        return strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
    case TYPE_FLOAT:
        return parse_float(text, &f);
    case TYPE_DATETIME:
        return datetime_parse(text, strlen(text), &i);
    case TYPE_ENUM:
        return type->enum_ != NULL && idl_enum_has(type->enum_, text);
    case TYPE_REF:
        return strcmp(text, "null") == 0 || strncmp(text, "OpaqueRef:", 10) == 0;
    case TYPE_VOID:
    case TYPE_STRING:
    case TYPE_SET:
    case TYPE_MAP:
    case TYPE_RECORD:
    case TYPE_OPTION:
    case TYPE_ANY:
        return false;
    }
    return false;
}

const char *literal_check(struct arena *arena, const struct idl_type *type, const struct idl_literal *l)
{
    const char *wrong = NULL;

    switch (l->kind) {
    case LITERAL_WORD:
        return word_fits(type, l->text) ? NULL : arena_printf(arena, "'%s' is no %s", l->text, type->spelling);
    case LITERAL_STRING:
        return type->kind == TYPE_STRING ? NULL : arena_printf(arena, "\"%s\" is no %s", l->text, type->spelling);
    case LITERAL_SET:
        if (type->kind == TYPE_MAP && l->items.n == 0)
            return NULL;
        if (type->kind != TYPE_SET)
            return arena_printf(arena, "a set is no %s", type->spelling);
        break;
    case LITERAL_MAP:
        if (type->kind != TYPE_MAP)
            return arena_printf(arena, "a map is no %s", type->spelling);
        if (type->key->kind != TYPE_STRING)
            return "only maps with string keys may have a default that is not empty";
        break;
    }
    IDL_EACH(const struct idl_literal, key, &l->keys)
        if (wrong == NULL)
            wrong = literal_check(arena, type->key, key);
    IDL_EACH(const struct idl_literal, item, &l->items)
        if (wrong == NULL)
            wrong = literal_check(arena, type->item, item);
    return wrong;
}

int64_t literal_int(const struct idl_literal *l)
{
    int64_t i = 0;

    return text_to_int(l->text, &i) ? i : 0;
}

double literal_float(const struct idl_literal *l)
{
    double f = 0;

    return parse_float(l->text, &f) ? f : 0;
}

int64_t literal_datetime(const struct idl_literal *l)
{
    int64_t epoch = 0;

    return datetime_parse(l->text, strlen(l->text), &epoch) ? epoch : 0;
}
