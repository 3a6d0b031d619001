/* Tables and columns as the model says. */
#include <string.h>

#include "db/encode.h"
#include "db/sqlite_inside.h"
#include "db/store.h"
#include "db/upgrade.h"
#include "rpc/base/check.h"
#include "rpc/base/log.h"

LOG_MODULE(db);

/* A text literal. */
static void add_quoted(struct text *sql, const char *s, size_t len)
{
    text_add_byte(sql, '\'');
    for (size_t i = 0; i < len; i++) {
        if (s[i] == '\'')
            text_add_byte(sql, '\'');
        text_add_byte(sql, s[i]);
    }
    text_add_byte(sql, '\'');
}

static void add_default(struct text *sql, const struct value *v)
{
    AUTO_TEXT json = TEXT_INIT;

    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        add_quoted(sql, v->s, v->len);
        return;
    case VALUE_INT:
    case VALUE_INT32:
    case VALUE_BOOL:
    case VALUE_DATETIME:
        text_printf(sql, "%lld", (long long)v->i);
        return;
    case VALUE_FLOAT:
        text_printf(sql, "%.17g", v->f);
        return;
    case VALUE_SET:
    case VALUE_MAP:
        encode_value(&json, v);
        add_quoted(sql, json.bytes, json.len);
        return;
    case VALUE_VOID:
    case VALUE_NIL:
        text_add(sql, "NULL");
        return;
    case VALUE_RECORD:
        break;
    }
    BUG("a default that is never stored");
}

static const char *column_type(const struct type_info *type)
{
    switch (type->kind) {
    case TYPE_INT:
    case TYPE_BOOL:
    case TYPE_DATETIME:
        return "INTEGER";
    case TYPE_FLOAT:
        return "REAL";
    case TYPE_OPTION:
        return column_type(type->item);
    case TYPE_STRING:
    case TYPE_ENUM:
    case TYPE_REF:
    case TYPE_SET:
    case TYPE_MAP:
        return "TEXT";
    case TYPE_RECORD:
    case TYPE_VOID:
    case TYPE_ANY:
        break;
    }
    BUG("a type that is never stored");
}

static void add_column(struct text *sql, const struct field_info *f)
{
    text_printf(sql, "\"%s\" %s DEFAULT ", f->name, column_type(f->type));
    add_default(sql, &f->fallback);
}

static struct error *table_create(struct arena *arena, sqlite3 *handle, const struct class_info *class)
{
    AUTO_TEXT sql = TEXT_INIT;

    text_printf(&sql, "CREATE TABLE \"%s\" (_id INTEGER PRIMARY KEY, ref TEXT NOT NULL, _created INTEGER NOT NULL",
                class->name);
    for (unsigned i = 0; i < class->n_fields; i++) {
        if (!field_is_stored(&class->fields[i]))
            continue;
        text_add(&sql, ", ");
        add_column(&sql, &class->fields[i]);
    }
    text_add(&sql, ")");
    return sqlite_exec(arena, handle, sql.bytes);
}

/* The fields whose columns the table has; *n_r: of all columns. */
static struct error *table_columns(struct arena *arena, sqlite3 *handle, const struct class_info *class,
                                   struct field_set *has, unsigned *n_r)
{
    AUTO_SQLITE_STMT *stmt = NULL;
    int rc;

    *n_r = 0;
    TRY(sqlite_prepare(arena, handle, arena_printf(arena, "PRAGMA table_info(\"%s\")", class->name), &stmt));
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int field = model_field(class, (const char *)sqlite3_column_text(stmt, 1));
        if (field >= 0)
            field_set_add(has, (unsigned)field);
        ++*n_r;
    }
    return rc == SQLITE_DONE ? NULL : sqlite_error(arena, handle, "reading the columns");
}

static struct error *table_sync(struct arena *arena, sqlite3 *handle, const struct class_info *class)
{
    struct field_set has = { 0 };
    unsigned n;

    TRY(table_columns(arena, handle, class, &has, &n));
    if (n == 0)
        return table_create(arena, handle, class);
    for (unsigned i = 0; i < class->n_fields; i++) {
        if (!field_is_stored(&class->fields[i]) || field_set_has(&has, i))
            continue;
        AUTO_TEXT sql = TEXT_INIT;
        text_printf(&sql, "ALTER TABLE \"%s\" ADD COLUMN ", class->name);
        add_column(&sql, &class->fields[i]);
        TRY(sqlite_exec(arena, handle, sql.bytes));
        log_info("database: added the column %s.%s", class->name, class->fields[i].name);
    }
    return NULL;
}

struct error *sqlite_schema_sync(struct arena *arena, sqlite3 *handle)
{
    for (unsigned i = 0; i < model_n_classes; i++)
        if (class_is_stored(&model_classes[i]))
            TRY(table_sync(arena, handle, &model_classes[i]));
    return NULL;
}

static struct error *stamp(struct arena *arena, sqlite3 *handle)
{
    return sqlite_exec(arena, handle,
                       arena_printf(arena,
                                    "PRAGMA application_id=%d; PRAGMA user_version=%u;"
                                    "INSERT OR REPLACE INTO meta VALUES ('schema_version', %u)",
                                    SQLITE_APPLICATION_ID, model_schema_version, model_schema_version));
}

static struct error *create_inside(struct arena *arena, sqlite3 *handle, int64_t from)
{
    TRY(sqlite_exec(arena, handle,
                    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;"
                    "INSERT INTO meta VALUES ('generation_ceiling', 0)"));
    TRY(sqlite_schema_sync(arena, handle));
    return stamp(arena, handle);
}

static struct error *upgrade_inside(struct arena *arena, sqlite3 *handle, int64_t from)
{
    for (const struct upgrade_step *step = upgrade_steps; step->to_version != 0; step++) {
        if ((int64_t)step->to_version <= from)
            continue;
        log_info("database: upgrading to version %u: %s", step->to_version, step->what);
        TRY(sqlite_exec(arena, handle, step->sql));
    }
    TRY(sqlite_schema_sync(arena, handle));
    return from == (int64_t)model_schema_version ? NULL : stamp(arena, handle);
}

typedef struct error *inside_fn(struct arena *, sqlite3 *, int64_t from);

static struct error *in_transaction(struct arena *arena, sqlite3 *handle, inside_fn *fn, int64_t from)
{
    TRY(sqlite_exec(arena, handle, "BEGIN IMMEDIATE"));
    struct error *error = fn(arena, handle, from);
    if (error == NULL)
        error = sqlite_exec(arena, handle, "COMMIT");
    if (error != NULL && sqlite3_get_autocommit(handle) == 0)
        sqlite3_exec(handle, "ROLLBACK", NULL, NULL, NULL);
    return error;
}

struct error *sqlite_schema_create(struct arena *arena, sqlite3 *handle)
{
    return in_transaction(arena, handle, create_inside, 0);
}

struct error *sqlite_schema_upgrade(struct arena *arena, sqlite3 *handle, int64_t from_version)
{
    return in_transaction(arena, handle, upgrade_inside, from_version);
}
