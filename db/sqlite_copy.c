/* A consistent copy of a database that may be in use. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "db/sqlite_inside.h"
#include "rpc/base/fd.h"

#define PAGES_AT_A_TIME 1024

static struct error *copy_pages(struct arena *arena, sqlite3 *from, sqlite3 *to)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    int rc;

    if (backup == NULL)
        return sqlite_error(arena, to, "backup");
    do {
        rc = sqlite3_backup_step(backup, PAGES_AT_A_TIME);
        if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
            sqlite3_sleep(10);
    } while (rc == SQLITE_OK || rc == SQLITE_BUSY || rc == SQLITE_LOCKED);
    sqlite3_backup_finish(backup);
    return rc == SQLITE_DONE ? NULL : err_internal(arena, "the copy failed: %s", sqlite3_errstr(rc));
}

/* The copy has no write-ahead log beside it: one file is the whole backup. */
static struct error *copy_to(struct arena *arena, sqlite3 *from, const char *path)
{
    AUTO_SQLITE_HANDLE *to = NULL;
    const char *mode;

    TRY(sqlite_connect(arena, path, NULL, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &to));
    TRY(sqlite_exec(arena, to, "PRAGMA synchronous=FULL"));
    TRY(copy_pages(arena, from, to));
    TRY(sqlite_ask_text(arena, to, "PRAGMA journal_mode=DELETE", &mode));
    return strcmp(mode, "delete") == 0 ? NULL : err_internal(arena, "%s: the copy stays in %s mode", path, mode);
}

static struct error *put_in_place(struct arena *arena, const char *from, const char *to)
{
    char *dir = arena_strdup(arena, to), *slash = strrchr(dir, '/');
    if (slash != NULL)
        slash[slash == dir ? 1 : 0] = '\0';
    if (rename(from, to) != 0)
        return err_internal(arena, "%s: %s", to, strerror(errno));
    int rc = dir_sync(slash != NULL ? dir : ".");
    return rc == 0 ? NULL : err_internal(arena, "%s: %s", to, strerror(-rc));
}

struct error *sqlite_copy(struct arena *arena, const char *path, const char *vfs, const char *to_path)
{
    AUTO_SQLITE_HANDLE *from = NULL;
    const char *partial = arena_printf(arena, "%s.partial", to_path);

    TRY(sqlite_connect_to_read(arena, path, vfs, &from));
    if (unlink(partial) != 0 && errno != ENOENT)
        return err_internal(arena, "%s: %s", partial, strerror(errno));
    struct error *error = copy_to(arena, from, partial);
    if (error == NULL)
        error = put_in_place(arena, partial, to_path);
    if (error != NULL)
        (void)unlink(partial);
    return error;
}
