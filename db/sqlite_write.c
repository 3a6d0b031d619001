/* Group commits as prepared statements: INSERT of a whole row, UPDATE of the changed columns. */
#include <math.h>
#include <string.h>

#include "db/encode.h"
#include "db/sqlite_inside.h"
#include "db/store.h"
#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define COMMITS_BEFORE_FILL 8 /* a database that is only looked at is not worth it */

/* --- values ------------------------------------------------------------------------------------------ */

static int bind_text(sqlite3_stmt *stmt, int at, const char *s, size_t len)
{
    return sqlite3_bind_text64(stmt, at, s, len, SQLITE_STATIC, SQLITE_UTF8);
}

static int bind_json(sqlite3_stmt *stmt, int at, const struct value *v)
{
    AUTO_TEXT json = TEXT_INIT;
    if (v->len == 0)
        return bind_text(stmt, at, v->kind == VALUE_SET ? "[]" : "{}", 2);
    encode_value(&json, v);
    size_t len = json.len;
    return sqlite3_bind_text64(stmt, at, text_steal(&json), len, xfree, SQLITE_UTF8);
}

static int bind_value(sqlite3_stmt *stmt, int at, const struct value *v)
{
    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        return bind_text(stmt, at, v->s, v->len);
    case VALUE_INT:
    case VALUE_INT32:
    case VALUE_BOOL:
    case VALUE_DATETIME:
        return sqlite3_bind_int64(stmt, at, v->i);
    case VALUE_FLOAT: /* SQLite would make NULL of it */
        return isnan(v->f) ? bind_text(stmt, at, "nan", 3) : sqlite3_bind_double(stmt, at, v->f);
    case VALUE_SET:
    case VALUE_MAP:
        return bind_json(stmt, at, v);
    case VALUE_VOID:
    case VALUE_NIL:
        return sqlite3_bind_null(stmt, at);
    case VALUE_RECORD:
        break;
    }
    BUG("a value that is never stored");
}

/* --- statements -------------------------------------------------------------------------------------- */

static int prepare(struct sqlite *s, const struct text *sql, sqlite3_stmt **stmt_r)
{
    return sqlite3_prepare_v3(s->handle, sql->bytes, -1, SQLITE_PREPARE_PERSISTENT, stmt_r, NULL);
}

static int insert_prepare(struct sqlite *s, const struct class_info *class, sqlite3_stmt **stmt_r)
{
    AUTO_TEXT sql = TEXT_INIT;
    unsigned n = 0;

    text_printf(&sql, "INSERT INTO \"%s\" (_id, ref, _created", class->name);
    for (unsigned i = 0; i < class->n_fields; i++) {
        if (!field_is_stored(&class->fields[i]))
            continue;
        text_printf(&sql, ", \"%s\"", class->fields[i].name);
        n++;
    }
    text_add(&sql, ") VALUES (?, ?, ?");
    while (n-- > 0)
        text_add(&sql, ", ?");
    text_add(&sql, ")");
    return prepare(s, &sql, stmt_r);
}

static int update_prepare(struct sqlite *s, const struct class_info *class, const struct field_set *fields,
                          sqlite3_stmt **stmt_r)
{
    AUTO_TEXT sql = TEXT_INIT;
    const char *comma = "";

    text_printf(&sql, "UPDATE \"%s\" SET ", class->name);
    for (unsigned i = 0; i < class->n_fields; i++) {
        if (!field_set_has(fields, i))
            continue;
        text_printf(&sql, "%s\"%s\"=?", comma, class->fields[i].name);
        comma = ", ";
    }
    text_add(&sql, " WHERE _id=?");
    return prepare(s, &sql, stmt_r);
}

/* The statement for just these columns; the few most used sets of columns stay prepared. */
static int update_find(struct sqlite *s, const struct class_info *class, const struct field_set *fields,
                       sqlite3_stmt **stmt_r)
{
    struct sqlite_statements *st = &s->classes[class->id];

    for (unsigned i = 0; i < SQLITE_UPDATES; i++) {
        if (st->updates[i].stmt != NULL && field_set_equal(&st->updates[i].fields, fields)) {
            *stmt_r = st->updates[i].stmt;
            return SQLITE_OK;
        }
    }
    struct sqlite_update *u = &st->updates[st->next_update++ % SQLITE_UPDATES];
    sqlite3_finalize(u->stmt);
    u->stmt = NULL;
    u->fields = *fields;
    int rc = update_prepare(s, class, fields, &u->stmt);
    *stmt_r = u->stmt;
    return rc;
}

static int run(sqlite3_stmt *stmt)
{
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_DONE)
        return sqlite3_reset(stmt);
    sqlite3_reset(stmt);
    return rc;
}

/* --- writes ------------------------------------------------------------------------------------------ */

static int do_insert(struct sqlite *s, const struct sqlite_write *w)
{
    sqlite3_stmt **stmt = &s->classes[w->class->id].insert;
    int at = 1, rc = *stmt != NULL ? SQLITE_OK : insert_prepare(s, w->class, stmt);

    if (rc != SQLITE_OK)
        return rc;
    rc |= sqlite3_bind_int64(*stmt, at++, (int64_t)w->id);
    rc |= bind_text(*stmt, at++, w->row->ref, strlen(w->row->ref));
    rc |= sqlite3_bind_int64(*stmt, at++, (int64_t)w->row->created);
    for (unsigned i = 0; i < w->class->n_fields; i++)
        if (field_is_stored(&w->class->fields[i]))
            rc |= bind_value(*stmt, at++, &w->row->fields[i]);
    return rc != SQLITE_OK ? SQLITE_NOMEM : run(*stmt);
}

static int do_update(struct sqlite *s, const struct sqlite_write *w)
{
    sqlite3_stmt *stmt;
    int at = 1, rc = update_find(s, w->class, &w->fields, &stmt);

    if (rc != SQLITE_OK)
        return rc;
    for (unsigned i = 0; i < w->class->n_fields; i++)
        if (field_set_has(&w->fields, i))
            rc |= bind_value(stmt, at++, &w->row->fields[i]);
    rc |= sqlite3_bind_int64(stmt, at, (int64_t)w->id);
    return rc != SQLITE_OK ? SQLITE_NOMEM : run(stmt);
}

static int do_delete(struct sqlite *s, const struct sqlite_write *w)
{
    sqlite3_stmt **stmt = &s->classes[w->class->id].delete;

    if (*stmt == NULL) {
        AUTO_TEXT sql = TEXT_INIT;
        text_printf(&sql, "DELETE FROM \"%s\" WHERE _id=?", w->class->name);
        int rc = prepare(s, &sql, stmt);
        if (rc != SQLITE_OK)
            return rc;
    }
    sqlite3_bind_int64(*stmt, 1, (int64_t)w->id);
    return run(*stmt);
}

static int do_write(struct sqlite *s, const struct sqlite_write *w)
{
    if (w->inserts && w->deletes)
        return SQLITE_OK;
    if (w->deletes)
        return do_delete(s, w);
    return w->inserts ? do_insert(s, w) : do_update(s, w);
}

static int write_all(struct sqlite *s, const struct sqlite_write *writes, unsigned n, uint64_t ceiling)
{
    int rc = run(s->begin);
    for (unsigned i = 0; rc == SQLITE_OK && i < n; i++)
        rc = do_write(s, &writes[i]);
    if (rc == SQLITE_OK && ceiling != 0) {
        sqlite3_bind_int64(s->ceiling, 1, (int64_t)ceiling);
        rc = run(s->ceiling);
    }
    return rc == SQLITE_OK ? run(s->commit) : rc;
}

char *sqlite_commit(struct sqlite *s, const struct sqlite_write *writes, unsigned n, uint64_t ceiling)
{
    if (s->n_commits < COMMITS_BEFORE_FILL && ++s->n_commits == COMMITS_BEFORE_FILL)
        sqlite_fill_log(s);
    int rc = write_all(s, writes, n, ceiling);
    if (rc == SQLITE_OK)
        return NULL;
    char *failure = xprintf("%s (%d)", sqlite3_errmsg(s->handle), rc);
    if (sqlite3_get_autocommit(s->handle) == 0)
        run(s->rollback);
    return failure;
}
