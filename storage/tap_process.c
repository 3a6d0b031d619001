/* The process of a tapd: starting, finding, ending. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/tap_table.h"

LOG_MODULE(tap);

#define START_MS 10000   /* until it answers */
#define RECONNECT_MS 1000 /* a process that lives, but whose connection ended */
#define END_MS 10000
#define STEP_MS 20

static struct error *cancelled(struct call *c) { return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0); }

/* Waits at most ms for the end of the process or a cancel. True: it ended. */
static bool ended(const struct tap *tap, struct call *c, int64_t ms)
{
    struct pollfd fds[] = { { .fd = tap->pidfd, .events = POLLIN }, { .fd = c != NULL && c->cancel != NULL ? cancel_fd(c->cancel) : -1, .events = POLLIN } };
    int64_t until = clock_ms(&clock_real) + ms;

    for (;;) {
        int64_t left = until - clock_ms(&clock_real);
        int rc = poll(fds, 2, left > 0 ? (int)left : 0);

        if (rc < 0 && errno == EINTR)
            continue;
        return rc > 0 && fds[0].revents != 0;
    }
}

/* --- the end ------------------------------------------------------------------------------------------------ */
static void forget_process(struct taps *t, struct tap *tap)
{
    int status;

    if (tap->pid > 0)
        (void)!child_wait(tap->pid, 0, &status); /* reaps it when it is our child */
    LOCK_SCOPE(&t->lock);
    fd_close(&tap->control);
    fd_close(&tap->pidfd);
    tap->pid = 0;
    tap->start_time = 0;
    text_clear(&tap->in);
}

static bool alive(const struct tap *tap) { return tap->pid > 0 && child_is(tap->pid, tap->start_time); }

static struct error *end_by_force(struct call *c, struct taps *t, struct tap *tap)
{
    if (alive(tap)) {
        log_warn("the tapd of %s (process %d) is killed", tap->key, (int)tap->pid);
        if (pidfd_send_signal(tap->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            return tap_failed(c->arena, "the tapd of %s cannot be killed: %s", tap->key, strerror(errno));
        if (!ended(tap, NULL, END_MS))
            return tap_failed(c->arena, "the tapd of %s (process %d) does not end", tap->key, (int)tap->pid);
    }
    forget_process(t, tap);
    return NULL;
}

struct error *tap_end(struct call *c, struct taps *t, struct tap *tap)
{
    struct value ignored;
    bool lost;

    if (alive(tap) && tap->control < 0 && tap_connect(t, tap) < 0)
        return end_by_force(c, t, tap);
    if (alive(tap)) {
        struct error *error = tap_talk(c, t, tap, "quit", NULL, -1, &ignored, &lost);

        if (error != NULL && error_is(error, "TASK_CANCELLED"))
            return error;
        if (error != NULL)
            log_warn("%s", error_text(c->arena, error));
        (void)ended(tap, NULL, error == NULL ? END_MS : STEP_MS);
    }
    return end_by_force(c, t, tap);
}

/* --- the start ------------------------------------------------------------------------------------------------ */
static int spawn(struct call *c, struct taps *t, struct tap *tap)
{
    const char *argv[] = { t->program, tap->dir, t->allow_faults ? "--allow-faults" : NULL, NULL };
    AUTO_FD log_file = open(arena_printf(c->arena, "%s/log", tap->dir), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    AUTO_FD null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const struct child_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = null, .stderr_fd = log_file, .own_session = true };
    pid_t pid;

    if (t->allow_faults)
        argv[2] = "--allow-faults";
    if (log_file < 0 || null < 0)
        return -errno;
    unlink(arena_printf(c->arena, "%s/control", tap->dir)); /* of the one before: only the new one answers */
    int rc = child_start(&spec, &pid);
    if (rc < 0)
        return rc;
    LOCK_SCOPE(&t->lock);
    tap->pid = pid;
    tap->start_time = child_start_time(pid);
    fd_close(&tap->pidfd);
    tap->pidfd = pidfd_open(pid, 0);
    tap->started_ms = clock_ms(t->clock);
    return tap->pidfd < 0 ? -errno : 0;
}

/* Until it listens; also the end of the process and the call's cancel end the wait. */
static struct error *wait_ready(struct call *c, struct taps *t, struct tap *tap)
{
    int64_t until = clock_ms(&clock_real) + START_MS;

    for (int64_t step = 1;; step = step * 2 < STEP_MS ? step * 2 : STEP_MS) {
        int rc = tap_connect(t, tap);

        if (rc == 0)
            return NULL;
        if (ended(tap, c, step))
            return tap_failed(c->arena, "%s ended at once: %s", t->program, tap_log_tail(c->arena, tap->dir));
        if (call_cancelled(c))
            return cancelled(c);
        if (clock_ms(&clock_real) > until)
            return tap_failed(c->arena, "%s does not listen: %s %s", t->program, strerror(-rc), tap_log_tail(c->arena, tap->dir));
    }
}

struct error *tap_start(struct call *c, struct taps *t, struct tap *tap)
{
    struct value status;
    bool lost;
    int rc;
    struct error *error;

    if (fault_hit("tap.start"))
        return tap_failed(c->arena, "fault injected: tap.start");
    rc = spawn(c, t, tap);
    if (rc < 0)
        return tap_failed(c->arena, "%s cannot be started: %s", t->program, strerror(-rc));
    error = wait_ready(c, t, tap);
    if (error == NULL)
        error = tap_talk(c, t, tap, "status", NULL, -1, &status, &lost);
    if (error == NULL)
        return NULL;
    struct error *undo = end_by_force(c, t, tap);
    if (undo != NULL)
        log_err("%s", error_text(c->arena, undo));
    return error;
}

void tap_await_end(const struct tap *tap)
{
    if (tap->pidfd >= 0)
        (void)ended(tap, NULL, STEP_MS);
}

/* --- again -------------------------------------------------------------------------------------------------------- */
static bool reconnected(struct taps *t, struct tap *tap)
{
    int64_t until = clock_ms(&clock_real) + RECONNECT_MS;

    while (alive(tap)) {
        if (tap_connect(t, tap) == 0)
            return true;
        if (clock_ms(&clock_real) > until || ended(tap, NULL, STEP_MS))
            break;
    }
    return false;
}

/* A start follows an end by TAP_RESTART_MS, and another start by TAP_AGAIN_MS. */
int64_t tap_due(const struct taps *t, const struct tap *tap)
{
    int64_t due = tap->died_ms + TAP_RESTART_MS;

    return tap->started_ms > 0 && due < tap->started_ms + TAP_AGAIN_MS ? tap->started_ms + TAP_AGAIN_MS : due;
}

static struct error *wait_due(struct call *c, struct taps *t, struct tap *tap)
{
    int64_t now, due;
    bool stopping;

    lock_take(&t->lock);
    if (tap->died_ms == 0)
        tap->died_ms = clock_ms(t->clock);
    due = tap_due(t, tap);
    while (!call_cancelled(c) && !t->stopping && (now = clock_ms(t->clock)) < due)
        (void)cond_wait_ms(&t->changed, &t->lock, due - now);
    stopping = t->stopping;
    lock_drop(&t->lock);
    if (stopping)
        return tap_failed(c->arena, "the daemon stops");
    return call_cancelled(c) ? cancelled(c) : NULL;
}

struct error *tap_revive(struct call *c, struct taps *t, struct tap *tap)
{
    if (tap->control >= 0 && alive(tap)) {
        LOCK_SCOPE(&t->lock);
        tap->down = false;
        return NULL;
    }
    if (reconnected(t, tap))
        return NULL;
    TRY(end_by_force(c, t, tap));
    TRY(wait_due(c, t, tap));
    struct error *error = tap_start(c, t, tap);
    lock_take(&t->lock);
    tap->down = error != NULL;
    tap->died_ms = error != NULL ? clock_ms(t->clock) : 0;
    tap->due_ms = tap_due(t, tap);
    lock_drop(&t->lock);
    if (error == NULL)
        log_warn("the tapd of %s had died and was started again as process %d", tap->key, (int)tap->pid);
    return error;
}

static bool pid_read(struct arena *a, const char *dir, pid_t *pid_r, unsigned long long *start_r)
{
    char *text;
    size_t len;
    int64_t pid;
    uint64_t start;

    if (file_read(a, arena_printf(a, "%s/pid", dir), 64, &text, &len) != 0)
        return false;
    size_t n = strcspn(text, " "), m = strcspn(text + n, "\n");
    if (text[n] != ' ' || !text_to_int(arena_strndup(a, text, n), &pid) || !text_to_uint(arena_strndup(a, text + n + 1, m - 1), &start))
        return false;
    *pid_r = (pid_t)pid;
    *start_r = start;
    return pid > 0;
}

bool tap_take_hold(struct arena *a, struct taps *t, struct tap *tap)
{
    if (tap_connect(t, tap) == 0)
        return true;
    pid_t pid;
    unsigned long long start;
    if (!pid_read(a, tap->dir, &pid, &start) || !child_is(pid, start))
        return false;
    lock_take(&t->lock);
    tap->pid = pid; /* it lives but does not listen (yet) */
    tap->start_time = start;
    tap->pidfd = pidfd_open(pid, 0);
    lock_drop(&t->lock);
    return tap->pidfd >= 0 && reconnected(t, tap);
}
