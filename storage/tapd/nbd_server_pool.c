/* All memory of requests, made once. Untouched buffers cost address space only; the last one given back is the
 * next one taken, so that a light load stays within the cache. */
#include <sys/mman.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/nbd_server_private.h"

/* Together at most BLOCK_GUEST_DEPTH. */
static const struct { unsigned n; uint32_t size; } classes[NBD_CLASSES] = {
    [NBD_BARE] = { 32, 0 },
    [NBD_SMALL] = { 128, 16u << 10 },
    [NBD_MIDDLE] = { 64, 256u << 10 },
    [NBD_LARGE] = { 24, BLOCK_REQUEST_MAX },
};

uint32_t nbd_size_bytes(enum nbd_size c) { return classes[c].size; }

enum nbd_size nbd_size_for(uint32_t length)
{
    enum nbd_size c = NBD_SMALL;

    while (c < NBD_LARGE && classes[c].size < length)
        c++;
    return c;
}

void nbd_pool_init(struct nbd_pool *p)
{
    unsigned n = 0;
    size_t bytes = 0;

    for (unsigned c = 0; c < NBD_CLASSES; c++) {
        n += classes[c].n;
        bytes += (size_t)classes[c].n * classes[c].size;
    }
    CHECK(n <= BLOCK_GUEST_DEPTH);
    p->memory_size = bytes;
    p->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(p->memory != MAP_FAILED);
    p->all = xcalloc(n, sizeof *p->all);
    p->all_jobs = xcalloc(NBD_JOBS, sizeof *p->all_jobs);
    char *at = p->memory;
    struct nbd_piece *piece = p->all;
    for (unsigned c = 0; c < NBD_CLASSES; c++)
        for (unsigned i = 0; i < classes[c].n; i++, piece++, at += classes[c].size) {
            piece->class = (enum nbd_size)c;
            piece->buffer = classes[c].size > 0 ? at : NULL;
            piece->next = p->free[c];
            p->free[c] = piece;
            p->n_free[c]++;
        }
    for (unsigned i = 0; i < NBD_JOBS; i++) {
        p->all_jobs[i].out.is_job = true;
        p->all_jobs[i].next = p->jobs;
        p->jobs = &p->all_jobs[i];
    }
}

void nbd_pool_release(struct nbd_pool *p)
{
    munmap(p->memory, p->memory_size);
    xfree(p->all);
    xfree(p->all_jobs);
}

struct nbd_piece *nbd_piece_take(struct nbd_server *s, struct nbd_job *job, enum nbd_size c, bool for_read)
{
    struct nbd_pool *p = &s->pool;

    /* A peer that does not take its replies keeps their buffers: writes must get through all the same. */
    if (p->n_free[c] <= (for_read ? classes[c].n / 4 : 0))
        return NULL;
    struct nbd_piece *piece = p->free[c];
    p->free[c] = piece->next;
    p->n_free[c]--;
    piece->job = job;
    piece->out.head_len = 0;
    piece->out.length = 0;
    return piece;
}

static void wake(struct nbd_server *s)
{
    if (s->waiting != NULL)
        loop_later(s->loop, &s->later);
}

void nbd_piece_give(struct nbd_server *s, struct nbd_piece *piece)
{
    struct nbd_pool *p = &s->pool;

    piece->job = NULL;
    piece->next = p->free[piece->class];
    p->free[piece->class] = piece;
    p->n_free[piece->class]++;
    wake(s);
}

struct nbd_job *nbd_job_take(struct nbd_conn *conn)
{
    struct nbd_pool *p = &conn->server->pool;
    struct nbd_job *job = p->jobs;

    if (job == NULL || conn->jobs >= NBD_JOBS_OF_ONE)
        return NULL;
    p->jobs = job->next;
    *job = (struct nbd_job){ .conn = conn, .out.is_job = true };
    conn->jobs++;
    return job;
}

void nbd_job_give(struct nbd_job *job)
{
    struct nbd_server *s = job->conn->server;

    CHECK(job->pieces == 0);
    job->conn->jobs--;
    job->conn = NULL;
    job->next = s->pool.jobs;
    s->pool.jobs = job;
    wake(s);
}

void nbd_conn_wait(struct nbd_conn *conn)
{
    struct nbd_server *s = conn->server;

    if (conn->waiting)
        return;
    conn->waiting = true;
    conn->next_waiting = NULL;
    *s->waiting_last = conn;
    s->waiting_last = &conn->next_waiting;
    if (s->sweep.at_us == 0)
        loop_timer_set(s->loop, &s->sweep, loop_now_us(s->loop) + NBD_SERVER_STALL_US / 4);
}
