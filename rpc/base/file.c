/* Whole files and directories: the file_ and dir_ functions of fd.h. */
#include "rpc/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/memory.h"
#include "rpc/base/text.h"

#define READ_STEP 16384u

int file_read(struct arena *a, const char *path, size_t max, char **bytes_r, size_t *len_r)
{
    AUTO_TEXT t = TEXT_INIT;
    AUTO_FD fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0)
        return -errno;
    for (;;) {
        text_grow(&t, READ_STEP);
        ssize_t n = read(fd, t.bytes + t.len, t.cap - t.len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        t.len += (size_t)n;
        if (t.len > max)
            return -EFBIG;
    }
    t.bytes[t.len] = '\0';
    *bytes_r = arena_memdup(a, t.bytes, t.len + 1);
    *len_r = t.len;
    return 0;
}

/* The directory that 'path' stands in; xfree it. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        return xstrdup(".");
    return xstrndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static int write_new(const char *path, const void *bytes, size_t len, mode_t mode)
{
    AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);

    if (fd < 0 || fchmod(fd, mode) < 0)
        return -errno;
    int rc = fd_write_all(fd, bytes, len);
    if (rc < 0)
        return rc;
    return fsync(fd) < 0 ? -errno : 0;
}

int file_replace(const char *path, const void *bytes, size_t len, mode_t mode)
{
    AUTO_FREE char *temporary = xprintf("%s.tmp", path);
    AUTO_FREE char *parent = parent_of(path);
    int rc = write_new(temporary, bytes, len, mode);

    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc < 0) {
        unlink(temporary);
        return rc;
    }
    return dir_sync(parent);
}

int dir_sync(const char *path)
{
    AUTO_FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    if (fsync(fd) < 0 && errno != EINVAL) /* EINVAL: this file system has nothing to sync */
        return -errno;
    return 0;
}

static int dir_create_one(const char *path, mode_t mode)
{
    struct stat st;

    if (mkdir(path, mode) == 0)
        return 0;
    if (errno != EEXIST)
        return -errno;
    if (stat(path, &st) < 0)
        return -errno;
    return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int dir_create(const char *path, mode_t mode)
{
    AUTO_FREE char *part = xstrdup(path);

    for (char *at = part; *at != '\0'; at++) {
        if (*at != '/' || at == part)
            continue;
        *at = '\0';
        int rc = dir_create_one(part, mode);
        *at = '/';
        if (rc < 0)
            return rc;
    }
    return dir_create_one(part, mode);
}
