/* The backend's side of guest_protocol.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "xenops/sim/host.h"

#define CALL_MS 60000 /* for what a guest does at once; verifying a big one takes a while */
#define FDS_MS 10000
#define SLICE_MS 200  /* between two looks at the deadline */

/* Through /proc/self/fd: a directory may lie deeper than a socket's address can say. */
int sim_guest_connect(const struct sim_domain *d)
{
    char path[64];
    AUTO_FD dir = open(d->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return -errno;
    snprintf(path, sizeof(path), "/proc/self/fd/%d/control", dir);
    return unix_connect(path);
}

int sim_guest_send(int fd, enum guest_verb verb, int64_t number, const void *payload, size_t len)
{
    struct guest_request r = { .magic = GUEST_REQUEST_MAGIC, .verb = verb, .number = number, .len = (uint32_t)len };
    int rc = unix_send_fds(fd, &r, sizeof(r), NULL, 0);

    return rc == 0 && len > 0 ? unix_send_fds(fd, payload, len, NULL, 0) : rc;
}

static int wait_readable(struct call *c, int fd, int64_t until_ms)
{
    for (;;) {
        struct pollfd p[] = { { .fd = fd, .events = POLLIN }, { .fd = c->cancel != NULL ? cancel_fd(c->cancel) : -1, .events = POLLIN } };
        int64_t left = until_ms - clock_ms(c->clock);
        if (call_cancelled(c))
            return -ECANCELED;
        if (left <= 0)
            return -ETIMEDOUT;
        int rc = poll(p, ARRAY_LEN(p), (int)(left < SLICE_MS ? left : SLICE_MS));
        if (rc < 0 && errno != EINTR)
            return -errno;
        if (rc > 0 && p[0].revents != 0)
            return 0;
    }
}

int sim_guest_receive(struct call *c, int fd, int64_t until_ms, struct guest_answered *a)
{
    struct guest_reply r;
    int rc = wait_readable(c, fd, until_ms);

    if (rc == 0)
        rc = fd_read_all(fd, &r, sizeof(r));
    if (rc < 0)
        return rc;
    if (r.magic != GUEST_REQUEST_MAGIC || r.len > GUEST_PAYLOAD_MAX)
        return -EPROTO;
    uint8_t *payload = arena_alloc(c->arena, (size_t)r.len + 1);
    if (r.len > 0 && (rc = fd_read_all(fd, payload, r.len)) < 0)
        return rc;
    *a = (struct guest_answered){ .answer = (enum guest_answer)r.answer, .payload = payload, .len = r.len };
    return 0;
}

int sim_guest_call_fds(const struct sim_domain *d, enum guest_verb verb, int *fds, unsigned n, void *payload, size_t len)
{
    struct guest_reply r;
    unsigned n_got = n;
    AUTO_FD fd = sim_guest_connect(d);
    int rc = fd < 0 ? fd : sim_guest_send(fd, verb, 0, NULL, 0);

    if (rc < 0)
        return rc;
    struct pollfd p = { .fd = fd, .events = POLLIN };
    if (poll(&p, 1, FDS_MS) <= 0)
        return -ETIMEDOUT;
    ssize_t got = unix_recv_fds(fd, &r, sizeof(r), fds, &n_got);
    if (got == sizeof(r) && n_got == n && r.answer == GUEST_ANSWER_OK && r.len == len)
        rc = len > 0 ? fd_read_all(fd, payload, len) : 0;
    else
        rc = got < 0 ? (int)got : -EPROTO;
    for (unsigned i = 0; rc < 0 && got >= 0 && i < n_got; i++)
        fd_close(&fds[i]);
    return rc;
}

static const char *power_state(const char *guest_state)
{
    if (strcmp(guest_state, "empty") == 0 || strcmp(guest_state, "ended") == 0)
        return "halted";
    return guest_state;
}

struct error *sim_guest_call(struct call *c, struct sim_domain *d, enum guest_verb verb, int64_t number, const void *payload,
                             size_t len, const char *expected)
{
    struct guest_answered a = { .answer = GUEST_ANSWER_FAILED };
    AUTO_FD fd = sim_guest_connect(d);
    int rc = fd < 0 ? fd : sim_guest_send(fd, verb, number, payload, len);

    if (rc == 0)
        rc = sim_guest_receive(c, fd, clock_ms(c->clock) + CALL_MS, &a);
    if (rc == -ECANCELED)
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (rc < 0)
        return err_internal(c->arena, "guest %d does not answer: %s", d->domid, strerror(-rc));
    switch (a.answer) {
    case GUEST_ANSWER_OK:
    case GUEST_ANSWER_ACK: return NULL;
    case GUEST_ANSWER_STATE: return sim_bad_state(c, expected, power_state((const char *)a.payload));
    case GUEST_ANSWER_FAILED: break;
    }
    struct error *e = err_internal(c->arena, "guest %d: %s", d->domid, (const char *)a.payload);
    e->cause = (const char *)a.payload;
    return e;
}
