/* Deep copies of values: one block for each, filled front to back.
 *
 * Everything in the block starts at a multiple of 8, so arrays of values need no padding of their own.
 * The empty string takes no room. Recursion is as deep as the value, which the parsers limit. */
#include "rpc/base/value.h"

#include <string.h>

#include "rpc/base/check.h"

static size_t round_up(size_t n) { return (n + 7) & ~(size_t)7; }

static size_t string_size(uint32_t len) { return len == 0 ? 0 : round_up((size_t)len + 1); }

static unsigned published_count(const struct record_shape *shape)
{
    unsigned n = 0;

    for (unsigned i = 0; i < shape->n_fields; i++)
        n += shape->published[i] != 0;
    return n;
}

static size_t record_size(const struct record *r)
{
    size_t size = published_count(r->shape) * sizeof(struct member);

    for (unsigned i = 0; i < r->shape->n_fields; i++)
        if (r->shape->published[i])
            size += string_size((uint32_t)strlen(r->shape->names[i])) + value_pack_size(&r->fields[i]);
    return size;
}

size_t value_pack_size(const struct value *v)
{
    size_t size;

    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        return string_size(v->len);
    case VALUE_SET:
        size = v->len * sizeof(*v->items);
        for (uint32_t i = 0; i < v->len; i++)
            size += value_pack_size(&v->items[i]);
        return size;
    case VALUE_MAP:
        size = v->len * sizeof(*v->members);
        for (uint32_t i = 0; i < v->len; i++)
            size += string_size(v->members[i].name_len) + value_pack_size(&v->members[i].value);
        return size;
    case VALUE_RECORD:
        return record_size(v->record);
    case VALUE_VOID:
    case VALUE_INT:
    case VALUE_INT32:
    case VALUE_BOOL:
    case VALUE_FLOAT:
    case VALUE_DATETIME:
    case VALUE_NIL:
        return 0;
    }
    BUG("not a kind of value");
}

static void *block_take(char **block, size_t size)
{
    char *p = *block;

    *block += size;
    return p;
}

static const char *string_pack(const char *s, uint32_t len, char **block)
{
    if (len == 0)
        return "";
    char *to = block_take(block, string_size(len));
    memcpy(to, s, len);
    to[len] = '\0';
    return to;
}

static struct member member_pack(const char *name, uint32_t len, const struct value *v, char **block)
{
    return (struct member){
        .name = string_pack(name, len, block),
        .name_len = len,
        .name_flags = text_is_plain(name, len) ? VALUE_PLAIN : 0,
        .value = value_pack(v, block),
    };
}

static struct value set_pack(const struct value *v, char **block)
{
    if (v->len == 0)
        return value_set(NULL, 0);
    struct value *items = block_take(block, v->len * sizeof(*items));
    for (uint32_t i = 0; i < v->len; i++)
        items[i] = value_pack(&v->items[i], block);
    return value_set(items, v->len);
}

static struct value map_pack(const struct value *v, char **block)
{
    if (v->len == 0)
        return value_map(NULL, 0);
    struct member *members = block_take(block, v->len * sizeof(*members));
    for (uint32_t i = 0; i < v->len; i++) {
        const struct member *m = &v->members[i];
        members[i] = member_pack(m->name, m->name_len, &m->value, block);
    }
    return value_map(members, v->len);
}

static struct value record_pack(const struct record *r, char **block)
{
    unsigned n = 0;
    struct member *members = block_take(block, published_count(r->shape) * sizeof(*members));

    for (unsigned i = 0; i < r->shape->n_fields; i++) {
        const char *name = r->shape->names[i];
        if (r->shape->published[i])
            members[n++] = member_pack(name, (uint32_t)strlen(name), &r->fields[i], block);
    }
    return value_map(members, n);
}

struct value value_pack(const struct value *v, char **block)
{
    struct value copy = *v;

    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        copy.s = string_pack(v->s, v->len, block);
        copy.flags = text_is_plain(v->s, v->len) ? VALUE_PLAIN : 0;
        return copy;
    case VALUE_SET:
        return set_pack(v, block);
    case VALUE_MAP:
        return map_pack(v, block);
    case VALUE_RECORD:
        return record_pack(v->record, block);
    case VALUE_VOID:
    case VALUE_INT:
    case VALUE_INT32:
    case VALUE_BOOL:
    case VALUE_FLOAT:
    case VALUE_DATETIME:
    case VALUE_NIL:
        return copy;
    }
    BUG("not a kind of value");
}

struct value value_dup(struct arena *a, const struct value *v)
{
    size_t size = value_pack_size(v);

    if (size == 0) {
        char *nothing = NULL;
        return value_pack(v, &nothing);
    }
    char *block = arena_alloc(a, size), *at = block;
    struct value copy = value_pack(v, &at);
    CHECK((size_t)(at - block) == size);
    return copy;
}
