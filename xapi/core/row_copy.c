#include "xapi/core/row_copy.h"

#include <string.h>

static bool skipped(const struct row *source, unsigned field, const unsigned *skip)
{
    const struct field_info *info = &source->class->fields[field];
    if (field == 0 || (info->flags & FIELD_INVERSE) || strcmp(info->name, "current_operations") == 0 || strcmp(info->name, "allowed_operations") == 0)
        return true;
    for (; *skip != 0; skip++)
        if (*skip == field)
            return true;
    return false;
}

struct error *row_copy(struct api_call *c, struct txn *txn, const struct row *source, const unsigned *skip,
                       const struct field_value *changes, unsigned n_changes, const char **ref_r)
{
    struct field_value *fields = arena_calloc(c->arena, source->class->n_fields + n_changes, sizeof *fields);
    unsigned n = 0;
    for (unsigned i = 0; i < source->class->n_fields; i++) {
        bool changed = false;
        for (unsigned k = 0; k < n_changes; k++)
            changed |= changes[k].field == i;
        if (!changed && !skipped(source, i, skip))
            fields[n++] = (struct field_value){ i, *row_value(source, i) };
    }
    for (unsigned k = 0; k < n_changes; k++)
        fields[n++] = changes[k];
    return txn_create(txn, source->class->id, NULL, NULL, fields, n, ref_r);
}
