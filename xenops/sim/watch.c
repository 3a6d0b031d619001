/* The thread that notices guests' ends and changes.
 *
 * epoll carries the domid and which descriptor it is, never a pointer: a domain may be gone by the
 * time its event is looked at. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/thread.h"
#include "xenops/sim/host.h"

LOG_MODULE(sim);

#define KIND_PROCESS 0u
#define KIND_CHANGE 1u
#define KIND_CANCEL 2u
#define KEY(domid, kind) ((uint64_t)(domid) << 2 | (kind))
#define KEY_STOP UINT64_MAX

static struct sim_domain *by_domid(struct sim_host *h, int domid)
{
    LOCK_SCOPE(&h->lock);

    for (struct sim_domain *d = h->domains; d != NULL; d = d->next)
        if (d->domid == domid)
            return sim_domain_ref(d);
    return NULL;
}

/* Reaps it when it is our child. Its own record says why it ended; without one it was killed or crashed. */
static enum guest_end how_it_ended(const struct sim_domain *d)
{
    int status = 0;
    pid_t got = waitpid(d->pid, &status, WNOHANG);
    enum guest_end end = sim_end_read(d);

    if (end != GUEST_END_NONE)
        return end;
    end = got == d->pid && (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) ? GUEST_END_CRASH : GUEST_END_KILLED;
    sim_end_write(d, end);
    return end;
}

void sim_watch_tell(struct sim_host *h, struct sim_domain *d)
{
    lock_take(&h->lock);
    char *uuid = xstrdup(d->uuid);
    lock_drop(&h->lock);
    if (h->watch != NULL)
        h->watch(h->watch_ctx, uuid);
    xfree(uuid);
}

static void on_end(struct sim_host *h, struct sim_domain *d)
{
    epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, d->pidfd, NULL);
    enum guest_end end = how_it_ended(d);
    log_debug("guest %d ended (%d)", d->domid, (int)end);
    lock_take(&h->lock);
    atomic_store(&d->end, (int)end);
    cond_broadcast(&h->changed);
    lock_drop(&h->lock);
    sim_busy_break(h, d, true);
    sim_watch_tell(h, d);
}

static void on_change(struct sim_host *h, struct sim_domain *d)
{
    eventfd_t n;

    if (eventfd_read(d->event_fd, &n) == 0)
        sim_watch_tell(h, d);
}

static void *watch_run(void *arg)
{
    struct sim_host *h = arg;
    struct epoll_event events[16];

    for (;;) {
        int n = epoll_wait(h->epoll_fd, events, ARRAY_LEN(events), -1);
        for (int i = 0; i < n; i++) {
            uint64_t key = events[i].data.u64;
            if (key == KEY_STOP)
                return NULL;
            struct sim_domain *d = by_domid(h, (int)(key >> 2));
            if (d == NULL)
                continue;
            if ((key & 3) == KIND_PROCESS)
                on_end(h, d);
            else if ((key & 3) == KIND_CHANGE)
                on_change(h, d);
            else
                sim_busy_cancel(h, d);
            sim_domain_unref(d);
        }
    }
}

static int add(const struct sim_host *h, int fd, uint64_t key)
{
    struct epoll_event e = { .events = EPOLLIN, .data.u64 = key };

    return epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

int sim_watch_start(struct sim_host *h)
{
    h->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->epoll_fd < 0 || h->stop_fd < 0)
        return -errno;
    int rc = add(h, h->stop_fd, KEY_STOP);
    if (rc == 0)
        rc = thread_try_start("sim-watch", watch_run, h, &h->watcher);
    if (rc < 0) {
        fd_close(&h->stop_fd);
        fd_close(&h->epoll_fd);
    }
    return rc;
}

void sim_watch_stop(struct sim_host *h)
{
    eventfd_write(h->stop_fd, 1);
    pthread_join(h->watcher, NULL);
    fd_close(&h->stop_fd);
    fd_close(&h->epoll_fd);
}

void sim_watch_add(struct sim_host *h, struct sim_domain *d)
{
    if (add(h, d->pidfd, KEY(d->domid, KIND_PROCESS)) < 0 || (d->event_fd >= 0 && add(h, d->event_fd, KEY(d->domid, KIND_CHANGE)) < 0))
        log_err("guest %d cannot be watched: %s", d->domid, strerror(errno));
}

void sim_watch_remove(struct sim_host *h, struct sim_domain *d)
{
    if (d->pidfd >= 0)
        epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, d->pidfd, NULL);
    if (d->event_fd >= 0)
        epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, d->event_fd, NULL);
}

int sim_watch_cancel(struct sim_host *h, struct sim_domain *d, int fd)
{
    struct epoll_event e = { .events = EPOLLIN | EPOLLONESHOT, .data.u64 = KEY(d->domid, KIND_CANCEL) };

    return epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

void sim_watch_cancel_remove(struct sim_host *h, int fd) { epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, fd, NULL); }
