#include "db/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

#include "rpc/base/fd.h"

struct error *file_lock_take(struct arena *arena, const char *path, int *fd_r)
{
    const char *lock_path = arena_printf(arena, "%s.lock", path);

    *fd_r = -1;
    AUTO_FD fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_internal(arena, "%s: %s", lock_path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return err_internal(arena, "%s is in use by another process (it holds %s): stop that xapi first", path,
                            lock_path);
    *fd_r = fd_steal(&fd);
    return NULL;
}
