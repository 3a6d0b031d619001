#include "db/row.h"

#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

struct row *row_new(const struct class_info *class, const char *ref, uint64_t created, uint64_t generation,
                    const struct value *fields)
{
    size_t size = sizeof(struct row) + class->n_fields * sizeof(struct value);
    size_t ref_size = strlen(ref) + 1;
    for (unsigned i = 0; i < class->n_fields; i++)
        size += value_pack_size(&fields[i]);

    struct row *row = xrealloc(NULL, size + ref_size); /* every byte that is read gets written below */
    memset(row, 0, sizeof(*row));
    row->fields = (struct value *)(row + 1);
    char *block = (char *)(row->fields + class->n_fields);
    for (unsigned i = 0; i < class->n_fields; i++)
        row->fields[i] = value_pack(&fields[i], &block);
    CHECK(block <= (char *)row + size);
    memcpy((char *)row + size, ref, ref_size);

    row->record.shape = class->shape;
    row->record.fields = row->fields;
    atomic_init(&row->refs, 1);
    row->class = class;
    row->ref = (char *)row + size;
    row->created = created;
    row->generation = generation;
    return row;
}

struct row *row_ref(struct row *row)
{
    atomic_fetch_add_explicit(&row->refs, 1, memory_order_relaxed);
    return row;
}

static void snapshot_drop(struct blob *blob)
{
    if (blob != NULL && atomic_fetch_sub_explicit(&blob->refs, 1, memory_order_acq_rel) == 1)
        xfree(blob);
}

void row_unref(struct row *row)
{
    if (row == NULL || atomic_fetch_sub_explicit(&row->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < RECORD_FORMATS; i++)
        snapshot_drop(atomic_load_explicit(&row->record.snapshots[i], memory_order_relaxed));
    xfree(row);
}

static void row_unref_hook(void *row) { row_unref(row); }

const struct row *row_hold(struct arena *arena, struct row *row)
{
    arena_on_free(arena, row_unref_hook, row_ref(row));
    return row;
}

struct row_hold {
    struct row *const *rows;
    unsigned n;
};

static void row_hold_release(void *arg)
{
    const struct row_hold *hold = arg;
    for (unsigned i = 0; i < hold->n; i++)
        row_unref(hold->rows[i]);
}

void row_hold_list(struct arena *arena, struct row *const *rows, unsigned n)
{
    if (n == 0)
        return;
    struct row_hold *hold = arena_alloc(arena, sizeof(*hold));
    *hold = (struct row_hold){ .rows = rows, .n = n };
    arena_on_free(arena, row_hold_release, hold);
}

const struct value *row_value(const struct row *row, unsigned field)
{
    CHECK(field < row->class->n_fields);
    return &row->fields[field];
}

const char *row_string(const struct row *row, unsigned field)
{
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_STRING);
    return v->s;
}

int64_t row_int(const struct row *row, unsigned field)
{
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_INT || v->kind == VALUE_DATETIME);
    return v->i;
}

bool row_bool(const struct row *row, unsigned field)
{
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_BOOL);
    return v->i != 0;
}

double row_float(const struct row *row, unsigned field)
{
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_FLOAT);
    return v->f;
}

const char *row_map(const struct row *row, unsigned field, const char *key, const char *fallback)
{
    const struct value *v = row_value(row, field);
    CHECK(v->kind == VALUE_MAP);
    for (uint32_t i = 0; i < v->len; i++) {
        const struct member *m = &v->members[i];
        if (strcmp(m->name, key) == 0)
            return m->value.kind == VALUE_STRING ? m->value.s : fallback;
    }
    return fallback;
}
