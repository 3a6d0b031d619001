/* The only file that knows xmlrpc-c. It sees what xmlrpc_guard lets through: strings (some of them
 * marked as something else), arrays, structs and nils. */
#include "rpc/wire/xmlrpc.h"

#include <xmlrpc-c/base.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "rpc/base/datetime.h"
#include "rpc/wire/xmlrpc_guard.h"

void xmlrpc_setup(size_t max_bytes)
{
    xmlrpc_env env;

    xmlrpc_env_init(&env);
    xmlrpc_init(&env);
    xmlrpc_env_clean(&env);
    /* The guard counts nesting itself. Marks make its copy up to a few times longer than the document. */
    xmlrpc_limit_set(XMLRPC_NESTING_LIMIT_ID, XMLRPC_DEPTH_MAX + 8);
    xmlrpc_limit_set(XMLRPC_XML_SIZE_LIMIT_ID, max_bytes * 4 + 4096);
}

/* One parse: what the conversion of its tree needs. */
struct parse {
    struct arena *arena;
    xmlrpc_env env;
    struct xmlrpc_guarded guarded;
    const char *reason;
};

static bool refuse(struct parse *p, const char *reason)
{
    if (p->reason == NULL)
        p->reason = reason;
    return false;
}

/* True unless xmlrpc-c has reported a fault. */
static bool sound(struct parse *p)
{
    return !p->env.fault_occurred || refuse(p, arena_strdup(p->arena, p->env.fault_string));
}

static void drop_value(xmlrpc_value **v)
{
    if (*v != NULL)
        xmlrpc_DECREF(*v);
}
#define AUTO_XML CLEANUP(drop_value) xmlrpc_value *

static void drop_string(const char **s) { free((void *)(uintptr_t)*s); } /* xmlrpc-c's malloc */

/* --- scalars ------------------------------------------------------------------------------------ */

static void trim(const char **s, size_t *len)
{
    while (*len > 0 && strchr(" \t\r\n", **s) != NULL) {
        ++*s;
        --*len;
    }
    while (*len > 0 && strchr(" \t\r\n", (*s)[*len - 1]) != NULL)
        --*len;
}

static bool read_int(const char *s, size_t len, struct value *value_r)
{
    bool negative = len > 0 && *s == '-';
    size_t i = len > 0 && (*s == '-' || *s == '+') ? 1 : 0;
    uint64_t n = 0;

    if (i == len)
        return false;
    for (; i < len; i++) {
        if (s[i] < '0' || s[i] > '9' || __builtin_mul_overflow(n, 10u, &n) ||
            __builtin_add_overflow(n, (uint64_t)(s[i] - '0'), &n))
            return false;
    }
    if (n > (uint64_t)INT64_MAX + negative)
        return false;
    *value_r = value_int((int64_t)(negative ? -n : n));
    return true;
}

static bool read_float(const char *s, size_t len, struct value *value_r)
{
    char copy[64], *end;

    if (len == 0 || len >= sizeof(copy))
        return false;
    memcpy(copy, s, len);
    copy[len] = '\0';
    if (strpbrk(copy, "xXpP(") != NULL) /* strtod's hexadecimal and nan(…) */
        return false;
    double f = strtod(copy, &end);
    if (end != copy + len || (isinf(f) && strpbrk(copy, "iI") == NULL))
        return false;
    *value_r = value_float(f);
    return true;
}

static bool read_bool(const char *s, size_t len, struct value *value_r)
{
    if (len != 1 || (*s != '0' && *s != '1'))
        return false;
    *value_r = value_bool(*s == '1');
    return true;
}

static bool read_date(const char *s, size_t len, struct value *value_r)
{
    int64_t epoch;

    if (!datetime_parse(s, len, &epoch))
        return false;
    *value_r = value_datetime(epoch);
    return true;
}

static bool read_scalar(struct parse *p, char kind, const char *s, size_t len, struct value *value_r)
{
    static const struct {
        char kind;
        bool (*read)(const char *, size_t, struct value *);
        const char *what;
    } readers[] = {
        { 'i', read_int, "an integer of 64 bits" },
        { 'f', read_float, "a floating point number" },
        { 'b', read_bool, "a boolean, 0 or 1" },
        { 't', read_date, "a date and time" },
    };

    trim(&s, &len);
    for (unsigned i = 0; i < ARRAY_LEN(readers); i++)
        if (readers[i].kind == kind)
            return readers[i].read(s, len, value_r) ||
                   refuse(p, arena_printf(p->arena, "'%.*s' is not %s", len < 64 ? (int)len : 64, s, readers[i].what));
    return refuse(p, "unknown type");
}

/* --- the tree ----------------------------------------------------------------------------------- */

static const char *read_text(struct parse *p, const xmlrpc_value *v, size_t *len_r, char *kind_r)
{
    CLEANUP(drop_string) const char *s = NULL;
    size_t len = 0;

    *len_r = 0;
    *kind_r = 0;
    xmlrpc_read_string_lp(&p->env, v, &len, &s);
    if (!sound(p))
        return "";
    return xmlrpc_guard_text(p->arena, s, len, len_r, kind_r);
}

static bool convert(struct parse *p, xmlrpc_value *v, struct value *value_r);

static bool convert_string(struct parse *p, const xmlrpc_value *v, struct value *value_r)
{
    char kind;
    size_t len;
    const char *s = read_text(p, v, &len, &kind);

    if (p->reason != NULL)
        return false;
    if (kind != 0)
        return read_scalar(p, kind, s, len, value_r);
    *value_r = value_string_len(s, len);
    return true;
}

static bool convert_array(struct parse *p, xmlrpc_value *v, struct value *value_r)
{
    int n = xmlrpc_array_size(&p->env, v);

    if (!sound(p))
        return false;
    struct value *items = arena_calloc(p->arena, (size_t)n, sizeof(*items));
    for (int i = 0; i < n; i++) {
        AUTO_XML item = NULL;
        xmlrpc_array_read_item(&p->env, v, (unsigned)i, &item);
        if (!sound(p) || !convert(p, item, &items[i]))
            return false;
    }
    *value_r = value_set(items, (size_t)n);
    return true;
}

/* xmlrpc-c has replaced members of equal name already: the last counts. */
static bool convert_struct(struct parse *p, xmlrpc_value *v, struct value *value_r)
{
    int n = xmlrpc_struct_size(&p->env, v);

    if (!sound(p))
        return false;
    struct member *members = arena_calloc(p->arena, (size_t)n, sizeof(*members));
    for (int i = 0; i < n; i++) {
        AUTO_XML name = NULL;
        AUTO_XML item = NULL;
        char kind;
        size_t len;

        xmlrpc_struct_read_member(&p->env, v, (unsigned)i, &name, &item);
        if (!sound(p))
            return false;
        members[i].name = read_text(p, name, &len, &kind);
        members[i].name_len = (uint32_t)len;
        if (p->reason != NULL || !convert(p, item, &members[i].value))
            return false;
    }
    *value_r = value_map(members, (size_t)n);
    return true;
}

static bool convert(struct parse *p, xmlrpc_value *v, struct value *value_r)
{
    xmlrpc_type type = xmlrpc_value_type(v);

    if (type == XMLRPC_TYPE_STRING)
        return convert_string(p, v, value_r);
    if (type == XMLRPC_TYPE_ARRAY)
        return convert_array(p, v, value_r);
    if (type == XMLRPC_TYPE_STRUCT)
        return convert_struct(p, v, value_r);
    if (type != XMLRPC_TYPE_NIL)
        return refuse(p, "unexpected type of value"); /* the guard lets none through */
    *value_r = (struct value){ .kind = VALUE_NIL };
    return true;
}

/* --- documents ---------------------------------------------------------------------------------- */

static void parse_release(struct parse *p)
{
    xmlrpc_env_clean(&p->env);
    text_release(&p->guarded.copy);
}

static bool parse_start(struct parse *p, const char *bytes, size_t len, const struct xmlrpc_limits *limits)
{
    xmlrpc_env_init(&p->env);
    return xmlrpc_guard(p->arena, bytes, len, limits, &p->guarded, &p->reason);
}

static bool parse_call(struct parse *p, const char **method_r, struct value *params_r)
{
    CLEANUP(drop_string) const char *method = NULL;
    AUTO_XML params = NULL;
    size_t len;
    char kind;

    xmlrpc_parse_call(&p->env, p->guarded.bytes, p->guarded.len, &method, &params);
    if (p->env.fault_occurred) {
        method = NULL; /* left undefined by a failed parse */
        params = NULL;
        return sound(p);
    }
    const char *name = xmlrpc_guard_text(p->arena, method, strlen(method), &len, &kind);
    trim(&name, &len);
    if (len == 0)
        return refuse(p, "the method has no name");
    *method_r = arena_strndup(p->arena, name, len);
    return convert(p, params, params_r);
}

bool xmlrpc_parse_request(struct arena *a, const char *bytes, size_t len, const char **method_r,
                          struct value *params_r, const char **reason_r)
{
    CLEANUP(parse_release) struct parse p = { .arena = a };
    bool ok = parse_start(&p, bytes, len, &xmlrpc_limits_call) && parse_call(&p, method_r, params_r);

    *reason_r = p.reason;
    return ok;
}

static bool parse_result(struct parse *p, struct value *value_r)
{
    CLEANUP(drop_string) const char *fault_text = NULL;
    AUTO_XML result = NULL;
    int fault_code = 0;

    xmlrpc_parse_response2(&p->env, p->guarded.bytes, p->guarded.len, &result, &fault_code, &fault_text);
    if (p->env.fault_occurred) {
        fault_text = NULL; /* left undefined by a failed parse */
        result = NULL;
        return sound(p);
    }
    if (fault_text != NULL) /* cannot be: the guard has made a value of it */
        return refuse(p, "a fault");
    return convert(p, result, value_r);
}

/* {faultCode, faultString} as {Status: Failure, ErrorDescription: [FAULT, text]} */
static struct value failure_of_fault(struct arena *a, const struct value *fault)
{
    struct value_list description = { 0 };
    struct value_dict answer = { 0 };

    value_list_add(a, &description, value_string("FAULT"));
    value_list_add(a, &description, value_string(value_get_string(fault, "faultString", "")));
    value_dict_add(a, &answer, "Status", value_string("Failure"));
    value_dict_add(a, &answer, "ErrorDescription", value_list_value(&description));
    return value_dict_value(&answer);
}

bool xmlrpc_parse_answer(struct arena *a, const char *bytes, size_t len, struct value *value_r, const char **reason_r)
{
    CLEANUP(parse_release) struct parse p = { .arena = a };
    bool ok = parse_start(&p, bytes, len, &xmlrpc_limits_answer) && parse_result(&p, value_r);

    *reason_r = p.reason;
    if (ok && p.guarded.fault)
        *value_r = failure_of_fault(a, value_r);
    return ok;
}

bool xmlrpc_parse_fragment(struct arena *a, const char *bytes, size_t len, struct value *value_r)
{
    CLEANUP(parse_release) struct parse p = { .arena = a };
    AUTO_XML value = NULL;

    if (!parse_start(&p, bytes, len, &xmlrpc_limits_answer))
        return false;
    xmlrpc_parse_value_xml(&p.env, p.guarded.bytes, p.guarded.len, &value);
    if (p.env.fault_occurred) {
        value = NULL; /* left undefined by a failed parse */
        return false;
    }
    return convert(&p, value, value_r);
}
