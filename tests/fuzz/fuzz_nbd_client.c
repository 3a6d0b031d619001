/* A hostile server of arbitrary bytes against the blocking client: no crash, no byte outside the buffers, an end.
 * The bytes are all it ever says, whatever it is asked. The first byte: 1 a whole negotiation stands before them,
 * 2 with structured replies and base:allocation. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/nbd/nbd_client.h"
#include "rpc/nbd/nbd_endian.h"
#include "rpc/nbd/nbd_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct talk { struct byte_stream stream; unsigned char head[512]; size_t head_len; const uint8_t *bytes; size_t n, at; };

static ssize_t talk_read(struct byte_stream *s, void *to, size_t n)
{
    struct talk *t = (struct talk *)s;
    size_t left = t->head_len + t->n - t->at;

    n = n < left ? n : left;
    for (size_t i = 0; i < n; i++, t->at++)
        ((unsigned char *)to)[i] = t->at < t->head_len ? t->head[t->at] : t->bytes[t->at - t->head_len];
    return (ssize_t)n;
}
static int talk_writev(struct byte_stream *s, struct iovec *v, int n)
{
    static volatile unsigned char sum;

    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < v[i].iov_len; k += 512)
            sum = (unsigned char)(sum + ((const unsigned char *)v[i].iov_base)[k]);
    return 0;
}
static int talk_finish(struct byte_stream *s) { return 0; }
static void talk_abort(struct byte_stream *s) { }
static void talk_close(struct byte_stream *s) { }
static int talk_fd(const struct byte_stream *s) { return -1; }
static size_t talk_pending(const struct byte_stream *s) { return 1; }

static unsigned char *reply(unsigned char *p, uint32_t option, uint32_t type, uint32_t length)
{
    return nbd_put32(nbd_put32(nbd_put32(nbd_put64(p, NBD_MAGIC_OPTION_REPLY), option), type), length);
}

static void negotiated(struct talk *t, bool structured)
{
    unsigned char *p = nbd_put16(nbd_put64(nbd_put64(t->head, NBD_MAGIC_INIT), NBD_MAGIC_OPTION), 3);

    p = reply(p, NBD_OPT_STRUCTURED_REPLY, structured ? NBD_REP_ACK : NBD_REP_ERR_UNSUP, 0);
    if (structured) {
        p = nbd_put32(reply(p, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, 4 + 15), 1);
        memcpy(p, NBD_CONTEXT_ALLOCATION, 15);
        p = reply(p + 15, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
    }
    p = nbd_put16(reply(p, NBD_OPT_GO, NBD_REP_INFO, 12), NBD_INFO_EXPORT);
    p = nbd_put16(nbd_put64(p, 1 << 20), structured ? 0x6d : 1);
    t->head_len = (size_t)(reply(p, NBD_OPT_GO, NBD_REP_ACK, 0) - t->head);
}

static void range(void *ctx, uint64_t offset, uint64_t length, bool zero)
{
    uint64_t *at = ctx;

    CHECK(offset == *at && length > 0);
    *at += length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct byte_stream_ops ops = {
        .name = "talk", .read = talk_read, .writev = talk_writev, .finish = talk_finish, .abort = talk_abort, .close = talk_close,
        .fd = talk_fd, .pending = talk_pending,
    };
    struct talk t = { .stream.ops = &ops };
    struct nbd_client *c;
    struct nbd_export e;
    uint64_t at = 0;

    if (size < 1)
        return 0;
    t.bytes = data + 1;
    t.n = size - 1;
    if (data[0] & 1)
        negotiated(&t, data[0] & 2);
    if (nbd_client_on(&t.stream, "name", -1, &c, &e) < 0)
        return 0;
    CHECK(e.size >= 0);
    char *buffer = xcalloc(1, 8192);
    for (unsigned i = 0; i < 8 && !nbd_client_gone(c); i++) {
        (void)!nbd_read(c, buffer, 8192, 4096);
        (void)!nbd_write(c, buffer, 8192, 0, i & 1);
        (void)!nbd_zero(c, 8192, 0, false);
        (void)!nbd_flush(c);
        at = 0;
        if (nbd_status(c, 0, 1 << 20, range, &at) == 0)
            CHECK(at == 1 << 20);
    }
    nbd_client_close(c);
    xfree(buffer);
    return 0;
}
