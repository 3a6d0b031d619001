/* Backup and restore of a database file. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "db/file_lock.h"
#include "db/maintenance.h"
#include "db/sqlite.h"
#include "db/store.h"
#include "rpc/base/fd.h"

/* How far generations jump when the old file cannot say how far they came. */
#define UNKNOWN_JUMP (1ull << 40)

struct error *maintenance_backup(struct arena *arena, const char *path, const char *to_path)
{
    bool empty;
    TRY(sqlite_judge(arena, path, NULL, true, &empty));
    if (empty)
        return err_internal(arena, "%s is empty or does not exist", path);
    return sqlite_copy(arena, path, NULL, to_path);
}

static struct error *os_error(struct arena *arena, const char *what)
{
    return err_internal(arena, "%s: %s", what, strerror(errno));
}

/* Opens the copy as the daemon would: upgrades it, reads all of it, and lets its numbers go on above. */
static struct error *prove_copy(struct arena *arena, const char *copy, uint64_t above)
{
    struct db_options options = { .path = copy };
    struct db *db;
    TRY(db_open(arena, &options, &db));
    struct error *error = db_skip_to(db, arena, above);
    db_close(db);
    (void)unlink(arena_printf(arena, "%s.lock", copy));
    return error;
}

static struct error *move_aside(struct arena *arena, const char *path, const char *suffix)
{
    const char *from = arena_printf(arena, "%s%s", path, suffix),
               *to = arena_printf(arena, "%s.before-restore%s", path, suffix);
    if (rename(from, to) != 0 && errno != ENOENT)
        return os_error(arena, to);
    return NULL;
}

/* From here to the last rename 'path' is always one whole database. A log that could not be folded
 * into the old file must go first: SQLite would play it into the new one. */
static struct error *swap(struct arena *arena, const char *path, const char *copy)
{
    const char *before = arena_printf(arena, "%s.before-restore", path);
    static const char *const leftovers[] = { "", "-wal", "-shm", "-journal" };

    for (unsigned i = 0; i < ARRAY_LEN(leftovers); i++)
        (void)unlink(arena_printf(arena, "%s%s", before, leftovers[i]));
    if (link(path, before) != 0 && errno != ENOENT)
        return os_error(arena, before);
    TRY(move_aside(arena, path, "-wal"));
    TRY(move_aside(arena, path, "-journal"));
    (void)unlink(arena_printf(arena, "%s-shm", path));
    return rename(copy, path) == 0 ? NULL : os_error(arena, path);
}

static struct error *sync_directory(struct arena *arena, const char *path)
{
    char *dir = arena_strdup(arena, path), *slash = strrchr(dir, '/');
    if (slash != NULL)
        slash[slash == dir ? 1 : 0] = '\0';
    int rc = dir_sync(slash != NULL ? dir : ".");
    return rc == 0 ? NULL : err_internal(arena, "%s: %s", path, strerror(-rc));
}

struct error *maintenance_restore(struct arena *arena, const char *path, const char *from)
{
    const char *copy = arena_printf(arena, "%s.restoring", path);
    uint64_t above;
    bool empty;

    AUTO_FD lock = -1;
    TRY(file_lock_take(arena, path, &lock));
    TRY(sqlite_judge(arena, from, NULL, true, &empty));
    if (empty)
        return err_internal(arena, "%s is empty or does not exist", from);
    TRY(sqlite_copy(arena, from, NULL, copy));
    if (sqlite_settle(arena, path, &above) != NULL) /* unreadable, or from a newer xapi */
        above = UNKNOWN_JUMP;
    struct error *error = prove_copy(arena, copy, above);
    if (error == NULL)
        error = swap(arena, path, copy);
    if (error != NULL) {
        (void)unlink(copy);
        return error;
    }
    return sync_directory(arena, path);
}
