#include "db/sqlite.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "db/sqlite_inside.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

LOG_MODULE(db);

#define BUSY_MS 10000
#define WAL_PAGES 1000 /* checkpoint when the log is so long */
#define WAL_HEADER 32
#define WAL_FRAME (4096 + 24)

/* --- small things ------------------------------------------------------------------------------------ */

struct error *sqlite_error_at(struct arena *arena, const char *file, int line, sqlite3 *handle, const char *doing)
{
    return error_internal_at(arena, file, line, "%s: %s (%d)", doing, sqlite3_errmsg(handle),
                             sqlite3_extended_errcode(handle));
}

struct error *sqlite_connect(struct arena *arena, const char *path, const char *vfs, int flags, sqlite3 **handle_r)
{
    sqlite3 *handle = NULL;
    *handle_r = NULL;
    if ((flags & SQLITE_OPEN_CREATE) !=
        0) { /* it holds secrets: not for others, nor are -wal and -shm, which follow it */
        AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_internal(arena, "%s: %s", path, strerror(errno));
    }
    if (sqlite3_open_v2(path, &handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, vfs) != SQLITE_OK) {
        struct error *error = sqlite_error(arena, handle, path);
        sqlite3_close(handle);
        return error;
    }
    sqlite3_busy_timeout(handle, BUSY_MS);
    *handle_r = handle;
    return NULL;
}

struct error *sqlite_exec(struct arena *arena, sqlite3 *handle, const char *sql)
{
    if (sqlite3_exec(handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return sqlite_error(arena, handle, sql);
    return NULL;
}

struct error *sqlite_prepare(struct arena *arena, sqlite3 *handle, const char *sql, sqlite3_stmt **stmt_r)
{
    if (sqlite3_prepare_v3(handle, sql, -1, SQLITE_PREPARE_PERSISTENT, stmt_r, NULL) != SQLITE_OK)
        return sqlite_error(arena, handle, sql);
    return NULL;
}

struct error *sqlite_ask_int(struct arena *arena, sqlite3 *handle, const char *sql, int64_t *i_r)
{
    AUTO_SQLITE_STMT *stmt = NULL;
    *i_r = 0;
    TRY(sqlite_prepare(arena, handle, sql, &stmt));
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *i_r = sqlite3_column_int64(stmt, 0);
    else if (rc != SQLITE_DONE)
        return sqlite_error(arena, handle, sql);
    return NULL;
}

struct error *sqlite_ask_text(struct arena *arena, sqlite3 *handle, const char *sql, const char **text_r)
{
    AUTO_SQLITE_STMT *stmt = NULL;
    *text_r = "";
    TRY(sqlite_prepare(arena, handle, sql, &stmt));
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        *text_r = arena_strdup(arena, text != NULL ? text : "");
    } else if (rc != SQLITE_DONE) {
        return sqlite_error(arena, handle, sql);
    }
    return NULL;
}

/* --- judging ----------------------------------------------------------------------------------------- */

static bool file_is_empty(const char *path)
{
    struct stat st;
    return stat(path, &st) != 0 || st.st_size == 0;
}

static struct error *refuse(struct arena *arena, const char *path, const char *why)
{
    return err_internal(arena,
                        "%s is damaged or is not a pool database (%s); it was left untouched: restore a backup with "
                        "'xapi-ctl db restore', or move the file away to start with an empty pool",
                        path, why);
}

static bool beside(struct arena *arena, const char *path, const char *suffix)
{
    return access(arena_printf(arena, "%s%s", path, suffix), F_OK) == 0;
}

/* "immutable" keeps SQLite from making -wal and -shm files beside a file that it only looks at. */
static const char *immutable_uri(struct arena *arena, const char *path)
{
    AUTO_TEXT uri = TEXT_INIT;
    text_add(&uri, "file:");
    for (; *path != '\0'; path++)
        if (strchr("%?#", *path) != NULL)
            text_printf(&uri, "%%%02x", (unsigned)(unsigned char)*path);
        else
            text_add_byte(&uri, *path);
    text_add(&uri, "?immutable=1");
    return arena_strdup(arena, uri.bytes);
}

/* Read-only, unless a crash left a journal that must be played back first. */
struct error *sqlite_connect_to_read(struct arena *arena, const char *path, const char *vfs, sqlite3 **handle_r)
{
    int64_t version;
    bool alone = !beside(arena, path, "-wal") && !beside(arena, path, "-journal");
    const char *name = alone ? immutable_uri(arena, path) : path;
    *handle_r = NULL;
    TRY(sqlite_connect(arena, name, vfs, SQLITE_OPEN_READONLY | (alone ? SQLITE_OPEN_URI : 0), handle_r));
    struct error *error = sqlite_ask_int(arena, *handle_r, "PRAGMA schema_version", &version);
    int code = sqlite3_errcode(*handle_r) & 0xff;
    if (error == NULL || (code != SQLITE_READONLY && code != SQLITE_CANTOPEN))
        return error;
    sqlite3_close(*handle_r);
    TRY(sqlite_connect(arena, path, vfs, SQLITE_OPEN_READWRITE, handle_r));
    sqlite3_db_config(*handle_r, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return sqlite_ask_int(arena, *handle_r, "PRAGMA schema_version", &version);
}

static struct error *judge_version(struct arena *arena, sqlite3 *handle, const char *path)
{
    int64_t application, version;
    TRY(sqlite_ask_int(arena, handle, "PRAGMA application_id", &application));
    if (application != SQLITE_APPLICATION_ID)
        return refuse(arena, path, "it belongs to another program");
    TRY(sqlite_ask_int(arena, handle, "PRAGMA user_version", &version));
    if (version > (int64_t)model_schema_version)
        return err_internal(arena,
                            "%s was written by a newer xapi (schema version %lld, this one knows %u); it was left "
                            "untouched: install that xapi again, or restore an older backup with 'xapi-ctl db restore'",
                            path, (long long)version, model_schema_version);
    return NULL;
}

struct error *sqlite_judge(struct arena *arena, const char *path, const char *vfs, bool thorough, bool *empty_r)
{
    AUTO_SQLITE_HANDLE *handle = NULL;
    int64_t pages;
    const char *verdict = "ok";

    *empty_r = file_is_empty(path);
    if (*empty_r)
        return NULL;
    if (access(path, R_OK | W_OK) != 0)
        return err_internal(arena, "%s: %s", path, strerror(errno));
    struct error *error = sqlite_connect_to_read(arena, path, vfs, &handle);
    if (error == NULL)
        error = sqlite_ask_int(arena, handle, "PRAGMA page_count", &pages);
    if (error != NULL)
        return refuse(arena, path, error->params[0]);
    *empty_r = pages == 0; /* its creation was cut short and rolled back */
    if (*empty_r)
        return NULL;
    TRY(judge_version(arena, handle, path));
    if (thorough)
        error = sqlite_ask_text(arena, handle, "PRAGMA quick_check(1)", &verdict);
    if (error != NULL)
        verdict = error->params[0];
    return strcmp(verdict, "ok") == 0 ? NULL : refuse(arena, path, verdict);
}

/* --- opening ----------------------------------------------------------------------------------------- */

static struct error *prepare_all(struct arena *arena, struct sqlite *s)
{
    TRY(sqlite_prepare(arena, s->handle, "BEGIN IMMEDIATE", &s->begin));
    TRY(sqlite_prepare(arena, s->handle, "COMMIT", &s->commit));
    TRY(sqlite_prepare(arena, s->handle, "ROLLBACK", &s->rollback));
    return sqlite_prepare(arena, s->handle, "UPDATE meta SET value=? WHERE key='generation_ceiling'", &s->ceiling);
}

static unsigned checkpoint_pages(const struct db_options *options)
{
    return options->checkpoint_pages != 0 ? options->checkpoint_pages : WAL_PAGES;
}

static struct error *open_existing(struct arena *arena, sqlite3 *handle, const struct db_options *options)
{
    int64_t version;
    const char *mode;
    TRY(sqlite_ask_text(arena, handle, "PRAGMA journal_mode=WAL", &mode));
    if (strcmp(mode, "wal") != 0)
        return err_internal(arena, "%s: SQLite refuses write-ahead logging (%s)", options->path, mode);
    TRY(sqlite_exec(arena, handle, options->synchronous_off ? "PRAGMA synchronous=OFF" : "PRAGMA synchronous=FULL"));
    TRY(sqlite_exec(arena, handle, arena_printf(arena, "PRAGMA wal_autocheckpoint=%u", checkpoint_pages(options))));
    TRY(sqlite_exec(arena, handle, "PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY"));
    TRY(sqlite_ask_int(arena, handle, "PRAGMA user_version", &version));
    return sqlite_schema_upgrade(arena, handle, version);
}

struct error *sqlite_open(struct arena *arena, const struct db_options *options, struct sqlite **sqlite_r)
{
    bool empty;
    *sqlite_r = NULL;
    TRY(sqlite_judge(arena, options->path, options->vfs, true, &empty));

    struct sqlite *s = xcalloc(1, sizeof(*s));
    s->classes = xcalloc(model_n_classes, sizeof(*s->classes));
    s->checkpoint_pages = checkpoint_pages(options);
    struct error *error = sqlite_connect(arena, options->path, options->vfs, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                         &s->handle);
    if (error == NULL && empty)
        error = sqlite_schema_create(arena, s->handle);
    if (error == NULL)
        error = open_existing(arena, s->handle, options);
    if (error == NULL)
        error = prepare_all(arena, s);
    if (error != NULL) {
        sqlite_close(s);
        return error;
    }
    *sqlite_r = s;
    return NULL;
}

/* SQLite takes no frame for valid that does not carry the log's salt, so zeroes are never played back. */
void sqlite_fill_log(struct sqlite *s)
{
    static const char zeroes[65536];
    const sqlite3_int64 end = WAL_HEADER + (sqlite3_int64)s->checkpoint_pages * WAL_FRAME;
    sqlite3_file *log = NULL;
    sqlite3_int64 at = 0;

    if (sqlite3_file_control(s->handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log) != SQLITE_OK || log == NULL ||
        log->pMethods == NULL || log->pMethods->xFileSize(log, &at) != SQLITE_OK)
        return;
    int rc = SQLITE_OK;
    while (at < end && rc == SQLITE_OK) {
        int n = end - at < (sqlite3_int64)sizeof(zeroes) ? (int)(end - at) : (int)sizeof(zeroes);
        rc = log->pMethods->xWrite(log, zeroes, n, at);
        at += n;
    }
}

static void statements_release(struct sqlite_statements *st)
{
    sqlite3_finalize(st->insert);
    sqlite3_finalize(st->delete);
    for (unsigned i = 0; i < SQLITE_UPDATES; i++)
        sqlite3_finalize(st->updates[i].stmt);
}

void sqlite_close(struct sqlite *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < model_n_classes; i++)
        statements_release(&s->classes[i]);
    sqlite3_finalize(s->begin);
    sqlite3_finalize(s->commit);
    sqlite3_finalize(s->rollback);
    sqlite3_finalize(s->ceiling);
    if (sqlite3_close(s->handle) != SQLITE_OK)
        log_warn("the database did not close cleanly: %s", sqlite3_errmsg(s->handle));
    xfree(s->classes);
    xfree(s);
}

struct error *sqlite_ceiling(struct arena *arena, struct sqlite *s, uint64_t *ceiling_r)
{
    int64_t ceiling;
    *ceiling_r = 0;
    TRY(sqlite_ask_int(arena, s->handle, "SELECT value FROM meta WHERE key='generation_ceiling'", &ceiling));
    *ceiling_r = (uint64_t)ceiling;
    return NULL;
}

/* --- for maintenance ---------------------------------------------------------------------------------- */

static struct error *look(struct arena *arena, const char *path, sqlite3 **handle_r)
{
    bool empty;
    *handle_r = NULL;
    TRY(sqlite_judge(arena, path, NULL, false, &empty));
    if (empty)
        return err_internal(arena, "%s is empty or does not exist", path);
    struct error *error = sqlite_connect_to_read(arena, path, NULL, handle_r);
    if (error != NULL) {
        sqlite3_close(*handle_r);
        *handle_r = NULL;
    }
    return error;
}

struct error *sqlite_check_pages(struct arena *arena, const char *path, const char **verdict_r)
{
    AUTO_SQLITE_HANDLE *handle = NULL;
    *verdict_r = "";
    TRY(look(arena, path, &handle));
    return sqlite_ask_text(arena, handle, "SELECT group_concat(integrity_check, char(10)) FROM pragma_integrity_check",
                           verdict_r);
}

static struct sqlite *sqlite_new(sqlite3 *handle)
{
    struct sqlite *s = xcalloc(1, sizeof(*s));
    s->classes = xcalloc(model_n_classes, sizeof(*s->classes));
    s->handle = handle;
    return s;
}

struct error *sqlite_open_reader(struct arena *arena, const char *path, struct sqlite **sqlite_r)
{
    sqlite3 *handle;
    *sqlite_r = NULL;
    TRY(sqlite_connect(arena, path, NULL, SQLITE_OPEN_READONLY, &handle));
    *sqlite_r = sqlite_new(handle);
    return NULL;
}

struct error *sqlite_open_to_look(struct arena *arena, const char *path, struct sqlite **sqlite_r)
{
    int64_t version;
    sqlite3 *handle;

    *sqlite_r = NULL;
    TRY(look(arena, path, &handle));
    struct sqlite *s = sqlite_new(handle);
    struct error *error = sqlite_ask_int(arena, handle, "PRAGMA user_version", &version);
    if (error == NULL && version != (int64_t)model_schema_version)
        error = err_internal(arena, "%s has the schema version %lld, this xapi %u: start xapi once to upgrade it", path,
                             (long long)version, model_schema_version);
    if (error != NULL) {
        sqlite_close(s);
        return error;
    }
    *sqlite_r = s;
    return NULL;
}

struct error *sqlite_settle(struct arena *arena, const char *path, uint64_t *ceiling_r)
{
    AUTO_SQLITE_HANDLE *handle = NULL;
    int64_t ceiling;
    bool empty;

    *ceiling_r = 0;
    TRY(sqlite_judge(arena, path, NULL, true, &empty));
    if (empty)
        return NULL;
    TRY(sqlite_connect(arena, path, NULL, SQLITE_OPEN_READWRITE, &handle));
    TRY(sqlite_ask_int(arena, handle, "SELECT value FROM meta WHERE key='generation_ceiling'", &ceiling));
    *ceiling_r = (uint64_t)ceiling;
    return sqlite_exec(arena, handle, "PRAGMA wal_checkpoint(TRUNCATE)");
}
