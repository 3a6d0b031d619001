#include "rpc/nbd/nbd_handshake.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/nbd/nbd_endian.h"

#define OLD_STYLE_MAGIC 0x00420281861253ull
#define REPLIES_MAX 1024u  /* in one negotiation */
#define CONTEXT_LEN_MAX 64u
#define HELLO_SIZE 18u
#define REPLY_HEAD_SIZE 20u
#define EXPORT_SIZE 10u
#define EXPORT_ZEROES 124u

/* What the next step does, once the bytes it waits for are there or gone. */
enum { HELLO, HELLO_CAME, FLAGS_SENT, OPTION_SENT, REPLY_HEAD_CAME, REPLY_BODY_CAME, SKIPPED, EXPORT_CAME, ZEROES_CAME, TLS_DONE, FINISHED };

void nbd_handshake_init(struct nbd_handshake *h, const struct nbd_wish *wish)
{
    h->wish = *wish;
    h->result = (struct nbd_shaken){ .block_min = 1, .block_preferred = 4096, .block_max = NBD_REQUEST_MAX };
    h->error = 0;
    h->want = h->out_len = 0;
    h->state = HELLO;
    h->option = h->replies = h->context = 0;
    h->reply_type = h->reply_len = h->skip = 0;
    h->no_zeroes = h->got_export = false;
}

static enum nbd_shake fail(struct nbd_handshake *h, int error)
{
    h->error = error;
    h->state = FINISHED;
    return NBD_SHAKE_FAILED;
}

static enum nbd_shake receive(struct nbd_handshake *h, size_t n, unsigned state)
{
    h->want = n;
    h->state = state;
    return NBD_SHAKE_RECV;
}

static enum nbd_shake send_out(struct nbd_handshake *h, const unsigned char *end, unsigned state)
{
    h->out_len = (size_t)(end - h->out);
    h->state = state;
    return NBD_SHAKE_SEND;
}

/* --- options ------------------------------------------------------------------------------------- */

static unsigned n_contexts(const struct nbd_handshake *h)
{
    unsigned n = 0;

    while (n < NBD_SHAKE_CONTEXTS && h->wish.contexts[n] != NULL)
        n++;
    return n;
}

static unsigned char *put_string(unsigned char *p, const char *s)
{
    size_t n = strlen(s);

    p = nbd_put32(p, (uint32_t)n);
    memcpy(p, s, n);
    return p + n;
}

static enum nbd_shake send_option(struct nbd_handshake *h, unsigned option)
{
    unsigned char *p = h->out + 16;

    if (option == NBD_OPT_SET_META_CONTEXT) {
        p = nbd_put32(put_string(p, h->wish.name), n_contexts(h));
        for (unsigned i = 0; i < n_contexts(h); i++)
            p = put_string(p, h->wish.contexts[i]);
    } else if (option == NBD_OPT_GO) {
        p = nbd_put16(nbd_put16(put_string(p, h->wish.name), 1), NBD_INFO_BLOCK_SIZE);
    } else if (option == NBD_OPT_EXPORT_NAME) {
        memcpy(p, h->wish.name, strlen(h->wish.name));
        p += strlen(h->wish.name);
    }
    h->option = option;
    nbd_put64(h->out, NBD_MAGIC_OPTION);
    nbd_put32(h->out + 8, option);
    nbd_put32(h->out + 12, (uint32_t)(p - h->out - 16));
    return send_out(h, p, OPTION_SENT);
}

/* The option after this one; unsupported ones are left out by coming here again. */
static enum nbd_shake next_option(struct nbd_handshake *h)
{
    if (h->option == 0 && h->wish.starttls)
        return send_option(h, NBD_OPT_STARTTLS);
    if ((h->option == 0 || h->option == NBD_OPT_STARTTLS) && h->wish.structured)
        return send_option(h, NBD_OPT_STRUCTURED_REPLY);
    if (h->option == NBD_OPT_STRUCTURED_REPLY && h->result.structured && n_contexts(h) > 0)
        return send_option(h, NBD_OPT_SET_META_CONTEXT);
    return send_option(h, NBD_OPT_GO);
}

/* --- what the server says -------------------------------------------------------------------------- */

static enum nbd_shake take_hello(struct nbd_handshake *h)
{
    unsigned flags = nbd_get16(h->in + 16);

    if (nbd_get64(h->in) != NBD_MAGIC_INIT)
        return fail(h, -EPROTO);
    if (nbd_get64(h->in + 8) == OLD_STYLE_MAGIC)
        return fail(h, -ENOTSUP);
    if (nbd_get64(h->in + 8) != NBD_MAGIC_OPTION)
        return fail(h, -EPROTO);
    h->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
    if ((flags & NBD_FLAG_FIXED_NEWSTYLE) == 0) {
        if (h->wish.starttls)
            return fail(h, -EKEYREJECTED);
        h->option = NBD_OPT_EXPORT_NAME; /* the only one such a server knows */
    }
    return send_out(h, nbd_put32(h->out, flags & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)), FLAGS_SENT);
}

static enum nbd_shake export_done(struct nbd_handshake *h, uint64_t size, unsigned flags)
{
    if (size > INT64_MAX)
        return fail(h, -EOVERFLOW);
    h->result.size = size;
    h->result.flags = flags;
    h->got_export = true;
    return NBD_SHAKE_DONE;
}

static enum nbd_shake refused(struct nbd_handshake *h)
{
    uint32_t why = h->reply_type;

    switch (h->option) {
    case NBD_OPT_STARTTLS:
        return fail(h, -EKEYREJECTED);
    case NBD_OPT_STRUCTURED_REPLY:
    case NBD_OPT_SET_META_CONTEXT:
        if (why == NBD_REP_ERR_TLS_REQD)
            return fail(h, -EKEYREJECTED);
        return next_option(h);
    default:
        break;
    }
    if (why == NBD_REP_ERR_UNSUP) /* a server without GO */
        return send_option(h, NBD_OPT_EXPORT_NAME);
    return fail(h, why == NBD_REP_ERR_UNKNOWN    ? -ENOENT :
                   why == NBD_REP_ERR_TLS_REQD   ? -EKEYREJECTED :
                   why == NBD_REP_ERR_POLICY     ? -EACCES :
                   why == NBD_REP_ERR_SHUTDOWN   ? -ECONNRESET :
                                                   -EPROTO);
}

static enum nbd_shake acknowledged(struct nbd_handshake *h)
{
    switch (h->option) {
    case NBD_OPT_STARTTLS:
        h->state = TLS_DONE;
        return NBD_SHAKE_TLS;
    case NBD_OPT_STRUCTURED_REPLY:
        h->result.structured = true;
        return next_option(h);
    case NBD_OPT_SET_META_CONTEXT:
        return next_option(h);
    default:
        h->state = FINISHED;
        return h->got_export ? NBD_SHAKE_DONE : fail(h, -EPROTO);
    }
}

static bool take_info(struct nbd_handshake *h)
{
    if (h->reply_len < 2)
        return false;
    switch (nbd_get16(h->in)) {
    case NBD_INFO_EXPORT:
        if (h->reply_len != 12 || nbd_get64(h->in + 2) > INT64_MAX)
            return false;
        h->result.size = nbd_get64(h->in + 2);
        h->result.flags = nbd_get16(h->in + 10);
        h->got_export = true;
        return true;
    case NBD_INFO_BLOCK_SIZE:
        if (h->reply_len != 14)
            return false;
        h->result.block_min = nbd_get32(h->in + 2);
        h->result.block_preferred = nbd_get32(h->in + 6);
        h->result.block_max = nbd_get32(h->in + 10);
        return h->result.block_min > 0 && h->result.block_max >= h->result.block_min;
    default:
        return true;
    }
}

static bool take_context(struct nbd_handshake *h)
{
    if (h->reply_len < 4 || h->reply_len > sizeof h->in)
        return false;
    for (unsigned i = 0; i < n_contexts(h); i++)
        if (strlen(h->wish.contexts[i]) == h->reply_len - 4 && memcmp(h->wish.contexts[i], h->in + 4, h->reply_len - 4) == 0) {
            h->result.has_context[i] = true;
            h->result.context_id[i] = nbd_get32(h->in);
        }
    return true;
}

static enum nbd_shake take_reply(struct nbd_handshake *h)
{
    bool good = true;

    if (h->reply_type & 0x80000000u)
        return refused(h);
    if (h->reply_type == NBD_REP_ACK)
        return acknowledged(h);
    if (h->option == NBD_OPT_GO && h->reply_type == NBD_REP_INFO)
        good = take_info(h);
    else if (h->option == NBD_OPT_SET_META_CONTEXT && h->reply_type == NBD_REP_META_CONTEXT)
        good = take_context(h);
    else
        good = false;
    return good ? receive(h, REPLY_HEAD_SIZE, REPLY_HEAD_CAME) : fail(h, -EPROTO);
}

/* A reply's text that does not fit (an error's long message) is passed over. */
static enum nbd_shake skip(struct nbd_handshake *h)
{
    size_t n = h->skip < sizeof h->in ? h->skip : sizeof h->in;

    if (n == 0)
        return take_reply(h);
    h->skip -= (uint32_t)n;
    return receive(h, n, SKIPPED);
}

static enum nbd_shake take_reply_head(struct nbd_handshake *h)
{
    if (nbd_get64(h->in) != NBD_MAGIC_OPTION_REPLY || nbd_get32(h->in + 8) != h->option || ++h->replies > REPLIES_MAX)
        return fail(h, -EPROTO);
    h->reply_type = nbd_get32(h->in + 12);
    h->reply_len = nbd_get32(h->in + 16);
    h->skip = 0;
    if (h->reply_len > NBD_OPTION_MAX)
        return fail(h, -EPROTO);
    if (h->reply_len == 0)
        return take_reply(h);
    if (h->reply_len <= sizeof h->in)
        return receive(h, h->reply_len, REPLY_BODY_CAME);
    if ((h->reply_type & 0x80000000u) == 0)
        return fail(h, -EPROTO);
    h->skip = h->reply_len;
    return skip(h);
}

static enum nbd_shake take_export(struct nbd_handshake *h)
{
    uint64_t size = nbd_get64(h->in);
    unsigned flags = nbd_get16(h->in + 8);
    enum nbd_shake end = export_done(h, size, flags);

    if (end != NBD_SHAKE_DONE || h->no_zeroes) {
        h->state = FINISHED;
        return end;
    }
    return receive(h, EXPORT_ZEROES, ZEROES_CAME);
}

static bool wish_fits(const struct nbd_wish *w)
{
    if (strlen(w->name) > NBD_NAME_MAX)
        return false;
    for (unsigned i = 0; i < NBD_SHAKE_CONTEXTS && w->contexts[i] != NULL; i++)
        CHECK(strlen(w->contexts[i]) <= CONTEXT_LEN_MAX);
    return true;
}

enum nbd_shake nbd_handshake_step(struct nbd_handshake *h)
{
    switch (h->state) {
    case HELLO:
        return wish_fits(&h->wish) ? receive(h, HELLO_SIZE, HELLO_CAME) : fail(h, -ENAMETOOLONG);
    case HELLO_CAME:
        return take_hello(h);
    case FLAGS_SENT:
        return h->option == NBD_OPT_EXPORT_NAME ? send_option(h, NBD_OPT_EXPORT_NAME) : next_option(h);
    case OPTION_SENT:
        if (h->option == NBD_OPT_EXPORT_NAME)
            return receive(h, EXPORT_SIZE, EXPORT_CAME);
        return receive(h, REPLY_HEAD_SIZE, REPLY_HEAD_CAME);
    case REPLY_HEAD_CAME:
        return take_reply_head(h);
    case REPLY_BODY_CAME:
        return take_reply(h);
    case SKIPPED:
        return skip(h);
    case EXPORT_CAME:
        return take_export(h);
    case ZEROES_CAME:
        h->state = FINISHED;
        return NBD_SHAKE_DONE;
    case TLS_DONE:
        return next_option(h);
    default:
        return h->error == 0 ? NBD_SHAKE_DONE : NBD_SHAKE_FAILED;
    }
}
