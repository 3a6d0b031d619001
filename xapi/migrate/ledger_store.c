#include "xapi/migrate/ledger_store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "db/sqlite_inside.h"
#include "rpc/base/clock.h"
#include "rpc/base/datetime.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

LOG_MODULE(ledger);

#define LEDGER_APPLICATION_ID 0x584d4947 /* "XMIG" */
#define LEDGER_VERSION 1
#define DEFAULT_LIMIT 100

#define COLUMNS                                                                                                        \
    "id, side, stage, outcome, cause, recovery, kind, vm_uuid, vm_name, user_name, from_host, to_host, from_name, "    \
    "to_name, key, began_ms, ended_ms, note, facts"

static const char schema[] =
    "CREATE TABLE migrations (id TEXT NOT NULL, side INTEGER NOT NULL, stage TEXT NOT NULL, outcome TEXT NOT NULL, cause TEXT NOT NULL,"
    " recovery TEXT NOT NULL, kind TEXT NOT NULL, vm_uuid TEXT NOT NULL, vm_name TEXT NOT NULL, user_name TEXT NOT NULL,"
    " from_host TEXT NOT NULL, to_host TEXT NOT NULL, from_name TEXT NOT NULL, to_name TEXT NOT NULL, key TEXT NOT NULL,"
    " began_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, note TEXT NOT NULL, facts TEXT NOT NULL, PRIMARY KEY (id, side));"
    "CREATE INDEX by_age ON migrations (began_ms);"
    "CREATE INDEX by_vm ON migrations (vm_uuid, began_ms);"
    "CREATE INDEX by_outcome ON migrations (outcome, began_ms);"
    "CREATE INDEX by_end ON migrations (ended_ms);"
    "CREATE INDEX by_key ON migrations (key) WHERE key <> '';"
    "CREATE INDEX active ON migrations (began_ms) WHERE stage <> 'done';";

enum statement { ST_PUT, ST_GET, ST_BY_KEY, ST_FACTS, ST_STAGE, ST_NOTE, ST_END, ST_PRUNE, ST_RENAME, N_STATEMENTS };
static const char *const statement_sql[N_STATEMENTS] = {
    [ST_PUT] = "INSERT OR REPLACE INTO migrations (" COLUMNS ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)",
    [ST_GET] = "SELECT " COLUMNS " FROM migrations WHERE id=?1 AND side=?2",
    [ST_BY_KEY] = "SELECT " COLUMNS " FROM migrations WHERE key=?1 AND key <> '' ORDER BY ended_ms LIMIT 1",
    [ST_FACTS] = "UPDATE migrations SET facts=?3 WHERE id=?1 AND side=?2",
    [ST_STAGE] = "UPDATE migrations SET stage=?3 WHERE id=?1 AND side=?2",
    [ST_NOTE] = "UPDATE migrations SET stage=?3, note=?4 WHERE id=?1 AND side=?2",
    [ST_END] = "UPDATE migrations SET stage='done', outcome=?3, cause=?4, recovery=?5, ended_ms=?6 WHERE id=?1 AND side=?2",
    [ST_PRUNE] = "DELETE FROM migrations WHERE stage='done' AND ended_ms<?1",
    [ST_RENAME] = "UPDATE OR REPLACE migrations SET id=?3 WHERE id=?1 AND side=?2",
};

struct ledger_store {
    sqlite3 *handle;
    sqlite3_stmt *statements[N_STATEMENTS];
};

/* --- opening ------------------------------------------------------------------------------------------------- */
static struct error *create(struct arena *a, sqlite3 *handle)
{
    const char *sql = arena_printf(a, "BEGIN IMMEDIATE; PRAGMA application_id=%d; PRAGMA user_version=%d; %s COMMIT", LEDGER_APPLICATION_ID,
                                   LEDGER_VERSION, schema);
    return sqlite_exec(a, handle, sql);
}

/* *damaged_r: why it is no ledger; an error is of other kinds: no rights, no space, a newer version. */
static struct error *look(struct arena *a, sqlite3 *handle, const char *path, const char **damaged_r)
{
    const char *verdict = "ok";
    int64_t pages, application, version;

    *damaged_r = NULL;
    struct error *e = sqlite_ask_int(a, handle, "PRAGMA page_count", &pages);
    if (e == NULL && pages == 0)
        return create(a, handle);
    if (e == NULL)
        e = sqlite_ask_text(a, handle, "PRAGMA quick_check(1)", &verdict);
    int code = sqlite3_errcode(handle) & 0xff;
    if (e != NULL && code != SQLITE_CORRUPT && code != SQLITE_NOTADB)
        return e;
    if (e != NULL || strcmp(verdict, "ok") != 0) {
        *damaged_r = e != NULL ? e->params[0] : verdict;
        return NULL;
    }
    TRY(sqlite_ask_int(a, handle, "PRAGMA application_id", &application));
    TRY(sqlite_ask_int(a, handle, "PRAGMA user_version", &version));
    if (application != LEDGER_APPLICATION_ID)
        *damaged_r = "it belongs to another program";
    else if (version > LEDGER_VERSION)
        return err_internal(a, "%s was written by a newer xapi (version %lld, this one knows %d); it was left untouched: install that xapi again, "
                               "or move the file away to begin a new history of migrations", path, (long long)version, LEDGER_VERSION);
    return NULL;
}

static struct error *prepare(struct arena *a, struct ledger_store *s)
{
    const char *mode;

    TRY(sqlite_ask_text(a, s->handle, "PRAGMA journal_mode=WAL", &mode));
    TRY(sqlite_exec(a, s->handle, "PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY"));
    for (unsigned i = 0; i < N_STATEMENTS; i++)
        TRY(sqlite_prepare(a, s->handle, statement_sql[i], &s->statements[i]));
    return NULL;
}

static struct error *connect_to(struct arena *a, const char *path, sqlite3 **handle_r)
{
    int flags = SQLITE_OPEN_READWRITE | (path != NULL ? SQLITE_OPEN_CREATE : SQLITE_OPEN_MEMORY);
    return sqlite_connect(a, path != NULL ? path : ":memory:", NULL, flags, handle_r);
}

static struct error *move_aside(struct arena *a, const char *path, const char *why)
{
    static const char *const suffixes[] = { "", "-wal", "-shm" };
    char when[DATETIME_LEN + 1];

    datetime_format(clock_wall(&clock_real), when);
    const char *to = arena_printf(a, "%s.corrupt-%s", path, when);
    for (unsigned i = 0; i < ARRAY_LEN(suffixes); i++)
        if (rename(arena_printf(a, "%s%s", path, suffixes[i]), arena_printf(a, "%s%s", to, suffixes[i])) != 0 && errno != ENOENT)
            return err_internal(a, "%s: %s", path, strerror(errno));
    log_err("the history of migrations, %s, is damaged (%s): it was moved to %s and a new one is begun; migrations that were in flight are "
            "settled by the hosts' journals, but what was queued is lost", path, why, to);
    return NULL;
}

struct error *ledger_store_open(struct arena *a, const char *path, struct ledger_store **store_r)
{
    struct ledger_store *s = xcalloc(1, sizeof(*s));
    const char *damaged = NULL;

    struct error *e = connect_to(a, path, &s->handle);
    if (e == NULL)
        e = look(a, s->handle, path, &damaged);
    if (e == NULL && damaged != NULL) {
        sqlite3_db_config(s->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_close(s->handle);
        s->handle = NULL;
        e = move_aside(a, path, damaged);
        if (e == NULL)
            e = connect_to(a, path, &s->handle);
        if (e == NULL)
            e = create(a, s->handle);
    }
    if (e == NULL)
        e = prepare(a, s);
    if (e != NULL) {
        ledger_store_close(s);
        return e;
    }
    *store_r = s;
    return NULL;
}

void ledger_store_close(struct ledger_store *s)
{
    if (s == NULL)
        return;
    for (unsigned i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize(s->statements[i]);
    if (sqlite3_close(s->handle) != SQLITE_OK)
        log_warn("the ledger did not close cleanly: %s", sqlite3_errmsg(s->handle));
    xfree(s);
}

/* --- rows out of and into statements ------------------------------------------------------------------------- */
static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
    sqlite3_bind_text(st, at, text != NULL ? text : "", -1, SQLITE_STATIC);
}

static const char *column_text(struct arena *a, sqlite3_stmt *st, int at)
{
    const char *text = (const char *)sqlite3_column_text(st, at);
    return text != NULL ? arena_strdup(a, text) : "";
}

/* The row's strings in the order of COLUMNS from the third on. */
#define N_TEXTS 13
static void texts_of(struct ledger_row *r, const char **texts[N_TEXTS])
{
    const char **all[N_TEXTS] = { &r->stage, &r->outcome, &r->cause, &r->recovery, &r->kind, &r->vm_uuid, &r->vm_name, &r->user,
                                  &r->from_host, &r->to_host, &r->from_name, &r->to_name, &r->key };
    memcpy(texts, all, sizeof(all));
}

static void read_record(struct arena *a, sqlite3_stmt *st, struct ledger_record *r)
{
    const char **texts[N_TEXTS];

    memset(r, 0, sizeof(*r));
    r->row.id = column_text(a, st, 0);
    r->row.side = sqlite3_column_int(st, 1) == LEDGER_IN ? LEDGER_IN : LEDGER_OUT;
    texts_of(&r->row, texts);
    for (int i = 0; i < N_TEXTS; i++)
        *texts[i] = column_text(a, st, 2 + i);
    r->row.began_ms = sqlite3_column_int64(st, 2 + N_TEXTS);
    r->row.ended_ms = sqlite3_column_int64(st, 3 + N_TEXTS);
    r->note = column_text(a, st, 4 + N_TEXTS);
    r->facts = column_text(a, st, 5 + N_TEXTS);
}

static sqlite3_stmt *keyed(struct ledger_store *s, enum statement which, const char *id, enum ledger_side side)
{
    bind_text(s->statements[which], 1, id);
    sqlite3_bind_int(s->statements[which], 2, (int)side);
    return s->statements[which];
}

/* Ready for its next use; nothing of the caller's stays bound. */
static void rest(sqlite3_stmt *st)
{
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
}

static struct error *run(struct arena *a, struct ledger_store *s, sqlite3_stmt *st)
{
    struct error *e = sqlite3_step(st) == SQLITE_DONE ? NULL : sqlite_error(a, s->handle, "the ledger of migrations");
    rest(st);
    return e;
}

static struct error *read_one(struct arena *a, struct ledger_store *s, sqlite3_stmt *st, struct ledger_record *r, bool *found_r)
{
    int rc = sqlite3_step(st);
    struct error *e = rc == SQLITE_ROW || rc == SQLITE_DONE ? NULL : sqlite_error(a, s->handle, "the ledger of migrations");

    *found_r = rc == SQLITE_ROW;
    if (*found_r)
        read_record(a, st, r);
    rest(st);
    return e;
}

/* --- one row ---------------------------------------------------------------------------------------------------- */
struct error *ledger_store_put(struct arena *a, struct ledger_store *s, const struct ledger_record *r)
{
    struct ledger_row row = r->row;
    sqlite3_stmt *st = keyed(s, ST_PUT, row.id, row.side);
    const char **texts[N_TEXTS];

    texts_of(&row, texts);
    for (int i = 0; i < N_TEXTS; i++)
        bind_text(st, 3 + i, *texts[i]);
    sqlite3_bind_int64(st, 3 + N_TEXTS, row.began_ms);
    sqlite3_bind_int64(st, 4 + N_TEXTS, row.ended_ms);
    bind_text(st, 5 + N_TEXTS, r->note);
    bind_text(st, 6 + N_TEXTS, r->facts);
    return run(a, s, st);
}

struct error *ledger_store_get(struct arena *a, struct ledger_store *s, const char *id, enum ledger_side side, struct ledger_record *r, bool *found_r)
{
    return read_one(a, s, keyed(s, ST_GET, id, side), r, found_r);
}

struct error *ledger_store_by_key(struct arena *a, struct ledger_store *s, const char *key, struct ledger_record *r, bool *found_r)
{
    bind_text(s->statements[ST_BY_KEY], 1, key);
    return read_one(a, s, s->statements[ST_BY_KEY], r, found_r);
}

struct error *ledger_store_rename(struct arena *a, struct ledger_store *s, const char *id, enum ledger_side side, const char *new_id)
{
    sqlite3_stmt *st = keyed(s, ST_RENAME, id, side);
    bind_text(st, 3, new_id);
    return run(a, s, st);
}

struct error *ledger_store_facts(struct arena *a, struct ledger_store *s, const char *id, enum ledger_side side, const char *facts)
{
    sqlite3_stmt *st = keyed(s, ST_FACTS, id, side);
    bind_text(st, 3, facts);
    return run(a, s, st);
}

struct error *ledger_store_stage(struct arena *a, struct ledger_store *s, const char *id, enum ledger_side side, const char *stage, const char *note)
{
    sqlite3_stmt *st = keyed(s, note != NULL ? ST_NOTE : ST_STAGE, id, side);
    bind_text(st, 3, stage);
    if (note != NULL)
        bind_text(st, 4, note);
    return run(a, s, st);
}

struct error *ledger_store_end(struct arena *a, struct ledger_store *s, const char *id, enum ledger_side side, const char *outcome,
                               const char *cause, const char *recovery, int64_t ended_ms)
{
    sqlite3_stmt *st = keyed(s, ST_END, id, side);
    bind_text(st, 3, outcome);
    bind_text(st, 4, cause);
    bind_text(st, 5, recovery);
    sqlite3_bind_int64(st, 6, ended_ms);
    return run(a, s, st);
}

/* --- many rows ---------------------------------------------------------------------------------------------------- */
/* Of those that began in the same second the one written last comes first; an index ends with the rowid by itself. */
static const char *list_sql(struct arena *a, const struct ledger_query *q, const char *prefix)
{
    return arena_printf(a, "%sSELECT " COLUMNS " FROM migrations WHERE 1%s%s%s%s%s ORDER BY began_ms DESC, rowid DESC LIMIT ?5 OFFSET ?6",
                        prefix, q->active ? " AND stage <> 'done'" : "", q->vm_uuid != NULL ? " AND vm_uuid=?1" : "",
                        q->outcome != NULL ? " AND outcome=?2" : "", q->since_ms != 0 ? " AND began_ms>=?3" : "",
                        q->before_ms != 0 ? " AND began_ms<?4" : "");
}

static struct error *list_prepare(struct arena *a, struct ledger_store *s, const struct ledger_query *q, const char *prefix, sqlite3_stmt **st_r)
{
    TRY(sqlite_prepare(a, s->handle, list_sql(a, q, prefix), st_r));
    if (q->vm_uuid != NULL)
        bind_text(*st_r, 1, q->vm_uuid);
    if (q->outcome != NULL)
        bind_text(*st_r, 2, q->outcome);
    if (q->since_ms != 0)
        sqlite3_bind_int64(*st_r, 3, q->since_ms);
    if (q->before_ms != 0)
        sqlite3_bind_int64(*st_r, 4, q->before_ms);
    sqlite3_bind_int64(*st_r, 5, q->limit != 0 ? q->limit : DEFAULT_LIMIT);
    sqlite3_bind_int64(*st_r, 6, q->offset);
    return NULL;
}

struct error *ledger_store_list(struct arena *a, struct ledger_store *s, const struct ledger_query *q, struct ledger_record **records_r,
                                unsigned *n_r)
{
    AUTO_SQLITE_STMT *st = NULL;
    struct ledger_record *records = NULL;
    unsigned n = 0, cap = 0;
    int rc;

    TRY(list_prepare(a, s, q, "", &st));
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (n == cap) {
            struct ledger_record *more = arena_calloc(a, cap = cap == 0 ? 16 : 2 * cap, sizeof(*more));
            if (n > 0)
                memcpy(more, records, n * sizeof(*more));
            records = more;
        }
        read_record(a, st, &records[n++]);
    }
    *records_r = records;
    *n_r = n;
    return rc == SQLITE_DONE ? NULL : sqlite_error(a, s->handle, "the ledger of migrations");
}

struct error *ledger_store_plan(struct arena *a, struct ledger_store *s, const struct ledger_query *q, const char **plan_r)
{
    AUTO_SQLITE_STMT *st = NULL;
    const char *plan = "";

    TRY(list_prepare(a, s, q, "EXPLAIN QUERY PLAN ", &st));
    while (sqlite3_step(st) == SQLITE_ROW)
        plan = arena_printf(a, "%s%s\n", plan, column_text(a, st, 3));
    *plan_r = plan;
    return NULL;
}

struct error *ledger_store_prune(struct arena *a, struct ledger_store *s, int64_t before_ms, unsigned *gone_r)
{
    sqlite3_bind_int64(s->statements[ST_PRUNE], 1, before_ms);
    TRY(run(a, s, s->statements[ST_PRUNE]));
    *gone_r = (unsigned)sqlite3_changes(s->handle);
    return NULL;
}
