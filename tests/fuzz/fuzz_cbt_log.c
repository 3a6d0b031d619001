/* libFuzzer target: a file that should be a log of changed blocks. corpus/cbt_log has seeds. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "storage/image/cbt_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    AUTO_FD fd = memfd_create("log", MFD_CLOEXEC);
    struct cbt_log_info info;
    struct cbt_log *log;
    uint8_t bitmap[64];
    char path[64];

    CHECK(fd >= 0 && fd_write_all(fd, bytes, len) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (cbt_log_info(path, &info) != 0)
        return 0;
    CHECK(info.size >= 0 && info.size <= CBT_SIZE_MAX);
    if (cbt_log_or(path, bitmap, sizeof bitmap) != 0)
        CHECK(!info.believed);
    if (cbt_log_open(path, &log) != 0)
        return 0;
    if (info.size > 0) {
        bool changed;
        int64_t end = cbt_log_run(log, 0, info.size, &changed);
        CHECK(end > 0 && end <= info.size);
        CHECK(cbt_log_mark(log, 0, info.size) == 0);
        CHECK(cbt_log_run(log, 0, info.size, &changed) == info.size && changed);
    }
    if (info.size < 1 << 30)
        CHECK(cbt_log_grow(log, 1 << 30) == 0);
    CHECK(cbt_log_close(log) == 0);
    return 0;
}
