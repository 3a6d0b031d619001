#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/tapd/main_modes.h"

static void signalled(struct loop_fd *f, uint32_t events)
{
    struct main_base *m = CONTAINER_OF(f, struct main_base, signals);
    struct signalfd_siginfo info;

    if (read(f->fd, &info, sizeof(info)) == sizeof(info))
        m->stop(m->ctx);
}

void main_begin(struct main_base *m, bool threads, void (*stop)(void *ctx), void *ctx)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    sigset_t set;

    fault_init_from_env();
    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL); /* before any thread starts */
    *m = (struct main_base){ .stop = stop, .ctx = ctx };
    m->loop = loop_new(&clock_real);
    m->io = disk_io_new(m->loop, !threads);
    m->signals = (struct loop_fd){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .ready = signalled, .events = EPOLLIN };
    CHECK(m->signals.fd >= 0);
    loop_add(m->loop, &m->signals);
}

void main_end(struct main_base *m)
{
    loop_remove(m->loop, &m->signals);
    fd_close(&m->signals.fd);
    disk_io_free(m->io);
    loop_free(m->loop);
}

void main_image(const char *text, char format_r[16], const char **path_r)
{
    static const char *const formats[] = { "raw", "vhd", "qcow2", "nbd" };

    *path_r = text;
    if (nbd_uri_is(text)) {
        snprintf(format_r, 16, "nbd");
        return;
    }
    snprintf(format_r, 16, "raw");
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        size_t len = strlen(formats[i]);
        if (strncmp(text, formats[i], len) == 0 && text[len] == ':') {
            snprintf(format_r, 16, "%s", formats[i]);
            *path_r = text + len + 1;
        }
    }
}

int main_usage(void)
{
    fputs("usage: tapd DIR [--allow-faults] [--threads]\n"
          "       tapd serve IMAGE --listen ADDRESS:PORT | --socket PATH [--tls CERTIFICATE] [--read-only] [--cached] [--threads]\n"
          "       tapd copy [--proof] [--bandwidth BYTES/S] [--connections N] [--cached] [--threads] SOURCE TARGET\n"
          "       tapd --version\n"
          "IMAGE, SOURCE, TARGET: raw:PATH, vhd:PATH, qcow2:PATH, or an NBD URI\n",
          stderr);
    return 2;
}

int main_fail(struct arena *a, const struct error *e)
{
    fprintf(stderr, "tapd: %s\n", e->n_params > 0 ? e->params[e->n_params - 1] : error_text(a, e));
    return 1;
}
