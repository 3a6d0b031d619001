/* The datamodel as const tables: what db/idlc makes of db/model/<Class>.idl.
 *
 * Generated: gen/model_tables.c (all tables below), gen/model_ids.h (enum constants: CLASS_VM,
 * F_VM_power_state as field index inside its class, M_VM_start; N_CLASSES, N_FIELDS_VM, N_MESSAGES),
 * gen/errors.h (typed error constructors), gen/api_proto.h (argument structs, handler prototypes,
 * api_handlers), gen/api_table.c (message id -> handler). Generated files contain no logic. Readers: db/ (rows, SQL), xapi/core (dispatch,
 * generic accessors, RBAC), xapi/cli. All of it is const, so no locks. */
#ifndef DB_MODEL_H
#define DB_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/value.h"

enum type_kind {
    TYPE_VOID, TYPE_STRING, TYPE_INT, TYPE_BOOL, TYPE_FLOAT, TYPE_DATETIME, TYPE_ENUM, TYPE_REF,
    TYPE_SET, TYPE_MAP, TYPE_RECORD, TYPE_OPTION, TYPE_ANY /* event batches and the like */
};

struct enum_info {
    const char *name;          /* "vm_power_state" */
    const char *const *values; /* wire spellings, in the datamodel's order */
    unsigned n_values;
};

struct type_info {
    enum type_kind kind;
    const char *spelling;               /* "(string -> string) map", as in the facts */
    const struct enum_info *enum_info;  /* TYPE_ENUM */
    const struct class_info *class;     /* TYPE_REF, TYPE_RECORD; NULL for records of no class */
    const struct type_info *key, *item; /* MAP: both; SET, OPTION: item */
};

enum field_qualifier { FIELD_RW, FIELD_RO_RUNTIME, FIELD_RO_CONSTRUCTOR };

enum {
    FIELD_VOLATILE = 1u << 0,      /* never reaches the disk */
    FIELD_NULLABLE = 1u << 1,      /* a ref that may be OpaqueRef:NULL */
    FIELD_SECRET = 1u << 2,        /* prints as *** in logs */
    FIELD_INVERSE = 1u << 3,       /* a set of refs kept by the store from 'inverse' */
    FIELD_CUSTOM_SETTER = 1u << 4, /* the setter is an explicit message */
    FIELD_UNPUBLISHED = 1u << 5,   /* not in records on the wire */
    FIELD_ADDED = 1u << 6,         /* goes beyond 24.16 */
};

struct field_info {
    const char *name; /* "power_state" */
    const struct type_info *type;
    enum field_qualifier qualifier;
    unsigned flags;
    struct value fallback;   /* default: always set, also for fields without one in the datamodel */
    bool required;           /* constructors must be given it (no default in the datamodel) */
    /* FIELD_INVERSE: the class and field index that this set mirrors (VM.VBDs: VBD, F_VBD_VM). The
     * mirrored field is a ref, or a set of refs (many-to-many). */
    const struct class_info *inverse_class;
    unsigned inverse_field;
    unsigned writer_roles;   /* ROLE_* mask for the generated setters (RW fields) */
    /* Map keys whose change needs these roles instead of writer_roles ("folder": vm-operator will do);
     * a trailing '*' stands for any rest; ends { 0 }; NULL: none. */
    const struct protected_key { const char *key; unsigned roles; } *protected_keys;
    const char *doc;
    const char *since;
};

enum role {
    ROLE_POOL_ADMIN = 1u << 0, ROLE_POOL_OPERATOR = 1u << 1, ROLE_VM_POWER_ADMIN = 1u << 2,
    ROLE_VM_ADMIN = 1u << 3, ROLE_VM_OPERATOR = 1u << 4, ROLE_CLIENT_CERT = 1u << 5, ROLE_READ_ONLY = 1u << 6
};
#define N_ROLES 7
extern const char *const role_names[N_ROLES]; /* bit 0 first: "pool-admin", … */

enum {
    CLASS_VOLATILE = 1u << 0,        /* rows never reach the disk (session, task, metrics) */
    CLASS_GET_ALL = 1u << 1,         /* get_all, get_all_records and get_all_records_where exist */
    CLASS_NAME_LABEL = 1u << 2,      /* get_by_name_label exists */
    CLASS_CREATE = 1u << 3,          /* an implied create: its code is api_<class>_create */
    CLASS_DESTROY = 1u << 4,         /* an implied destroy: api_<class>_destroy */
    CLASS_NO_EVENTS = 1u << 5,       /* session, user, secret */
    CLASS_NOT_STORED = 1u << 6,      /* has no rows at all (event, auth, data_source …) */
    CLASS_ADDED = 1u << 7,
    CLASS_EXPLICIT = 1u << 8,        /* no implied accessors: only declared messages (message) */
};

struct class_info {
    const char *name;       /* "VM" */
    const char *lower;      /* "vm": as events spell it */
    unsigned id;            /* index in model_classes */
    unsigned flags;
    const struct field_info *fields;
    unsigned n_fields;      /* field 0 is always uuid */
    const struct record_shape *shape; /* same order and count as fields */
    const struct message_info *messages; /* explicit ones */
    unsigned n_messages;
    int name_label_field;   /* index or -1 */
    unsigned default_roles; /* who may call implied create and destroy */
    const char *doc, *since;
};

enum {
    PARAM_HAS_DEFAULT = 1u << 0,
    PARAM_NULLABLE = 1u << 1, /* accepts OpaqueRef:NULL (and "") */
    PARAM_SECRET = 1u << 2,
    PARAM_NO_CHECK = 1u << 3, /* a ref of another pool or an arbitrary one: existence is not checked */
};

struct param_info {
    const char *name;
    const struct type_info *type;
    unsigned flags;
    struct value fallback; /* with PARAM_HAS_DEFAULT */
    size_t offset;         /* in the argument struct of gen/api_proto.h */
};

enum {
    MESSAGE_NO_SESSION = 1u << 0,   /* log-in and the like */
    MESSAGE_MISSING = 1u << 1,      /* no code: NOT_IMPLEMENTED [Class.message] */
    MESSAGE_SYNC_ONLY = 1u << 2,    /* no Async form */
    MESSAGE_REMOVED = 1u << 3,      /* answers MESSAGE_REMOVED */
    MESSAGE_POOL_INTERNAL = 1u << 4,/* pool sessions and local root only */
    MESSAGE_EMERGENCY = 1u << 5,    /* works without the coordinator, runs where it arrives */
    MESSAGE_INLINE = 1u << 6,       /* never blocks: runs on an I/O thread */
    MESSAGE_ADDED = 1u << 7,        /* goes beyond 24.16 */
    MESSAGE_HIDDEN = 1u << 8,       /* not in listMethods */
    MESSAGE_NO_TASK = 1u << 9,      /* makes no task row when called synchronously */
    /* Code for an implied message: create(record), destroy(self), or one that replaces a generated
     * setter (set_F, add_to_F, remove_from_F, add_F, remove_F: the field has FIELD_CUSTOM_SETTER). */
    MESSAGE_IMPLIED = 1u << 10,
};

enum runs_on {
    RUNS_ON_COORDINATOR, /* the default: handlers orchestrate from there */
    RUNS_HERE,           /* on the host that was called (member too): emergency and internal calls */
    RUNS_ON_HOST_PARAM,  /* on the host named by the first parameter of type ref host */
};

struct message_info {
    const char *name;        /* "start" */
    const char *full_name;   /* "VM.start" */
    const struct class_info *class;
    unsigned id;             /* index in model_messages */
    const struct param_info *params; /* without the session */
    unsigned n_params;
    unsigned n_required;     /* parameters without a default: all come first */
    const struct type_info *result;
    unsigned roles;          /* mask; 0: local root and pool sessions only */
    unsigned flags;
    enum runs_on runs_on;
    /* Marks current_operations of the object that parameter 0 names, for the call's duration: the
     * value of its <class>_allowed_operations enum, or NULL. */
    const char *operation;
    const char *const *errors; /* declared ones, NULL-terminated */
    size_t args_size;          /* of struct api_<class>_<message>_args */
    const char *code_file;     /* "xapi/api/vm_lifecycle.c" */
    const char *doc, *since;
};

struct error_info { const char *code; const char *const *params; unsigned n_params; };
struct alert_info { const char *name; int priority; }; /* XenAPI messages: VM_STARTED 5 */

extern const struct class_info model_classes[];
extern const unsigned model_n_classes;
extern const struct message_info model_messages[];
extern const unsigned model_n_messages;
extern const struct error_info model_errors[];
extern const unsigned model_n_errors;
extern const struct alert_info model_alerts[];
extern const unsigned model_n_alerts;
extern const unsigned model_schema_version;

/* Look-ups (db/model.c); all NULL or -1 when not found; names are case-sensitive but where said. */
const struct class_info *model_class(const char *name);
const struct class_info *model_class_nocase(const char *name, size_t len);
int model_field(const struct class_info *, const char *name);
const struct message_info *model_message(const struct class_info *, const char *name);
/* "VM.start", "VM_start": splits and finds the class; *rest_r is the name after it. */
const struct class_info *model_split(const char *wire_name, const char **rest_r);
bool model_enum_has(const struct enum_info *, const char *value);
const struct error_info *model_error(const char *code);
/* Fills text with "pool-admin, vm-operator": the names in a mask. */
struct text;
void model_roles_text(unsigned roles, struct text *);

#endif
