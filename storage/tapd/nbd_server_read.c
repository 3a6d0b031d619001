/* Reads: in pieces answered as they come, holes told as holes. */
#include <errno.h>

#include "rpc/base/check.h"
#include "rpc/nbd/nbd_endian.h"
#include "storage/tapd/nbd_server_private.h"

#define LOOKUP_MIN (64u << 10) /* shorter reads are not worth asking about holes */
#define LOOKUPS_SKIPPED_MAX 64u

/* --- holes ------------------------------------------------------------------------------------------ */

struct ranges { struct nbd_conn *conn; const struct nbd_job *m; };

static bool add_range(void *ctx, const struct block_extent *e)
{
    struct ranges *found = ctx;
    struct nbd_conn *c = found->conn;
    int64_t from = e->offset - found->m->offset, to = from + e->length;
    struct nbd_range *last = c->n_ranges > 0 ? &c->ranges[c->n_ranges - 1] : NULL;
    uint32_t at = last != NULL ? last->to : 0;

    if (from > at || to <= at) /* out of order: not believed */
        return false;
    if (to > found->m->length)
        to = found->m->length;
    bool hole = e->hole || e->zero;
    if (last != NULL && last->hole == hole) {
        last->to = (uint32_t)to;
        return true;
    }
    if (c->n_ranges == NBD_RANGES - 1)
        return false;
    c->ranges[c->n_ranges++] = (struct nbd_range){ at, (uint32_t)to, hole };
    return true;
}

/* Asking costs a look at the metadata or a system call or two: disks that turn out dense are asked less often. */
static void find_holes(struct nbd_conn *c, const struct nbd_job *m)
{
    struct ranges found = { c, m };

    if (!c->structured || (m->flags & NBD_CMD_FLAG_DF) || m->length < LOOKUP_MIN)
        return;
    if (c->skip_lookups > 0) {
        c->skip_lookups--;
        return;
    }
    if (block_extents(c->server->block, m->offset, m->length, false, add_range, &found) < 0)
        c->n_ranges = 0; /* a closed gate, a medium that cannot tell: all may be data */
    if (c->n_ranges > 1 || (c->n_ranges == 1 && c->ranges[0].hole)) {
        c->dense = 0;
    } else {
        c->dense = c->dense * 2 + 1 < LOOKUPS_SKIPPED_MAX ? c->dense * 2 + 1 : LOOKUPS_SKIPPED_MAX;
        c->skip_lookups = c->dense;
    }
}

void nbd_read_begin(struct nbd_job *m)
{
    struct nbd_conn *c = m->conn;

    c->n_ranges = c->range = 0;
    find_holes(c, m);
    uint32_t known = c->n_ranges > 0 ? c->ranges[c->n_ranges - 1].to : 0;
    if (known < m->length)
        c->ranges[c->n_ranges++] = (struct nbd_range){ known, m->length, false };
    m->ordered = m->length > BLOCK_REQUEST_MAX && (!c->structured || (m->flags & NBD_CMD_FLAG_DF));
}

/* --- answers ------------------------------------------------------------------------------------------ */

static void head_of(struct nbd_piece *p, const struct nbd_job *m, bool last)
{
    const struct block_request *r = &p->request;
    struct nbd_out *out = &p->out;
    uint32_t length = m->ordered ? m->length : r->length;

    out->data = p->buffer;
    out->length = r->length;
    out->head_len = 0;
    if (m->ordered && r->offset > m->offset)
        return; /* goes on where the piece before it ended */
    if (!m->conn->structured) {
        nbd_reply_simple(out, m->cookie, 0);
        return;
    }
    unsigned flags = last || m->ordered ? NBD_REPLY_FLAG_DONE : 0;
    nbd_put64(nbd_reply_chunk(out, m->cookie, flags, NBD_REPLY_OFFSET_DATA, 8 + length), (uint64_t)r->offset);
    out->head_len += 8;
}

/* The last chunk says so: nothing more is to be answered. */
static void over(struct nbd_job *m)
{
    m->pieces--;
    m->conn->pieces--;
    m->conn->server->below--;
    nbd_job_give(m);
}

static void read_done(struct block_request *r)
{
    struct nbd_piece *p = r->owner;
    struct nbd_job *m = p->job;
    struct nbd_conn *c = m->conn;
    int error = r->result;
    bool last = nbd_job_last(m) && error == 0 && m->error == 0;

    if (error != 0 || c->dead) {
        nbd_piece_give(c->server, p);
        if (m->ordered && m->at > r->length && error != 0)
            c->ended = true; /* its head promised data: only the end of the connection can take that back */
        nbd_job_done(m, error);
        return;
    }
    head_of(p, m, last);
    p->job = NULL;
    nbd_out_add(c, &p->out);
    if (last)
        over(m);
    else
        nbd_job_done(m, 0);
}

/* --- pieces ------------------------------------------------------------------------------------------- */

static struct nbd_piece *take(struct nbd_conn *c, struct nbd_job *m, uint32_t length)
{
    struct nbd_piece *p = NULL;

    for (enum nbd_size k = nbd_size_for(length); p == NULL && k < NBD_CLASSES; k++)
        p = nbd_piece_take(c->server, m, k, true);
    return p;
}

/* One piece at a time, and nothing else meanwhile: all of it is one reply, of which the head is gone when a later
 * piece fails. */
static bool issue_ordered(struct nbd_conn *c, struct nbd_job *m)
{
    while (c->jobs == 1 && m->pieces == 0 && c->out == NULL) {
        uint32_t left = m->length - m->at, n = left < BLOCK_REQUEST_MAX ? left : BLOCK_REQUEST_MAX;
        int64_t at = m->offset + m->at;

        if (m->error != 0) {
            m->issued = true;
            nbd_job_answer(m);
            return true;
        }
        struct nbd_piece *p = take(c, m, n);
        if (p == NULL)
            return false;
        m->at += n;
        m->issued = m->at == m->length;
        bool last = m->issued; /* the job may be over at once */
        nbd_piece_submit(p, BLOCK_READ, 0, at, n, read_done);
        if (last)
            return true;
    }
    return false;
}

/* The end of the pieces, when no piece of data came last. */
static void issued_all(struct nbd_job *m, struct nbd_piece *hole)
{
    struct nbd_conn *c = m->conn;

    m->issued = true;
    if (hole == NULL || m->pieces > 0 || m->error != 0) {
        if (hole != NULL)
            nbd_out_add(c, &hole->out);
        if (m->pieces == 0)
            nbd_job_answer(m);
        return;
    }
    nbd_put16(hole->out.head + 4, NBD_REPLY_FLAG_DONE);
    nbd_out_add(c, &hole->out);
    nbd_job_give(m);
}

static struct nbd_piece *make_hole(struct nbd_conn *c, struct nbd_job *m, uint32_t n)
{
    struct nbd_piece *p = nbd_piece_take(c->server, m, NBD_BARE, true);

    if (p == NULL)
        return NULL;
    unsigned char *at = nbd_reply_chunk(&p->out, m->cookie, 0, NBD_REPLY_OFFSET_HOLE, 12);
    nbd_put32(nbd_put64(at, (uint64_t)(m->offset + m->at)), n);
    p->out.head_len += 12;
    p->job = NULL;
    return p;
}

bool nbd_read_issue(struct nbd_conn *c, struct nbd_job *m)
{
    if (m->ordered)
        return issue_ordered(c, m);
    while (m->at < m->length && m->error == 0) {
        const struct nbd_range *range = &c->ranges[c->range];
        uint32_t n = range->to - m->at;
        struct nbd_piece *p;

        if (range->hole) {
            p = make_hole(c, m, n);
        } else {
            n = n < BLOCK_REQUEST_MAX ? n : BLOCK_REQUEST_MAX;
            p = take(c, m, n);
        }
        if (p == NULL)
            return false;
        int64_t at = m->offset + m->at;
        m->at += n;
        bool last = m->at == m->length, hole = range->hole;
        if (m->at == range->to)
            c->range++;
        if (hole && last)
            issued_all(m, p);
        else if (hole)
            nbd_out_add(c, &p->out);
        else {
            m->issued = last;
            nbd_piece_submit(p, BLOCK_READ, 0, at, n, read_done);
        }
        if (last)
            return true;
    }
    issued_all(m, NULL);
    return true;
}
