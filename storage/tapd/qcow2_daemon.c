#include "storage/tapd/qcow2_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/nbd/nbd_uri.h"

LOG_MODULE(qcow2);

#define STOP_MS 30000    /* it writes back what it holds */
#define EARLIER_MS 30000 /* so does one of before */
#define SAID_MAX 2000

struct qcow2_daemon {
    struct arena *arena;
    struct loop *loop;
    const char *path, *socket, *pidfile, *uri;
    bool read_only, cached;
    int lock, listener, said;
    pid_t pid;              /* 0: none */
    struct loop_fd exited;  /* its pidfd */
    void (*ended)(void *ctx);
    void *ctx;
};

const char *qcow2_daemon_uri(const struct qcow2_daemon *d) { return d->uri; }
bool qcow2_daemon_runs(const struct qcow2_daemon *d) { return d->pid != 0; }

const char *qcow2_daemon_said(const struct qcow2_daemon *d, struct arena *a)
{
    char *text = arena_alloc(a, SAID_MAX + 1);
    ssize_t n = pread(d->said, text, SAID_MAX, 0);

    text[n > 0 ? n : 0] = '\0';
    for (char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    return text;
}

/* --- one of before ------------------------------------------------------------------------------------ */

/* Its tapd was killed: it writes back and ends, and must have ended before another one opens the image. */
static void wait_for_earlier(const struct qcow2_daemon *d)
{
    AUTO_ARENA a = arena_new();
    char *text;
    size_t len;
    unsigned long long start;
    int pid;

    if (file_read(a, d->pidfile, 100, &text, &len) != 0 || sscanf(text, "%d %llu", &pid, &start) != 2 || pid <= 1 || start == 0)
        return;
    for (int waited = 0; child_is(pid, start); waited += 10) {
        if (waited == 0)
            kill(pid, SIGTERM);
        if (waited == EARLIER_MS)
            kill(pid, SIGKILL);
        poll(NULL, 0, 10);
    }
    unlink(d->pidfile);
}

static void note_pid(const struct qcow2_daemon *d)
{
    AUTO_TEXT t = TEXT_INIT;
    int r;

    text_printf(&t, "%d %llu\n", d->pid, child_start_time(d->pid));
    r = file_replace(d->pidfile, t.bytes, t.len, 0600);
    if (r < 0)
        log_warn("%s: %s", d->pidfile, strerror(-r));
}

/* --- starting and ending --------------------------------------------------------------------------------- */

/* Those that connected to the one that is gone. */
static void drop_waiting(const struct qcow2_daemon *d)
{
    int fd;
    while ((fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        fd_close(&fd);
}

static int reap(struct qcow2_daemon *d, int timeout_ms)
{
    int status, r = child_wait(d->pid, timeout_ms, &status);

    if (r < 0)
        return r;
    loop_remove(d->loop, &d->exited);
    fd_close(&d->exited.fd);
    d->pid = 0;
    unlink(d->pidfile);
    drop_waiting(d);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static void on_exit_of(struct loop_fd *fd, uint32_t events)
{
    struct qcow2_daemon *d = CONTAINER_OF(fd, struct qcow2_daemon, exited);
    AUTO_ARENA a = arena_new();

    if (reap(d, 0) == -ETIMEDOUT)
        return;
    log_warn("%s: qemu-storage-daemon ended: %s", d->path, qcow2_daemon_said(d, a));
    d->ended(d->ctx);
}

/* Commas are doubled in qemu's options. */
static const char *escaped(struct arena *a, const char *path)
{
    char *to = arena_alloc(a, 2 * strlen(path) + 1), *p = to;
    for (; *path != '\0'; path++) {
        *p++ = *path;
        if (*path == ',')
            *p++ = ',';
    }
    return to;
}

int qcow2_daemon_start(struct qcow2_daemon *d, bool uring)
{
    AUTO_ARENA a = arena_new();
    const char *on_off = d->read_only ? "on" : "off";
    const char *file = arena_printf(a, "driver=file,node-name=file,filename=%s,cache.direct=%s,aio=%s,discard=unmap,locking=on,read-only=%s",
                                    escaped(a, d->path), d->cached ? "off" : "on", uring ? "io_uring" : "threads", on_off);
    const char *image = arena_printf(a, "driver=qcow2,node-name=disk,file=file,discard=unmap,read-only=%s", on_off);
    const char *export = arena_printf(a, "type=nbd,id=export,node-name=disk,name=disk,%s", d->read_only ? "writable=off" : "writable=on,writethrough=on");
    const char *const argv[] = { "setpriv", "--pdeathsig", "TERM", "--", "qemu-storage-daemon", "--blockdev", file, "--blockdev", image,
                                 "--nbd-server", "addr.type=fd,addr.str=3", "--export", export, NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    int r;

    if (ftruncate(d->said, 0) != 0 || lseek(d->said, 0, SEEK_SET) != 0)
        return -errno;
    spec.argv = argv;
    spec.stdout_fd = spec.stderr_fd = d->said;
    spec.pass_fds = &d->listener;
    spec.n_pass = 1;
    r = child_start(&spec, &d->pid);
    if (r < 0) {
        d->pid = 0;
        return r;
    }
    d->exited = (struct loop_fd) { .fd = pidfd_open(d->pid, 0), .ready = on_exit_of, .events = EPOLLIN };
    if (d->exited.fd < 0) {
        kill(d->pid, SIGKILL);
        waitpid(d->pid, NULL, 0);
        d->pid = 0;
        return -ENOSYS;
    }
    fcntl(d->exited.fd, F_SETFD, FD_CLOEXEC);
    loop_add(d->loop, &d->exited);
    note_pid(d);
    return 0;
}

int qcow2_daemon_stop(struct qcow2_daemon *d)
{
    int r;

    if (d->pid == 0)
        return 0;
    kill(d->pid, SIGTERM);
    r = reap(d, STOP_MS);
    if (r != -ETIMEDOUT)
        return r;
    log_err("%s: qemu-storage-daemon does not end: killed", d->path);
    kill(d->pid, SIGKILL);
    r = reap(d, -1);
    return r < 0 ? r : -EIO;
}

/* --- making ---------------------------------------------------------------------------------------------- */

static unsigned long long hash_of(const char *path)
{
    unsigned long long h = 0xcbf29ce484222325ull;
    while (*path != '\0')
        h = (h ^ (unsigned char)*path++) * 0x100000001b3ull;
    return h;
}

static int lock_image(struct qcow2_daemon *d, bool is_parent)
{
    d->lock = open(d->path, (d->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (d->lock < 0)
        return -errno;
    return is_parent ? 0 : leaf_lock(d->lock, 0, !d->read_only);
}

static int make(struct qcow2_daemon *d, const struct block_open *o)
{
    int r = lock_image(d, o->parent);

    if (r < 0)
        return r;
    wait_for_earlier(d);
    unlink(d->socket);
    d->listener = unix_listen(d->socket, 0600, 8);
    if (d->listener < 0) {
        r = d->listener;
        d->listener = -1;
        return r;
    }
    r = fd_set_nonblock(d->listener, true);
    if (r < 0)
        return r;
    d->said = memfd_create("qemu-storage-daemon", MFD_CLOEXEC);
    return d->said < 0 ? -errno : 0;
}

struct error *qcow2_daemon_new(struct arena *a, const struct block_open *o, void (*ended)(void *ctx), void *ctx, struct qcow2_daemon **daemon_r)
{
    struct qcow2_daemon *d = xcalloc(1, sizeof *d);
    const char *base;
    int r;

    d->arena = arena_new();
    d->loop = o->loop;
    d->path = arena_strdup(d->arena, o->path);
    d->read_only = o->read_only;
    d->cached = o->cached;
    d->lock = d->listener = d->said = d->exited.fd = -1;
    d->ended = ended;
    d->ctx = ctx;
    base = arena_printf(d->arena, "%s/qcow2-%08llx", o->dir, hash_of(o->path) & 0xffffffff);
    d->socket = arena_printf(d->arena, "%s.nbd", base);
    d->pidfile = arena_printf(d->arena, "%s.pid", base);
    d->uri = arena_printf(d->arena, "nbd+unix:///disk%s", strchr(nbd_uri_unix(d->arena, d->socket), '?'));
    r = make(d, o);
    if (r < 0) {
        qcow2_daemon_free(d);
        return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s: %s", o->path, r == -EBUSY ? "in use" : strerror(-r)));
    }
    *daemon_r = d;
    return NULL;
}

void qcow2_daemon_free(struct qcow2_daemon *d)
{
    if (d->listener >= 0)
        unlink(d->socket);
    fd_close(&d->listener);
    fd_close(&d->said);
    fd_close(&d->lock);
    arena_free(d->arena);
    xfree(d);
}
