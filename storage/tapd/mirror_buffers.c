#include <sys/mman.h>

#include "rpc/base/check.h"
#include "storage/tapd/mirror_private.h"

void mirror_buffers_map(struct mirror_buffers *b, size_t size)
{
    b->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(b->bytes != MAP_FAILED);
    b->size = size;
    b->used = 0;
}

uint8_t *mirror_buffers_take(struct mirror_buffers *b, size_t n)
{
    uint8_t *taken = b->bytes + b->used;

    b->used += n;
    CHECK(b->used <= b->size);
    return taken;
}

void mirror_buffers_unmap(struct mirror_buffers *b)
{
    if (b->bytes != NULL)
        munmap(b->bytes, b->size);
    b->bytes = NULL;
}
