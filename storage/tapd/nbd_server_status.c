/* Block status and hashes. */
#include <errno.h>

#include "rpc/nbd/nbd_endian.h"
#include "storage/tapd/nbd_server_private.h"
#include "storage/tapd/proof_hash.h"

#define EXTENTS_MAX 1000u /* in one reply of one context */
#define HALF 8192u        /* of the buffer: one for each context */

/* --- extents ------------------------------------------------------------------------------------------- */

struct extents {
    const struct nbd_job *m;
    unsigned char *first, *at; /* pairs of length and flags */
    unsigned n, max;
    int64_t covered;           /* up to here */
    bool dirty;                /* of the dirty context */
};

static uint32_t flags_for(const struct extents *x, const struct block_extent *e)
{
    if (x->dirty)
        return e->hole ? 0 : NBD_STATE_DIRTY;
    return (e->hole ? NBD_STATE_HOLE : 0u) | (e->zero ? NBD_STATE_ZERO : 0u);
}

static bool add_extent(void *ctx, const struct block_extent *e)
{
    struct extents *x = ctx;
    int64_t to = e->offset + e->length, end = x->m->offset + x->m->length;
    uint32_t flags = flags_for(x, e);

    to = to < end ? to : end;
    if (e->offset > x->covered || to <= x->covered)
        return false;
    uint32_t length = (uint32_t)(to - x->covered);
    if (x->n > 0 && nbd_get32(x->at - 4) == flags) {
        nbd_put32(x->at - 8, nbd_get32(x->at - 8) + length);
    } else {
        if (x->n == x->max)
            return false;
        x->at = nbd_put32(nbd_put32(x->at, length), flags);
        x->n++;
    }
    x->covered = to;
    return to < end;
}

/* One context's payload at 'to': its length in bytes, or -errno. */
static int describe(const struct nbd_job *m, unsigned id, unsigned char *to)
{
    struct nbd_server *s = m->conn->server;
    struct extents x = { .m = m, .first = to, .at = nbd_put32(to, id), .covered = m->offset, .dirty = id == NBD_CONTEXT_ID_DIRTY };
    int rc;

    x.max = m->flags & NBD_CMD_FLAG_REQ_ONE ? 1 : EXTENTS_MAX;
    if (!x.dirty)
        rc = block_extents(s->block, m->offset, m->length, false, add_extent, &x);
    else
        rc = s->dirty != NULL ? s->dirty->extents(s->dirty, m->offset, m->length, add_extent, &x) : -EIO;
    if (rc < 0)
        return rc;
    return x.n > 0 ? (int)(x.at - x.first) : -EIO;
}

static void chunk(struct nbd_out *out, const struct nbd_job *m, const unsigned char *data, int length, bool last)
{
    out->data = data;
    out->length = (uint32_t)length;
    nbd_reply_chunk(out, m->cookie, last ? NBD_REPLY_FLAG_DONE : 0u, NBD_REPLY_BLOCK_STATUS, out->length);
}

/* Answers from the buffer of p, or gives p back. 0, or why not. */
static int answer_status(struct nbd_job *m, struct nbd_piece *p)
{
    struct nbd_conn *c = m->conn;
    unsigned char *first = p->buffer, *second = first + HALF;
    int n = c->has_status ? describe(m, NBD_CONTEXT_ID_ALLOCATION, first) : 0;
    int n2 = n >= 0 && c->has_dirty ? describe(m, NBD_CONTEXT_ID_DIRTY, second) : 0;

    if (n < 0 || n2 < 0)
        return n < 0 ? n : n2;
    p->job = NULL;
    if (n > 0 && n2 > 0) { /* the command's own reply goes first: the buffer is given back with the second */
        chunk(&m->out, m, first, n, false);
        chunk(&p->out, m, second, n2, true);
        nbd_out_add(c, &m->out);
        nbd_out_add(c, &p->out);
    } else {
        chunk(&p->out, m, n > 0 ? first : second, n > 0 ? n : n2, true);
        nbd_out_add(c, &p->out);
        nbd_job_give(m);
    }
    return 0;
}

static void ask_again(struct block_request *);

/* Now, or when the gate is open again: a small read waits at it. */
static void try_status(struct nbd_job *m, struct nbd_piece *p)
{
    struct nbd_conn *c = m->conn;
    int rc = answer_status(m, p);

    if (rc == 0)
        return;
    if (rc == -EAGAIN) {
        nbd_piece_submit(p, BLOCK_READ, 0, m->offset, 512, ask_again);
        return;
    }
    nbd_piece_give(c->server, p);
    m->error = rc;
    nbd_job_answer(m);
}

static void ask_again(struct block_request *r)
{
    struct nbd_piece *p = r->owner;
    struct nbd_job *m = p->job;
    struct nbd_conn *c = m->conn;

    if (c->dead || r->result != 0) {
        int error = r->result;
        nbd_piece_give(c->server, p);
        nbd_job_done(m, error);
        return;
    }
    m->pieces--;
    c->pieces--;
    c->server->below--;
    try_status(m, p);
    if (c->server->stopping)
        nbd_conn_settle(c);
}

bool nbd_status_issue(struct nbd_conn *c, struct nbd_job *m)
{
    struct nbd_piece *p = nbd_piece_take(c->server, m, NBD_SMALL, true);

    if (p == NULL)
        return false;
    m->issued = true;
    try_status(m, p);
    return true;
}

/* --- hashes --------------------------------------------------------------------------------------------- */

static void hash_done(struct block_request *r)
{
    struct nbd_piece *p = r->owner;
    struct nbd_job *m = p->job;
    struct nbd_conn *c = m->conn;
    int error = r->result;
    uint8_t (*digests)[PROOF_DIGEST] = m->result->buffer;

    if (error == 0 && !c->dead)
        proof_hash_blocks(p->buffer, r->length, digests + (r->offset - m->offset) / NBD_HASH_BLOCK);
    nbd_piece_give(c->server, p);
    nbd_job_done(m, error);
}

bool nbd_hash_issue(struct nbd_conn *c, struct nbd_job *m)
{
    if (m->result == NULL) {
        m->result = nbd_piece_take(c->server, m, NBD_SMALL, true);
        if (m->result == NULL)
            return false;
        m->result->out.length = (m->length + NBD_HASH_BLOCK - 1) / NBD_HASH_BLOCK * PROOF_DIGEST;
    }
    while (m->at < m->length && m->error == 0) {
        uint32_t left = m->length - m->at, n = left < BLOCK_REQUEST_MAX ? left : BLOCK_REQUEST_MAX;
        struct nbd_piece *p = nbd_piece_take(c->server, m, nbd_size_for(n), false);
        int64_t at = m->offset + m->at;

        if (p == NULL)
            return false;
        m->at += n;
        m->issued = m->at == m->length;
        bool last = m->issued; /* the command may be over at once */
        nbd_piece_submit(p, BLOCK_READ, 0, at, n, hash_done);
        if (last)
            return true;
    }
    m->issued = true;
    if (m->pieces == 0)
        nbd_job_answer(m);
    return true;
}
