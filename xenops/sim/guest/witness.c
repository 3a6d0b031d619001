#include "xenops/sim/guest/witness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"

#define WITNESS_MAGIC 0x3153534e54495758ull
#define BLOCKS_AT 4096u
#define PAGES_AT (BLOCKS_AT + GUEST_DISKS * WITNESS_BLOCKS * 4)

struct witness_header {
    uint64_t magic, boot, n_pages;
    char uuid[40];
    char devices[GUEST_DISKS][GUEST_DEVICE_LEN];
};
_Static_assert(sizeof(struct witness_header) <= BLOCKS_AT, "witness header");

static bool failed(const char *path, const char *what)
{
    fprintf(stderr, "xapi-guest: witness %s: %s\n", path, what);
    return false;
}

static bool map(struct witness *w, const char *path, int fd, uint64_t n_pages)
{
    w->size = PAGES_AT + n_pages * 4;
    void *p = mmap(NULL, w->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return failed(path, strerror(errno));
    w->header = p;
    w->blocks = (_Atomic uint32_t *)(void *)((char *)p + BLOCKS_AT);
    w->pages = (_Atomic uint32_t *)(void *)((char *)p + PAGES_AT);
    w->n_pages = n_pages;
    return true;
}

bool witness_create(struct witness *w, const char *path, const char *uuid, uint64_t boot, uint64_t n_pages)
{
    witness_close(w);
    if (path[0] == '\0')
        return true;
    unlink(path); /* never cut what another process may have mapped */
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)(PAGES_AT + n_pages * 4)) < 0)
        return failed(path, strerror(errno));
    if (!map(w, path, fd, n_pages))
        return false;
    w->header->boot = boot;
    w->header->n_pages = n_pages;
    snprintf(w->header->uuid, sizeof(w->header->uuid), "%s", uuid);
    w->header->magic = WITNESS_MAGIC;
    return true;
}

bool witness_open(struct witness *w, const char *path, const char *uuid, uint64_t boot, uint64_t n_pages, bool *found_r)
{
    struct stat st;

    witness_close(w);
    *found_r = false;
    if (path[0] == '\0')
        return true;
    AUTO_FD fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || failed(path, strerror(errno));
    if (fstat(fd, &st) < 0 || (uint64_t)st.st_size != PAGES_AT + n_pages * 4)
        return failed(path, "belongs to another amount of memory");
    if (!map(w, path, fd, n_pages))
        return false;
    const struct witness_header *h = w->header;
    if (h->magic != WITNESS_MAGIC || h->n_pages != n_pages || strncmp(h->uuid, uuid, sizeof(h->uuid)) != 0)
        return failed(path, "belongs to another guest");
    if (h->boot != boot)
        return failed(path, "belongs to another boot than this image (platform:sim-witness-reset=true if that is meant)");
    *found_r = true;
    return true;
}

void witness_close(struct witness *w)
{
    if (w->header != NULL)
        munmap(w->header, w->size);
    *w = (struct witness){ .header = NULL };
}

_Atomic uint32_t *witness_disk(struct witness *w, const char *device)
{
    if (w->header == NULL)
        return NULL;
    for (unsigned i = 0; i < GUEST_DISKS; i++) {
        char *slot = w->header->devices[i];
        if (slot[0] == '\0')
            snprintf(slot, GUEST_DEVICE_LEN, "%s", device);
        if (strncmp(slot, device, GUEST_DEVICE_LEN) == 0)
            return w->blocks + (size_t)i * WITNESS_BLOCKS;
    }
    return NULL;
}
