/* After a move and before running: is every page and every block whole, mine, and not older than the
 * witness says? Holes of the memfd are skipped, not touched: reading would allocate them. */
#include "xenops/sim/guest/guest.h"

#include <stdio.h>
#include <unistd.h>

#include "rpc/base/memory.h"
#include "xenops/sim/guest/disk_blocks.h"

/* The next pages that hold data at or after 'from': *from_r up to *to_r; false when there are none. */
static bool data_next(const struct guest *g, uint64_t from, uint64_t *from_r, uint64_t *to_r)
{
    off_t data = lseek(g->ram_fd, (off_t)(from * GUEST_PAGE), SEEK_DATA);

    if (data < 0)
        return false;
    off_t hole = lseek(g->ram_fd, data, SEEK_HOLE);
    if (hole < 0)
        hole = (off_t)(g->settings.n_pages * GUEST_PAGE);
    *from_r = (uint64_t)data / GUEST_PAGE;
    *to_r = (uint64_t)hole / GUEST_PAGE;
    return true;
}

/* The witness first: a vCPU takes a page before it writes it and tells the witness. */
static bool holes_good(struct guest *g, uint64_t from, uint64_t to, uint64_t *failed_r)
{
    for (*failed_r = from; *failed_r < to; ++*failed_r)
        if (witness_page_at(&g->witness, *failed_r) != 0 && faults_take(g, *failed_r))
            return false;
    return true;
}

bool verify_page(struct guest *g, uint64_t page)
{
    uint32_t version;

    return guest_page_check(guest_page_at(g, page), g->boot, page, &version) && version >= witness_page_at(&g->witness, page);
}

/* What is looked at here is not written meanwhile (faults_check waits). */
static bool data_good(struct guest *g, uint64_t from, uint64_t to, uint64_t *failed_r)
{
    bool good = true;

    for (*failed_r = from; good && *failed_r < to; *failed_r += good) {
        atomic_store(&g->looked_at, *failed_r);
        good = !faults_take(g, *failed_r) || verify_page(g, *failed_r);
    }
    atomic_store(&g->looked_at, UINT64_MAX);
    return good;
}

bool verify_pages(struct guest *g, uint64_t *failed_r)
{
    uint64_t at = 0, from, to, n = g->settings.n_pages;

    while (at < n && data_next(g, at, &from, &to)) {
        if (!holes_good(g, at, from, failed_r) || !data_good(g, from, to, failed_r))
            return false;
        at = to;
    }
    return holes_good(g, at, n, failed_r);
}

/* Is the i-th block, as read, at or beyond what the witness saw? */
static bool block_good(struct disk *d, uint64_t i, const struct guest_page *block, uint64_t number)
{
    struct guest *g = d->guest;
    uint32_t version, seen = atomic_load_explicit(&d->witness[i], memory_order_acquire);

    if (seen == 0)
        return true;
    if (!guest_page_check(block, disk_boot(g->boot, d->setting.device), number, &version) || version < seen)
        return false;
    atomic_fetch_add(&g->control->blocks_verified, 1);
    return true;
}

/* n neighbouring blocks from the i-th on, in one read when the witness knows any of them. */
static bool cluster_good(struct disk *d, uint64_t i, uint64_t n, struct guest_page *room, uint64_t *failed_r)
{
    bool seen = false;

    for (uint64_t k = 0; k < n; k++)
        seen = seen || atomic_load_explicit(&d->witness[i + k], memory_order_acquire) != 0;
    if (!seen)
        return true;
    *failed_r = disk_block_of(&d->setting, d->n_blocks, i);
    uint64_t first = *failed_r;
    if (medium_read(&d->medium, room, (uint32_t)(n * GUEST_PAGE), (int64_t)(first * GUEST_PAGE)) < 0)
        return false;
    for (uint64_t k = 0; k < n; k++) {
        *failed_r = first + k;
        if (!block_good(d, i + k, &room[k], first + k))
            return false;
    }
    return true;
}

static bool disk_good(struct disk *d, uint64_t *failed_r)
{
    AUTO_FREE char *room = xcalloc(DISK_CLUSTER + 1, GUEST_PAGE);
    bool good = true;

    for (uint64_t i = 0; good && d->witness != NULL && i < d->n_blocks; i += DISK_CLUSTER) {
        uint64_t n = d->n_blocks - i < DISK_CLUSTER ? d->n_blocks - i : DISK_CLUSTER;
        good = cluster_good(d, i, n, guest_page_in(room), failed_r);
    }
    d->unverified = false;
    return good;
}

static bool fail(struct guest *g, char failed_r[64])
{
    fprintf(stderr, "VERIFY FAIL %s %s\n", g->settings.uuid, failed_r);
    return false;
}

bool verify_disks(struct guest *g, bool must_be_open, char failed_r[64])
{
    uint64_t at = 0;

    for (unsigned i = 0; i < GUEST_DISKS; i++) {
        struct disk *d = &g->disks[i];
        if (!d->unverified || (!d->medium.open && !must_be_open))
            continue;
        if (disk_good(d, &at))
            continue;
        snprintf(failed_r, 64, "disk:%s:%llu", d->setting.device, (unsigned long long)at);
        return fail(g, failed_r);
    }
    return true;
}

bool verify_all(struct guest *g, char failed_r[64])
{
    uint64_t at = 0;

    atomic_store(&g->control->blocks_verified, 0);
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        g->disks[i].unverified = g->disks[i].setting.device[0] != '\0' && g->disks[i].setting.writable;
    if (!verify_pages(g, &at)) {
        snprintf(failed_r, 64, "%llu", (unsigned long long)at);
        return fail(g, failed_r);
    }
    atomic_store(&g->control->pages_verified, g->settings.n_pages);
    return verify_disks(g, false, failed_r);
}

void verify_adopt(struct guest *g)
{
    uint64_t at = 0, from, to;

    while (g->witness.header != NULL && at < g->settings.n_pages && data_next(g, at, &from, &to)) {
        for (uint64_t page = from; page < to; page++)
            witness_page(&g->witness, page, guest_page_at(g, page)->version);
        at = to;
    }
}
