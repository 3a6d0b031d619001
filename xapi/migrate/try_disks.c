/* Verb "migrate.try_disks" (preflight.h): can this host open a guest's disks? */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "storage/sr.h"
#include "xapi/migrate/path_probe.h"
#include "xapi/migrate/preflight.h"

LOG_MODULE(preflight);

#define SECTOR 4096u /* good for every medium's O_DIRECT */

/* Media without O_DIRECT (tmpfs) are read through the page cache. */
static int open_direct(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT);
    return fd < 0 && errno == EINVAL ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : fd;
}

/* 0 or -errno. */
static int read_ends(int fd)
{
    off_t size = lseek(fd, 0, SEEK_END);
    if (size < 0)
        return -errno;
    _Alignas(SECTOR) uint8_t buffer[SECTOR];
    off_t last = size > 0 ? (size - 1) / SECTOR * SECTOR : 0;
    int r = pread(fd, buffer, SECTOR, 0) < 0 ? -errno : 0;
    if (r == 0 && last > 0 && pread(fd, buffer, SECTOR, last) <= 0)
        r = errno != 0 ? -errno : -EIO;
    return r;
}

static struct error *try_path(struct call *c, const char *path)
{
    errno = 0;
    AUTO_FD fd = open_direct(path);
    int r = fd < 0 ? -errno : read_ends(fd);
    if (r == 0)
        return NULL;
    struct error *e = err_sr_backend_failure(c->arena, "5", "", arena_printf(c->arena, "reading %s: %s", path, strerror(-r)));
    e->cause = arena_printf(c->arena, "%s: %s", path, strerror(-r));
    return e;
}

static struct error *try_disk(struct call *c, struct xapi *xapi, const char *sr, const char *location)
{
    const char *user = arena_printf(c->arena, "preflight-%s", uuid_make(c->arena));
    const struct vdi_use use = { .user = user, .read_only = true, .direct = true };
    struct vdi_where where;
    struct vdi_stat stat;
    TRY(vdi_stat(c, xapi->storage, sr, location, &stat));
    TRY(vdi_attach(c, xapi->storage, sr, location, &use, &where));
    struct error *e = where.path != NULL && where.path[0] == '/' ? try_path(c, where.path) : NULL;
    struct call calm = *c;
    calm.cancel = NULL;
    calm.deadline_ms = 0;
    struct error *d = vdi_detach(&calm, xapi->storage, sr, location, user);
    if (d != NULL)
        log_warn("letting go of %s/%s after the pre-flight: %s", sr, location, error_text(c->arena, d));
    return e;
}

struct error *preflight_verb_try_disks(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const struct value *disks = value_get(args, "disks");
    *result_r = value_map(NULL, 0);
    for (unsigned i = 0; disks != NULL && disks->kind == VALUE_SET && i < disks->len; i++) {
        const char *sr = value_get_string(&disks->items[i], "sr", ""), *location = value_get_string(&disks->items[i], "location", "");
        struct error *e = try_disk(c, xapi, sr, location);
        if (e == NULL)
            continue;
        if (error_is(e, "TASK_CANCELLED"))
            return e;
        struct error *told = error_dup(c->arena, e);
        told->cause = arena_printf(c->arena, "disk %s of SR %s cannot be read on host %s (%s): check that its storage is plugged and reachable there",
                                   location, sr, xapi->address, e->cause != NULL ? e->cause : e->code);
        *result_r = path_failure_value(c->arena, PATH_DISKS, told);
        return NULL;
    }
    return NULL;
}
