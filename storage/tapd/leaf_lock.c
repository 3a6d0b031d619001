#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "storage/tapd/block.h"

#define TRIES 50
#define STEP_MS 20

int leaf_lock(int fd, int64_t offset, bool exclusive)
{
    for (int i = 0;; i++) {
        struct flock lock = { .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1 };
        if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
            return 0;
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return -errno;
        if (i == TRIES)
            return -EBUSY;
        poll(NULL, 0, STEP_MS);
    }
}
