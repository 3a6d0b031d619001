/* One immutable version of one object: a single block of memory, reference-counted.
 *
 * (1) A row never changes once published; an update makes a new row.
 * (2) fields[] has class->n_fields entries, in the order of the class's field table; field 0 is uuid.
 *     Inverse sets (VM.VBDs) are materialised by the store.
 * (3) 'generation' is the commit that made this version, 'created' the commit that made the object. */
#ifndef DB_ROW_H
#define DB_ROW_H

#include <stdatomic.h>

#include "db/model.h"
#include "rpc/base/arena.h"

struct row {
    struct record record; /* first: what the wire serialises; record.fields == fields */
    atomic_uint refs;
    const struct class_info *class;
    const char *ref; /* "OpaqueRef:…", in the same block */
    uint64_t generation, created;
    struct value *fields;
};

/* A row with one reference, the caller's. 'fields' are class->n_fields values; all is copied. */
struct row *row_new(const struct class_info *, const char *ref, uint64_t created, uint64_t generation,
                    const struct value *fields);
struct row *row_ref(struct row *);
void row_unref(struct row *); /* NULL is fine */
/* Takes a reference that the arena gives back when it is freed. */
const struct row *row_hold(struct arena *, struct row *);
/* Gives n references (the caller's) to the arena, with one hook for all; 'rows' must live as long. */
void row_hold_list(struct arena *, struct row *const *rows, unsigned n);

/* Typed reads; the field's type must fit (CHECK). Pointers live as long as the row. */
const char *row_string(const struct row *, unsigned field);  /* strings, refs, enums */
int64_t row_int(const struct row *, unsigned field);         /* int, datetime */
bool row_bool(const struct row *, unsigned field);
double row_float(const struct row *, unsigned field);
const struct value *row_value(const struct row *, unsigned field);
/* A map field's entry, or fallback. */
const char *row_map(const struct row *, unsigned field, const char *key, const char *fallback);

#endif
