/* The control connection of a tapd: one request, one answer. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "storage/tap_table.h"
#include "storage/tapd/control_protocol.h"

#define PIECE 4096

/* --- connecting -------------------------------------------------------------------------------------------- */
/* Who listens there: the socket says it, whatever became of the file 'pid'. */
static int peer_of(int fd, pid_t *pid_r)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
        return -errno;
    *pid_r = peer.pid;
    return peer.pid > 0 ? 0 : -ESRCH;
}

int tap_connect(struct taps *t, struct tap *tap)
{
    AUTO_ARENA a = arena_new();
    pid_t pid = 0;
    AUTO_FD fd = unix_connect(arena_printf(a, "%s/control", tap->dir));

    if (fd < 0)
        return fd;
    int rc = peer_of(fd, &pid);
    if (rc < 0)
        return rc;
    unsigned long long start_time = child_start_time(pid);
    AUTO_FD pidfd = pidfd_open(pid, 0);
    if (pidfd < 0 || !child_is(pid, start_time))
        return -ESRCH;
    text_clear(&tap->in);
    LOCK_SCOPE(&t->lock);
    fd_close(&tap->control);
    fd_close(&tap->pidfd);
    tap->control = fd_steal(&fd);
    tap->pidfd = fd_steal(&pidfd);
    tap->pid = pid;
    tap->start_time = start_time;
    tap->down = false;
    tap->died_ms = 0;
    return 0;
}

void tap_disconnect(struct taps *t, struct tap *tap)
{
    LOCK_SCOPE(&t->lock);
    fd_close(&tap->control);
    text_clear(&tap->in);
}

/* --- talking ------------------------------------------------------------------------------------------------- */
/* The next line into the arena; -ECANCELED, -ETIMEDOUT, -ECONNRESET, -EPROTO. */
static int line_take(struct call *c, struct tap *tap, int64_t until_ms, char **line_r, size_t *len_r)
{
    for (;;) {
        const char *end = tap->in.len > 0 ? memchr(tap->in.bytes, '\n', tap->in.len) : NULL;
        char piece[PIECE];

        if (end != NULL) {
            *len_r = (size_t)(end - tap->in.bytes);
            *line_r = arena_strndup(c->arena, tap->in.bytes, *len_r);
            tap->in.len -= *len_r + 1;
            memmove(tap->in.bytes, end + 1, tap->in.len + 1);
            return 0;
        }
        if (tap->in.len > CONTROL_LINE_MAX)
            return -EPROTO;
        struct pollfd fds[] = { { .fd = tap->control, .events = POLLIN },
                                { .fd = c->cancel != NULL ? cancel_fd(c->cancel) : -1, .events = POLLIN } };
        int64_t left = until_ms - clock_ms(&clock_real);
        int rc = left <= 0 ? 0 : poll(fds, 2, (int)left);
        if (rc == 0)
            return -ETIMEDOUT;
        if (rc < 0 && errno != EINTR)
            return -errno;
        if (rc < 0)
            continue;
        if (fds[1].revents != 0 && fds[0].revents == 0)
            return -ECANCELED;
        ssize_t n = recv(tap->control, piece, sizeof(piece), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return -ECONNRESET;
        if (n > 0)
            text_add_len(&tap->in, piece, (size_t)n);
    }
}

static int exchange(struct call *c, struct taps *t, struct tap *tap, const char *verb, const struct value *arguments, int fd, char **line_r,
                    size_t *len_r)
{
    AUTO_TEXT line = TEXT_INIT;

    control_message_write(&line, verb, arguments);
    text_add_byte(&line, '\n');
    if (line.len > CONTROL_LINE_MAX)
        return -E2BIG;
    int rc = unix_send_fds(tap->control, line.bytes, line.len, &fd, fd >= 0 ? 1 : 0);
    if (rc == -EPIPE)
        rc = -ECONNRESET;
    return rc < 0 ? rc : line_take(c, tap, clock_ms(&clock_real) + t->answer_ms, line_r, len_r);
}

static struct error *answer(struct call *c, const struct tap *tap, const char *verb, const char *line, size_t len, struct value *result)
{
    const char *word;

    if (!control_message_parse(c->arena, line, len, &word, result))
        return tap_failed(c->arena, "the tapd of %s answers nonsense to %s", tap->key, verb);
    if (strcmp(word, "ok") == 0)
        return NULL;
    return tap_failed(c->arena, "%s", value_get_string(result, "text", verb));
}

struct error *tap_talk(struct call *c, struct taps *t, struct tap *tap, const char *verb, const struct value *arguments, int fd,
                       struct value *result, bool *lost_r)
{
    char *line = NULL;
    size_t len = 0;
    int rc = tap->control < 0 ? -ECONNRESET : exchange(c, t, tap, verb, arguments, fd, &line, &len);

    *lost_r = rc == -ECONNRESET;
    if (rc == 0)
        return answer(c, tap, verb, line, len, result);
    tap_disconnect(t, tap); /* its answer would be taken for that of the next request */
    if (rc == -ECANCELED)
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (rc == -ETIMEDOUT)
        return tap_failed(c->arena, "the tapd of %s has not answered '%s' for %lld ms", tap->key, verb, (long long)t->answer_ms);
    return tap_failed(c->arena, "the tapd of %s: '%s': %s", tap->key, verb, strerror(-rc));
}
