/* One immutable tree of values: what comes off the wire, what handlers return, what rows hold.
 *
 * A struct value is 16 bytes and is passed by pointer; sets and maps point at contiguous arrays.
 * Who owns the bytes is said by the place: an arena (requests, results), or the one memory block of
 * a row (db/store.h). Strings are UTF-8 without NUL, and are also NUL-terminated.
 *
 * References and enums are strings. A datetime is seconds since the epoch, UTC. */
#ifndef RPC_BASE_VALUE_H
#define RPC_BASE_VALUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"

enum value_kind {
    VALUE_VOID,     /* no value; "" on the wire */
    VALUE_STRING,   /* s, len */
    VALUE_INT,      /* i: a XenAPI int (int64); a decimal string in XML-RPC, a number in JSON */
    VALUE_INT32,    /* i: one of the few that are tagged <i4> in XML-RPC (valid_ref_counts) */
    VALUE_BOOL,     /* i: 0 or 1 */
    VALUE_FLOAT,    /* f */
    VALUE_DATETIME, /* i: epoch seconds */
    VALUE_SET,      /* items, len */
    VALUE_MAP,      /* members, len: maps and structs alike */
    VALUE_RECORD,   /* record: a whole database object (see struct record) */
    VALUE_NIL,      /* <nil/>, JSON null: only ever in input */
};

#define VALUE_PLAIN 1u /* flag of a string: holds no byte that XML or JSON must escape */

struct value {
    uint8_t kind;
    uint8_t flags;
    uint32_t len; /* bytes of a string, items of a set, members of a map */
    union {
        int64_t i;
        double f;
        const char *s;
        const struct value *items;
        const struct member *members;
        const struct record *record;
    };
};

struct member {
    const char *name; /* NUL-terminated; UTF-8 */
    uint32_t name_len;
    uint32_t name_flags; /* VALUE_PLAIN */
    struct value value;
};

/* What all records of a class have in common. One per class, const, lives for ever. */
struct record_shape {
    const char *class_name; /* "VM" */
    unsigned n_fields;
    const char *const *names;     /* "power_state" */
    const char *const *xml_open;  /* "<member><name>power_state</name><value>" */
    const char *const *json_open; /* "\"power_state\":" */
    const uint8_t *published;     /* 0: internal field, never on the wire */
};

/* A serialised snapshot of a record in one wire format; counted, immutable. */
struct blob {
    atomic_uint refs;
    uint32_t len;
    char bytes[];
};

#define RECORD_FORMATS 2 /* 0 XML-RPC, 1 JSON */

/* A database object as the wire sees it; embedded in struct row. */
struct record {
    const struct record_shape *shape;
    const struct value *fields;                     /* shape->n_fields of them */
    _Atomic(struct blob *) snapshots[RECORD_FORMATS]; /* made on first use by rpc/wire, freed with the row */
};

/* Constructors; strings are NOT copied: the caller's memory must live as long as the value. */
struct value value_string(const char *);
struct value value_string_len(const char *, size_t len);
struct value value_int(int64_t);
struct value value_int32(int32_t);
struct value value_bool(bool);
struct value value_float(double);
struct value value_datetime(int64_t epoch);
struct value value_void(void);
struct value value_record(const struct record *);
struct value value_set(const struct value *items, size_t n);
struct value value_map(const struct member *members, size_t n);
struct member member_of(const char *name, struct value);

/* Building sets and maps that grow, in an arena. Zero-initialise, then add, then take the value. */
struct value_list { struct value *items; unsigned n, cap; };
struct value_dict { struct member *members; unsigned n, cap; };
void value_list_add(struct arena *, struct value_list *, struct value);
void value_dict_add(struct arena *, struct value_dict *, const char *name, struct value); /* name not copied; keeps duplicates */
void value_dict_set(struct arena *, struct value_dict *, const char *name, struct value); /* replaces an equal name */
struct value value_list_value(const struct value_list *);
struct value value_dict_value(const struct value_dict *);

/* Looking in. value_get gives NULL where 'v' is no map or record, or has no such member. */
const struct value *value_get(const struct value *v, const char *name);
const char *value_get_string(const struct value *v, const char *name, const char *fallback);
int64_t value_get_int(const struct value *v, const char *name, int64_t fallback);   /* also decimal strings */
bool value_get_bool(const struct value *v, const char *name, bool fallback);
double value_get_float(const struct value *v, const char *name, double fallback);

bool value_equal(const struct value *, const struct value *);  /* maps: order does not matter */
bool value_set_has(const struct value *set, const char *item); /* a set of strings */

/* Deep copy into an arena. A VALUE_RECORD becomes a VALUE_MAP of its published fields. */
struct value value_dup(struct arena *, const struct value *);

/* Deep size and deep copy into one block: rows are made so. value_pack_size gives the bytes needed
 * besides the struct value itself; value_pack copies and advances *block. Sets VALUE_PLAIN flags. */
size_t value_pack_size(const struct value *);
struct value value_pack(const struct value *, char **block);

/* True where the string has no '<' '>' '&' '"' '\\' and no control byte: it needs no escaping. */
bool text_is_plain(const char *, size_t len);

#endif
