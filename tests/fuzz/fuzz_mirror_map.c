/* libFuzzer target: a mirror's map as it is found again. Whatever is in the file, it is refused or leads to a
 * mirror that comes to its end. The first byte chooses: the file as it is, or planes under a good header. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "storage/tapd/mirror_map.h"

#define SIZE (300 * 4096 + 512)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void put_file(const char *path, const uint8_t *bytes, size_t len, bool planes, const struct mirror_map_spec *spec)
{
    struct mirror_map *m;
    enum mirror_map_found found;
    struct stat st;

    unlink(path);
    if (planes) {
        CHECK(mirror_map_open(spec, &m, &found) == 0);
        mirror_map_close(m, false);
    }
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    if (planes && len > (size_t)st.st_size - 2160) /* what changes in the header, then the planes; the length stays */
        len = (size_t)st.st_size - 2160;
    CHECK(len == 0 || fd_pwrite_all(fd, bytes, len, planes ? 2160 : 0) == 0);
}

static void finish(struct mirror_map *m)
{
    int64_t offset, at = 0;
    uint32_t length;

    for (unsigned n = 0; mirror_map_next_dirty(m, 0, SIZE, 1 << 20, &offset, &length); n++) {
        CHECK(n < 1000 && offset >= 0 && length > 0 && offset + length <= SIZE);
        mirror_map_copy_begin(m, offset, length);
        mirror_map_copy_end(m, offset, length, true);
    }
    CHECK(mirror_map_dirty(m) == 0);
    for (unsigned n = 0; mirror_map_unproven(m) > 0; n++) {
        CHECK(n < 1000);
        if (!mirror_map_next_unproven(m, at, 1 << 19, &offset, &length)) {
            at = offset < SIZE ? offset : 0;
            continue;
        }
        CHECK(offset >= 0 && length > 0 && offset + length <= SIZE);
        mirror_map_prove_begin(m, offset, length);
        CHECK(!mirror_map_touched(m, offset, length));
        mirror_map_prove_end(m, offset, length, true);
    }
    mirror_map_flush_begin(m);
    mirror_map_flush_end(m, true);
    CHECK(mirror_map_unflushed(m) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static char path[64];
    struct mirror_map_spec spec = { .path = path, .size = SIZE, .identity = "fuzz", .boot = "boot", .proof = true };
    struct mirror_map *m;
    enum mirror_map_found found;

    if (len == 0)
        return 0;
    snprintf(path, sizeof(path), "/tmp/fuzz-map-%d", (int)getpid());
    spec.once = (bytes[0] & 2) != 0;
    put_file(path, bytes + 1, len - 1, (bytes[0] & 1) != 0, &spec);
    CHECK(mirror_map_open(&spec, &m, &found) == 0);
    CHECK(found != MIRROR_MAP_FRESH);
    CHECK(mirror_map_scanned(m) >= 0 && mirror_map_scanned(m) <= SIZE);
    CHECK(mirror_map_dirty(m) <= SIZE && mirror_map_unproven(m) <= SIZE);
    finish(m);
    mirror_map_close(m, true);
    return 0;
}
