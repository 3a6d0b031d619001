/* The guest's memory: two memfds, the store of one page, the balloon. */
#include "xenops/sim/guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void *shared_map(int fd, size_t size)
{
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        return NULL;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return p != MAP_FAILED ? p : NULL;
}

bool ram_create(struct guest *g)
{
    uint64_t n = g->settings.n_pages;

    g->ram_fd = memfd_create("guest-ram", MFD_CLOEXEC);
    g->shared_fd = memfd_create("guest-shared", MFD_CLOEXEC);
    g->ram = shared_map(g->ram_fd, n * GUEST_PAGE);
    g->control = shared_map(g->shared_fd, guest_shared_size(n));
    if (g->ram == NULL || g->control == NULL) {
        fprintf(stderr, "xapi-guest: no memory for %llu pages: %s\n", (unsigned long long)n, strerror(errno));
        return false;
    }
    g->dirty = guest_bitmap(g->control);
    g->control->version = GUEST_VERSION;
    g->control->pid = (uint32_t)getpid();
    g->control->n_pages = n;
    atomic_store(&g->control->actual_pages, g->settings.target_pages);
    atomic_store(&g->control->target_pages, g->settings.target_pages);
    g->control->magic = GUEST_CONTROL_MAGIC;
    return true;
}

static enum guest_content content_of(const struct guest *g, uint64_t page)
{
    if (!g->settings.mixed_content || page % 4 < 2)
        return GUEST_CONTENT_RANDOM;
    return page % 4 == 2 ? GUEST_CONTENT_HALF_ZERO : GUEST_CONTENT_TEXT;
}

void ram_store(struct guest *g, uint64_t page)
{
    struct guest_page *p = guest_page_at(g, page);

    if (g->unverified != NULL)
        faults_check(g, page);
    uint32_t version = p->version + 1;
    guest_page_fill(p, g->boot, page, version != 0 ? version : 1, content_of(g, page));
    guest_bitmap_set(g->dirty, page);
    witness_page(&g->witness, page, p->version);
}

/* Pages from..to read as zero from now on. The witness first: it must never be ahead of the page. */
static void release(struct guest *g, uint64_t from, uint64_t to)
{
    for (uint64_t page = from; page < to; page++)
        witness_page(&g->witness, page, 0);
    if (fallocate(g->ram_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(from * GUEST_PAGE), (off_t)((to - from) * GUEST_PAGE)) < 0)
        memset(g->ram + from * GUEST_PAGE, 0, (to - from) * GUEST_PAGE);
    for (uint64_t page = from; page < to; page++)
        guest_bitmap_set(g->dirty, page);
}

void ram_balloon(struct guest *g, uint64_t target)
{
    uint64_t actual = atomic_load(&g->control->actual_pages);

    if (target > g->settings.n_pages)
        target = g->settings.n_pages;
    if (target < 256)
        target = g->settings.n_pages < 256 ? g->settings.n_pages : 256; /* it keeps 1 MiB */
    atomic_store(&g->control->target_pages, target);
    if (g->settings.no_balloon || faults_pending(g)) /* then at the end of it */
        return;
    if (target < actual)
        release(g, target, actual);
    atomic_store(&g->control->actual_pages, target);
}

