#include "rpc/wire/xmlrpc_guard.h"

#include <stdint.h>
#include <strings.h>

#include "rpc/wire/utf8.h"

/* Marks: noncharacters, which utf8_problem and take_reference refuse in foreign text. */
#define MARK_CR "\xef\xb7\x90"   /* U+FDD0: a carriage return */
#define MARK_KIND "\xef\xb7\x91" /* U+FDD1, then the kind of a scalar */
#define MARK_WIDE "\xef\xb7\x92" /* U+FDD2, then a character beyond U+FFFF as six hex digits */
#define MARK_LEN 3

#define DEPTH_ALL (3 * XMLRPC_DEPTH_MAX + 16) /* elements in elements: value, struct, member, … */

const struct xmlrpc_limits xmlrpc_limits_call = { .elements = 500000, .members = 4096 };
const struct xmlrpc_limits xmlrpc_limits_answer = { .elements = SIZE_MAX, .members = SIZE_MAX };

enum role { ROLE_PLAIN, ROLE_ROOT, ROLE_VALUE, ROLE_STRUCT, ROLE_MEMBER, ROLE_SCALAR, ROLE_FAULT, ROLE_BASE64 };

struct element {
    const char *name;
    uint8_t len;
    uint8_t role;
    char kind; /* of a ROLE_SCALAR */
};

#define ELEMENT(name_, role_, kind_) { .name = name_, .len = sizeof(name_) - 1, .role = role_, .kind = kind_ }
static const struct element elements[] = {
    ELEMENT("value", ROLE_VALUE, 0),
    ELEMENT("member", ROLE_MEMBER, 0),
    ELEMENT("name", ROLE_PLAIN, 0),
    ELEMENT("string", ROLE_PLAIN, 0),
    ELEMENT("boolean", ROLE_SCALAR, 'b'),
    ELEMENT("double", ROLE_SCALAR, 'f'),
    ELEMENT("struct", ROLE_STRUCT, 0),
    ELEMENT("array", ROLE_PLAIN, 0),
    ELEMENT("data", ROLE_PLAIN, 0),
    ELEMENT("dateTime.iso8601", ROLE_SCALAR, 't'),
    ELEMENT("int", ROLE_SCALAR, 'i'),
    ELEMENT("i4", ROLE_SCALAR, 'i'),
    ELEMENT("i8", ROLE_SCALAR, 'i'),
    ELEMENT("ex:i8", ROLE_SCALAR, 'i'),
    ELEMENT("nil", ROLE_PLAIN, 0),
    ELEMENT("ex:nil", ROLE_PLAIN, 0),
    ELEMENT("param", ROLE_PLAIN, 0),
    ELEMENT("params", ROLE_PLAIN, 0),
    ELEMENT("methodCall", ROLE_ROOT, 0),
    ELEMENT("methodName", ROLE_PLAIN, 0),
    ELEMENT("methodResponse", ROLE_ROOT, 0),
    ELEMENT("fault", ROLE_FAULT, 0),
    ELEMENT("base64", ROLE_BASE64, 0),
};

struct guard {
    struct arena *arena;
    const struct xmlrpc_limits *limits;
    struct xmlrpc_guarded *result;
    const char *at, *end;
    const char *copied; /* up to here the document is in result->copy; the start: nothing was changed yet */
    const char *reason;
    bool wide;                    /* some character is beyond U+FFFF */
    const struct element *scalar; /* the scalar that is open; only text may come before its end */
    unsigned depth, values;       /* open elements, open <value>s */
    size_t n_elements;
    size_t n_members[DEPTH_ALL]; /* by depth, of the open structs */
};

static bool refuse(struct guard *g, const char *reason)
{
    g->reason = reason;
    return false;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && is_space(*p))
        p++;
    return p;
}

/* What was read up to 'from' stays; up to 'to' it is replaced. */
static void replace(struct guard *g, const char *from, const char *to, const char *with, size_t len)
{
    struct text *copy = &g->result->copy;

    if (copy->cap == 0)
        text_grow(copy, (size_t)(g->end - g->copied) + (size_t)(g->end - g->copied) / 8 + 64);
    text_add_len(copy, g->copied, (size_t)(from - g->copied));
    text_add_len(copy, with, len);
    g->copied = to;
}

static void replace_wide(struct guard *g, const char *from, const char *to, unsigned long c)
{
    char mark[MARK_LEN + 6];

    memcpy(mark, MARK_WIDE, MARK_LEN);
    for (int i = 5; i >= 0; i--, c >>= 4)
        mark[MARK_LEN + i] = "0123456789abcdef"[c & 15];
    replace(g, from, to, mark, sizeof(mark));
}

/* --- the parts of a document -------------------------------------------------------------------- */

static bool is_encoding(const char *name, size_t len)
{
    static const char *const known[] = { "utf-8", "utf8", "us-ascii", "ascii" };

    for (unsigned i = 0; i < ARRAY_LEN(known); i++)
        if (strlen(known[i]) == len && strncasecmp(known[i], name, len) == 0)
            return true;
    return false;
}

/* Byte order mark, white space and "<?xml … ?>": checked here and kept from xmlrpc-c. */
static bool skip_declaration(struct guard *g)
{
    if (g->end - g->at >= 3 && memcmp(g->at, "\xef\xbb\xbf", 3) == 0)
        g->at += 3;
    g->at = skip_space(g->at, g->end);
    if (g->end - g->at < 6 || memcmp(g->at, "<?xml", 5) != 0 || !is_space(g->at[5]))
        return true;

    const char *start = g->at + 5, *close = memmem(start, (size_t)(g->end - start), "?>", 2);
    if (close == NULL || memchr(start, '<', (size_t)(close - start)) != NULL)
        return refuse(g, "the XML declaration has no end");
    const char *encoding = memmem(start, (size_t)(close - start), "encoding", 8);
    if (encoding != NULL) {
        const char *p = skip_space(encoding + 8, close);
        if (p < close && *p == '=')
            p = skip_space(p + 1, close);
        const char *name_end = p < close && (*p == '"' || *p == '\'') ? memchr(p + 1, *p, (size_t)(close - p - 1)) : NULL;
        if (name_end == NULL || !is_encoding(p + 1, (size_t)(name_end - p - 1)))
            return refuse(g, "the encoding is neither UTF-8 nor US-ASCII");
    }
    g->at = close + 2;
    return true;
}

/* "&#13;" and the like; at 'p' stands "&#". Malformed ones are left for xmlrpc-c to refuse. */
static bool take_reference(struct guard *g, const char *p, const char *end)
{
    unsigned long c = 0;
    const char *digit = p + 2;
    unsigned base = 10;

    if (digit < end && *digit == 'x') {
        base = 16;
        digit++;
    }
    for (; digit < end && *digit != ';'; digit++) {
        unsigned d = *digit >= '0' && *digit <= '9'   ? (unsigned)(*digit - '0')
                     : *digit >= 'a' && *digit <= 'f' ? (unsigned)(*digit - 'a' + 10)
                     : *digit >= 'A' && *digit <= 'F' ? (unsigned)(*digit - 'A' + 10)
                                                      : 16;
        if (d >= base)
            return true;
        c = c > 0x10ffff ? c : c * base + d;
    }
    if (digit == end)
        return true;
    if (utf8_is_noncharacter(c))
        return refuse(g, "it refers to a Unicode noncharacter");
    if (c == '\r')
        replace(g, p, digit + 1, MARK_CR, MARK_LEN);
    else if (c > 0xffff && c <= 0x10ffff)
        replace_wide(g, p, digit + 1, c);
    return true;
}

static void mark_wide(struct guard *g, const char *p, const char *end)
{
    for (; p < end; p++) {
        const unsigned char *u = (const unsigned char *)p;
        if (u[0] >= 0xf0) /* four bytes: utf8_problem has seen them */
            replace_wide(g, p, p + 4,
                         (u[0] & 0x07ul) << 18 | (u[1] & 0x3ful) << 12 | (u[2] & 0x3ful) << 6 | (u[3] & 0x3ful));
    }
}

/* Text between two tags. */
static bool take_text(struct guard *g, const char *p, const char *end)
{
    while (p < end) {
        const char *amp = memchr(p, '&', (size_t)(end - p));
        if (g->wide)
            mark_wide(g, p, amp != NULL ? amp : end);
        if (amp == NULL)
            return true;
        if (end - amp > 2 && amp[1] == '#' && !take_reference(g, amp, end))
            return false;
        p = amp + 1;
    }
    return true;
}

/* At "<!": a comment or a CDATA section. */
static bool take_bang(struct guard *g)
{
    size_t left = (size_t)(g->end - g->at);
    const char *p;

    if (left >= 4 && memcmp(g->at, "<!--", 4) == 0) {
        p = memmem(g->at + 4, left - 4, "-->", 3);
        if (p == NULL)
            return refuse(g, "a comment has no end");
        g->at = p + 3;
        return true;
    }
    if (left >= 9 && memcmp(g->at, "<![CDATA[", 9) == 0) {
        p = memmem(g->at + 9, left - 9, "]]>", 3);
        if (p == NULL)
            return refuse(g, "a CDATA section has no end");
        if (g->wide)
            mark_wide(g, g->at + 9, p);
        g->at = p + 3;
        return true;
    }
    return refuse(g, "declarations (<!DOCTYPE, <!ENTITY) are not accepted");
}

/* --- elements ----------------------------------------------------------------------------------- */

static const struct element *element_find(const char *name, size_t len)
{
    for (unsigned i = 0; i < ARRAY_LEN(elements); i++)
        if (elements[i].len == len && memcmp(elements[i].name, name, len) == 0)
            return &elements[i];
    return NULL;
}

/* The name at 'p' and the '>' of its tag; only the root may have attributes. */
static const struct element *take_tag(struct guard *g, const char *p, const char **close_r)
{
    const char *name_end = p;

    while (name_end < g->end && *name_end != '>' && *name_end != '/' && *name_end != '<' && !is_space(*name_end))
        name_end++;
    const struct element *e = element_find(p, (size_t)(name_end - p));
    if (e == NULL) {
        int shown = name_end - p < 32 ? (int)(name_end - p) : 32;
        refuse(g, arena_printf(g->arena, "<%.*s> is not an element of XML-RPC", shown, p));
        return NULL;
    }
    const char *close = skip_space(name_end, g->end);
    while (e->role == ROLE_ROOT && close < g->end && *close != '>' && *close != '<') {
        const char *quoted = *close == '"' || *close == '\'' ? memchr(close + 1, *close, (size_t)(g->end - close - 1)) : NULL;
        if (close - p > 512) {
            refuse(g, "the attributes of the root are too long");
            return NULL;
        }
        close = quoted != NULL ? quoted + 1 : close + 1;
    }
    if (close < g->end && *close == '/')
        close++;
    if (close >= g->end || *close != '>') {
        refuse(g, arena_printf(g->arena, "the tag <%s> has no end, or has attributes", e->name));
        return NULL;
    }
    *close_r = close;
    return e;
}

static bool open_scalar(struct guard *g, const struct element *e, const char *close)
{
    char mark[] = "<string>" MARK_KIND "?";

    if (close[-1] == '/')
        return refuse(g, arena_printf(g->arena, "a <%s> is empty", e->name));
    mark[sizeof(mark) - 2] = e->kind;
    replace(g, g->at, close + 1, mark, sizeof(mark) - 1);
    g->scalar = e;
    return true;
}

/* What opening an element of that kind asks for, besides depth. */
static bool open_role(struct guard *g, const struct element *e, const char *close)
{
    switch ((enum role)e->role) {
    case ROLE_PLAIN:
    case ROLE_ROOT:
        return true;
    case ROLE_VALUE:
        return ++g->values <= XMLRPC_DEPTH_MAX || refuse(g, "values are nested too deeply");
    case ROLE_STRUCT:
        g->n_members[g->depth] = 0;
        return true;
    case ROLE_MEMBER:
        return g->depth == 0 || ++g->n_members[g->depth - 1] <= g->limits->members ||
               refuse(g, "a struct has too many members");
    case ROLE_SCALAR:
        return open_scalar(g, e, close);
    case ROLE_FAULT:
        g->result->fault = true;
        replace(g, g->at, close + 1, "<params><param>", 15);
        return true;
    case ROLE_BASE64:
        return refuse(g, "<base64> is not a type of this API");
    }
    return true;
}

static bool take_open(struct guard *g)
{
    const char *close = NULL;

    if (g->scalar != NULL)
        return refuse(g, arena_printf(g->arena, "a <%s> holds an element", g->scalar->name));
    const struct element *e = take_tag(g, g->at + 1, &close);
    if (e == NULL)
        return false;
    if (++g->n_elements > g->limits->elements)
        return refuse(g, "it has too many elements");
    if (g->depth == DEPTH_ALL)
        return refuse(g, "elements are nested too deeply");
    if (!open_role(g, e, close))
        return false;
    if (close[-1] != '/')
        g->depth++;
    else if (e->role == ROLE_VALUE)
        g->values--;
    g->at = close + 1;
    return true;
}

static bool take_close(struct guard *g)
{
    const char *close = NULL;
    const struct element *e = take_tag(g, g->at + 2, &close);

    if (e == NULL)
        return false;
    if (g->depth == 0 || close[-1] == '/' || (g->scalar != NULL && e != g->scalar) ||
        (g->scalar == NULL && e->role == ROLE_SCALAR) || (e->role == ROLE_VALUE && g->values == 0))
        return refuse(g, arena_printf(g->arena, "</%s> closes nothing", e->name));
    if (e->role == ROLE_SCALAR)
        replace(g, g->at, close + 1, "</string>", 9);
    if (e->role == ROLE_FAULT)
        replace(g, g->at, close + 1, "</param></params>", 17);
    g->values -= e->role == ROLE_VALUE;
    g->scalar = NULL;
    g->depth--;
    g->at = close + 1;
    return true;
}

static bool take_document(struct guard *g)
{
    while (g->at < g->end) {
        const char *tag = memchr(g->at, '<', (size_t)(g->end - g->at));
        if (!take_text(g, g->at, tag != NULL ? tag : g->end))
            return false;
        if (tag == NULL)
            break;
        g->at = tag;
        char next = tag + 1 < g->end ? tag[1] : '\0';
        if (next == '?')
            return refuse(g, "processing instructions are not accepted");
        if (!(next == '!' ? take_bang(g) : next == '/' ? take_close(g) : take_open(g)))
            return false;
    }
    return g->depth == 0 || refuse(g, "it is truncated");
}

bool xmlrpc_guard(struct arena *a, const char *bytes, size_t len, const struct xmlrpc_limits *limits,
                  struct xmlrpc_guarded *result, const char **reason_r)
{
    struct guard g = { .arena = a, .limits = limits, .result = result, .at = bytes, .end = bytes + len };

    *result = (struct xmlrpc_guarded){ .bytes = bytes, .len = len };
    *reason_r = g.reason = utf8_problem(bytes, len, &g.wide);
    if (g.reason != NULL)
        return false;
    bool ok = skip_declaration(&g);
    const char *start = g.copied = g.at;
    if (!ok || !take_document(&g)) {
        *reason_r = g.reason;
        return false;
    }
    if (g.copied == start) {
        result->bytes = start;
        result->len = (size_t)(g.end - start);
        return true;
    }
    replace(&g, g.end, g.end, "", 0);
    result->bytes = result->copy.bytes;
    result->len = result->copy.len;
    return true;
}

/* --- the way back ------------------------------------------------------------------------------- */

static unsigned long hex6(const char *p)
{
    unsigned long c = 0;

    for (int i = 0; i < 6; i++)
        c = c << 4 | (unsigned long)(p[i] <= '9' ? p[i] - '0' : p[i] - 'a' + 10);
    return c;
}

const char *xmlrpc_guard_text(struct arena *a, const char *s, size_t len, size_t *len_r, char *kind_r)
{
    const char *end = s + len;

    *kind_r = 0;
    if (len > MARK_LEN && memcmp(s, MARK_KIND, MARK_LEN) == 0) {
        *kind_r = s[MARK_LEN];
        s += MARK_LEN + 1;
    }
    char *text = arena_alloc(a, (size_t)(end - s) + 1), *out = text;
    while (s < end) {
        const char *mark = memchr(s, MARK_CR[0], (size_t)(end - s));
        size_t n = mark != NULL ? (size_t)(mark - s) : (size_t)(end - s);
        memcpy(out, s, n);
        out += n;
        s += n;
        if (mark == NULL)
            break;
        if (end - s >= MARK_LEN && memcmp(s, MARK_CR, MARK_LEN) == 0) {
            *out++ = '\r';
            s += MARK_LEN;
        } else if (end - s >= MARK_LEN + 6 && memcmp(s, MARK_WIDE, MARK_LEN) == 0) {
            out += utf8_put(out, hex6(s + MARK_LEN));
            s += MARK_LEN + 6;
        } else {
            *out++ = *s++;
        }
    }
    *out = '\0';
    *len_r = (size_t)(out - text);
    return text;
}
