/* Unix stream sockets that pass descriptors: the unix_ functions of fd.h. */
#include "rpc/base/fd.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "rpc/base/check.h"

static int address_of(const char *path, struct sockaddr_un *address_r)
{
    size_t len = strlen(path);

    if (len >= sizeof(address_r->sun_path))
        return -ENAMETOOLONG;
    *address_r = (struct sockaddr_un){ .sun_family = AF_UNIX };
    memcpy(address_r->sun_path, path, len + 1);
    return 0;
}

int unix_listen(const char *path, mode_t mode, int backlog)
{
    struct sockaddr_un address;
    struct stat st;
    int rc = address_of(path, &address);

    if (rc < 0)
        return rc;
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path); /* left behind by an earlier run */
    /* bind takes the mode from the socket and the umask: never wider than asked, not even shortly */
    if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    if (chmod(path, mode) < 0 || listen(fd, backlog) < 0)
        return -errno;
    return fd_steal(&fd);
}

int unix_connect(const char *path)
{
    struct sockaddr_un address;
    int rc = address_of(path, &address);

    if (rc < 0)
        return rc;
    AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    do
        rc = connect(fd, (struct sockaddr *)&address, sizeof(address));
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : fd_steal(&fd);
}

union control {
    struct cmsghdr header; /* for alignment */
    char bytes[CMSG_SPACE(UNIX_FDS_MAX * sizeof(int))];
};

int unix_send_fds(int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds)
{
    union control control;
    struct iovec part = { .iov_base = (void *)bytes, .iov_len = n };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

    CHECK(n > 0 && n_fds <= UNIX_FDS_MAX);
    if (n_fds > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    while (part.iov_len > 0) {
        ssize_t put = sendmsg(sock, &message, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        part.iov_base = (char *)part.iov_base + put;
        part.iov_len -= (size_t)put;
        message.msg_control = NULL; /* the descriptors went with the first bytes */
        message.msg_controllen = 0;
    }
    return 0;
}

/* Takes every descriptor of the message; those beyond 'room' are closed. The number taken over. */
static unsigned collect(struct msghdr *message, int *fds, unsigned room)
{
    unsigned got = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (got < room)
                fds[got++] = fd;
            else
                fd_close(&fd);
        }
    }
    return got;
}

ssize_t unix_recv_fds(int sock, void *bytes, size_t n, int *fds, unsigned *n_fds)
{
    union control control;
    struct iovec part = { .iov_base = bytes, .iov_len = n };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    unsigned room = *n_fds;
    ssize_t got;

    CHECK(room <= UNIX_FDS_MAX);
    *n_fds = 0;
    do {
        message.msg_control = room > 0 ? &control : NULL;
        message.msg_controllen = room > 0 ? CMSG_LEN(room * sizeof(int)) : 0;
        got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    unsigned taken = collect(&message, fds, room);
    if ((message.msg_flags & MSG_CTRUNC) != 0) { /* more than we have room for: not what we agreed on */
        while (taken > 0)
            fd_close(&fds[--taken]);
        return -EPROTO;
    }
    *n_fds = taken;
    return got;
}
