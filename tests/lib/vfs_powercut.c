#include "tests/lib/vfs_powercut.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/memory.h"

#define SECTOR 512

/* A write (bytes != NULL) or a cut to 'size' that is not durable yet. */
struct unsynced {
    struct unsynced *next;
    char *bytes;
    int64_t offset, size;
};

/* What is known of one path; lives until powercut_settle. */
struct disk_file {
    struct disk_file *next;
    char *path;
    char *durable; /* contents as of the last sync */
    int64_t size;
    bool exists; /* on the disk, as far as it was synced */
    struct unsynced *first, **last;
};

struct powercut_file {
    sqlite3_file base;
    struct disk_file *disk;
    sqlite3_file *real;
};

static struct lock lock; /* of all below */
static struct disk_file *files;
static unsigned long operations, fails_at;
static unsigned failing_syncs;
static bool happened;
static sqlite3_vfs vfs;

/* --- counting ---------------------------------------------------------------------------------------- */

static bool power_fails(void)
{
    operations++;
    if (fails_at != 0 && operations >= fails_at)
        happened = true;
    return happened;
}

void powercut_arm(unsigned long at)
{
    lock_take(&lock);
    operations = 0;
    fails_at = at;
    happened = false;
    lock_drop(&lock);
}

bool powercut_happened(void)
{
    lock_take(&lock);
    bool so = happened;
    lock_drop(&lock);
    return so;
}

unsigned long powercut_operations(void)
{
    lock_take(&lock);
    unsigned long n = operations;
    lock_drop(&lock);
    return n;
}

void powercut_fail_syncs(unsigned n)
{
    lock_take(&lock);
    failing_syncs = n;
    lock_drop(&lock);
}

/* --- what is durable --------------------------------------------------------------------------------- */

static void unsynced_drop(struct disk_file *f)
{
    while (f->first != NULL) {
        struct unsynced *u = f->first;
        f->first = u->next;
        xfree(u->bytes);
        xfree(u);
    }
    f->last = &f->first;
}

static void read_whole(struct disk_file *f)
{
    AUTO_FD fd = open(f->path, O_RDONLY | O_CLOEXEC);
    f->exists = fd >= 0;
    f->size = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    f->durable = xrealloc(f->durable, (size_t)f->size + 1);
    if (fd >= 0)
        CHECK(fd_pread_all(fd, f->durable, (size_t)f->size, 0) == 0);
}

static struct disk_file *file_find(const char *path)
{
    struct disk_file *f = files;
    while (f != NULL && strcmp(f->path, path) != 0)
        f = f->next;
    if (f != NULL)
        return f;
    f = xcalloc(1, sizeof(*f));
    f->path = xstrdup(path);
    f->last = &f->first;
    f->next = files;
    files = f;
    read_whole(f); /* what was there before counts as durable */
    return f;
}

static void file_write(struct disk_file *f, const void *bytes, int64_t size, int64_t offset)
{
    struct unsynced *u = xcalloc(1, sizeof(*u));
    *u = (struct unsynced){ .offset = offset, .size = size };
    if (bytes != NULL) {
        u->bytes = xrealloc(NULL, (size_t)size);
        memcpy(u->bytes, bytes, (size_t)size);
    }
    *f->last = u;
    f->last = &u->next;
}

static void durable_resize(struct disk_file *f, int64_t size)
{
    f->durable = xrealloc(f->durable, (size_t)size + 1);
    if (size > f->size)
        memset(f->durable + f->size, 0, (size_t)(size - f->size));
    f->size = size;
}

static void durable_write(struct disk_file *f, const char *bytes, int64_t size, int64_t offset)
{
    if (offset + size > f->size)
        durable_resize(f, offset + size);
    memcpy(f->durable + offset, bytes, (size_t)size);
}

static void durable_apply(struct disk_file *f, const struct unsynced *u)
{
    if (u->bytes == NULL)
        durable_resize(f, u->size);
    else
        durable_write(f, u->bytes, u->size, u->offset);
}

static void file_synced(struct disk_file *f)
{
    for (const struct unsynced *u = f->first; u != NULL; u = u->next)
        durable_apply(f, u);
    f->exists = true;
    unsynced_drop(f);
}

/* --- settling ---------------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Sector by sector, some arrive. */
static void apply_torn(struct disk_file *f, const struct unsynced *u, uint64_t *state)
{
    for (int64_t at = 0; at < u->size; at += SECTOR) {
        int64_t n = u->size - at < SECTOR ? u->size - at : SECTOR;
        if (draw(state) % 2 == 0)
            durable_write(f, u->bytes + at, n, u->offset + at);
    }
}

static void apply_some(struct disk_file *f, uint64_t *state)
{
    for (const struct unsynced *u = f->first; u != NULL; u = u->next) {
        uint64_t fate = draw(state) % 3;
        if (fate == 0)
            durable_apply(f, u);
        else if (fate == 1 && u->bytes != NULL)
            apply_torn(f, u, state);
    }
}

static void file_settle(struct disk_file *f, enum powercut_loss loss, uint64_t *state)
{
    AUTO_FREE char *shared_memory = xprintf("%s-shm", f->path);

    (void)unlink(shared_memory);
    if (loss == POWERCUT_LOSE_NONE)
        file_synced(f);
    else if (loss == POWERCUT_LOSE_SOME)
        apply_some(f, state);
    if (!f->exists && f->size == 0) {
        (void)unlink(f->path);
        return;
    }
    AUTO_FD fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && fd_write_all(fd, f->durable, (size_t)f->size) == 0);
}

void powercut_settle(enum powercut_loss loss, uint64_t seed)
{
    uint64_t state = seed * 2654435761u + 88172645463325252u;

    lock_take(&lock);
    while (files != NULL) {
        struct disk_file *f = files;
        files = f->next;
        file_settle(f, loss, &state);
        unsynced_drop(f);
        xfree(f->durable);
        xfree(f->path);
        xfree(f);
    }
    happened = false;
    fails_at = 0;
    lock_drop(&lock);
}

/* --- file methods ------------------------------------------------------------------------------------- */

static struct powercut_file *file_of(sqlite3_file *base) { return (struct powercut_file *)base; }
static sqlite3_file *real_of(sqlite3_file *base) { return file_of(base)->real; }

static int do_close(sqlite3_file *base)
{
    sqlite3_file *real = real_of(base);
    int rc = real->pMethods != NULL ? real->pMethods->xClose(real) : SQLITE_OK;
    xfree(real);
    return rc;
}

static int do_read(sqlite3_file *base, void *to, int n, sqlite3_int64 offset)
{
    return real_of(base)->pMethods->xRead(real_of(base), to, n, offset);
}

static int do_write(sqlite3_file *base, const void *bytes, int n, sqlite3_int64 offset)
{
    lock_take(&lock);
    bool fails = power_fails();
    int rc = fails ? SQLITE_IOERR_WRITE : real_of(base)->pMethods->xWrite(real_of(base), bytes, n, offset);
    if (rc == SQLITE_OK)
        file_write(file_of(base)->disk, bytes, n, offset);
    lock_drop(&lock);
    return rc;
}

static int do_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    lock_take(&lock);
    bool fails = power_fails();
    int rc = fails ? SQLITE_IOERR_TRUNCATE : real_of(base)->pMethods->xTruncate(real_of(base), size);
    if (rc == SQLITE_OK)
        file_write(file_of(base)->disk, NULL, size, 0);
    lock_drop(&lock);
    return rc;
}

/* The host's disk need not be bothered: 'durable' is what counts. */
static int do_sync(sqlite3_file *base, int flags)
{
    lock_take(&lock);
    bool fails = power_fails() || failing_syncs > 0;
    if (failing_syncs > 0)
        failing_syncs--;
    if (!fails)
        file_synced(file_of(base)->disk);
    lock_drop(&lock);
    return fails ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int do_size(sqlite3_file *base, sqlite3_int64 *size)
{
    return real_of(base)->pMethods->xFileSize(real_of(base), size);
}
static int do_lock(sqlite3_file *base, int level) { return real_of(base)->pMethods->xLock(real_of(base), level); }
static int do_unlock(sqlite3_file *base, int level) { return real_of(base)->pMethods->xUnlock(real_of(base), level); }
static int do_check(sqlite3_file *base, int *held)
{
    return real_of(base)->pMethods->xCheckReservedLock(real_of(base), held);
}
static int do_control(sqlite3_file *base, int op, void *arg)
{
    return real_of(base)->pMethods->xFileControl(real_of(base), op, arg);
}
static int do_sector(sqlite3_file *base) { return SECTOR; }
static int do_traits(sqlite3_file *base) { return 0; } /* no promises: writes tear, and files grow with junk */
static int do_map(sqlite3_file *base, int page, int size, int extend, void volatile **p)
{
    return real_of(base)->pMethods->xShmMap(real_of(base), page, size, extend, p);
}
static int do_shm_lock(sqlite3_file *base, int offset, int n, int flags)
{
    return real_of(base)->pMethods->xShmLock(real_of(base), offset, n, flags);
}
static void do_barrier(sqlite3_file *base) { real_of(base)->pMethods->xShmBarrier(real_of(base)); }
static int do_unmap(sqlite3_file *base, int remove)
{
    return real_of(base)->pMethods->xShmUnmap(real_of(base), remove);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = do_close,
    .xRead = do_read,
    .xWrite = do_write,
    .xTruncate = do_truncate,
    .xSync = do_sync,
    .xFileSize = do_size,
    .xLock = do_lock,
    .xUnlock = do_unlock,
    .xCheckReservedLock = do_check,
    .xFileControl = do_control,
    .xSectorSize = do_sector,
    .xDeviceCharacteristics = do_traits,
    .xShmMap = do_map,
    .xShmLock = do_shm_lock,
    .xShmBarrier = do_barrier,
    .xShmUnmap = do_unmap,
};

/* --- vfs methods -------------------------------------------------------------------------------------- */

static sqlite3_vfs *host(void) { return vfs.pAppData; }

static int do_open(sqlite3_vfs *v, const char *name, sqlite3_file *base, int flags, int *out)
{
    struct powercut_file *file = file_of(base);

    CHECK(name != NULL); /* temporary files stay in memory */
    lock_take(&lock);
    *file = (struct powercut_file){ .disk = file_find(name), .real = xcalloc(1, (size_t)host()->szOsFile) };
    int rc = happened ? SQLITE_CANTOPEN : host()->xOpen(host(), name, file->real, flags, out);
    lock_drop(&lock);
    if (rc == SQLITE_OK)
        file->base.pMethods = &methods;
    else
        xfree(file->real);
    return rc;
}

/* Durable at once: SQLite syncs the directory where it matters. */
static int do_delete(sqlite3_vfs *v, const char *name, int sync)
{
    lock_take(&lock);
    struct disk_file *f = file_find(name);
    int rc = power_fails() ? SQLITE_IOERR_DELETE : host()->xDelete(host(), name, sync);
    if (rc == SQLITE_OK) {
        unsynced_drop(f);
        f->size = 0;
        f->exists = false;
    }
    lock_drop(&lock);
    return rc;
}

static int do_access(sqlite3_vfs *v, const char *name, int flags, int *out)
{
    return host()->xAccess(host(), name, flags, out);
}
static int do_full(sqlite3_vfs *v, const char *name, int n, char *out)
{
    return host()->xFullPathname(host(), name, n, out);
}
static int do_random(sqlite3_vfs *v, int n, char *out) { return host()->xRandomness(host(), n, out); }
static int do_sleep(sqlite3_vfs *v, int us) { return host()->xSleep(host(), us); }
static int do_time(sqlite3_vfs *v, double *t) { return host()->xCurrentTime(host(), t); }
static int do_error(sqlite3_vfs *v, int n, char *out) { return host()->xGetLastError(host(), n, out); }

void powercut_install(void)
{
    if (vfs.pAppData != NULL)
        return;
    lock_init(&lock, LOCK_LEAF);
    sqlite3_vfs *real = sqlite3_vfs_find(NULL);
    vfs = (sqlite3_vfs){
        .iVersion = 1,
        .szOsFile = sizeof(struct powercut_file),
        .mxPathname = real->mxPathname,
        .zName = POWERCUT_VFS,
        .pAppData = real,
        .xOpen = do_open,
        .xDelete = do_delete,
        .xAccess = do_access,
        .xFullPathname = do_full,
        .xRandomness = do_random,
        .xSleep = do_sleep,
        .xCurrentTime = do_time,
        .xGetLastError = do_error,
    };
    CHECK(sqlite3_vfs_register(&vfs, 0) == SQLITE_OK);
}
