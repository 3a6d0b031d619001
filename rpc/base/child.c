#include "rpc/base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/clock.h"
#include "rpc/base/fd.h"
#include "rpc/base/text.h"

#define FDS_MAX 64u

/* The numbers 0, 1, 2 and those passed, as copies above all targets, so that no dup2 overwrites a
 * descriptor that a later one needs. -1 where the child inherits. */
struct copies {
    int fds[FDS_MAX + 3];
    unsigned n;
};

static void copies_close(struct copies *c)
{
    for (unsigned i = 0; i < c->n; i++)
        fd_close(&c->fds[i]);
    c->n = 0;
}

static int copy_add(struct copies *c, int fd, int above)
{
    int copy = -1;

    if (fd >= 0) {
        copy = fcntl(fd, F_DUPFD_CLOEXEC, above);
        if (copy < 0)
            return -errno;
    }
    c->fds[c->n++] = copy;
    return 0;
}

static int copies_make(const struct child_spec *spec, struct copies *c)
{
    int above = 3 + (int)spec->n_pass, rc;
    AUTO_FD null = -1;

    CHECK(spec->n_pass <= FDS_MAX);
    if (spec->stdin_fd < 0) {
        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null < 0)
            return -errno;
    }
    if ((rc = copy_add(c, null >= 0 ? null : spec->stdin_fd, above)) < 0)
        return rc;
    if ((rc = copy_add(c, spec->stdout_fd, above)) < 0)
        return rc;
    if ((rc = copy_add(c, spec->stderr_fd, above)) < 0)
        return rc;
    for (unsigned i = 0; i < spec->n_pass; i++)
        if ((rc = copy_add(c, spec->pass_fds[i], above)) < 0)
            return rc;
    return 0;
}

static int actions_fill(posix_spawn_file_actions_t *actions, const struct child_spec *spec, const struct copies *c)
{
    int rc = 0;

    for (unsigned i = 0; i < c->n && rc == 0; i++)
        if (c->fds[i] >= 0)
            rc = posix_spawn_file_actions_adddup2(actions, c->fds[i], (int)i);
    if (rc == 0) /* what a library or our own parent left without FD_CLOEXEC */
        rc = posix_spawn_file_actions_addclosefrom_np(actions, (int)c->n);
    if (rc == 0 && spec->cwd != NULL)
        rc = posix_spawn_file_actions_addchdir_np(actions, spec->cwd);
    return -rc;
}

/* Signals as a fresh process expects them: none blocked, none ignored. */
static int attributes_fill(posix_spawnattr_t *attributes, const struct child_spec *spec, bool own_group)
{
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    sigset_t none, all;

    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    if (spec->own_session)
        flags |= POSIX_SPAWN_SETSID;
    else if (own_group)
        flags |= POSIX_SPAWN_SETPGROUP;
    int rc = posix_spawnattr_setsigmask(attributes, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attributes, &all);
    if (rc == 0)
        rc = posix_spawnattr_setpgroup(attributes, 0);
    if (rc == 0)
        rc = posix_spawnattr_setflags(attributes, flags);
    return -rc;
}

static int spawn(const struct child_spec *spec, const struct copies *c, bool own_group, pid_t *pid_r)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char *const *argv = (char *const *)spec->argv;
    char *const *env = spec->env != NULL ? (char *const *)spec->env : environ;

    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawnattr_init(&attributes) == 0);
    int rc = actions_fill(&actions, spec, c);
    if (rc == 0)
        rc = attributes_fill(&attributes, spec, own_group);
    if (rc == 0)
        rc = -posix_spawnp(pid_r, argv[0], &actions, &attributes, argv, env);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static int start(const struct child_spec *spec, bool own_group, pid_t *pid_r)
{
    CLEANUP(copies_close) struct copies c = { .n = 0 };
    int rc = copies_make(spec, &c);

    return rc < 0 ? rc : spawn(spec, &c, own_group, pid_r);
}

int child_start(const struct child_spec *spec, pid_t *pid_r) { return start(spec, false, pid_r); }

static int reap(pid_t pid, int *status_r)
{
    pid_t got;

    do
        got = waitpid(pid, status_r, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : 0;
}

/* Milliseconds until 'until' for poll; -1 for ever. */
static int left_of(int64_t until)
{
    if (until < 0)
        return -1;
    int64_t left = until - clock_ms(&clock_real);
    return left > 0 ? (int)left : 0;
}

static int64_t until_of(int timeout_ms) { return timeout_ms < 0 ? -1 : clock_ms(&clock_real) + timeout_ms; }

int child_wait(pid_t pid, int timeout_ms, int *status_r)
{
    int64_t until = until_of(timeout_ms);

    if (until < 0)
        return reap(pid, status_r);
    AUTO_FD pidfd = pidfd_open(pid, 0);
    if (pidfd < 0)
        return errno == ESRCH ? -ECHILD : -errno;
    for (;;) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        int rc = poll(&p, 1, left_of(until));
        if (rc > 0)
            return reap(pid, status_r);
        if (rc == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

/* Takes what is there; keeps at most max bytes and drops the rest. False when there is no more now. */
static bool output_take(int fd, struct text *t, size_t max)
{
    char buffer[4096];
    ssize_t n = read(fd, buffer, sizeof(buffer));

    if (n <= 0)
        return n < 0 && errno == EINTR;
    size_t room = max - t->len;
    text_add_len(t, buffer, (size_t)n < room ? (size_t)n : room);
    return true;
}

/* What a pipe can hold: more than this was written after the child ended, by children of its own. */
#define LAST_TAKES 17u

/* Until the child itself ended: its own children may keep the output open for longer. */
static int output_collect(int pidfd, int output, int64_t until, size_t max, struct text *t)
{
    bool open = true;

    for (;;) {
        struct pollfd p[] = { { .fd = open ? output : -1, .events = POLLIN }, { .fd = pidfd, .events = POLLIN } };
        int rc = poll(p, ARRAY_LEN(p), left_of(until));
        if (rc == 0)
            return -ETIMEDOUT;
        if (rc < 0) {
            if (errno != EINTR)
                return -errno;
            continue;
        }
        if (p[1].revents != 0) {
            for (unsigned i = 0; i < LAST_TAKES && output_take(output, t, max); i++)
                ;
            return 0;
        }
        if (!output_take(output, t, max) && (p[0].revents & POLLIN) == 0)
            open = false; /* hung up, and all is read */
    }
}

int child_run(struct arena *a, const struct child_spec *spec, int timeout_ms, size_t max, int *status_r,
              char **output_r)
{
    AUTO_TEXT t = TEXT_INIT;
    struct child_spec piped = *spec;
    int64_t until = until_of(timeout_ms);
    int ends[2];
    pid_t pid = -1;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    AUTO_FD output = ends[0], input = ends[1];
    int rc = fd_set_nonblock(output, true);
    if (rc < 0)
        return rc;
    if (piped.stdout_fd < 0)
        piped.stdout_fd = input;
    if (piped.stderr_fd < 0)
        piped.stderr_fd = input;
    if ((rc = start(&piped, true, &pid)) < 0)
        return rc;
    fd_close(&input);
    AUTO_FD pidfd = pidfd_open(pid, 0);
    rc = pidfd < 0 ? -errno : output_collect(pidfd, output, until, max, &t);
    if (rc < 0)
        kill(-pid, SIGKILL); /* it leads a group of its own */
    int reaped = reap(pid, status_r);
    *output_r = arena_memdup(a, t.len > 0 ? t.bytes : "", t.len + 1);
    return rc < 0 ? rc : reaped;
}

/* Field 3 (state) and field 22 (start time) of /proc/pid/stat. False when there is no such process. */
static bool stat_read(pid_t pid, char *state_r, unsigned long long *start_r)
{
    char path[64], line[1024];
    AUTO_FD fd = -1;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, line, sizeof(line) - 1) : -1;
    if (n <= 0)
        return false;
    line[n] = '\0';
    const char *at = strrchr(line, ')'); /* field 2, the program's name, may hold anything */
    if (at == NULL || at[1] == '\0' || at[2] == '\0')
        return false;
    at += 2;
    *state_r = *at;
    for (int field = 3; field < 22 && at != NULL; field++) {
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
    if (at == NULL)
        return false;
    char *end;
    errno = 0;
    *start_r = strtoull(at, &end, 10);
    return errno == 0 && end != at;
}

bool child_is(pid_t pid, unsigned long long start_time)
{
    unsigned long long at;
    char state;

    return pid > 0 && stat_read(pid, &state, &at) && at == start_time && state != 'Z' && state != 'X';
}

unsigned long long child_start_time(pid_t pid)
{
    unsigned long long at;
    char state;

    return pid > 0 && stat_read(pid, &state, &at) ? at : 0;
}
