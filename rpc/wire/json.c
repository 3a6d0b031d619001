/* The only file that knows cJSON. (cJSON_Parse notes the place of an error in a static variable, without
 * a lock; nobody reads it.) */
#include "rpc/wire/json.h"

#include <cjson/cJSON.h>

#include <math.h>
#include <stdlib.h>

#include "rpc/wire/json_guard.h"
#include "rpc/wire/json_parse.h"

struct parse {
    struct arena *arena;
    struct json_numbers numbers;
    size_t next_number;
    const char *reason;
};

static bool refuse(struct parse *p, const char *reason)
{
    p->reason = reason;
    return false;
}

static void drop_tree(cJSON **tree) { cJSON_Delete(*tree); }

/* --- equal names -------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    const struct member *const *x = a, *const *y = b;
    int order = strcmp((*x)->name, (*y)->name);

    if (order != 0)
        return order;
    return *x < *y ? -1 : *x > *y; /* as they stood */
}

/* Keeps the last of equal names; returns how many are left. Names are unset to drop a member. */
static size_t drop_earlier(struct arena *a, struct member *members, size_t n)
{
    struct member **sorted = arena_calloc(a, n, sizeof(struct member *));
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        sorted[i] = &members[i];
    qsort(sorted, n, sizeof(struct member *), by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            sorted[i - 1]->name_flags = UINT32_MAX; /* marked; the name is still compared with */
    for (size_t i = 0; i < n; i++)
        if (members[i].name_flags != UINT32_MAX)
            members[kept++] = members[i];
    return kept;
}

/* --- the tree ----------------------------------------------------------------------------------- */

static bool convert(struct parse *p, const cJSON *node, struct value *value_r);

static size_t count_children(const cJSON *node)
{
    size_t n = 0;

    for (const cJSON *child = node->child; child != NULL; child = child->next)
        n++;
    return n;
}

static bool convert_array(struct parse *p, const cJSON *node, struct value *value_r)
{
    size_t n = count_children(node), i = 0;
    struct value *items = arena_calloc(p->arena, n, sizeof(*items));

    for (const cJSON *child = node->child; child != NULL; child = child->next)
        if (!convert(p, child, &items[i++]))
            return false;
    *value_r = value_set(items, n);
    return true;
}

static bool convert_object(struct parse *p, const cJSON *node, struct value *value_r)
{
    size_t n = count_children(node), i = 0;
    struct member *members = arena_calloc(p->arena, n, sizeof(*members));

    for (const cJSON *child = node->child; child != NULL; child = child->next, i++) {
        members[i].name_len = (uint32_t)strlen(child->string);
        members[i].name = arena_memdup(p->arena, child->string, members[i].name_len + 1u);
        if (!convert(p, child, &members[i].value))
            return false;
    }
    *value_r = value_map(members, n > 1 ? drop_earlier(p->arena, members, n) : n);
    return true;
}

static bool convert_number(struct parse *p, const cJSON *node, struct value *value_r)
{
    if (p->next_number == p->numbers.n)
        return refuse(p, "it is not JSON"); /* cJSON saw a number where the guard saw none */
    const struct json_number *number = &p->numbers.items[p->next_number++];
    if (number->integral) {
        *value_r = value_int(number->i);
        return true;
    }
    if (!isfinite(node->valuedouble))
        return refuse(p, "a number is out of range");
    *value_r = value_float(node->valuedouble);
    return true;
}

static bool convert(struct parse *p, const cJSON *node, struct value *value_r)
{
    if (cJSON_IsString(node)) {
        size_t len = strlen(node->valuestring);
        *value_r = value_string_len(arena_memdup(p->arena, node->valuestring, len + 1), len);
        return true;
    }
    if (cJSON_IsNumber(node))
        return convert_number(p, node, value_r);
    if (cJSON_IsObject(node))
        return convert_object(p, node, value_r);
    if (cJSON_IsArray(node))
        return convert_array(p, node, value_r);
    if (cJSON_IsBool(node))
        *value_r = value_bool(cJSON_IsTrue(node));
    else
        *value_r = (struct value){ .kind = VALUE_NIL };
    return true;
}

bool json_parse_nested(struct arena *a, const char *bytes, size_t len, unsigned max_depth, struct value *value_r,
                       const char **reason_r)
{
    struct parse p = { .arena = a };

    if (!json_guard(a, bytes, len, max_depth, &p.numbers, reason_r))
        return false;
    CLEANUP(drop_tree) cJSON *tree = cJSON_ParseWithLength(bytes, len);
    if (tree == NULL)
        p.reason = "it is not JSON";
    else if (convert(&p, tree, value_r) && p.next_number != p.numbers.n)
        p.reason = "it is not JSON";
    *reason_r = p.reason;
    return p.reason == NULL;
}

bool json_parse(struct arena *a, const char *bytes, size_t len, struct value *value_r, const char **reason_r)
{
    return json_parse_nested(a, bytes, len, JSON_DEPTH_MAX, value_r, reason_r);
}
