#include "db/idlc/parser.h"

#include <string.h>

#include "db/idlc/lexer.h"
#include "db/idlc/type.h"
#include "rpc/base/attributes.h"
#include "rpc/base/text.h"

/* What the current line belongs to. */
struct parser {
    struct idl *idl;
    struct arena *arena;
    struct lexer lexer;
    struct idl_pos pos;
    struct idl_class *class;
    struct idl_field *field;
    struct idl_message *message;
};

struct flag_word {
    const char *word;
    unsigned flag;
};

static const struct flag_word class_words[] = {
    { "get_all", CLASS_GET_ALL },       { "name_label", CLASS_NAME_LABEL },
    { "volatile", CLASS_VOLATILE },     { "no_events", CLASS_NO_EVENTS },
    { "not_stored", CLASS_NOT_STORED }, { "explicit", CLASS_EXPLICIT },
    { "added", CLASS_ADDED },           { NULL, 0 },
};
static const struct flag_word field_words[] = {
    { "volatile", FIELD_VOLATILE },       { "nullable", FIELD_NULLABLE }, { "secret", FIELD_SECRET },
    { "unpublished", FIELD_UNPUBLISHED }, { "added", FIELD_ADDED },       { NULL, 0 },
};
static const struct flag_word message_words[] = {
    { "missing", MESSAGE_MISSING },       { "removed", MESSAGE_REMOVED },     { "implied", MESSAGE_IMPLIED },
    { "no_session", MESSAGE_NO_SESSION }, { "sync_only", MESSAGE_SYNC_ONLY }, { "internal", MESSAGE_POOL_INTERNAL },
    { "emergency", MESSAGE_EMERGENCY },   { "inline", MESSAGE_INLINE },       { "hidden", MESSAGE_HIDDEN },
    { "no_task", MESSAGE_NO_TASK },       { "added", MESSAGE_ADDED },         { NULL, 0 },
};
static const struct flag_word param_words[] = {
    { "nullable", PARAM_NULLABLE },
    { "secret", PARAM_SECRET },
    { "no_check", PARAM_NO_CHECK },
    { NULL, 0 },
};
static const char *const state_words[] = { "deprecated", "prototyped", "removed", "retired" };

static bool take_flag(struct parser *p, const struct flag_word *words, unsigned *flags)
{
    for (; words->word != NULL; words++)
        if (lexer_at_word(&p->lexer, words->word)) {
            *flags |= words->flag;
            lexer_next(&p->lexer);
            return true;
        }
    return false;
}

/* The next token as an identifier; complains and gives NULL otherwise. */
static const char *take_name(struct parser *p, const char *what)
{
    const struct token *t = lexer_next(&p->lexer);

    if (t->kind == TOKEN_WORD && idl_is_identifier(t->text))
        return t->text;
    idl_complain(p->idl, p->pos, "%s expected, not '%s'", what, t->text);
    return NULL;
}

static bool take_literal(struct parser *p, struct idl_literal **literal_r)
{
    const char *wrong = NULL;

    *literal_r = literal_parse(p->arena, &p->lexer, &wrong);
    if (*literal_r == NULL)
        idl_complain(p->idl, p->pos, "%s", wrong);
    return *literal_r != NULL;
}

static bool take_type(struct parser *p, struct idl_type **type_r)
{
    const char *wrong = NULL;

    *type_r = type_parse(p->arena, &p->lexer, &wrong);
    if (*type_r == NULL)
        idl_complain(p->idl, p->pos, "%s", wrong);
    return *type_r != NULL;
}

/* One or more roles: goes on as long as the words are roles. */
static bool take_roles(struct parser *p, unsigned *mask)
{
    unsigned n = 0;

    while (lexer_peek(&p->lexer)->kind == TOKEN_WORD && idl_role_parse(lexer_peek(&p->lexer)->text, mask)) {
        lexer_next(&p->lexer);
        n++;
    }
    if (n == 0)
        idl_complain(p->idl, p->pos, "unknown role '%s'", lexer_peek(&p->lexer)->text);
    return n > 0;
}

/* 'since R', a state word, or the doc string: what every item may carry. */
static bool take_history(struct parser *p, const char **since, const char **state, const char **doc)
{
    const struct token *t = lexer_peek(&p->lexer);

    if (t->kind == TOKEN_STRING) {
        if (*doc != NULL)
            return false;
        *doc = lexer_next(&p->lexer)->text;
        if (strstr(*doc, "/*") != NULL || strstr(*doc, "*/") != NULL || **doc == '\0')
            idl_complain(p->idl, p->pos, "a description is a line of text without comment marks");
        return true;
    }
    if (lexer_take_word(&p->lexer, "since")) {
        if (lexer_peek(&p->lexer)->kind != TOKEN_WORD)
            return false;
        *since = lexer_next(&p->lexer)->text;
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(state_words); i++)
        if (lexer_take_word(&p->lexer, state_words[i])) {
            *state = state_words[i];
            return true;
        }
    return false;
}

static void complain_word(struct parser *p)
{
    idl_complain(p->idl, p->pos, "unexpected '%s'", lexer_peek(&p->lexer)->text);
}

static bool at_end(const struct parser *p) { return lexer_peek(&p->lexer)->kind == TOKEN_END; }

static void read_class(struct parser *p)
{
    struct idl_class *c = arena_alloc(p->arena, sizeof(*c));

    p->class = NULL;
    p->field = NULL;
    p->message = NULL;
    c->pos = p->pos;
    c->name = take_name(p, "class name");
    if (c->name == NULL)
        return;
    while (!at_end(p)) {
        if (lexer_take_word(&p->lexer, "role")) {
            c->has_role = true;
            if (!take_roles(p, &c->roles))
                return;
        } else if (!take_flag(p, class_words, &c->flags) && !take_history(p, &c->since, &c->state, &c->doc)) {
            complain_word(p);
            return;
        }
    }
    idl_list_add(p->arena, &p->idl->classes, c);
    p->class = c;
}

static void read_enum(struct parser *p)
{
    struct idl_enum *e = arena_alloc(p->arena, sizeof(*e));

    e->pos = p->pos;
    e->owner = p->class;
    e->name = take_name(p, "enum name");
    if (e->name == NULL)
        return;
    while (lexer_peek(&p->lexer)->kind == TOKEN_WORD)
        idl_list_add(p->arena, &e->values, (void *)lexer_next(&p->lexer)->text);
    if (!at_end(p))
        complain_word(p);
    idl_list_add(p->arena, &p->class->enums, e);
}

static bool read_qualifier(struct parser *p, struct idl_field *f)
{
    if (lexer_take_word(&p->lexer, "rw"))
        f->qualifier = FIELD_RW;
    else if (lexer_take_word(&p->lexer, "ro"))
        f->qualifier = FIELD_RO_RUNTIME;
    else if (lexer_take_word(&p->lexer, "constructor"))
        f->qualifier = FIELD_RO_CONSTRUCTOR;
    else {
        idl_complain(p->idl, p->pos, "rw, ro or constructor expected, not '%s'", lexer_peek(&p->lexer)->text);
        return false;
    }
    return true;
}

static bool read_relation(struct parser *p, struct idl_field *f, bool kept)
{
    const struct token *t = lexer_next(&p->lexer);

    if (t->kind != TOKEN_WORD || strchr(t->text, '.') == NULL || f->other != NULL) {
        idl_complain(p->idl, p->pos, "one CLASS.FIELD expected, not '%s'", t->text);
        return false;
    }
    f->other = t->text;
    f->kept = kept;
    return true;
}

/* One word of a field behind its qualifier. */
static bool read_field_word(struct parser *p, struct idl_field *f)
{
    if (take_flag(p, field_words, &f->flags))
        return true;
    if (lexer_take_word(&p->lexer, "required"))
        return f->required = true;
    if (lexer_take_word(&p->lexer, "default"))
        return take_literal(p, &f->fallback);
    if (lexer_take_word(&p->lexer, "inverse"))
        return read_relation(p, f, true);
    if (lexer_take_word(&p->lexer, "mirrored_by"))
        return read_relation(p, f, false);
    if (lexer_take_word(&p->lexer, "writers"))
        return f->has_writers = take_roles(p, &f->writers);
    if (take_history(p, &f->since, &f->state, &f->doc))
        return true;
    complain_word(p);
    return false;
}

static void read_field(struct parser *p)
{
    struct idl_field *f = arena_alloc(p->arena, sizeof(*f));

    p->field = NULL;
    p->message = NULL;
    f->pos = p->pos;
    f->name = take_name(p, "field name");
    if (f->name == NULL || !take_type(p, &f->type) || !read_qualifier(p, f))
        return;
    while (!at_end(p))
        if (!read_field_word(p, f))
            return;
    idl_list_add(p->arena, &p->class->fields, f);
    p->field = f;
}

static void read_message(struct parser *p)
{
    struct idl_message *m = arena_alloc(p->arena, sizeof(*m));

    p->field = NULL;
    p->message = NULL;
    m->pos = p->pos;
    m->owner = p->class;
    m->name = take_name(p, "message name");
    if (m->name == NULL)
        return;
    while (!at_end(p))
        if (!take_flag(p, message_words, &m->flags) && !take_history(p, &m->since, &m->state, &m->doc)) {
            complain_word(p);
            return;
        }
    if (m->flags & MESSAGE_REMOVED)
        m->state = "removed";
    else if (m->state != NULL && strcmp(m->state, "retired") == 0)
        m->state = "removed";
    if (m->flags & MESSAGE_EMERGENCY)
        m->runs_on = RUNS_HERE;
    idl_list_add(p->arena, &p->class->messages, m);
    p->message = m;
}

static void read_param(struct parser *p)
{
    struct idl_param *param = arena_alloc(p->arena, sizeof(*param));

    param->pos = p->pos;
    param->name = take_name(p, "parameter name");
    if (param->name == NULL || !take_type(p, &param->type))
        return;
    while (!at_end(p)) {
        if (lexer_take_word(&p->lexer, "added")) {
            param->added = true;
        } else if (lexer_take_word(&p->lexer, "default")) {
            param->flags |= PARAM_HAS_DEFAULT;
            if (!take_literal(p, &param->fallback))
                return;
        } else if (!take_flag(p, param_words, &param->flags)) {
            complain_word(p);
            return;
        }
    }
    idl_list_add(p->arena, &p->message->params, param);
}

static void read_result(struct parser *p)
{
    if (p->message->result != NULL)
        idl_complain(p->idl, p->pos, "second result");
    else if (take_type(p, &p->message->result) && !at_end(p))
        complain_word(p);
}

static void read_errors(struct parser *p)
{
    while (lexer_peek(&p->lexer)->kind == TOKEN_WORD)
        idl_list_add(p->arena, &p->message->errors, (void *)lexer_next(&p->lexer)->text);
    if (!at_end(p))
        complain_word(p);
}

static void read_role(struct parser *p)
{
    p->message->has_role = true;
    if (take_roles(p, &p->message->roles) && !at_end(p))
        idl_complain(p->idl, p->pos, "unknown role '%s'", lexer_peek(&p->lexer)->text);
}

/* operation and code: one word. */
static void read_word(struct parser *p, const char **word_r)
{
    const struct token *t = lexer_next(&p->lexer);

    if (t->kind != TOKEN_WORD || !at_end(p) || *word_r != NULL)
        idl_complain(p->idl, p->pos, "exactly one word expected");
    else
        *word_r = t->text;
}

static void read_operation(struct parser *p) { read_word(p, &p->message->operation); }

static void read_code(struct parser *p) { read_word(p, &p->message->code_file); }

static void read_runs_on(struct parser *p)
{
    static const char *const places[] = {
        [RUNS_ON_COORDINATOR] = "coordinator",
        [RUNS_HERE] = "here",
        [RUNS_ON_HOST_PARAM] = "host_param",
    };
    const char *word = NULL;

    read_word(p, &word);
    for (unsigned i = 0; word != NULL && i < ARRAY_LEN(places); i++)
        if (strcmp(word, places[i]) == 0) {
            p->message->runs_on = (enum runs_on)i;
            return;
        }
    if (word != NULL)
        idl_complain(p->idl, p->pos, "a message runs on coordinator, here or host_param, not '%s'", word);
}

static void read_protect(struct parser *p)
{
    struct idl_protect *protect = arena_alloc(p->arena, sizeof(*protect));
    const struct token *t = lexer_next(&p->lexer);

    if (t->kind != TOKEN_STRING) {
        idl_complain(p->idl, p->pos, "protect: a key in quotes expected, not '%s'", t->text);
        return;
    }
    protect->pos = p->pos;
    protect->key = t->text;
    if (!take_roles(p, &protect->roles))
        return;
    if (!at_end(p))
        complain_word(p);
    idl_list_add(p->arena, &p->field->protect, protect);
}

/* "(vm, current auth_type)": each name may be several words. */
static bool read_error_params(struct parser *p, struct idl_error *e)
{
    const char *name = NULL;

    while (!at_end(p)) {
        const struct token *t = lexer_next(&p->lexer);

        if (t->kind == TOKEN_WORD) {
            name = name == NULL ? t->text : arena_printf(p->arena, "%s %s", name, t->text);
        } else if (name != NULL && (t->kind == TOKEN_COMMA || t->kind == TOKEN_CLOSE)) {
            idl_list_add(p->arena, &e->params, (void *)name);
            name = NULL;
            if (t->kind == TOKEN_CLOSE)
                return true;
        } else {
            break;
        }
    }
    idl_complain(p->idl, p->pos, "the parameters of an error are spelt (one, another one)");
    return false;
}

static void read_error(struct parser *p)
{
    struct idl_error *e = arena_alloc(p->arena, sizeof(*e));
    const char *none = NULL;

    e->pos = p->pos;
    e->code = take_name(p, "error code");
    if (e->code == NULL)
        return;
    if (lexer_take(&p->lexer, TOKEN_OPEN) && !read_error_params(p, e))
        return;
    e->added = lexer_take_word(&p->lexer, "added");
    while (!at_end(p))
        if (!take_history(p, &none, &none, &e->doc)) {
            complain_word(p);
            return;
        }
    idl_list_add(p->arena, &p->idl->errors, e);
}

static void read_alert(struct parser *p)
{
    struct idl_alert *a = arena_alloc(p->arena, sizeof(*a));
    const struct token *t;

    a->pos = p->pos;
    a->name = take_name(p, "alert name");
    if (a->name == NULL)
        return;
    t = lexer_next(&p->lexer);
    if (t->kind != TOKEN_WORD || strlen(t->text) != 1 || t->text[0] < '1' || t->text[0] > '5' || !at_end(p)) {
        idl_complain(p->idl, p->pos, "an alert has a priority from 1 to 5");
        return;
    }
    a->priority = t->text[0] - '0';
    idl_list_add(p->arena, &p->idl->alerts, a);
}

static void read_schema(struct parser *p)
{
    struct lexer *l = &p->lexer;
    const char *version = "", *checksum = NULL;
    uint64_t number = 0;

    if (lexer_take_word(l, "version") && lexer_peek(l)->kind == TOKEN_WORD)
        version = lexer_next(l)->text;
    if (lexer_take_word(l, "checksum") && lexer_peek(l)->kind == TOKEN_WORD)
        checksum = lexer_next(l)->text;
    if (!text_to_uint(version, &number) || number > 1000000 || checksum == NULL || !at_end(p) || p->idl->has_schema) {
        idl_complain(p->idl, p->pos, "one line 'schema version N checksum X' expected");
        return;
    }
    p->idl->has_schema = true;
    p->idl->schema_pos = p->pos;
    p->idl->schema_version = (unsigned)number;
    p->idl->schema_checksum = checksum;
}

enum belongs { TO_NOTHING, TO_CLASS, TO_FIELD, TO_MESSAGE };

static const struct {
    const char *word;
    enum belongs belongs;
    void (*read)(struct parser *);
} lines[] = {
    { "schema", TO_NOTHING, read_schema },
    { "error", TO_NOTHING, read_error },
    { "alert", TO_NOTHING, read_alert },
    { "class", TO_NOTHING, read_class },
    { "enum", TO_CLASS, read_enum },
    { "field", TO_CLASS, read_field },
    { "protect", TO_FIELD, read_protect },
    { "message", TO_CLASS, read_message },
    { "param", TO_MESSAGE, read_param },
    { "result", TO_MESSAGE, read_result },
    { "errors", TO_MESSAGE, read_errors },
    { "role", TO_MESSAGE, read_role },
    { "operation", TO_MESSAGE, read_operation },
    { "runs_on", TO_MESSAGE, read_runs_on },
    { "code", TO_MESSAGE, read_code },
};

static bool has_owner(const struct parser *p, enum belongs belongs)
{
    switch (belongs) {
    case TO_NOTHING:
        return true;
    case TO_CLASS:
        return p->class != NULL;
    case TO_FIELD:
        return p->field != NULL;
    case TO_MESSAGE:
        return p->message != NULL;
    }
    return false;
}

static void read_line(struct parser *p, const char *line, size_t len)
{
    const char *wrong = lexer_cut(&p->lexer, p->arena, line, len);
    const struct token *t;

    if (wrong != NULL) {
        idl_complain(p->idl, p->pos, "%s", wrong);
        return;
    }
    if (at_end(p))
        return;
    t = lexer_next(&p->lexer);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (t->kind == TOKEN_WORD && strcmp(t->text, lines[i].word) == 0) {
            static const char *const owners[] = { "", "class", "field", "message" };

            if (has_owner(p, lines[i].belongs))
                lines[i].read(p);
            else
                idl_complain(p->idl, p->pos, "'%s' without a %s", t->text, owners[lines[i].belongs]);
            return;
        }
    idl_complain(p->idl, p->pos, "unknown line '%s'", t->text);
}

void parser_read(struct idl *idl, const char *file, const char *text, size_t len)
{
    struct parser p = { .idl = idl, .arena = idl->arena, .pos = { file, 0 } };
    size_t at = 0;

    while (at < len) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - (text + at)) : len - at;

        p.pos.line++;
        read_line(&p, text + at, n);
        at += n + 1;
    }
}
