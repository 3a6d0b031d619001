/* Negotiation: the server's side of fixed newstyle. */
#include <errno.h>
#include <string.h>

#include "rpc/nbd/nbd_endian.h"
#include "storage/tapd/nbd_server_private.h"

#define OPTION_HEAD 16u
#define EXPORT_ZEROES 124u

/* One option as it came. */
struct option {
    struct nbd_conn *conn;
    uint32_t number, length;
    const unsigned char *payload;
};
/* A string of the payload: its place there. */
struct word { const unsigned char *bytes; uint32_t length; };

/* --- output ---------------------------------------------------------------------------------------- */

static unsigned char *hello_end(const struct nbd_conn *c) { return c->hello + c->hello_len; }
static void hello_upto(struct nbd_conn *c, const unsigned char *end) { c->hello_len = (size_t)(end - c->hello); }

static unsigned char *reply_head(const struct option *o, uint32_t type, uint32_t length)
{
    unsigned char *p = nbd_put64(hello_end(o->conn), NBD_MAGIC_OPTION_REPLY);

    return nbd_put32(nbd_put32(nbd_put32(p, o->number), type), length);
}

static bool reply(const struct option *o, uint32_t type)
{
    hello_upto(o->conn, reply_head(o, type, 0));
    return true;
}

bool nbd_options_hello(struct nbd_conn *c)
{
    unsigned char *p = nbd_put64(nbd_put64(hello_end(c), NBD_MAGIC_INIT), NBD_MAGIC_OPTION);

    hello_upto(c, nbd_put16(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES));
    return true;
}

static unsigned transmission_flags(const struct nbd_conn *c)
{
    unsigned flags = NBD_TFLAG_HAS_FLAGS | NBD_TFLAG_SEND_FLUSH | NBD_TFLAG_SEND_FUA | NBD_TFLAG_SEND_TRIM | NBD_TFLAG_SEND_WRITE_ZEROES |
                     NBD_TFLAG_CAN_MULTI_CONN | NBD_TFLAG_SEND_CACHE | NBD_TFLAG_SEND_FAST_ZERO;

    if (c->read_only || c->server->block->read_only)
        flags |= NBD_TFLAG_READ_ONLY;
    return c->structured ? flags | NBD_TFLAG_SEND_DF : flags;
}

/* --- input ----------------------------------------------------------------------------------------- */

/* The words and numbers of a payload, in order; false: it ends too early. */
static bool take_number(struct option *o, uint32_t *number_r)
{
    if (o->length < 4)
        return false;
    *number_r = nbd_get32(o->payload);
    o->payload += 4;
    o->length -= 4;
    return true;
}

static bool take_word(struct option *o, struct word *w)
{
    if (!take_number(o, &w->length) || w->length > o->length || w->length > NBD_NAME_MAX)
        return false;
    w->bytes = o->payload;
    o->payload += w->length;
    o->length -= w->length;
    return true;
}

/* The socket is the disk: every name means it. The one place to change that. */
static bool name_is_known(const struct word *name) { return name->length <= NBD_NAME_MAX; }

static uint64_t name_hash(const struct word *name)
{
    uint64_t h = 0xcbf29ce484222325ull;

    for (uint32_t i = 0; i < name->length; i++)
        h = (h ^ name->bytes[i]) * 0x100000001b3ull;
    return h;
}

static void forget_contexts(struct nbd_conn *c) { c->has_status = c->has_dirty = c->has_hash = false; }

/* --- INFO, GO, EXPORT_NAME ---------------------------------------------------------------------------- */

static bool option_export_name(const struct option *o)
{
    struct nbd_conn *c = o->conn;
    const struct word name = { o->payload, o->length };

    if (!name_is_known(&name))
        return false; /* there is no other way to refuse */
    unsigned char *p = nbd_put64(hello_end(c), (uint64_t)c->server->block->size);
    p = nbd_put16(p, (uint16_t)transmission_flags(c));
    if (!c->no_zeroes) {
        memset(p, 0, EXPORT_ZEROES);
        p += EXPORT_ZEROES;
    }
    hello_upto(c, p);
    if (c->context_name != name_hash(&name))
        forget_contexts(c);
    c->phase = NBD_CONN_SERVING;
    return true;
}

static bool wants_info(const struct option *o, uint32_t n, unsigned what)
{
    for (uint32_t i = 0; i < n; i++)
        if (nbd_get16(o->payload + 2 * i) == what)
            return true;
    return false;
}

static void reply_infos(const struct option *o, const struct word *name, bool with_name)
{
    struct nbd_conn *c = o->conn;
    unsigned char *p = nbd_put16(reply_head(o, NBD_REP_INFO, 12), NBD_INFO_EXPORT);

    hello_upto(c, nbd_put16(nbd_put64(p, (uint64_t)c->server->block->size), (uint16_t)transmission_flags(c)));
    p = nbd_put16(reply_head(o, NBD_REP_INFO, 14), NBD_INFO_BLOCK_SIZE);
    hello_upto(c, nbd_put32(nbd_put32(nbd_put32(p, 512), NBD_PREFERRED), NBD_REQUEST_MAX));
    if (!with_name)
        return;
    p = nbd_put16(reply_head(o, NBD_REP_INFO, 2 + name->length), NBD_INFO_NAME);
    memcpy(p, name->bytes, name->length);
    hello_upto(c, p + name->length);
}

static bool option_info(struct option *o)
{
    struct nbd_conn *c = o->conn;
    struct word name;

    if (!take_word(o, &name) || o->length < 2 || o->length != 2 + 2u * nbd_get16(o->payload))
        return reply(o, NBD_REP_ERR_INVALID);
    uint32_t n = nbd_get16(o->payload);
    o->payload += 2;
    if (!name_is_known(&name))
        return reply(o, NBD_REP_ERR_UNKNOWN);
    reply_infos(o, &name, wants_info(o, n, NBD_INFO_NAME));
    reply(o, NBD_REP_ACK);
    if (o->number == NBD_OPT_GO) {
        if (c->context_name != name_hash(&name))
            forget_contexts(c);
        c->phase = NBD_CONN_SERVING;
    }
    return true;
}

/* --- the others -------------------------------------------------------------------------------------- */

static bool option_list(const struct option *o)
{
    if (o->length > 0)
        return reply(o, NBD_REP_ERR_INVALID);
    hello_upto(o->conn, nbd_put32(reply_head(o, NBD_REP_SERVER, 4), 0)); /* the one with the empty name */
    return reply(o, NBD_REP_ACK);
}

static bool option_abort(const struct option *o)
{
    o->conn->abort_next = true;
    o->conn->phase = NBD_CONN_LEAVING;
    return reply(o, NBD_REP_ACK);
}

static bool option_starttls(const struct option *o)
{
    struct nbd_conn *c = o->conn;

    if (o->length > 0)
        return reply(o, NBD_REP_ERR_INVALID);
    if (c->tls == NULL || c->wire.tls != NULL)
        return reply(o, c->wire.tls != NULL ? NBD_REP_ERR_INVALID : NBD_REP_ERR_POLICY);
    c->tls_next = true;
    return reply(o, NBD_REP_ACK);
}

static bool option_structured(const struct option *o)
{
    if (o->length > 0)
        return reply(o, NBD_REP_ERR_INVALID);
    o->conn->structured = true;
    return reply(o, NBD_REP_ACK);
}

struct context { unsigned id; const char *name; };
static const struct context contexts[] = {
    { NBD_CONTEXT_ID_ALLOCATION, NBD_CONTEXT_ALLOCATION },
    { NBD_CONTEXT_ID_DIRTY, NBD_CONTEXT_DIRTY },
    { NBD_CONTEXT_ID_HASH, NBD_CONTEXT_HASH },
};

static bool query_means(const struct word *query, const struct context *x, bool list)
{
    size_t n = query->length;

    if (n == strlen(x->name))
        return memcmp(query->bytes, x->name, n) == 0;
    /* "base:" and "qemu:dirty-bitmap:" ask for a list of what begins so */
    return list && n > 0 && n < strlen(x->name) && query->bytes[n - 1] == ':' && memcmp(query->bytes, x->name, n) == 0;
}

static void select_context(struct nbd_conn *c, unsigned id)
{
    c->has_status = c->has_status || id == NBD_CONTEXT_ID_ALLOCATION;
    c->has_dirty = c->has_dirty || id == NBD_CONTEXT_ID_DIRTY;
    c->has_hash = c->has_hash || id == NBD_CONTEXT_ID_HASH;
}

static void reply_contexts(const struct option *o, const bool wanted[])
{
    struct nbd_conn *c = o->conn;
    bool list = o->number == NBD_OPT_LIST_META_CONTEXT;

    for (unsigned i = 0; i < ARRAY_LEN(contexts); i++) {
        uint32_t n = (uint32_t)strlen(contexts[i].name);

        if (!wanted[i] || (contexts[i].id == NBD_CONTEXT_ID_DIRTY && c->server->dirty == NULL))
            continue;
        unsigned char *p = nbd_put32(reply_head(o, NBD_REP_META_CONTEXT, 4 + n), list ? 0 : contexts[i].id);
        memcpy(p, contexts[i].name, n);
        hello_upto(c, p + n);
        if (!list)
            select_context(c, contexts[i].id);
    }
    reply(o, NBD_REP_ACK);
}

static bool option_contexts(struct option *o)
{
    struct nbd_conn *c = o->conn;
    bool list = o->number == NBD_OPT_LIST_META_CONTEXT, wanted[ARRAY_LEN(contexts)] = { false };
    struct word name, query;
    uint32_t n;

    if (!list)
        forget_contexts(c);
    if (!c->structured || !take_word(o, &name) || !take_number(o, &n))
        return reply(o, NBD_REP_ERR_INVALID);
    if (n > NBD_OPTION_MAX / 4)
        return reply(o, NBD_REP_ERR_TOO_BIG);
    for (uint32_t i = 0; i < n; i++) {
        if (!take_word(o, &query))
            return reply(o, NBD_REP_ERR_INVALID);
        if (!list)
            nbd_session_take(c, query.bytes, query.length);
        for (unsigned k = 0; k < ARRAY_LEN(contexts); k++)
            wanted[k] = wanted[k] || query_means(&query, &contexts[k], list);
    }
    if (o->length > 0)
        return reply(o, NBD_REP_ERR_INVALID);
    for (unsigned k = 0; list && n == 0 && k < ARRAY_LEN(contexts); k++)
        wanted[k] = true;
    if (!list)
        c->context_name = name_hash(&name);
    reply_contexts(o, wanted);
    return true;
}

static bool take_option(struct option *o)
{
    bool before_tls = o->conn->must_tls && o->conn->wire.tls == NULL;

    if (before_tls && o->number == NBD_OPT_EXPORT_NAME)
        return false;
    if (before_tls && o->number != NBD_OPT_ABORT && o->number != NBD_OPT_STARTTLS)
        return reply(o, NBD_REP_ERR_TLS_REQD);
    switch (o->number) {
    case NBD_OPT_EXPORT_NAME:
        return option_export_name(o);
    case NBD_OPT_ABORT:
        return option_abort(o);
    case NBD_OPT_LIST:
        return option_list(o);
    case NBD_OPT_STARTTLS:
        return option_starttls(o);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return option_info(o);
    case NBD_OPT_STRUCTURED_REPLY:
        return option_structured(o);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return option_contexts(o);
    default:
        return reply(o, NBD_REP_ERR_UNSUP);
    }
}

bool nbd_options_input(struct nbd_conn *c)
{
    size_t there;

    if (c->phase == NBD_CONN_FLAGS && c->in_len - c->in_at >= 4) {
        uint32_t flags = nbd_get32(c->in + c->in_at);

        if ((flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) != 0)
            return false;
        c->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
        c->in_at += 4;
        c->phase = NBD_CONN_OPTIONS;
    }
    while (c->phase == NBD_CONN_OPTIONS && (there = c->in_len - c->in_at) >= OPTION_HEAD) {
        const unsigned char *h = c->in + c->in_at;
        struct option o = { .conn = c, .number = nbd_get32(h + 8), .length = nbd_get32(h + 12), .payload = h + OPTION_HEAD };

        if (c->tls_next)
            return false; /* nothing may be sent in clear after STARTTLS */
        if (nbd_get64(h) != NBD_MAGIC_OPTION || o.length > NBD_OPTION_MAX)
            return false;
        if (there < OPTION_HEAD + o.length || c->hello_len > NBD_HELLO_SIZE - NBD_HELLO_ROOM)
            return true;
        size_t whole = OPTION_HEAD + o.length;
        if (++c->options > NBD_SERVER_OPTIONS_MAX || !take_option(&o))
            return false;
        c->in_at += whole;
    }
    return true;
}

bool nbd_options_sent(struct nbd_conn *c)
{
    if (c->abort_next)
        return false;
    if (!c->tls_next)
        return true;
    c->tls_next = false;
    if (c->in_at != c->in_len || nbd_wire_tls(&c->wire, c->tls, NULL, NULL) < 0)
        return false;
    c->structured = false;
    forget_contexts(c);
    c->phase = NBD_CONN_TLS;
    return true;
}
