#include "rpc/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

void fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

/* After a failed call: 0 to try again (waiting first where the descriptor does not block), or -errno. */
static int retry(int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };

    if (errno == EINTR)
        return 0;
    if (errno != EAGAIN)
        return -errno;
    return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

int fd_read_all(int fd, void *buffer, size_t n)
{
    char *at = buffer;

    while (n > 0) {
        ssize_t got = read(fd, at, n);
        if (got == 0)
            return -EPIPE;
        if (got < 0) {
            int rc = retry(fd, POLLIN);
            if (rc < 0)
                return rc;
            continue;
        }
        at += got;
        n -= (size_t)got;
    }
    return 0;
}

int fd_write_all(int fd, const void *buffer, size_t n)
{
    const char *at = buffer;

    while (n > 0) {
        ssize_t put = write(fd, at, n);
        if (put < 0) {
            int rc = retry(fd, POLLOUT);
            if (rc < 0)
                return rc;
            continue;
        }
        at += put;
        n -= (size_t)put;
    }
    return 0;
}

int fd_pread_all(int fd, void *buffer, size_t n, int64_t offset)
{
    char *at = buffer;

    while (n > 0) {
        ssize_t got = pread(fd, at, n, offset);
        if (got == 0)
            return -EPIPE;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        at += got;
        offset += got;
        n -= (size_t)got;
    }
    return 0;
}

int fd_pwrite_all(int fd, const void *buffer, size_t n, int64_t offset)
{
    const char *at = buffer;

    while (n > 0) {
        ssize_t put = pwrite(fd, at, n, offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -EIO;
        at += put;
        offset += put;
        n -= (size_t)put;
    }
    return 0;
}

int fd_set_nonblock(int fd, bool on)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    flags = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}
