/* Finding tapds after a start of ours, and the thread that watches over them. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "storage/tap_table.h"

LOG_MODULE(tap);

#define MIRROR_MS 100 /* between two looks at a mirror */

/* --- starting again ------------------------------------------------------------------------------------------ */
struct revival { struct taps *taps; char *key; };

static void tell(struct taps *t, const char *key)
{
    void (*watch)(void *, const char *);
    void *ctx;

    lock_take(&t->lock);
    watch = t->watch;
    ctx = t->watch_ctx;
    lock_drop(&t->lock);
    if (watch != NULL)
        watch(ctx, key);
}

static void revive(struct taps *t, const char *key)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = t->clock, .id = "tap" };
    struct call *outer = call_enter(&c);
    struct tap *tap;
    struct error *error = tap_turn(&c, t, key, false, &tap);

    if (error == NULL && tap != NULL) {
        bool wanted = tap->n_users > 0 && tap->down, lost;
        struct value status;

        if (wanted && tap->control >= 0) /* did its connection end, or the process? */
            (void)!tap_talk(&c, t, tap, "status", NULL, -1, &status, &lost);
        if (wanted)
            error = tap_revive(&c, t, tap);
        tap_leave(t, tap);
        if (wanted && error == NULL)
            tell(t, key);
    }
    if (error != NULL)
        log_warn_rl("a tapd cannot be started again: %s", error_text(a, error));
    call_enter(outer);
}

static void *revive_run(void *arg)
{
    struct revival *r = arg;
    struct taps *t = r->taps;

    revive(t, r->key);
    xfree(r->key);
    xfree(r);
    LOCK_SCOPE(&t->lock);
    t->reviving--;
    cond_broadcast(&t->changed);
    return NULL;
}

static void revive_start_locked(struct taps *t, struct tap *tap)
{
    struct revival *r = xcalloc(1, sizeof(*r));

    r->taps = t;
    r->key = xstrdup(tap->key);
    t->reviving++;
    tap->due_ms = clock_ms(t->clock) + TAP_AGAIN_MS; /* until then that thread has done it, or it is tried again */
    pthread_detach(thread_start("tap-revive", revive_run, r));
}

/* --- looking at mirrors ------------------------------------------------------------------------------------------ */
static void mirror_look(struct taps *t, const char *key)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = t->clock, .id = "tap" };
    struct value status = value_void();
    const char *before = "none", *now;

    lock_take(&t->lock);
    const struct tap *tap = tap_find_locked(t, key);
    if (tap != NULL)
        before = arena_strdup(a, value_get_string(&tap->status, "mirror", "none"));
    lock_drop(&t->lock);
    if (tap_call(&c, t, key, "status", NULL, -1, &status) != NULL)
        return;
    now = value_get_string(&status, "mirror", "none");
    if (strcmp(before, now) != 0)
        tell(t, key);
}

/* Only where somebody wants to hear of it. */
static void mirrors_look(struct taps *t)
{
    AUTO_ARENA a = arena_new();
    struct value_list keys = { 0 };

    lock_take(&t->lock);
    for (const struct tap *tap = t->list; tap != NULL && t->watch != NULL; tap = tap->next)
        if (tap->mirroring && !tap->busy)
            value_list_add(a, &keys, value_string(arena_strdup(a, tap->key)));
    lock_drop(&t->lock);
    for (unsigned i = 0; i < keys.n; i++)
        mirror_look(t, keys.items[i].s);
}

/* --- the thread ---------------------------------------------------------------------------------------------------- */
struct watching { struct pollfd *fds; unsigned n, cap; int64_t next_ms; bool mirrors; };

static void watch_fd(struct watching *w, int fd)
{
    if (fd < 0)
        return;
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 16 : 2 * w->cap;
        w->fds = xrealloc(w->fds, w->cap * sizeof(*w->fds));
    }
    w->fds[w->n++] = (struct pollfd) { .fd = fd, .events = POLLIN };
}

/* Those that nobody works on: their processes, and their connections, on which nothing may come unasked. */
static void gather(struct taps *t, struct watching *w)
{
    int64_t now = clock_ms(t->clock);

    w->n = 0;
    w->next_ms = -1;
    w->mirrors = false;
    watch_fd(w, t->wake_fd);
    LOCK_SCOPE(&t->lock);
    for (struct tap *tap = t->list; tap != NULL; tap = tap->next) {
        if (tap->busy || tap->n_users == 0)
            continue;
        w->mirrors = w->mirrors || (tap->mirroring && t->watch != NULL);
        if (!tap->down) {
            watch_fd(w, tap->pidfd);
            watch_fd(w, tap->control);
        } else if (tap->due_ms <= now)
            revive_start_locked(t, tap);
        if (tap->down && (w->next_ms < 0 || tap->due_ms - now < w->next_ms))
            w->next_ms = tap->due_ms > now ? tap->due_ms - now : 0;
    }
}

static bool fired(const struct watching *w, int fd)
{
    for (unsigned i = 1; i < w->n; i++)
        if (w->fds[i].fd == fd && fd >= 0)
            return w->fds[i].revents != 0;
    return false;
}

static void note_deaths(struct taps *t, const struct watching *w)
{
    int64_t now = clock_ms(t->clock);

    LOCK_SCOPE(&t->lock);
    for (struct tap *tap = t->list; tap != NULL; tap = tap->next) {
        if (tap->busy || tap->down || (!fired(w, tap->pidfd) && !fired(w, tap->control)))
            continue;
        tap->down = true;
        tap->died_ms = now;
        tap->due_ms = tap_due(t, tap);
    }
}

static bool stopping(struct taps *t)
{
    LOCK_SCOPE(&t->lock);
    return t->stopping;
}

static void *watch_run(void *arg)
{
    struct taps *t = arg;
    struct watching w = { 0 };
    eventfd_t ignored;

    while (!stopping(t)) {
        gather(t, &w);
        int64_t ms = w.mirrors && (w.next_ms < 0 || w.next_ms > MIRROR_MS) ? MIRROR_MS : w.next_ms;
        int rc = poll(w.fds, w.n, (int)ms);

        if (rc > 0) {
            if (w.fds[0].revents != 0)
                (void)eventfd_read(t->wake_fd, &ignored);
            note_deaths(t, &w);
        }
        if (w.mirrors)
            mirrors_look(t);
    }
    xfree(w.fds);
    return NULL;
}

void tap_watch_wake(struct taps *t) { CHECK(eventfd_write(t->wake_fd, 1) == 0); }
void tap_watch_start(struct taps *t) { t->thread = thread_start("taps", watch_run, t); }

void tap_watch_stop(struct taps *t)
{
    lock_take(&t->lock);
    t->stopping = true;
    cond_broadcast(&t->changed);
    lock_drop(&t->lock);
    tap_watch_wake(t);
    CHECK(pthread_join(t->thread, NULL) == 0);
    lock_take(&t->lock);
    while (t->reviving > 0)
        cond_wait(&t->changed, &t->lock);
    lock_drop(&t->lock);
}

/* --- finding them again ------------------------------------------------------------------------------------------------ */
static bool switched(struct arena *a, const struct tap *tap)
{
    struct value spec;

    return tap->lead_to != NULL && tap->lead_to[0] != '\0' && tap_spec_read(a, tap->dir, &spec) &&
           strcmp(value_get_string(&spec, "path", ""), tap->lead_path) == 0;
}

/* The machine was started again: nothing runs and nobody uses anything. Only that a mirror had switched has to be
 * remembered, for whoever asks what became of it. */
static struct tap *after_reboot(struct arena *a, struct tap *tap)
{
    bool keep = switched(a, tap) || (tap->n_users == 0 && tap->from != NULL);

    if (keep) {
        while (tap->n_users > 0)
            xfree(tap->users[--tap->n_users]);
        if (tap->lead_to != NULL) {
            xfree(tap->from);
            tap->from = tap->key;
            tap->key = tap->lead_to;
            xfree(tap->lead_path);
            tap->lead_to = tap->lead_path = NULL;
        }
        if (tap_owner_write(tap) == 0)
            return tap;
    }
    tap_dir_remove(tap->dir);
    tap_entry_free(tap);
    return NULL;
}

static struct tap *found(struct arena *a, struct taps *t, struct tap *tap, bool rebooted)
{
    struct value spec;

    if (rebooted)
        return after_reboot(a, tap);
    if (tap_spec_read(a, tap->dir, &spec))
        tap->read_only = strcmp(value_get_string(&spec, "read_only", "0"), "1") == 0;
    if (tap_take_hold(a, t, tap)) {
        log_info("%s is served by process %d", tap->key, (int)tap->pid);
        return tap;
    }
    if (tap->n_users > 0) {
        log_warn("%s has no tapd any more: it is started again", tap->key);
        tap->down = true;
    }
    return tap->n_users > 0 || tap->from != NULL ? tap : after_reboot(a, tap);
}

static bool same_boot(struct arena *a, const char *dir)
{
    const char *path = arena_printf(a, "%s/boot", dir);
    char *now, *then;
    size_t now_len, then_len;

    if (file_read(a, "/proc/sys/kernel/random/boot_id", 256, &now, &now_len) != 0)
        return true;
    bool same = file_read(a, path, 256, &then, &then_len) == 0 && now_len == then_len && memcmp(now, then, now_len) == 0;
    int rc = same ? 0 : file_replace(path, now, now_len, 0600);
    if (rc < 0)
        log_warn("%s: %s", path, strerror(-rc));
    return same;
}

static void find_one(struct arena *a, struct taps *t, const char *name, bool rebooted)
{
    const char *dir = arena_printf(a, "%s/%s", t->dir, name);
    int64_t number;

    if (!text_to_int(name, &number) || number < 0 || number >= INT32_MAX)
        return;
    if ((unsigned)number >= t->next_dir)
        t->next_dir = (unsigned)number + 1;
    struct tap *tap = tap_owner_read(a, dir);
    if (tap == NULL) {
        log_warn("%s is nobody's and is removed", dir);
        tap_dir_remove(dir);
        return;
    }
    tap = found(a, t, tap, rebooted);
    if (tap == NULL)
        return;
    tap->next = t->list;
    t->list = tap;
}

void tap_find_all(struct taps *t)
{
    AUTO_ARENA a = arena_new();
    int rc = dir_create(t->dir, 0700);
    DIR *d = rc == 0 ? opendir(t->dir) : NULL;

    t->next_dir = 1;
    if (d == NULL) {
        log_err("%s: %s", t->dir, strerror(rc < 0 ? -rc : errno));
        return;
    }
    bool rebooted = !same_boot(a, t->dir);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.')
            find_one(a, t, e->d_name, rebooted);
    closedir(d);
}
