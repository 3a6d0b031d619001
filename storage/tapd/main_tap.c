/* tapd DIR: one process for one directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/tapd/main_modes.h"
#include "storage/tapd/tap.h"

LOG_MODULE(tapd);

/* The directory is ours as long as the descriptor is open. The descriptor or -errno (-EBUSY: another tapd's). */
static int claim(struct arena *a, const char *dir)
{
    const char *path = arena_printf(a, "%s/pid", dir), *text;
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    int rc = leaf_lock(fd, 0, true);
    if (rc < 0)
        return rc;
    text = arena_printf(a, "%ld %llu\n", (long)getpid(), child_start_time(getpid()));
    rc = fd_pwrite_all(fd, text, strlen(text), 0);
    if (rc == 0 && ftruncate(fd, (off_t)strlen(text)) < 0)
        rc = -errno;
    return rc < 0 ? rc : fd_steal(&fd);
}

static void stop(void *ctx)
{
    struct tap **tap = ctx;

    if (*tap != NULL)
        tap_shutdown(*tap);
}

static bool options(int argc, char **argv, bool *faults_r, bool *threads_r)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--allow-faults") == 0)
            *faults_r = true;
        else if (strcmp(argv[i], "--threads") == 0)
            *threads_r = true;
        else
            return false;
    return argv[0][0] != '-';
}

static int serve(struct arena *a, const struct tap_options *o, struct tap **tap)
{
    const struct error *e = tap_new(a, o, tap);

    if (e != NULL)
        return main_fail(a, e);
    log_info("serves %s by %s", o->dir, disk_io_name(o->io));
    loop_run(o->loop);
    struct tap *ended = *tap;
    *tap = NULL;
    tap_free(ended);
    return 0;
}

int main_tap(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    bool faults = false, threads = false;
    struct tap *tap = NULL;
    struct main_base base;

    if (!options(argc, argv, &faults, &threads))
        return main_usage();
    AUTO_FD claimed = claim(a, argv[0]);
    if (claimed < 0) {
        fprintf(stderr, "tapd: %s: %s\n", argv[0], claimed == -EBUSY ? "another tapd serves it" : strerror(-claimed));
        return 1;
    }
    main_begin(&base, threads, stop, &tap);
    const struct tap_options o = { .loop = base.loop, .io = base.io, .dir = argv[0], .allow_faults = faults };
    int status = serve(a, &o, &tap);
    main_end(&base);
    return status;
}
