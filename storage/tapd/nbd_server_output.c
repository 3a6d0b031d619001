/* Replies: built in the heads of pieces and commands, queued, sent many at a time. */
#include <errno.h>

#include "rpc/base/check.h"
#include "rpc/nbd/nbd_endian.h"
#include "storage/tapd/nbd_server_private.h"

#define VECTORS 128

static uint32_t wire_error(int error)
{
    switch (-error) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
    case EACCES:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

void nbd_reply_simple(struct nbd_out *out, uint64_t cookie, int error)
{
    nbd_put64(nbd_put32(nbd_put32(out->head, NBD_MAGIC_SIMPLE_REPLY), wire_error(error)), cookie);
    out->head_len = sizeof(struct nbd_simple_reply);
}

unsigned char *nbd_reply_chunk(struct nbd_out *out, uint64_t cookie, unsigned flags, unsigned type, uint32_t length)
{
    unsigned char *p = nbd_put32(out->head, NBD_MAGIC_STRUCTURED_REPLY);

    p = nbd_put16(nbd_put16(p, (uint16_t)flags), (uint16_t)type);
    p = nbd_put32(nbd_put64(p, cookie), length);
    out->head_len = sizeof(struct nbd_structured_reply);
    return p;
}

static bool wants_chunk(const struct nbd_job *m)
{
    return m->conn->structured && (m->type == NBD_CMD_READ || m->type == NBD_CMD_BLOCK_STATUS || m->type == NBD_CMD_XAPI_HASH);
}

void nbd_job_answer(struct nbd_job *m)
{
    struct nbd_out *out = &m->out;

    out->length = 0;
    if (!wants_chunk(m)) {
        nbd_reply_simple(out, m->cookie, m->error);
    } else if (m->error != 0) {
        unsigned char *p = nbd_reply_chunk(out, m->cookie, NBD_REPLY_FLAG_DONE, NBD_REPLY_ERROR, 6);
        nbd_put16(nbd_put32(p, wire_error(m->error)), 0);
        out->head_len += 6;
    } else if (m->result != NULL) {
        out->length = m->result->out.length;
        out->data = m->result->buffer;
        nbd_reply_chunk(out, m->cookie, NBD_REPLY_FLAG_DONE, NBD_REPLY_XAPI_HASH, out->length);
    } else {
        nbd_reply_chunk(out, m->cookie, NBD_REPLY_FLAG_DONE, NBD_REPLY_NONE, 0);
    }
    nbd_out_add(m->conn, out);
}

void nbd_out_add(struct nbd_conn *c, struct nbd_out *out)
{
    struct nbd_server *s = c->server;

    out->next = NULL;
    *c->out_last = out;
    c->out_last = &out->next;
    if (!c->sending) {
        c->sending = true;
        c->next_sender = s->senders;
        s->senders = c;
        loop_later(s->loop, &s->later);
    }
}

static void give(struct nbd_conn *c, struct nbd_out *out)
{
    if (!out->is_job) {
        nbd_piece_give(c->server, CONTAINER_OF(out, struct nbd_piece, out));
        return;
    }
    struct nbd_job *m = CONTAINER_OF(out, struct nbd_job, out);
    if (m->result != NULL)
        nbd_piece_give(c->server, m->result);
    m->result = NULL;
    nbd_job_give(m);
}

static void pop(struct nbd_conn *c)
{
    struct nbd_out *out = c->out;

    c->out = out->next;
    if (c->out == NULL)
        c->out_last = &c->out;
    c->out_sent = 0;
    give(c, out);
}

void nbd_out_drop(struct nbd_conn *c)
{
    while (c->out != NULL)
        pop(c);
    c->hello_at = c->hello_len = 0;
}

static void sent(struct nbd_conn *c, size_t n)
{
    c->moved_us = loop_now_us(c->server->loop);
    while (n > 0) {
        size_t left = c->out->head_len + c->out->length - c->out_sent;

        if (n < left) {
            c->out_sent += n;
            return;
        }
        n -= left;
        pop(c);
    }
}

/* What is queued, from the first unsent byte on. */
static int gather(const struct nbd_conn *c, struct iovec *v)
{
    size_t skip = c->out_sent;
    int n = 0;

    for (const struct nbd_out *out = c->out; out != NULL && n < VECTORS - 1; out = out->next) {
        if (skip < out->head_len)
            v[n++] = (struct iovec){ .iov_base = (void *)(out->head + skip), .iov_len = out->head_len - skip };
        size_t in_data = skip > out->head_len ? skip - out->head_len : 0;
        if (out->length > 0)
            v[n++] = (struct iovec){ .iov_base = (char *)out->data + in_data, .iov_len = out->length - in_data };
        skip = 0;
    }
    return n;
}

/* 1: all is gone; 0: the socket is full; -1: drop. */
static int send_hello(struct nbd_conn *c)
{
    while (c->hello_at < c->hello_len) {
        struct iovec v = { .iov_base = c->hello + c->hello_at, .iov_len = c->hello_len - c->hello_at };
        ssize_t n = nbd_wire_writev(&c->wire, &v, 1);

        if (n == -EAGAIN)
            return 0;
        if (n <= 0)
            return -1;
        c->hello_at += (size_t)n;
    }
    if (c->hello_len == 0)
        return 1;
    int rc = nbd_wire_flush(&c->wire);
    if (rc < 0)
        return rc == -EAGAIN ? 0 : -1;
    c->hello_at = c->hello_len = 0;
    return nbd_options_sent(c) ? 1 : -1;
}

bool nbd_out_send(struct nbd_conn *c)
{
    struct iovec v[VECTORS];
    int rc;

    if (c->phase == NBD_CONN_TLS)
        return true;
    rc = nbd_wire_flush(&c->wire);
    if (rc < 0)
        return rc == -EAGAIN;
    rc = send_hello(c);
    if (rc <= 0)
        return rc == 0;
    while (c->out != NULL) {
        ssize_t n = nbd_wire_writev(&c->wire, v, gather(c, v));

        if (n == -EAGAIN)
            return true;
        if (n <= 0)
            return false;
        sent(c, (size_t)n);
    }
    return true;
}
