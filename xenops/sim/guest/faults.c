/* Post-copy: running before all of the memory is there (xenops/stream/postcopy.h).
 *
 * No page is seen before the toolstack shows it, through our userfaultfd. We keep that open, too, so that a page is waited for
 * even when the toolstack is gone: it never reads as stale or empty. A page is verified before it is written for the first time, and all
 * the rest at the end, while the guest runs on. */
#include "xenops/sim/guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"

bool faults_begin(struct guest *g, const char **why_r)
{
    uint64_t size = g->settings.n_pages * GUEST_PAGE, words = (g->settings.n_pages + 63) / 64;
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };
    struct uffdio_register all = { .range = { .start = (uint64_t)(uintptr_t)g->ram, .len = size },
                                   .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR };
    AUTO_FD fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) < 0 || ioctl(fd, UFFDIO_REGISTER, &all) < 0) {
        *why_r = arena_printf(g->arena, "needs userfaultfd: %s", strerror(errno));
        return false;
    }
    g->unverified = xcalloc(words, sizeof(*g->unverified));
    for (uint64_t w = 0; w < words; w++)
        atomic_init(&g->unverified[w], UINT64_MAX);
    g->faults_fd = fd_steal(&fd);
    return true;
}

bool faults_pending(const struct guest *g) { return g->faults_fd >= 0; }
bool faults_lost(const struct guest *g) { return faults_pending(g) && atomic_load(&g->control->postcopy) == GUEST_POSTCOPY_LOST; }

bool faults_take(struct guest *g, uint64_t page)
{
    uint64_t bit = 1ull << (page % 64);

    return g->unverified == NULL || (atomic_fetch_and(&g->unverified[page / 64], ~bit) & bit) != 0;
}

void faults_check(struct guest *g, uint64_t page)
{
    if (!faults_take(g, page)) {
        while (atomic_load(&g->looked_at) == page) /* some hundred nanoseconds */
            ;
        return;
    }
    if (verify_page(g, page))
        return;
    fprintf(stderr, "VERIFY FAIL %s %llu\n", g->settings.uuid, (unsigned long long)page);
    atomic_store(&g->bad_page, page);
    guest_end(g, GUEST_END_CRASH);
}

static void unregister(struct guest *g)
{
    struct uffdio_range all = { .start = (uint64_t)(uintptr_t)g->ram, .len = g->settings.n_pages * GUEST_PAGE };

    if (ioctl(g->faults_fd, UFFDIO_UNREGISTER, &all) < 0)
        fprintf(stderr, "xapi-guest: userfaultfd: %s\n", strerror(errno));
    fd_close(&g->faults_fd);
}

bool faults_end(struct guest *g, bool running, bool verify, char failed_r[64])
{
    uint64_t at = 0;

    unregister(g); /* all that is there is good now */
    if (verify && !verify_pages(g, &at)) {
        snprintf(failed_r, 64, "%llu", (unsigned long long)at);
        fprintf(stderr, "VERIFY FAIL %s %s\n", g->settings.uuid, failed_r);
        return false;
    }
    gate_close(&g->gate); /* also where it is closed: somebody may have waited for a page since then */
    xfree(g->unverified);
    g->unverified = NULL;
    if (g->adopt)
        verify_adopt(g);
    g->adopt = false;
    ram_balloon(g, atomic_load(&g->control->target_pages)); /* as it was told meanwhile */
    if (running)
        gate_open(&g->gate);
    if (verify)
        atomic_store(&g->control->pages_verified, g->settings.n_pages);
    return true;
}
