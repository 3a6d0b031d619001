/* The only place that starts processes (posix_spawn, never fork in a threaded daemon). */
#ifndef RPC_BASE_CHILD_H
#define RPC_BASE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"

struct child_spec {
    const char *const *argv;   /* argv[0] is the program: a path, or found in PATH */
    const char *const *env;    /* NULL: inherit */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null for stdin, inherit for the others; borrowed */
    const int *pass_fds;       /* further descriptors to pass, as the numbers 3, 4, … */
    unsigned n_pass;
    bool own_session;          /* setsid: it outlives us */
    const char *cwd;           /* NULL: ours */
};

NODISCARD int child_start(const struct child_spec *, pid_t *pid_r); /* 0 or -errno */
/* Waits at most timeout_ms (-1: for ever); 0 and *status_r, -ETIMEDOUT, -errno. Own children only. */
NODISCARD int child_wait(pid_t, int timeout_ms, int *status_r);
/* Runs to the end with captured output (at most max bytes); kills at the deadline. 0 or -errno. */
NODISCARD int child_run(struct arena *, const struct child_spec *, int timeout_ms, size_t max, int *status_r, char **output_r);
/* True when 'pid' lives and started at 'start_time' (field 22 of /proc/pid/stat): safe against reuse. */
bool child_is(pid_t, unsigned long long start_time);
unsigned long long child_start_time(pid_t); /* 0 when there is no such process */

#endif
