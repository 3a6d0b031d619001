/* Post-copy of a simulated guest (xenops/stream/postcopy.h).
 *
 * The guest has registered its RAM with a userfaultfd for missing and minor faults before it touched any of it: whatever is
 * in the file behind it, no page is seen before this process, which holds the same descriptor, lets it be seen. A page that
 * comes is stored over its stale version through a mapping of our own, then shown: dropping stale ones beforehand would cost
 * microseconds each while the guest stands. */
#include "xenops/stream/postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/sim/host.h"

LOG_MODULE(sim);

/* Also where userfaultfd is for root alone: the guest's own touches are all that has to be seen. */
bool sim_postcopy_ready(void *host)
{
    AUTO_FD fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM };

    return fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
}

struct error *sim_postcopy_refuse(struct call *c, const struct sim_domain *d, const char *expected)
{
    uint32_t state = atomic_load(&d->control->postcopy);

    return state == GUEST_POSTCOPY_FILLING || state == GUEST_POSTCOPY_LOST ? sim_bad_state(c, expected, "postcopy") : NULL;
}

/* --- restoring --- */

void sim_postcopy_prepare(struct sim_domain *d, const uint64_t *missing, uint64_t n_missing)
{
    size_t size = POSTCOPY_WORDS(d->n_pages) * sizeof(uint64_t);

    xfree(d->missing);
    d->missing = xcalloc(1, size);
    memcpy(d->missing, missing, size);
    atomic_store(&d->control->postcopy_left, n_missing);
    atomic_store(&d->control->postcopy, GUEST_POSTCOPY_FILLING);
}

struct error *sim_postcopy_attach(struct call *c, struct sim_domain *d)
{
    int rc = sim_guest_call_fds(d, GUEST_VERB_FAULTS, &d->faults_fd, 1, &d->guest_ram, sizeof(d->guest_ram));

    return rc < 0 ? err_internal(c->arena, "guest %d does not hand out its faults: %s", d->domid, strerror(-rc)) : NULL;
}

/* --- the source --- */

struct error *sim_postcopy_send(struct call *c, void *host, const char *uuid, struct byte_stream *stream, int64_t *bytes_r)
{
    struct sim_host *h = host;
    struct postcopy_sent sent;
    struct sim_busy busy;
    uint32_t offered = GUEST_POSTCOPY_OFFERED;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find(c, h, uuid, &d)); /* its memory is here even where its process is not */
    if (d->control == NULL || !atomic_compare_exchange_strong(&d->control->postcopy, &offered, GUEST_POSTCOPY_GIVEN))
        return sim_bad_state(c, "suspended", "postcopy");
    uint8_t *memory = atomic_exchange(&d->memory, NULL);
    if (memory == NULL)
        return err_internal(c->arena, "guest %d: its memory is not mapped", d->domid);
    const struct postcopy_source source = { .memory = memory, .n_pages = d->n_pages, .left = guest_bitmap(d->control) };
    struct error *e = sim_busy_begin(c, h, d, stream, true, &busy);
    if (e == NULL) {
        e = sim_busy_end(c, &busy, postcopy_push(&busy.call, stream, &source, &sent));
        *bytes_r = (int64_t)sent.bytes;
        log_debug("guest %d: %llu pages sent after it, %llu of them asked for", d->domid, (unsigned long long)sent.pages,
                  (unsigned long long)sent.wanted);
    }
    munmap(memory, d->n_pages * GUEST_PAGE);
    return e;
}

/* --- the destination --- */

struct filling {
    struct sim_domain *domain;
    uint8_t *memory; /* our mapping of its RAM */
    int wait_fd; /* epoll: faults, or the end of the guest */
};

static int filling_open(struct filling *f)
{
    struct epoll_event touched = { .events = EPOLLIN, .data.u32 = 0 }, ended = { .events = EPOLLIN, .data.u32 = 1 };

    f->wait_fd = epoll_create1(EPOLL_CLOEXEC);
    if (f->wait_fd < 0 || epoll_ctl(f->wait_fd, EPOLL_CTL_ADD, f->domain->faults_fd, &touched) < 0 ||
        epoll_ctl(f->wait_fd, EPOLL_CTL_ADD, f->domain->pidfd, &ended) < 0)
        return -errno;
    return 0;
}

static bool has_ended(const struct filling *f)
{
    struct epoll_event events[2];
    int n = epoll_wait(f->wait_fd, events, 2, 0);

    for (int i = 0; i < n; i++)
        if (events[i].data.u32 == 1)
            return true;
    return atomic_load(&f->domain->end) != GUEST_END_NONE;
}

static int fault(void *ctx, uint64_t *pfn_r)
{
    const struct filling *f = ctx;
    struct uffd_msg m;

    if (has_ended(f))
        return -ESRCH;
    for (;;) {
        ssize_t n = read(f->domain->faults_fd, &m, sizeof(m));
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        if (n != sizeof(m) || m.event != UFFD_EVENT_PAGEFAULT)
            continue;
        *pfn_r = (m.arg.pagefault.address - f->domain->guest_ram) / GUEST_PAGE;
        return 1;
    }
}

static int wake(const struct sim_domain *d, uint64_t pfn)
{
    struct uffdio_range r = { .start = d->guest_ram + pfn * GUEST_PAGE, .len = GUEST_PAGE };

    return ioctl(d->faults_fd, UFFDIO_WAKE, &r) < 0 ? -errno : 0;
}

/* Shows n pages that are in the file. *shown_r of them, or -errno: -EEXIST is seen already, -EFAULT is not in the file. */
static int show(const struct sim_domain *d, uint64_t pfn, uint64_t n, uint64_t *shown_r)
{
    struct uffdio_continue c = { .range = { .start = d->guest_ram + pfn * GUEST_PAGE, .len = n * GUEST_PAGE } };

    for (;;) {
        if (ioctl(d->faults_fd, UFFDIO_CONTINUE, &c) == 0 || (errno == EAGAIN && c.mapped > 0)) {
            *shown_r = (uint64_t)c.mapped / GUEST_PAGE;
            return 0;
        }
        if (errno != EAGAIN)
            return -errno;
    }
}

/* It is shown together with those after it that have come, too: most will be touched soon. */
static int settle(void *ctx, uint64_t pfn)
{
    const struct filling *f = ctx;
    const struct sim_domain *d = f->domain;
    struct uffdio_zeropage z = { .range = { .start = d->guest_ram + pfn * GUEST_PAGE, .len = GUEST_PAGE } };
    uint64_t later = d->missing[pfn / 64] >> (pfn % 64), n = later != 0 ? (uint64_t)__builtin_ctzll(later) : 64 - pfn % 64;

    for (;;) {
        int rc = show(d, pfn, n < d->n_pages - pfn ? n : d->n_pages - pfn, &n);
        if (rc == -EEXIST)
            return wake(d, pfn);
        if (rc != -EFAULT)
            return rc;
        if (ioctl(d->faults_fd, UFFDIO_ZEROPAGE, &z) == 0)
            return 0;
        if (errno != EAGAIN && errno != EEXIST) /* it came into being just now: to be shown after all */
            return -errno;
    }
}

static int place(void *ctx, uint64_t pfn, unsigned n, const uint8_t *data)
{
    const struct filling *f = ctx;
    uint8_t *to = f->memory + pfn * GUEST_PAGE;
    int rc = 0;

    if (data != NULL)
        memcpy(to, data, (size_t)n * GUEST_PAGE);
    else
        memset(to, 0, (size_t)n * GUEST_PAGE);
    for (uint64_t shown = 0, some; rc == 0 && shown < n; shown += some)
        rc = show(f->domain, pfn + shown, n - shown, &some);
    return rc;
}

static void progress(void *ctx, uint64_t left)
{
    const struct filling *f = ctx;

    atomic_store(&f->domain->control->postcopy_left, left);
}

static struct error *fill(struct call *c, struct sim_domain *d, struct byte_stream *stream, struct postcopy_got *got)
{
    struct filling f = { .domain = d };
    int rc = filling_open(&f);
    AUTO_FD wait_fd = f.wait_fd;
    const struct postcopy_target target = {
        .ctx = &f, .n_pages = d->n_pages, .missing = d->missing, .fault_fd = wait_fd,
        .fault = fault, .settle = settle, .place = place, .progress = progress,
    };

    if (rc < 0)
        return err_internal(c->arena, "guest %d: waiting for its faults: %s", d->domid, strerror(-rc));
    f.memory = atomic_exchange(&d->memory, NULL);
    if (f.memory == NULL)
        return err_internal(c->arena, "guest %d: its memory is not mapped", d->domid);
    struct error *e = postcopy_pull(c, stream, &target, got);
    munmap(f.memory, d->n_pages * GUEST_PAGE);
    return e;
}

/* All is there, or never will be. */
static struct error *settled(struct call *c, struct sim_host *h, struct sim_domain *d, struct error *e)
{
    if (e == NULL) {
        e = sim_verify(c, h, d, GUEST_VERB_FILLED);
        atomic_store(&d->control->postcopy, GUEST_POSTCOPY_DONE);
        fd_close(&d->faults_fd);
        xfree(d->missing);
        d->missing = NULL;
    } else {
        atomic_store(&d->control->postcopy, GUEST_POSTCOPY_LOST);
        log_line(atomic_load(&d->end) != GUEST_END_NONE ? LOG_DEBUG : LOG_ERR, log_module_, "guest %d: post-copy ends with %llu pages missing: %s", d->domid,
               (unsigned long long)atomic_load(&d->control->postcopy_left), error_text(c->arena, e));
    }
    sim_watch_tell(h, d);
    return e;
}

struct error *sim_postcopy_receive(struct call *c, void *host, const char *uuid, struct byte_stream *stream, int64_t *bytes_r)
{
    struct sim_host *h = host;
    struct postcopy_got got = { .pages = 0 };
    struct sim_busy busy;
    AUTO_DOMAIN *d = NULL;

    TRY(sim_domain_find_alive(c, h, uuid, &d));
    if (atomic_load(&d->control->postcopy) != GUEST_POSTCOPY_FILLING)
        return sim_bad_state(c, "running", "postcopy");
    TRY(sim_busy_begin(c, h, d, stream, false, &busy));
    struct error *e = fill(&busy.call, d, stream, &got);
    *bytes_r = (int64_t)got.bytes;
    log_debug("guest %d: %llu pages came after it, %llu of them asked for; it waited for at most %lld us", d->domid,
              (unsigned long long)got.pages, (unsigned long long)got.wanted, (long long)got.stall_us);
    atomic_store(&d->control->postcopy_stall_us, (uint64_t)got.stall_us);
    if (e == NULL && got.guest_ended)
        e = sim_bad_state(c, "running", "halted");
    return settled(c, h, d, sim_busy_end(c, &busy, e));
}
