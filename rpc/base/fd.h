/* File descriptors: whole reads and writes, close-on-exec everywhere, automatic closing. */
#ifndef RPC_BASE_FD_H
#define RPC_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "rpc/base/arena.h"
#include "rpc/base/attributes.h"

/* Closes *fd unless it is -1 and sets it to -1; keeps errno. */
void fd_close(int *fd);
#define AUTO_FD CLEANUP(fd_close) int
static inline int fd_steal(int *fd) { int r = *fd; *fd = -1; return r; }

/* All 'n' bytes or -errno; a short read at end of file is -EPIPE. Retries EINTR; blocks. */
NODISCARD int fd_read_all(int fd, void *, size_t n);
NODISCARD int fd_write_all(int fd, const void *, size_t n);
NODISCARD int fd_pread_all(int fd, void *, size_t n, int64_t offset);
NODISCARD int fd_pwrite_all(int fd, const void *, size_t n, int64_t offset);
NODISCARD int fd_set_nonblock(int fd, bool on);

/* A whole file into the arena, NUL-terminated; at most max bytes (-EFBIG). 0 or -errno. */
NODISCARD int file_read(struct arena *, const char *path, size_t max, char **bytes_r, size_t *len_r);

/* Durable replace: write path.tmp, fsync, rename, fsync of the directory. 0 or -errno. */
NODISCARD int file_replace(const char *path, const void *, size_t len, mode_t mode);
NODISCARD int dir_create(const char *path, mode_t mode); /* like mkdir -p; existing is fine */
NODISCARD int dir_sync(const char *path);

/* Unix stream sockets with descriptor passing. 0/fd or -errno. A message with more descriptors than
 * there is room for is -EPROTO. */
#define UNIX_FDS_MAX 64u /* in one message */
int unix_listen(const char *path, mode_t mode, int backlog);
int unix_connect(const char *path);
int unix_send_fds(int sock, const void *, size_t n, const int *fds, unsigned n_fds);
ssize_t unix_recv_fds(int sock, void *, size_t n, int *fds, unsigned *n_fds); /* fds CLOEXEC; *n_fds in: room, out: got */

#endif
