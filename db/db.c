/* Opening and closing: the file's lock, the load, the writer. */
#include "db/db.h"

#include <string.h>

#include "db/commit.h"
#include "db/file_lock.h"
#include "db/inverse.h"
#include "db/load.h"
#include "db/sqlite.h"
#include "db/store.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"

LOG_MODULE(db);

static struct error *reserve(struct arena *arena, struct db *db)
{
    db->ceiling = db->assigned + DB_CEILING_STEP;
    AUTO_FREE char *failure = sqlite_commit(db->disk, NULL, 0, db->ceiling);
    return failure == NULL ? NULL : err_internal(arena, "it cannot be written: %s", failure);
}

static struct error *open_disk(struct arena *arena, struct db *db, const struct db_options *options)
{
    if (options->path == NULL)
        return NULL;
    TRY(file_lock_take(arena, options->path, &db->lock_fd));
    TRY(sqlite_open(arena, options, &db->disk));
    struct error *error = load_all(arena, db);
    if (error == NULL)
        error = reserve(arena, db);
    if (error == NULL)
        return NULL;
    return err_internal(arena, "%s cannot be loaded: %s", options->path, error->params[0]);
}

static void db_release(struct db *db)
{
    sqlite_close(db->disk);
    inverse_release(db);
    store_release(db);
    fd_close(&db->lock_fd);
    xfree(db->path);
    xfree(db->vfs);
    xfree(db);
}

static struct db *db_new(const struct db_options *options)
{
    struct db *db = xcalloc(1, sizeof(*db));
    db->clock = options->clock != NULL ? options->clock : &clock_real;
    db->lock_fd = -1;
    db->path = options->path != NULL ? xstrdup(options->path) : NULL;
    db->vfs = options->vfs != NULL ? xstrdup(options->vfs) : NULL;
    store_init(db);
    inverse_init(db);
    return db;
}

struct error *db_open(struct arena *arena, const struct db_options *options, struct db **db_r)
{
    struct db *db = db_new(options);

    *db_r = NULL;
    struct error *error = open_disk(arena, db, options);
    if (error != NULL) {
        db_release(db);
        return error;
    }
    db->has_writer = true;
    commit_writer_start(db);
    *db_r = db;
    return NULL;
}

struct error *db_look(struct arena *arena, const char *path, struct db **db_r)
{
    struct db *db = db_new(&(struct db_options){ .path = path });

    *db_r = NULL;
    struct error *error = sqlite_open_to_look(arena, path, &db->disk);
    if (error == NULL)
        error = load_all(arena, db);
    if (error != NULL) {
        db_release(db);
        return error;
    }
    *db_r = db;
    return NULL;
}

/* After a clean end the numbers go on without a gap. */
static void ceiling_settle(struct db *db)
{
    if (db->disk == NULL)
        return;
    AUTO_FREE char *failure = sqlite_commit(db->disk, NULL, 0, db_generation(db));
    if (failure != NULL)
        log_warn("the database could not be closed cleanly: %s", failure);
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    if (db->has_writer) {
        commit_writer_join(db);
        ceiling_settle(db);
    }
    db_release(db);
}

void db_stats(struct db *db, struct db_stats *stats)
{
    stats->commits = atomic_load(&db->n_commits);
    stats->batches = atomic_load(&db->n_batches);
    stats->sqlite_us = atomic_load(&db->sqlite_us);
}

struct error *db_backup(struct arena *arena, struct db *db, const char *to_path)
{
    if (db->path == NULL)
        return err_internal(arena, "a database in memory has no file to copy");
    return sqlite_copy(arena, db->path, db->vfs, to_path);
}
