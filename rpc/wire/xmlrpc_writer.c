/* Values as XML-RPC, straight into a buffer. Hot: VM.get_all_records of 10,000 VMs is 100 MB. */
#include "rpc/wire/xmlrpc.h"

#include "rpc/base/datetime.h"
#include "rpc/wire/record_plan.h"
#include "rpc/wire/value_writer.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Other control characters have no entry: they are dropped, XML cannot carry them. */
static const struct escape escapes[256] = {
    ['\t'] = { "\t", 1 },
    ['\n'] = { "\n", 1 },
    ['\r'] = { "&#13;", 5 },
    ['<'] = { "&lt;", 4 },
    ['>'] = { "&gt;", 4 },
    ['&'] = { "&amp;", 5 },
    ['"'] = { "&quot;", 6 },
};

static inline unsigned special(const char *p)
{
#if defined(__SSE2__)
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i bad = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x); /* unsigned x <= 0x1f */

    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('<')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('>')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('&')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
    return (unsigned)_mm_movemask_epi8(bad);
#else
    unsigned bits = 0;

    for (unsigned i = 0; i < 16; i++)
        bits |= ((unsigned char)p[i] < 0x20 || escapes[(unsigned char)p[i]].len > 0) << i;
    return bits;
#endif
}

void xml_out_string(struct out *o, const char *s, size_t len, unsigned flags)
{
    if (flags & VALUE_PLAIN)
        out_add(o, s, len);
    else
        out_add_escaped(o, s, len, escapes, special);
}

/* The hot loops keep the place to write in a local 'p', which the compiler can hold in a register; it goes
 * through o->p only around calls. */
#define PUT(p, literal) (memcpy((p), "" literal, sizeof(literal) - 1), (p) + sizeof(literal) - 1)

static inline bool is_plain(const struct value *v) { return v->kind == VALUE_STRING && v->flags & VALUE_PLAIN; }

/* A string that needs no escaping; behind it OUT_SLACK is free. */
static inline char *put_plain(struct out *o, char *p, const char *s, size_t len)
{
    if (__builtin_expect((size_t)(o->end - p) < len + OUT_SLACK, 0)) {
        o->p = p;
        out_grow(o, len + OUT_SLACK);
        p = o->p;
    }
    out_copy(p, s, len);
    return p + len;
}

/* The value from p on; returns its end, behind which OUT_SLACK is free. */
static inline char *put_value(struct out *o, char *p, const struct value *v)
{
    if (is_plain(v))
        return put_plain(o, p, v->s, v->len);
    o->p = p;
    xml_out_value(o, v);
    out_room(o, 0);
    return o->p;
}

static inline char *put_name(struct out *o, char *p, const struct member *m)
{
    if (m->name_flags & VALUE_PLAIN)
        return put_plain(o, p, m->name, m->name_len);
    o->p = p;
    xml_out_string(o, m->name, m->name_len, m->name_flags);
    out_room(o, 0);
    return o->p;
}

static void out_set(struct out *o, const struct value *v)
{
    char *p = o->p;

    if (v->len == 0) {
        out_put_literal(o, "<array><data></data></array>");
        return;
    }
    p = PUT(p, "<array><data><value>");
    p = put_value(o, p, &v->items[0]);
    for (uint32_t i = 1; i < v->len; i++) {
        p = PUT(p, "</value><value>");
        p = put_value(o, p, &v->items[i]);
    }
    o->p = PUT(p, "</value></data></array>");
}

void xml_out_member(struct out *o, const struct member *m)
{
    out_add_literal(o, "<member><name>");
    xml_out_string(o, m->name, m->name_len, m->name_flags);
    out_add_literal(o, "</name><value>");
    xml_out_value(o, &m->value);
    out_add_literal(o, "</value></member>");
}

static void out_map(struct out *o, const struct value *v)
{
    char *p = o->p;

    if (v->len == 0) {
        out_put_literal(o, "<struct></struct>");
        return;
    }
    p = PUT(p, "<struct><member><name>");
    for (uint32_t i = 0;;) {
        const struct member *m = &v->members[i];
        p = put_name(o, p, m);
        p = PUT(p, "</name><value>");
        p = put_value(o, p, &m->value);
        if (++i == v->len)
            break;
        p = PUT(p, "</value></member><member><name>");
    }
    o->p = PUT(p, "</value></member></struct>");
}

/* For shapes beyond the number that have plans; and what the plan must amount to. */
static void out_record_slowly(struct out *o, const struct record *r)
{
    const struct record_shape *shape = r->shape;

    out_add_literal(o, "<struct>");
    for (unsigned i = 0; i < shape->n_fields; i++) {
        if (!shape->published[i])
            continue;
        out_add(o, shape->xml_open[i], strlen(shape->xml_open[i]));
        xml_out_value(o, &r->fields[i]);
        out_add_literal(o, "</value></member>");
    }
    out_add_literal(o, "</struct>");
}

void xml_out_record(struct out *o, const struct record *r)
{
    const struct record_plan *plan = record_plan(r->shape, 0);

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
    o->p = PUT(p, "</value></member></struct>");
}

static void out_record(struct out *o, const struct record *r)
{
    const struct blob *blob = record_blob(r, 0);

    if (blob != NULL)
        out_add(o, blob->bytes, blob->len);
    else
        xml_out_record(o, r);
}

static __attribute__((noinline)) void out_date(struct out *o, int64_t epoch)
{
    char date[DATETIME_LEN + 1];

    datetime_format(epoch, date);
    out_add_literal(o, "<dateTime.iso8601>");
    out_add(o, date, DATETIME_LEN);
    out_add_literal(o, "</dateTime.iso8601>");
}

void xml_out_value(struct out *o, const struct value *v)
{
    out_room(o, 64); /* the largest scalar with its tags */
    switch ((enum value_kind)v->kind) {
    case VALUE_VOID:
        break;
    case VALUE_STRING:
        xml_out_string(o, v->s, v->len, v->flags);
        break;
    case VALUE_INT:
        out_put_int(o, v->i);
        break;
    case VALUE_INT32:
        out_put_literal(o, "<i4>");
        out_put_int(o, v->i);
        out_put_literal(o, "</i4>");
        break;
    case VALUE_BOOL:
        if (v->i)
            out_put_literal(o, "<boolean>1</boolean>");
        else
            out_put_literal(o, "<boolean>0</boolean>");
        break;
    case VALUE_FLOAT:
        out_put_literal(o, "<double>");
        out_add_float(o, v->f, "nan", "inf", "-inf");
        out_add_literal(o, "</double>");
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
        out_put_literal(o, "<nil/>");
        break;
    }
}

void xmlrpc_write_value(struct text *t, const struct value *v)
{
    struct out o;

    out_begin(&o, t);
    out_add_literal(&o, "<value>");
    xml_out_value(&o, v);
    out_add_literal(&o, "</value>");
    out_finish(&o);
}

void xmlrpc_write_call(struct text *t, const char *method, const struct value *params, unsigned n)
{
    struct out o;

    out_begin(&o, t);
    out_add_literal(&o, "<?xml version=\"1.0\"?><methodCall><methodName>");
    xml_out_string(&o, method, strlen(method), 0);
    out_add_literal(&o, "</methodName><params>");
    for (unsigned i = 0; i < n; i++) {
        out_add_literal(&o, "<param><value>");
        xml_out_value(&o, &params[i]);
        out_add_literal(&o, "</value></param>");
    }
    out_add_literal(&o, "</params></methodCall>");
    out_finish(&o);
}
