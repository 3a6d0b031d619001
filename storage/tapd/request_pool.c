#include <string.h>
#include <sys/mman.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "storage/tapd/block.h"

struct request_pool {
    struct block_request *requests, *free;
    unsigned n, n_free;
    uint8_t *buffers; /* mapped: page-aligned, and memory only once written to */
    size_t buffers_size;
};

struct request_pool *request_pool_new(unsigned n, uint32_t buffer_size)
{
    struct request_pool *p = xcalloc(1, sizeof(*p));
    size_t step = ((size_t)buffer_size + 4095) & ~(size_t)4095;

    p->n = n;
    p->requests = xcalloc(n, sizeof(*p->requests));
    if (step > 0 && n > 0) {
        p->buffers_size = step * n;
        p->buffers = mmap(NULL, p->buffers_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(p->buffers != MAP_FAILED);
    }
    for (unsigned i = n; i > 0; i--) {
        struct block_request *r = &p->requests[i - 1];
        r->buffer = p->buffers != NULL ? p->buffers + step * (i - 1) : NULL;
        request_give(p, r);
    }
    return p;
}

struct block_request *request_take(struct request_pool *p)
{
    struct block_request *r = p->free;

    if (r == NULL)
        return NULL;
    p->free = r->next;
    p->n_free--;
    void *buffer = p->buffers != NULL ? p->buffers + p->buffers_size / p->n * (size_t)(r - p->requests) : NULL;
    /* the frames are written before they are read: clearing them would be half the work */
    memset(r, 0, offsetof(struct block_request, frames));
    r->n_frames = 0;
    r->buffer = buffer;
    return r;
}

void request_give(struct request_pool *p, struct block_request *r)
{
    r->next = p->free;
    p->free = r;
    p->n_free++;
    CHECK(p->n_free <= p->n);
}

unsigned request_pool_free_count(const struct request_pool *p) { return p->n_free; }

void request_pool_free(struct request_pool *p)
{
    if (p == NULL)
        return;
    CHECK(p->n_free == p->n);
    if (p->buffers != NULL)
        munmap(p->buffers, p->buffers_size);
    xfree(p->requests);
    xfree(p);
}
