/* The simulator's vtable; opening and closing a simulated host. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/sim/host.h"

LOG_MODULE(sim);

#define RECORD_MAX 64u

#define DYING_MS 200 /* a process that was killed a moment ago still looks alive */

static bool ends_within(const struct sim_domain *d, int ms)
{
    struct pollfd p = { .fd = d->pidfd, .events = POLLIN };

    return poll(&p, 1, ms) > 0;
}

/* True when its process lives and is the one of the record. */
static bool alive(struct sim_domain *d)
{
    if (d->pid <= 0 || !child_is(d->pid, d->start_time))
        return false;
    d->pidfd = pidfd_open(d->pid, 0);
    return d->pidfd >= 0 && child_is(d->pid, d->start_time) && !ends_within(d, 0);
}

/* One directory of an earlier life. */
static void find_again(struct call *c, struct sim_host *h, const char *dir)
{
    const char *why;
    struct sim_domain *d = sim_record_read(c->arena, dir, &why);

    if (d == NULL) { /* it was being created, and has ended itself with the xapi that started it */
        log_debug("%s holds no domain (%s)", dir, why);
        sim_dir_remove(dir);
        return;
    }
    bool lives = alive(d);
    struct error *e = lives ? sim_guest_attach(c, h, d) : NULL;
    if (e != NULL && ends_within(d, DYING_MS))
        lives = false;
    else if (e != NULL)
        log_err("guest %d lives but cannot be reached: %s", d->domid, error_text(c->arena, e));
    if (!lives) {
        enum guest_end end = sim_end_read(d);
        atomic_store(&d->end, (int)(end != GUEST_END_NONE ? end : GUEST_END_KILLED));
        if (end == GUEST_END_NONE)
            sim_end_write(d, GUEST_END_KILLED);
    }
    d->reserved = (int64_t)(d->n_pages * GUEST_PAGE);
    d->ready = true;
    d->next = h->domains; /* the table holds the first reference */
    h->domains = d;
    if (d->domid > h->next_domid)
        h->next_domid = d->domid;
    if (lives && d->control != NULL)
        sim_reserve_actual(c, h, d);
    log_debug("guest %d (process %d) found again: %s", d->domid, (int)d->pid, lives ? "it runs" : "it has ended");
}

static struct error *find_all(struct call *c, struct sim_host *h)
{
    const char *domains = arena_printf(c->arena, "%s/domains", h->state_dir);
    int64_t last;
    char *text;
    size_t len;

    for (const char *const *dir = (const char *const[]){ domains, h->options.witness_dir, NULL }; *dir != NULL; dir++) {
        int rc = dir_create(*dir, 0700);
        if (rc < 0)
            return err_internal(c->arena, "%s: %s", *dir, strerror(-rc));
    }
    if (file_read(c->arena, arena_printf(c->arena, "%s/next_domid", h->state_dir), RECORD_MAX, &text, &len) == 0)
        h->next_domid = text_to_int(text, &last) && last > 0 && last < INT32_MAX ? (int)last : 0;
    DIR *all = opendir(domains);
    if (all == NULL)
        return err_internal(c->arena, "%s: %s", domains, strerror(errno));
    for (struct dirent *entry = readdir(all); entry != NULL; entry = readdir(all))
        if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
            find_again(c, h, arena_printf(c->arena, "%s/%s", domains, entry->d_name));
    closedir(all);
    return NULL;
}

static void host_free(struct sim_host *h)
{
    while (h->domains != NULL) {
        struct sim_domain *d = h->domains;
        h->domains = d->next;
        sim_domain_unref(d);
    }
    cond_release(&h->changed);
    lock_release(&h->lock);
    arena_free(h->arena);
    xfree(h->state_dir);
    xfree(h);
}

static void sim_close(void *host)
{
    struct sim_host *h = host;

    sim_watch_stop(h);
    host_free(h);
}

/* Of all that were found again; the watcher may take away none of them meanwhile, only mark them. */
static void watch_all(struct sim_host *h)
{
    for (struct sim_domain *d = h->domains; d != NULL; d = d->next)
        if (atomic_load(&d->end) == GUEST_END_NONE)
            sim_watch_add(h, d);
}

static struct error *sim_open(struct arena *a, const char *state_dir, const struct value *options, const struct clock *clock,
                              xenops_watch_fn *watch, void *watch_ctx, void **host_r)
{
    struct call c = { .arena = a, .clock = clock, .id = "" };
    struct sim_host *h = xcalloc(1, sizeof(*h));

    h->arena = arena_new();
    h->state_dir = xstrdup(state_dir);
    h->clock = clock;
    h->watch = watch;
    h->watch_ctx = watch_ctx;
    lock_init(&h->lock, LOCK_XENOPS);
    cond_init(&h->changed);
    sim_options_read(h, options);
    struct error *e = find_all(&c, h);
    int rc = e == NULL ? sim_watch_start(h) : 0;
    if (rc < 0)
        e = err_internal(a, "the simulator's watch thread: %s", strerror(-rc));
    if (e != NULL) {
        host_free(h);
        return e;
    }
    watch_all(h);
    *host_r = h;
    return NULL;
}

const struct xenops_backend xenops_sim = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .facts = sim_facts,
    .create = sim_create,
    .build = sim_build,
    .unpause = sim_unpause,
    .pause = sim_pause,
    .shutdown = sim_shutdown,
    .destroy = sim_destroy,
    .rename = sim_rename,
    .balloon = sim_balloon,
    .save = sim_save,
    .resume = sim_resume,
    .restore = sim_restore,
    .disk_plug = sim_disk_plug,
    .disk_unplug = sim_disk_unplug,
    .list = sim_list,
    .throttle = sim_throttle,
    .postcopy_send = sim_postcopy_send,
    .postcopy_receive = sim_postcopy_receive,
    .postcopy_ready = sim_postcopy_ready,
};
