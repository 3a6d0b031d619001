#include "db/idlc/idl.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

#include "rpc/base/attributes.h"

#define MAX_COMPLAINTS 50

const char *const idl_role_names[N_ROLES] = {
    "pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "client-cert", "read-only",
};

void idl_list_add(struct arena *arena, struct idl_list *list, void *item)
{
    if (list->n == list->cap) {
        unsigned cap = list->cap ? list->cap * 2 : 8;
        void **items = arena_calloc(arena, cap, sizeof(*items));

        if (list->n > 0)
            memcpy(items, list->items, list->n * sizeof(*items));
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = item;
}

struct idl *idl_new(struct arena *arena)
{
    struct idl *idl = arena_alloc(arena, sizeof(*idl));

    idl->arena = arena;
    return idl;
}

void idl_complain(struct idl *idl, struct idl_pos pos, const char *fmt, ...)
{
    va_list args;

    if (idl->complaints.n >= MAX_COMPLAINTS)
        return;
    va_start(args, fmt);
    const char *text = arena_vprintf(idl->arena, fmt, args);
    va_end(args);
    idl_list_add(idl->arena, &idl->complaints, arena_printf(idl->arena, "%s:%d: %s", pos.file, pos.line, text));
}

struct idl_class *idl_find_class(const struct idl *idl, const char *name)
{
    IDL_EACH(struct idl_class, c, &idl->classes)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

struct idl_field *idl_find_field(const struct idl_class *class, const char *name)
{
    IDL_EACH(struct idl_field, f, &class->fields)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

struct idl_message *idl_find_message(const struct idl_class *class, const char *name)
{
    IDL_EACH(struct idl_message, m, &class->messages)
        if (strcmp(m->name, name) == 0)
            return m;
    return NULL;
}

struct idl_enum *idl_find_enum(const struct idl_class *class, const char *name)
{
    IDL_EACH(struct idl_enum, e, &class->enums)
        if (strcmp(e->name, name) == 0)
            return e;
    return NULL;
}

struct idl_error *idl_find_error(const struct idl *idl, const char *code)
{
    IDL_EACH(struct idl_error, e, &idl->errors)
        if (strcmp(e->code, code) == 0)
            return e;
    return NULL;
}

bool idl_enum_has(const struct idl_enum *e, const char *value)
{
    IDL_EACH(const char, v, &e->values)
        if (strcmp(v, value) == 0)
            return true;
    return false;
}

bool idl_is_identifier(const char *s)
{
    if (!isalpha((unsigned char)*s) && *s != '_')
        return false;
    for (; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s) && *s != '_')
            return false;
    return true;
}

const char *idl_c_name(struct arena *arena, const char *name)
{
    static const char *const keywords[] = {
        "auto",   "bool",     "break",  "case",   "char",     "const",    "continue", "default", "do",
        "double", "else",     "enum",   "extern", "false",    "float",    "for",      "goto",    "if",
        "inline", "int",      "linux",  "long",   "register", "restrict", "return",   "short",   "signed",
        "sizeof", "static",   "struct", "switch", "true",     "typedef",  "union",    "unix",    "unsigned",
        "void",   "volatile", "while",  "NULL",   "asm",      "typeof",   "errno",
    };

    for (size_t i = 0; i < ARRAY_LEN(keywords); i++)
        if (strcmp(name, keywords[i]) == 0)
            return arena_printf(arena, "%s_", name);
    return name;
}

const char *idl_c_lower(struct arena *arena, const char *text)
{
    char *out = arena_printf(arena, "%s%s", isdigit((unsigned char)*text) || *text == '\0' ? "_" : "", text);

    for (char *s = out; *s != '\0'; s++)
        *s = isalnum((unsigned char)*s) ? (char)tolower((unsigned char)*s) : '_';
    return idl_c_name(arena, out);
}

bool idl_role_parse(const char *word, unsigned *mask)
{
    if (strcmp(word, "none") == 0)
        return true;
    if (strcmp(word, "any") == 0) {
        *mask |= (1u << N_ROLES) - 1;
        return true;
    }
    for (unsigned i = 0; i < N_ROLES; i++) {
        unsigned bit = 1u << i;

        if (strcmp(word, idl_role_names[i]) != 0)
            continue;
        *mask |= bit;
        if (bit != ROLE_CLIENT_CERT)
            *mask |= (bit - 1) & ~(unsigned)ROLE_CLIENT_CERT;
        return true;
    }
    return false;
}
