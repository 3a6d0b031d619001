/* The datamodel as read from db/model/<class>.idl: what the parser makes, the checks resolve and the
 * emitters print. Everything lives in one arena, for the run of idlc.
 *
 * (1) Names are plain identifiers; words may be anything a line can hold.
 * (2) After idl_check() without complaints every pointer marked "resolved" is set, classes are sorted
 *     by name and the messages of a class too; fields keep their order. */
#ifndef DB_IDLC_IDL_H
#define DB_IDLC_IDL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "db/model.h"
#include "rpc/base/arena.h"

struct idl_pos {
    const char *file;
    int line;
};

/* A growing array of pointers, in the model's arena. */
struct idl_list {
    void **items;
    unsigned n, cap;
};
void idl_list_add(struct arena *, struct idl_list *, void *item);

/* Walks a list: IDL_EACH(struct idl_class, c, &idl->classes) { … } */
#define IDL_EACH(type, var, list)                                                                                      \
    for (unsigned var##_i = 0; var##_i < (list)->n; var##_i++)                                                         \
        for (type *var = (list)->items[var##_i]; var != NULL; var = NULL)

struct idl_class;

struct idl_enum {
    struct idl_pos pos;
    const char *name;
    struct idl_list values; /* char */
    struct idl_class *owner;
};

struct idl_type {
    enum type_kind kind;
    const char *spelling;          /* canonical, as in the facts: "(string -> VM ref) map" */
    const char *name;              /* of the enum or class; NULL for records of any class */
    struct idl_type *key, *item;   /* MAP: both; SET, OPTION: item */
    const struct idl_enum *enum_;  /* resolved */
    const struct idl_class *class; /* resolved */
    int index;                     /* in the generated table of types; -1 until it is there */
};

enum idl_literal_kind { LITERAL_WORD, LITERAL_STRING, LITERAL_SET, LITERAL_MAP };
struct idl_literal {
    enum idl_literal_kind kind;
    const char *text;            /* WORD, STRING */
    struct idl_list keys, items; /* MAP: both; SET: items; of struct idl_literal */
};

struct idl_protect {
    struct idl_pos pos;
    const char *key;
    unsigned roles;
};

struct idl_field {
    struct idl_pos pos;
    const char *name;
    struct idl_type *type;
    enum field_qualifier qualifier;
    unsigned flags; /* FIELD_* */
    bool required;
    struct idl_literal *fallback; /* NULL: the zero of the type */
    const char *other;            /* "VBD.VM": the other side of a relation, or NULL */
    bool kept;                    /* this side is the set that the store keeps ('inverse') */
    bool has_writers;
    unsigned writers;
    struct idl_list protect; /* struct idl_protect */
    const char *since, *state, *doc;
    const struct idl_class *other_class; /* resolved */
    const struct idl_field *other_field; /* resolved */
    unsigned index;
};

struct idl_param {
    struct idl_pos pos;
    const char *name;
    struct idl_type *type;
    unsigned flags; /* PARAM_* */
    bool added;
    struct idl_literal *fallback;
};

struct idl_message {
    struct idl_pos pos;
    const char *name;
    struct idl_class *owner;
    struct idl_list params; /* struct idl_param */
    struct idl_type *result;
    bool has_role;
    unsigned roles, flags; /* MESSAGE_* */
    enum runs_on runs_on;
    const char *operation, *code_file, *since, *state, *doc;
    struct idl_list errors; /* char */
    unsigned id;
};

struct idl_class {
    struct idl_pos pos;
    const char *name;
    unsigned flags; /* CLASS_* */
    bool has_role;
    unsigned roles;
    struct idl_list enums, fields, messages;
    const char *since, *state, *doc;
    unsigned id;
};

struct idl_error {
    struct idl_pos pos;
    const char *code;
    struct idl_list params;
    bool added;
    const char *doc;
};
struct idl_alert {
    struct idl_pos pos;
    const char *name;
    int priority;
};

struct idl {
    struct arena *arena;
    struct idl_list classes, errors, alerts;
    struct idl_pos schema_pos;
    bool has_schema;
    unsigned schema_version;
    const char *schema_checksum;
    struct idl_list complaints; /* char: "VM.idl:12: unknown role 'x'" */
};

struct idl *idl_new(struct arena *);

/* Notes one complaint; the model is unusable from then on. At most 50 are kept. */
void idl_complain(struct idl *, struct idl_pos, const char *fmt, ...) PRINTF(3, 4);

/* Look-ups by name; NULL when there is none. */
struct idl_class *idl_find_class(const struct idl *, const char *name);
struct idl_field *idl_find_field(const struct idl_class *, const char *name);
struct idl_message *idl_find_message(const struct idl_class *, const char *name);
struct idl_enum *idl_find_enum(const struct idl_class *, const char *name);
struct idl_error *idl_find_error(const struct idl *, const char *code);
bool idl_enum_has(const struct idl_enum *, const char *value);

/* True for [A-Za-z_][A-Za-z0-9_]*. */
bool idl_is_identifier(const char *);
/* The name as a member of a C struct: keywords get a trailing underscore. */
const char *idl_c_name(struct arena *, const char *name);
/* Any text as a lower-case C identifier ("Master IP address": master_ip_address). */
const char *idl_c_lower(struct arena *, const char *text);

/* Roles by name; the mask of a minimum role holds all stronger ones. */
extern const char *const idl_role_names[N_ROLES];
/* Adds the roles that 'word' stands for: a minimum role, client-cert, any, none. False: no such word. */
bool idl_role_parse(const char *word, unsigned *mask);

#endif
