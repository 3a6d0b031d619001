/* Values as JSON, straight into a buffer; compact. */
#include "rpc/wire/json.h"

#include "rpc/base/datetime.h"
#include "rpc/wire/record_plan.h"
#include "rpc/wire/value_writer.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define U(digits) { "\\u00" digits, 6 }
static const struct escape escapes[256] = {
    U("00"), U("01"), U("02"), U("03"), U("04"), U("05"), U("06"), U("07"),
    { "\\b", 2 }, { "\\t", 2 }, { "\\n", 2 }, U("0b"), { "\\f", 2 }, { "\\r", 2 }, U("0e"), U("0f"),
    U("10"), U("11"), U("12"), U("13"), U("14"), U("15"), U("16"), U("17"),
    U("18"), U("19"), U("1a"), U("1b"), U("1c"), U("1d"), U("1e"), U("1f"),
    ['"'] = { "\\\"", 2 },
    ['\\'] = { "\\\\", 2 },
};

static inline unsigned special(const char *p)
{
#if defined(__SSE2__)
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i bad = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x); /* unsigned x <= 0x1f */

    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));
    return (unsigned)_mm_movemask_epi8(bad);
#else
    unsigned bits = 0;

    for (unsigned i = 0; i < 16; i++)
        bits |= (escapes[(unsigned char)p[i]].len > 0) << i;
    return bits;
#endif
}

void json_out_string(struct out *o, const char *s, size_t len, unsigned flags)
{
    out_room(o, len + 2);
    *o->p++ = '"';
    if (flags & VALUE_PLAIN)
        out_put(o, s, len);
    else
        out_add_escaped(o, s, len, escapes, special);
    out_add_literal(o, "\"");
}

static inline bool is_plain(const struct value *v) { return v->kind == VALUE_STRING && v->flags & VALUE_PLAIN; }

/* The value from p on; returns its end, behind which OUT_SLACK is free. Strings without a call: the hot
 * loops keep the place to write in a local 'p', which goes through o->p only around calls. */
static inline char *put_value(struct out *o, char *p, const struct value *v)
{
    if (is_plain(v)) {
        if (__builtin_expect((size_t)(o->end - p) < v->len + 2 + OUT_SLACK, 0)) {
            o->p = p;
            out_grow(o, v->len + 2 + OUT_SLACK);
            p = o->p;
        }
        *p++ = '"';
        out_copy(p, v->s, v->len);
        p += v->len;
        *p++ = '"';
        return p;
    }
    o->p = p;
    json_out_value(o, v);
    out_room(o, 0);
    return o->p;
}

static void out_set(struct out *o, const struct value *v)
{
    char *p = o->p;

    *p++ = '[';
    for (uint32_t i = 0; i < v->len; i++) {
        if (i > 0)
            *p++ = ',';
        p = put_value(o, p, &v->items[i]);
    }
    *p++ = ']';
    o->p = p;
}

void json_out_member(struct out *o, const struct member *m)
{
    json_out_string(o, m->name, m->name_len, m->name_flags);
    out_add_literal(o, ":");
    json_out_value(o, &m->value);
}

static inline char *put_name(struct out *o, char *p, const struct member *m)
{
    o->p = p;
    json_out_string(o, m->name, m->name_len, m->name_flags);
    out_room(o, 0);
    return o->p;
}

static void out_map(struct out *o, const struct value *v)
{
    char *p = o->p;

    *p++ = '{';
    for (uint32_t i = 0; i < v->len; i++) {
        const struct member *m = &v->members[i];
        if (i > 0)
            *p++ = ',';
        p = put_name(o, p, m);
        *p++ = ':';
        p = put_value(o, p, &m->value);
    }
    *p++ = '}';
    o->p = p;
}

/* For shapes beyond the number that have plans; and what the plan must amount to. */
static void out_record_slowly(struct out *o, const struct record *r)
{
    const struct record_shape *shape = r->shape;
    bool first = true;

    out_add_literal(o, "{");
    for (unsigned i = 0; i < shape->n_fields; i++) {
        if (!shape->published[i])
            continue;
        if (!first)
            out_add_literal(o, ",");
        first = false;
        out_add(o, shape->json_open[i], strlen(shape->json_open[i]));
        json_out_value(o, &r->fields[i]);
    }
    out_add_literal(o, "}");
}

void json_out_record(struct out *o, const struct record *r)
{
    const struct record_plan *plan = record_plan(r->shape, 1);

    if (plan == NULL || plan->n == 0) {
        out_record_slowly(o, r);
        return;
    }
    out_room(o, plan->width);
    char *p = o->p;
    for (unsigned i = 0; i < plan->n; i++) {
        if (__builtin_expect((size_t)(o->end - p) < plan->width + OUT_SLACK, 0)) {
            o->p = p;
            out_grow(o, plan->width + OUT_SLACK);
            p = o->p;
        }
        p = record_plan_put(plan, i, p);
        p = put_value(o, p, &r->fields[plan->fields[i]]);
    }
    *p++ = '}';
    o->p = p;
}

static void out_record(struct out *o, const struct record *r)
{
    const struct blob *blob = record_blob(r, 1);

    if (blob != NULL)
        out_add(o, blob->bytes, blob->len);
    else
        json_out_record(o, r);
}

static __attribute__((noinline)) void out_date(struct out *o, int64_t epoch)
{
    char date[DATETIME_LEN + 1];

    datetime_format(epoch, date);
    json_out_string(o, date, DATETIME_LEN, VALUE_PLAIN);
}

void json_out_value(struct out *o, const struct value *v)
{
    out_room(o, 32); /* the largest scalar */
    switch ((enum value_kind)v->kind) {
    case VALUE_VOID:
        out_put_literal(o, "\"\"");
        break;
    case VALUE_STRING:
        json_out_string(o, v->s, v->len, v->flags);
        break;
    case VALUE_INT:
    case VALUE_INT32:
        out_put_int(o, v->i);
        break;
    case VALUE_BOOL:
        if (v->i)
            out_put_literal(o, "true");
        else
            out_put_literal(o, "false");
        break;
    case VALUE_FLOAT:
        out_add_float(o, v->f, "\"NaN\"", "\"Infinity\"", "\"-Infinity\"");
        break;
    case VALUE_DATETIME:
        out_date(o, v->i);
        break;
    case VALUE_SET:
        out_set(o, v);
        break;
    case VALUE_MAP:
        out_map(o, v);
        break;
    case VALUE_RECORD:
        out_record(o, v->record);
        break;
    case VALUE_NIL:
        out_put_literal(o, "null");
        break;
    }
}

void json_write(struct text *t, const struct value *v)
{
    struct out o;

    out_begin(&o, t);
    json_out_value(&o, v);
    out_finish(&o);
}

void json_write_string(struct text *t, const char *s, size_t len)
{
    struct out o;

    out_begin(&o, t);
    json_out_string(&o, s, len, 0);
    out_finish(&o);
}
