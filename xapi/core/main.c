/* xapi: one daemon per host. See startup.c for what it is made of. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "xapi/core/startup.h"
#include "xapi/core/version_text.h"

LOG_MODULE(main);

enum ending { ENDING_STOP, ENDING_RESTART };

/* Blocked before any thread exists, so that all of them leave signals to the main thread. */
static int signals_open(void)
{
    sigset_t set;
    struct sigaction ignore = { .sa_handler = SIG_IGN };

    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void log_reopen(const struct config *config)
{
    const char *path = config_string(config, "log-file");

    if (*path == '\0')
        return;
    int rc = log_open(path);
    if (rc < 0)
        log_err("%s: %s", path, strerror(-rc));
}

/* True when the daemon shall stop. */
static bool signals_take(int fd, const struct config *config)
{
    struct signalfd_siginfo info;

    while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGHUP) {
            log_info("signal %u: stopping", info.ssi_signo);
            return true;
        }
        log_reopen(config);
    }
    return false;
}

static int wait_ms(struct daemon_state *d)
{
    int64_t at = atomic_load(&d->restart_at_ms);

    if (at == 0)
        return -1;
    int64_t left = at - clock_ms(d->xapi.clock);
    return left > 0 ? (int)left : 0;
}

static enum ending serve(struct daemon_state *d, int signal_fd)
{
    struct pollfd fds[] = { { .fd = signal_fd, .events = POLLIN }, { .fd = d->wake_fd, .events = POLLIN } };
    eventfd_t ignored;

    for (;;) {
        int ms = wait_ms(d);
        if (ms == 0)
            return ENDING_RESTART;
        if (poll(fds, 2, ms) <= 0)
            continue;
        eventfd_read(d->wake_fd, &ignored);
        if (signals_take(signal_fd, d->xapi.config))
            return ENDING_STOP;
    }
}

/* The same program with the same arguments; descriptors close by themselves. */
static void restart(char **argv)
{
    sigset_t none;

    log_info("restarting");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv("/proc/self/exe", argv); /* lint: the daemon replaces itself */
    log_err("cannot restart: %s", strerror(errno));
}

static void log_start(const struct options *o)
{
    enum log_level level;

    if (log_level_parse(config_string(o->config, "log-level"), &level))
        log_set_level(NULL, level);
    if (!o->foreground)
        log_reopen(o->config);
}

static int run(struct options *o, char **argv)
{
    static struct daemon_state d;
    int signal_fd = signals_open();
    enum ending ending = ENDING_STOP;

    log_start(o);
    fault_init_from_env();
    struct error *e = startup(&d, o, &clock_real);
    if (e != NULL)
        log_err("cannot start: %s", error_text(d.arena, e));
    else
        ending = serve(&d, signal_fd);
    bool failed = e != NULL;
    shutdown_all(&d);
    close(signal_fd);
    if (ending == ENDING_RESTART)
        restart(argv);
    log_info("stopped");
    return failed || ending == ENDING_RESTART ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int print_config(const struct options *o)
{
    AUTO_TEXT t = TEXT_INIT;

    config_print(o->config, &t);
    return fputs(t.bytes, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    struct options o;
    struct error *e = options_read(a, argc, argv, &o);
    int status = EXIT_FAILURE;

    if (e == NULL && o.n_rest > 0)
        e = err_internal(a, "unexpected argument '%s'", o.rest[0]);
    if (e != NULL)
        fprintf(stderr, "xapi: %s\nusage: xapi [--config FILE] [--set key=value]… [--foreground] [--print-config] [--version]\n",
                e->params[0]);
    else if (o.print_version)
        status = printf("xapi %s\n", XAPI_VERSION) < 0;
    else if (o.print_config)
        status = print_config(&o);
    else
        status = run(&o, argv);
    options_release(&o);
    return status;
}
