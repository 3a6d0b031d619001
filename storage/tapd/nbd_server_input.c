/* Commands off the wire: checked, their payload put into buffers, carried out in pieces. */
#include <errno.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/nbd/nbd_endian.h"
#include "storage/tapd/nbd_server_private.h"

#define HEAD sizeof(struct nbd_request)
#define BULK_MIN (64u << 10)

/* --- what a command may be -------------------------------------------------------------------------- */

static bool writes(unsigned type) { return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES; }

/* The flags a type of command knows; all may carry FUA. -1: an unknown command. */
static int flags_of(const struct nbd_conn *c, unsigned type)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (c->structured ? NBD_CMD_FLAG_DF : 0u);
    case NBD_CMD_WRITE:
    case NBD_CMD_FLUSH:
    case NBD_CMD_TRIM:
    case NBD_CMD_CACHE:
    case NBD_CMD_XAPI_HASH:
        return NBD_CMD_FLAG_FUA;
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return -1;
    }
}

static int check_range(const struct nbd_job *m, const struct block *b)
{
    uint32_t max = m->type == NBD_CMD_READ || m->type == NBD_CMD_WRITE || m->type == NBD_CMD_XAPI_HASH ? NBD_REQUEST_MAX : UINT32_MAX;

    if (m->length == 0 || m->length > max || m->offset < 0)
        return -EINVAL;
    if (m->offset > b->size || m->length > b->size - m->offset)
        return writes(m->type) ? -ENOSPC : -EINVAL;
    return ((m->offset | m->length) & 511) != 0 ? -EINVAL : 0;
}

static int check_hash(const struct nbd_job *m, const struct block *b)
{
    bool to_end = m->offset + m->length == b->size;

    if (!m->conn->has_hash || m->offset % 4096 != 0 || (m->length % 4096 != 0 && !to_end))
        return -EINVAL;
    return 0;
}

static int check(const struct nbd_job *m)
{
    const struct nbd_conn *c = m->conn;
    const struct block *b = c->server->block;
    int known = flags_of(c, m->type), rc;

    if (c->server->stopping)
        return -ESHUTDOWN;
    if (known < 0 || (m->flags & ~(unsigned)known) != 0)
        return -EINVAL;
    if (writes(m->type) && (c->read_only || b->read_only))
        return -EPERM;
    if (m->type == NBD_CMD_FLUSH)
        return 0;
    rc = check_range(m, b);
    if (rc < 0)
        return rc;
    if (m->type == NBD_CMD_BLOCK_STATUS && !c->has_status && !c->has_dirty)
        return -EINVAL;
    if (m->type == NBD_CMD_XAPI_HASH)
        return check_hash(m, b);
    /* Fast is only what gives space back; whether it is faster than writing is not known otherwise. */
    if ((m->flags & NBD_CMD_FLAG_FAST_ZERO) && (!b->thin || (m->flags & NBD_CMD_FLAG_NO_HOLE)))
        return -EOPNOTSUPP;
    return 0;
}

/* --- pieces ---------------------------------------------------------------------------------------- */

void nbd_piece_submit(struct nbd_piece *p, enum block_op op, unsigned flags, int64_t offset, uint32_t length, void (*done)(struct block_request *))
{
    struct nbd_conn *c = p->job->conn;
    struct block_request *r = &p->request;

    r->op = op;
    r->flags = flags;
    r->offset = offset;
    r->length = length;
    r->buffer = p->buffer;
    r->result = 0;
    r->done = done;
    r->owner = p;
    r->next = NULL;
    r->n_frames = 0;
    p->job->pieces++;
    c->pieces++;
    c->server->below++;
    block_submit(c->server->block, r);
}

bool nbd_job_last(const struct nbd_job *m) { return m->issued && m->pieces == 1; }

/* All of it is back. */
static void finish(struct nbd_job *m)
{
    if (!m->conn->dead) {
        nbd_job_answer(m);
        return;
    }
    if (m->result != NULL)
        nbd_piece_give(m->conn->server, m->result);
    m->result = NULL;
    nbd_job_give(m);
}

void nbd_job_done(struct nbd_job *m, int error)
{
    struct nbd_conn *c = m->conn;

    m->pieces--;
    c->pieces--;
    c->server->below--;
    if (error != 0 && m->error == 0)
        m->error = error;
    if (m->issued && m->pieces == 0)
        finish(m);
    if (c->dead || c->server->stopping)
        nbd_conn_settle(c);
}

static void piece_done(struct block_request *r)
{
    struct nbd_piece *p = r->owner;
    struct nbd_job *m = p->job;
    int error = r->result;

    nbd_piece_give(m->conn->server, p);
    nbd_job_done(m, error);
}

/* --- commands without a payload --------------------------------------------------------------------- */

static bool issue_flush(struct nbd_conn *c, struct nbd_job *m)
{
    struct nbd_piece *p = nbd_piece_take(c->server, m, NBD_BARE, false);

    if (p == NULL)
        return false;
    m->issued = true;
    nbd_piece_submit(p, BLOCK_FLUSH, 0, 0, 0, piece_done);
    return true;
}

/* Zeroes and trims, cut where the longest requests end, so that each covers whole blocks of the image. */
static bool issue_range(struct nbd_conn *c, struct nbd_job *m)
{
    enum block_op op = m->type == NBD_CMD_TRIM ? BLOCK_DISCARD : BLOCK_ZERO;
    unsigned flags = (m->flags & NBD_CMD_FLAG_FUA && op == BLOCK_ZERO ? BLOCK_FUA : 0u) | (m->flags & NBD_CMD_FLAG_NO_HOLE ? BLOCK_NO_HOLE : 0u);

    while (m->at < m->length && m->error == 0) {
        struct nbd_piece *p = nbd_piece_take(c->server, m, NBD_BARE, false);
        int64_t from = m->offset + m->at;
        uint32_t left = m->length - m->at, n = BLOCK_REQUEST_MAX - (uint32_t)(from % BLOCK_REQUEST_MAX);

        if (p == NULL)
            return false;
        n = n < left ? n : left;
        m->at += n;
        m->issued = m->at == m->length;
        bool last = m->issued; /* the command may be over at once */
        nbd_piece_submit(p, op, flags, from, n, piece_done);
        if (last)
            return true;
    }
    m->issued = true; /* a piece failed: the rest is left out */
    if (m->pieces == 0)
        nbd_job_answer(m);
    return true;
}

bool nbd_job_issue(struct nbd_conn *c, struct nbd_job *m)
{
    switch (m->type) {
    case NBD_CMD_READ:
        return nbd_read_issue(c, m);
    case NBD_CMD_FLUSH:
        return issue_flush(c, m);
    case NBD_CMD_TRIM:
    case NBD_CMD_WRITE_ZEROES:
        return issue_range(c, m);
    case NBD_CMD_BLOCK_STATUS:
        return nbd_status_issue(c, m);
    case NBD_CMD_XAPI_HASH:
        return nbd_hash_issue(c, m);
    default: /* CACHE: reading ahead is the medium's business */
        m->issued = true;
        nbd_job_answer(m);
        return true;
    }
}

/* --- taking in ---------------------------------------------------------------------------------------- */

/* A head of 28 bytes stands at in_at. False: drop the connection. *held_r: nothing to take it into yet. */
static bool take_command(struct nbd_conn *c, bool *held_r)
{
    const unsigned char *h = c->in + c->in_at;

    if (nbd_get32(h) != NBD_MAGIC_REQUEST)
        return false;
    if (nbd_get16(h + 6) == NBD_CMD_DISC) {
        c->draining = true;
        return true;
    }
    struct nbd_job *m = nbd_job_take(c);
    *held_r = m == NULL;
    if (m == NULL)
        return true;
    m->flags = nbd_get16(h + 4);
    m->type = nbd_get16(h + 6);
    m->cookie = nbd_get64(h + 8);
    m->offset = (int64_t)nbd_get64(h + 16);
    m->length = nbd_get32(h + 24);
    c->in_at += HEAD;
    m->error = check(m);
    c->bulk = m->type == NBD_CMD_WRITE && m->length >= BULK_MIN;
    c->left = m->type == NBD_CMD_WRITE ? m->length : 0;
    if (m->error != 0) {
        m->issued = true;
        nbd_job_answer(m);
        c->intake = c->left > 0 ? NBD_IN_SKIP : NBD_IN_COMMAND;
        return true;
    }
    c->job = m;
    c->intake = m->type == NBD_CMD_WRITE ? NBD_IN_PAYLOAD : NBD_IN_ISSUE;
    if (m->type == NBD_CMD_READ)
        nbd_read_begin(m);
    return true;
}

static void submit_write(struct nbd_conn *c)
{
    struct nbd_job *m = c->job;
    struct nbd_piece *p = c->piece;
    int64_t at = m->offset + m->at;

    c->piece = NULL;
    m->at += c->filled;
    m->issued = m->at == m->length;
    if (m->issued) {
        c->job = NULL;
        c->intake = NBD_IN_COMMAND;
    }
    nbd_piece_submit(p, BLOCK_WRITE, m->flags & NBD_CMD_FLAG_FUA ? BLOCK_FUA : 0u, at, c->filled, piece_done);
}

/* How much the piece at hand is to hold. */
static uint32_t piece_goal(const struct nbd_conn *c)
{
    uint32_t goal = c->filled + c->left, size = nbd_size_bytes(c->piece->class);

    return goal < size ? goal : size;
}

/* False: no buffer. */
static bool take_payload(struct nbd_conn *c)
{
    if (c->piece == NULL) {
        for (enum nbd_size k = nbd_size_for(c->left); c->piece == NULL && k < NBD_CLASSES; k++)
            c->piece = nbd_piece_take(c->server, c->job, k, false);
        c->filled = 0;
    }
    if (c->piece == NULL)
        return false;
    uint32_t goal = piece_goal(c), n = goal - c->filled;
    size_t there = c->in_len - c->in_at;

    n = there < n ? (uint32_t)there : n;
    memcpy((char *)c->piece->buffer + c->filled, c->in + c->in_at, n);
    c->in_at += n;
    c->filled += n;
    c->left -= n;
    if (c->filled == goal)
        submit_write(c);
    return true;
}

bool nbd_conn_input(struct nbd_conn *c)
{
    if (nbd_session_waits(c)) {
        nbd_conn_wait(c);
        return true;
    }
    while (!c->draining) {
        size_t there = c->in_len - c->in_at;
        bool held = false;

        if (c->intake == NBD_IN_COMMAND) {
            if (there < HEAD)
                return true;
            if (!take_command(c, &held))
                return false;
        } else if (c->intake == NBD_IN_PAYLOAD) {
            if (there == 0 && c->piece != NULL)
                return true;
            held = !take_payload(c);
        } else if (c->intake == NBD_IN_SKIP) {
            uint32_t n = there < c->left ? (uint32_t)there : c->left;

            c->in_at += n;
            c->left -= n;
            if (c->left > 0)
                return true;
            c->intake = NBD_IN_COMMAND;
        } else {
            held = !nbd_job_issue(c, c->job);
            if (!held) {
                c->job = NULL;
                c->intake = NBD_IN_COMMAND;
            }
        }
        if (held) {
            nbd_conn_wait(c);
            return true;
        }
    }
    return true;
}

int nbd_conn_places(struct nbd_conn *c, struct iovec v[2])
{
    int n = 0;
    size_t want = NBD_INPUT_SIZE;

    if (c->draining || c->waiting)
        return 0;
    if (c->in_at > 0) {
        memmove(c->in, c->in + c->in_at, c->in_len - c->in_at);
        c->in_len -= c->in_at;
        c->in_at = 0;
    }
    if (c->phase == NBD_CONN_SERVING && c->intake == NBD_IN_PAYLOAD && c->piece != NULL) {
        uint32_t more = piece_goal(c) - c->filled;

        CHECK(c->in_len == 0);
        v[n++] = (struct iovec){ .iov_base = (char *)c->piece->buffer + c->filled, .iov_len = more };
        if (more < c->left)
            return n; /* what follows belongs into the next buffer */
    }
    if (c->phase == NBD_CONN_SERVING && c->bulk && c->intake != NBD_IN_SKIP)
        want = HEAD;
    if (c->in_len < want)
        v[n++] = (struct iovec){ .iov_base = c->in + c->in_len, .iov_len = want - c->in_len };
    return n;
}

void nbd_conn_got(struct nbd_conn *c, size_t n)
{
    c->moved_us = loop_now_us(c->server->loop);
    if (c->phase == NBD_CONN_SERVING && c->intake == NBD_IN_PAYLOAD && c->piece != NULL) {
        uint32_t more = piece_goal(c) - c->filled, put = n < more ? (uint32_t)n : more;
        bool full = put == more;

        c->filled += put;
        c->left -= put;
        n -= put;
        c->in_len += n;
        if (full)
            submit_write(c);
        return;
    }
    c->in_len += n;
}
