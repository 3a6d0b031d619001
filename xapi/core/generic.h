/* The accessors that every class has without saying so, interpreted from the tables of db/model.h:
 * get_record, get_all, get_all_records, get_all_records_where, get_by_uuid, get_by_name_label,
 * get_F, set_F, add_to_F, remove_from_F, and for sets of strings add_F and remove_F.
 *
 * An explicit message of the same name (a custom setter) is found first, by method.c. */
#ifndef XAPI_CORE_GENERIC_H
#define XAPI_CORE_GENERIC_H

#include "xapi/core/api_call.h"

enum accessor_kind {
    ACCESSOR_GET_RECORD, ACCESSOR_GET_BY_UUID, ACCESSOR_GET_BY_NAME_LABEL, ACCESSOR_GET_ALL,
    ACCESSOR_GET_ALL_RECORDS, ACCESSOR_GET_ALL_RECORDS_WHERE,
    ACCESSOR_GET, ACCESSOR_SET, ACCESSOR_ADD_TO, ACCESSOR_REMOVE_FROM, ACCESSOR_ADD, ACCESSOR_REMOVE
};

struct accessor {
    enum accessor_kind kind;
    const struct class_info *class;
    const struct field_info *field; /* from ACCESSOR_GET on */
    unsigned field_index;
    unsigned roles;                 /* who may call it */
};

/* 'name' is what follows "VM."; false when the class has no such accessor. */
bool accessor_find(const struct class_info *, const char *name, struct accessor *);
bool accessor_writes(const struct accessor *); /* then it waits for the disk */

/* Its parameters, as those of a message: at most 3. */
#define ACCESSOR_PARAMS_MAX 3
struct accessor_params { struct param_info params[ACCESSOR_PARAMS_MAX]; struct type_info self; unsigned n; };
void accessor_params(const struct accessor *, struct accessor_params *);

/* values: checked by args.c, in the order of accessor_params(). The result lives in c's arena (records
 * point at rows the arena holds). */
NODISCARD struct error *accessor_run(struct api_call *c, const struct accessor *, const struct value *values, struct value *result_r);

/* Every method there is: "VM.start", "VM.get_record", in the order of classes. */
struct generic_method {
    const char *name;
    unsigned roles;
    const struct message_info *message; /* NULL for an accessor */
    const struct field_info *field;     /* of an accessor of one field, else NULL */
};
void generic_each_method(struct arena *, void (*fn)(void *ctx, const struct generic_method *), void *ctx);

#endif
