#include "xapi/core/query.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "rpc/base/datetime.h"

#define NESTING_MAX 64u
#define NODES_MAX 1024u

enum query_kind { QUERY_TRUE, QUERY_FALSE, QUERY_EQUAL, QUERY_NOT, QUERY_AND, QUERY_OR };

struct operand { int field; const char *literal; }; /* field -1: the literal */

struct query {
    enum query_kind kind;
    const struct query *a, *b;  /* NOT: a; AND, OR: both */
    struct operand left, right; /* EQUAL */
    const struct class_info *class;
};

struct parser {
    struct arena *arena;
    const struct class_info *class;
    const char *expr, *at;
    unsigned depth, nodes;
    const char *wrong; /* the first complaint */
};

static struct query *node(struct parser *p, enum query_kind kind)
{
    struct query *q = arena_alloc(p->arena, sizeof(*q));

    q->kind = kind;
    q->class = p->class;
    if (++p->nodes > NODES_MAX && p->wrong == NULL)
        p->wrong = "the expression is too long";
    return q;
}

static struct query *fail(struct parser *p, const char *wrong)
{
    if (p->wrong == NULL)
        p->wrong = wrong;
    return node(p, QUERY_FALSE);
}

static void skip_blanks(struct parser *p)
{
    while (isspace((unsigned char)*p->at))
        p->at++;
}

static bool take(struct parser *p, const char *word)
{
    size_t len = strlen(word);

    skip_blanks(p);
    if (strncasecmp(p->at, word, len) != 0)
        return false;
    if (isalpha((unsigned char)*word) && (isalnum((unsigned char)p->at[len]) || p->at[len] == '_'))
        return false;
    p->at += len;
    return true;
}

/* A string in double or single quotes; a backslash takes the next character as it is. */
static const char *take_string(struct parser *p)
{
    skip_blanks(p);
    char quote = *p->at;
    if (quote != '"' && quote != '\'')
        return NULL;
    char *s = arena_alloc(p->arena, strlen(p->at) + 1), *out = s;
    for (p->at++; *p->at != quote; p->at++) {
        if (*p->at == '\\')
            p->at++;
        if (*p->at == '\0')
            return NULL;
        *out++ = *p->at;
    }
    p->at++;
    return s;
}

/* Field names may come in the database's own spelling, with doubled underscores or the old slashes. */
static int field_named(struct parser *p, const char *name)
{
    int field = model_field(p->class, name);
    char *plain = arena_strdup(p->arena, name), *out = plain;

    if (field >= 0)
        return field;
    for (const char *s = name; *s != '\0'; s++) {
        *out++ = *s == '/' ? '_' : *s;
        if (s[0] == '_' && s[1] == '_')
            s++;
    }
    *out = '\0';
    return model_field(p->class, plain);
}

static bool take_operand(struct parser *p, struct operand *o)
{
    bool is_field = take(p, "field");
    const char *s = take_string(p);

    if (s == NULL)
        return false;
    *o = (struct operand){ .field = is_field ? field_named(p, s) : -1, .literal = s };
    if (is_field && o->field < 0)
        p->wrong = arena_printf(p->arena, "%s has no field '%s'", p->class->name, s);
    return true;
}

static struct query *parse_or(struct parser *p);

static struct query *parse_primary(struct parser *p)
{
    struct query *q;

    if (take(p, "(")) {
        q = parse_or(p);
        return take(p, ")") ? q : fail(p, "expected ')'");
    }
    if (take(p, "true"))
        return node(p, QUERY_TRUE);
    if (take(p, "false"))
        return node(p, QUERY_FALSE);
    q = node(p, QUERY_EQUAL);
    if (!take_operand(p, &q->left))
        return fail(p, "expected field \"…\", a string, true, false, not or '('");
    if (!take(p, "="))
        return fail(p, "expected '='");
    if (!take_operand(p, &q->right))
        return fail(p, "expected field \"…\" or a string after '='");
    return q;
}

static struct query *parse_not(struct parser *p)
{
    struct query *q;

    if (p->wrong != NULL)
        return fail(p, p->wrong);
    if (p->depth >= NESTING_MAX)
        return fail(p, "nested too deep");
    p->depth++;
    if (take(p, "not")) {
        q = node(p, QUERY_NOT);
        q->a = parse_not(p);
    } else {
        q = parse_primary(p);
    }
    p->depth--;
    return q;
}

static struct query *parse_and(struct parser *p)
{
    struct query *left = parse_not(p);

    while (p->wrong == NULL && take(p, "and")) {
        struct query *q = node(p, QUERY_AND);
        q->a = left;
        q->b = parse_not(p);
        left = q;
    }
    return left;
}

static struct query *parse_or(struct parser *p)
{
    struct query *left = parse_and(p);

    while (p->wrong == NULL && take(p, "or")) {
        struct query *q = node(p, QUERY_OR);
        q->a = left;
        q->b = parse_and(p);
        left = q;
    }
    return left;
}

struct error *query_parse(struct arena *a, const struct class_info *class, const char *expr, struct query **query_r)
{
    struct parser p = { .arena = a, .class = class, .expr = expr, .at = expr };
    struct query *q = parse_or(&p);

    skip_blanks(&p);
    if (p.wrong == NULL && *p.at != '\0')
        p.wrong = "expected the end, 'and' or 'or'";
    if (p.wrong != NULL)
        return err_internal(a, "query at character %zu: %s", (size_t)(p.at - expr) + 1, p.wrong);
    *query_r = q;
    return NULL;
}

/* The text a value compares as; NULL for what never matches. */
static const char *operand_text(const struct operand *o, const struct row *row, char buffer[32])
{
    const struct value *v;

    if (o->field < 0)
        return o->literal;
    v = row_value(row, (unsigned)o->field);
    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        return v->s;
    case VALUE_INT: case VALUE_INT32:
        snprintf(buffer, 32, "%" PRId64, v->i);
        return buffer;
    case VALUE_BOOL:
        return v->i != 0 ? "true" : "false";
    case VALUE_FLOAT:
        snprintf(buffer, 32, "%.16g", v->f);
        return buffer;
    case VALUE_DATETIME:
        datetime_format(v->i, buffer);
        return buffer;
    case VALUE_VOID: case VALUE_SET: case VALUE_MAP: case VALUE_RECORD: case VALUE_NIL:
        break;
    }
    return NULL;
}

static bool is_enum(const struct query *q, const struct operand *o)
{
    return o->field >= 0 && q->class->fields[o->field].type->kind == TYPE_ENUM;
}

static bool equal(const struct query *q, const struct row *row)
{
    char left_buffer[32], right_buffer[32];
    const char *left = operand_text(&q->left, row, left_buffer), *right = operand_text(&q->right, row, right_buffer);

    if (left == NULL || right == NULL)
        return false;
    return is_enum(q, &q->left) || is_enum(q, &q->right) ? strcasecmp(left, right) == 0 : strcmp(left, right) == 0;
}

/* Chains of 'and' and 'or' hang to the left; the right sides are at most NESTING_MAX deep. */
bool query_matches(const struct query *q, const struct row *row)
{
    switch (q->kind) {
    case QUERY_TRUE:
        return true;
    case QUERY_FALSE:
        return false;
    case QUERY_EQUAL:
        return equal(q, row);
    case QUERY_NOT:
        return !query_matches(q->a, row);
    case QUERY_AND:
        return query_matches(q->a, row) && query_matches(q->b, row);
    case QUERY_OR:
        return query_matches(q->a, row) || query_matches(q->b, row);
    }
    return false;
}
