/* The only place that starts processes (posix_spawn, never fork in a threaded daemon). */
#ifndef RPC_BASE_CHILD_H
#define RPC_BASE_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"

/* Start from CHILD_SPEC_INIT: in a zeroed spec the three numbers would mean descriptor 0. A child begins
 * with no signal blocked or ignored. */
#define CHILD_SPEC_INIT { .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 }
struct child_spec {
    const char *const *argv;   /* argv[0] is the program: a path, or found in PATH */
    const char *const *env;    /* NULL: inherit */
    int stdin_fd, stdout_fd, stderr_fd; /* -1: /dev/null for stdin, inherit for the others; borrowed */
    const int *pass_fds;       /* further descriptors to pass, as the numbers 3, 4, …; all others are closed */
    unsigned n_pass;
    bool own_session;          /* setsid: it outlives us */
    const char *cwd;           /* NULL: ours */
};

NODISCARD int child_start(const struct child_spec *, pid_t *pid_r); /* 0 or -errno */
/* Waits at most timeout_ms (-1: for ever); 0 and *status_r, -ETIMEDOUT, -errno. Own children only. */
NODISCARD int child_wait(pid_t, int timeout_ms, int *status_r);
/* Runs to the end and captures what it writes to those of stdout and stderr that are -1: the first max
 * bytes, the rest is dropped; NUL-terminated. Kills it and its process group at the deadline. 0, -ETIMEDOUT
 * (both results are set then too) or -errno. */
NODISCARD int child_run(struct arena *, const struct child_spec *, int timeout_ms, size_t max, int *status_r,
                        char **output_r);
/* True when 'pid' lives and started at 'start_time' (field 22 of /proc/pid/stat): safe against reuse. */
bool child_is(pid_t, unsigned long long start_time);
unsigned long long child_start_time(pid_t); /* 0 when there is no such process */

#endif
