/* Bringing a guest's process to life, and taking hold of one that lives. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/sim/guest_text.h"
#include "xenops/sim/host.h"
#include "xenops/state_text.h"

LOG_MODULE(sim);

/* --- the settings file --- */

void sim_disk_line(struct text *t, const struct disk_spec *disk)
{
    char key[64];
    AUTO_FREE char *value = xprintf("%s %lld %s", disk->read_only || disk->cdrom ? "ro" : "rw", (long long)disk->size, disk->path);

    snprintf(key, sizeof(key), "disk.%s", disk->device);
    guest_text_add(t, key, value);
}

static void add_number(struct text *t, const char *key, uint64_t n)
{
    char digits[24];

    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    guest_text_add(t, key, digits);
}

static void settings_add(struct text *t, const struct sim_host *h, const struct vm_spec *s, const struct sim_domain *d)
{
    AUTO_FREE char *witness = xprintf("%s/%s.witness", h->options.witness_dir, s->uuid);

    guest_text_add(t, "uuid", s->uuid);
    guest_text_add(t, "name", s->name != NULL ? s->name : "");
    guest_text_add(t, "witness", witness);
    add_number(t, "pages", d->n_pages);
    add_number(t, "target_pages", (uint64_t)d->reserved / GUEST_PAGE);
    add_number(t, "vcpus", s->vcpus);
    for (uint32_t i = 0; s->platform.kind == VALUE_MAP && i < s->platform.len; i++) {
        const struct member *m = &s->platform.members[i];
        if (strncmp(m->name, "sim-", 4) == 0 && strpbrk(m->name, "=%\n") == NULL && m->value.kind == VALUE_STRING) {
            AUTO_FREE char *key = xprintf("platform.%s", m->name);
            guest_text_add(t, key, m->value.s);
        }
    }
    for (unsigned i = 0; i < s->n_disks; i++)
        sim_disk_line(t, &s->disks[i]);
    for (unsigned i = 0; i < s->n_nics; i++) {
        AUTO_FREE char *key = xprintf("nic.%s", s->nics[i].device);
        guest_text_add(t, key, s->nics[i].mac);
    }
}

/* --- starting --- */

/* With its end of the socket pair as descriptor GUEST_ADOPT_FD. */
static int start_process(const struct sim_host *h, struct sim_domain *d, int child_end)
{
    AUTO_FREE char *log_path = xprintf("%s/guest.log", d->dir);
    AUTO_FD log_file = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    const char *const argv[] = { h->options.guest_program, d->dir, NULL };
    struct child_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = log_file, .stderr_fd = log_file,
                               .pass_fds = &child_end, .n_pass = 1, .own_session = true };

    if (log_file < 0)
        return -errno;
    return child_start(&spec, &d->pid);
}

/* Its first word, when it listens. */
static int wait_ready(struct call *c, int fd, int64_t until_ms)
{
    char word = 0;

    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int64_t left = until_ms - clock_ms(c->clock);
        if (call_cancelled(c))
            return -ECANCELED;
        if (left <= 0)
            return -ETIMEDOUT;
        if (poll(&p, 1, left < 200 ? (int)left : 200) > 0)
            break;
    }
    int rc = fd_read_all(fd, &word, 1);
    return rc < 0 ? rc : word == 'R' ? 0 : -EPROTO;
}

/* What a guest said before it died, for the error. */
static const char *last_words(struct call *c, const struct sim_domain *d)
{
    char *bytes;
    size_t len;

    return file_read(c->arena, arena_printf(c->arena, "%s/guest.log", d->dir), 4096, &bytes, &len) == 0 ? bytes : "";
}

static struct error *start_failed(struct call *c, const struct sim_host *h, const struct sim_domain *d, int rc)
{
    if (rc == -ECANCELED)
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    return err_internal(c->arena, "%s does not start: %s %s", h->options.guest_program, strerror(-rc), last_words(c, d));
}

struct error *sim_guest_start(struct call *c, struct sim_host *h, const struct vm_spec *s, struct sim_domain *d)
{
    AUTO_TEXT settings = TEXT_INIT;
    int ends[2];

    settings_add(&settings, h, s, d);
    int rc = file_replace(arena_printf(c->arena, "%s/settings", d->dir), settings.bytes, settings.len, 0600);
    if (rc < 0)
        return err_internal(c->arena, "%s/settings: %s", d->dir, strerror(-rc));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return err_internal(c->arena, "socketpair: %s", strerror(errno));
    AUTO_FD ours = ends[0], theirs = ends[1];
    rc = start_process(h, d, theirs);
    fd_close(&theirs);
    if (rc < 0)
        return start_failed(c, h, d, rc);
    d->start_time = child_start_time(d->pid);
    d->pidfd = pidfd_open(d->pid, 0);
    rc = d->pidfd < 0 ? -errno : wait_ready(c, ours, clock_ms(c->clock) + h->options.start_ms);
    if (rc < 0)
        return start_failed(c, h, d, rc);
    TRY(sim_guest_attach(c, h, d));
    TRY(sim_record_write(c, d, d->uuid)); /* from here on a restarted xapi finds it: now it may outlive us */
    rc = fd_write_all(ours, "A", 1);
    return rc < 0 ? start_failed(c, h, d, rc) : NULL;
}

/* --- taking hold --- */

static const char *map_control(struct sim_domain *d, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || (size_t)st.st_size < guest_shared_size(1))
        return "no shared memory";
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return strerror(errno);
    d->control = p;
    d->control_size = (size_t)st.st_size;
    if (d->control->magic != GUEST_CONTROL_MAGIC || d->control->version != GUEST_VERSION || d->control->n_pages != d->n_pages ||
        d->control_size != guest_shared_size(d->n_pages))
        return "shared memory of another version or size";
    return NULL;
}

struct error *sim_guest_attach(struct call *c, struct sim_host *h, struct sim_domain *d)
{
    int fds[3];
    int rc = sim_guest_call_fds(d, GUEST_VERB_FDS, fds, ARRAY_LEN(fds), NULL, 0);

    if (rc < 0)
        return err_internal(c->arena, "guest %d does not hand out its memory: %s", d->domid, strerror(-rc));
    d->ram_fd = fds[0];
    d->event_fd = fds[2];
    const char *why = map_control(d, fds[1]);
    fd_close(&fds[1]);
    if (why != NULL)
        return err_internal(c->arena, "guest %d: %s", d->domid, why);
    atomic_store(&d->control->tracking, 0); /* a live save that died with an earlier xapi */
    atomic_store(&d->control->throttle, 0);
    uint32_t filling = GUEST_POSTCOPY_FILLING;
    atomic_compare_exchange_strong(&d->control->postcopy, &filling, GUEST_POSTCOPY_LOST); /* likewise */
    return NULL;
}

void sim_guest_kill(struct sim_domain *d)
{
    if (d->pidfd >= 0 && pidfd_send_signal(d->pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        log_warn("guest %d cannot be killed: %s", d->domid, strerror(errno));
}
