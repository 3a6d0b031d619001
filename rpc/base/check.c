#include "rpc/base/check.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "rpc/base/log.h"

#define FRAMES 64

static void report(int fd, const char *line, void *const *frames, int n_frames)
{
    dprintf(fd, "%s", line);
    backtrace_symbols_fd(frames, n_frames, fd);
}

void check_failed(const char *file, int line, const char *expr)
{
    void *frames[FRAMES];
    int n_frames = backtrace(frames, FRAMES);
    char text[512];

    snprintf(text, sizeof(text), "%s:%d: check failed: %s\n", file, line, expr);
    report(STDERR_FILENO, text, frames, n_frames);
    if (log_fd() != STDERR_FILENO)
        report(log_fd(), text, frames, n_frames);
    abort();
}
