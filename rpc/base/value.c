/* Making values, looking into them, comparing them. Copies are in value_copy.c. */
#include "rpc/base/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

struct value value_string_len(const char *s, size_t len)
{
    CHECK(len <= UINT32_MAX);
    return (struct value){ .kind = VALUE_STRING, .len = (uint32_t)len, .s = s };
}

struct value value_string(const char *s)
{
    return s != NULL ? value_string_len(s, strlen(s)) : value_string_len("", 0);
}
struct value value_int(int64_t i) { return (struct value){ .kind = VALUE_INT, .i = i }; }
struct value value_int32(int32_t i) { return (struct value){ .kind = VALUE_INT32, .i = i }; }
struct value value_bool(bool b) { return (struct value){ .kind = VALUE_BOOL, .i = b }; }
struct value value_float(double f) { return (struct value){ .kind = VALUE_FLOAT, .f = f }; }
struct value value_datetime(int64_t epoch) { return (struct value){ .kind = VALUE_DATETIME, .i = epoch }; }
struct value value_void(void) { return (struct value){ .kind = VALUE_VOID }; }
struct value value_record(const struct record *r) { return (struct value){ .kind = VALUE_RECORD, .record = r }; }

struct value value_set(const struct value *items, size_t n)
{
    CHECK(n <= UINT32_MAX);
    return (struct value){ .kind = VALUE_SET, .len = (uint32_t)n, .items = items };
}

struct value value_map(const struct member *members, size_t n)
{
    CHECK(n <= UINT32_MAX);
    return (struct value){ .kind = VALUE_MAP, .len = (uint32_t)n, .members = members };
}

struct member member_of(const char *name, struct value v)
{
    size_t len = strlen(name);

    CHECK(len <= UINT32_MAX);
    return (struct member){ .name = name, .name_len = (uint32_t)len, .value = v };
}

/* Twice the room, in the arena; the old array stays behind. */
static void *array_grow(struct arena *a, const void *from, unsigned n, unsigned *cap, size_t size)
{
    CHECK(*cap <= UINT32_MAX / 2);
    *cap = *cap == 0 ? 8 : *cap * 2;
    void *to = arena_calloc(a, *cap, size);
    if (n > 0)
        memcpy(to, from, n * size);
    return to;
}

void value_list_add(struct arena *a, struct value_list *l, struct value v)
{
    if (l->n == l->cap)
        l->items = array_grow(a, l->items, l->n, &l->cap, sizeof(*l->items));
    l->items[l->n++] = v;
}

void value_dict_add(struct arena *a, struct value_dict *d, const char *name, struct value v)
{
    if (d->n == d->cap)
        d->members = array_grow(a, d->members, d->n, &d->cap, sizeof(*d->members));
    d->members[d->n++] = member_of(name, v);
}

void value_dict_set(struct arena *a, struct value_dict *d, const char *name, struct value v)
{
    for (unsigned i = 0; i < d->n; i++) {
        if (strcmp(d->members[i].name, name) == 0) {
            d->members[i].value = v;
            return;
        }
    }
    value_dict_add(a, d, name, v);
}

struct value value_list_value(const struct value_list *l) { return value_set(l->items, l->n); }
struct value value_dict_value(const struct value_dict *d) { return value_map(d->members, d->n); }

/* The first of equal names; of a record only what is published. */
const struct value *value_get(const struct value *v, const char *name)
{
    if (v == NULL)
        return NULL;
    if (v->kind == VALUE_MAP) {
        size_t len = strlen(name);
        for (uint32_t i = 0; i < v->len; i++) {
            const struct member *m = &v->members[i];
            if (m->name_len == len && memcmp(m->name, name, len) == 0)
                return &m->value;
        }
    }
    if (v->kind == VALUE_RECORD) {
        const struct record_shape *shape = v->record->shape;
        for (unsigned i = 0; i < shape->n_fields; i++)
            if (shape->published[i] && strcmp(shape->names[i], name) == 0)
                return &v->record->fields[i];
    }
    return NULL;
}

const char *value_get_string(const struct value *v, const char *name, const char *fallback)
{
    const struct value *m = value_get(v, name);

    return m != NULL && m->kind == VALUE_STRING ? m->s : fallback;
}

int64_t value_get_int(const struct value *v, const char *name, int64_t fallback)
{
    const struct value *m = value_get(v, name);
    int64_t i;

    if (m == NULL)
        return fallback;
    if (m->kind == VALUE_INT || m->kind == VALUE_INT32)
        return m->i;
    return m->kind == VALUE_STRING && text_to_int(m->s, &i) ? i : fallback;
}

bool value_get_bool(const struct value *v, const char *name, bool fallback)
{
    const struct value *m = value_get(v, name);

    return m != NULL && m->kind == VALUE_BOOL ? m->i != 0 : fallback;
}

double value_get_float(const struct value *v, const char *name, double fallback)
{
    const struct value *m = value_get(v, name);

    if (m == NULL)
        return fallback;
    if (m->kind == VALUE_INT || m->kind == VALUE_INT32)
        return (double)m->i;
    return m->kind == VALUE_FLOAT ? m->f : fallback;
}

static bool bytes_equal(const char *a, uint32_t a_len, const char *b, uint32_t b_len)
{
    return a_len == b_len && (a_len == 0 || memcmp(a, b, a_len) == 0);
}

static bool member_equal(const struct member *a, const struct member *b)
{
    return bytes_equal(a->name, a->name_len, b->name, b->name_len) && value_equal(&a->value, &b->value);
}

static int member_order(const void *left, const void *right)
{
    const struct member *a = *(const struct member *const *)left, *b = *(const struct member *const *)right;
    int order = strcmp(a->name, b->name);

    return order != 0 ? order : (a > b) - (a < b); /* equal names stay in their order */
}

static const struct member **members_sorted(const struct value *map)
{
    const struct member **sorted = xcalloc(map->len, sizeof(*sorted));

    for (uint32_t i = 0; i < map->len; i++)
        sorted[i] = &map->members[i];
    qsort(sorted, map->len, sizeof(*sorted), member_order);
    return sorted;
}

static bool map_equal(const struct value *a, const struct value *b)
{
    uint32_t same = 0;

    if (a->len != b->len)
        return false;
    while (same < a->len && member_equal(&a->members[same], &b->members[same]))
        same++;
    if (same == a->len) /* the usual case: the same order */
        return true;
    AUTO_FREE const struct member **left = members_sorted(a), **right = members_sorted(b);
    for (uint32_t i = 0; i < a->len; i++)
        if (!member_equal(left[i], right[i]))
            return false;
    return true;
}

static bool set_equal(const struct value *a, const struct value *b)
{
    if (a->len != b->len)
        return false;
    for (uint32_t i = 0; i < a->len; i++)
        if (!value_equal(&a->items[i], &b->items[i]))
            return false;
    return true;
}

static bool record_equal(const struct value *a, const struct value *b)
{
    const struct record *left = a->record, *right = b->record;

    if (left == right)
        return true;
    if (left->shape != right->shape)
        return false;
    for (unsigned i = 0; i < left->shape->n_fields; i++)
        if (left->shape->published[i] && !value_equal(&left->fields[i], &right->fields[i]))
            return false;
    return true;
}

bool value_equal(const struct value *a, const struct value *b)
{
    if (a->kind != b->kind)
        return false;
    switch ((enum value_kind)a->kind) {
    case VALUE_VOID:
    case VALUE_NIL:
        return true;
    case VALUE_STRING:
        return bytes_equal(a->s, a->len, b->s, b->len);
    case VALUE_INT:
    case VALUE_INT32:
    case VALUE_BOOL:
    case VALUE_DATETIME:
        return a->i == b->i;
    case VALUE_FLOAT:
        return a->f == b->f || (isnan(a->f) && isnan(b->f));
    case VALUE_SET:
        return set_equal(a, b);
    case VALUE_MAP:
        return map_equal(a, b);
    case VALUE_RECORD:
        return record_equal(a, b);
    }
    BUG("not a kind of value");
}

bool value_set_has(const struct value *set, const char *item)
{
    size_t len = strlen(item);

    if (set == NULL || set->kind != VALUE_SET)
        return false;
    for (uint32_t i = 0; i < set->len; i++) {
        const struct value *v = &set->items[i];
        if (v->kind == VALUE_STRING && v->len == len && memcmp(v->s, item, len) == 0)
            return true;
    }
    return false;
}
