/* Reading whole tables at start. */
#include <math.h>
#include <string.h>

#include "db/encode.h"
#include "db/sqlite_inside.h"
#include "db/store.h"
#include "rpc/base/check.h"

#define ROWS_PER_ARENA 256

/* Strings point into SQLite's row: good until the next step. The sqlite3_value_* calls cost less than
 * sqlite3_column_*; on values of a statement they are safe where one thread uses the connection. */
static bool read_text(sqlite3_value *column, struct value *v)
{
    const char *s = (const char *)sqlite3_value_text(column);
    size_t len = (size_t)sqlite3_value_bytes(column);
    *v = value_string_len(s, len);
    return memchr(s, '\0', len) == NULL;
}

static bool read_float(sqlite3_value *column, int stored, struct value *v)
{
    bool nan = stored == SQLITE_TEXT && strcmp((const char *)sqlite3_value_text(column), "nan") == 0;
    *v = value_float(nan ? NAN : sqlite3_value_double(column));
    return nan || stored == SQLITE_FLOAT || stored == SQLITE_INTEGER;
}

static bool read_json(struct arena *arena, sqlite3_value *column, const struct type_info *type, struct value *v)
{
    struct value text;
    if (!read_text(column, &text))
        return false;
    if (text.len == 2 && memcmp(text.s, type->kind == TYPE_SET ? "[]" : "{}", 2) == 0) {
        *v = type->kind == TYPE_SET ? value_set(NULL, 0) : value_map(NULL, 0);
        return true;
    }
    return decode_value(arena, type, text.s, text.len, v);
}

/* False when the column does not hold such a value. NULL: v stays the default. */
static bool read_column(struct arena *arena, sqlite3_value *column, const struct type_info *type, struct value *v)
{
    int stored = sqlite3_value_type(column);

    if (stored == SQLITE_NULL)
        return true;
    switch (type->kind) {
    case TYPE_STRING:
    case TYPE_ENUM:
    case TYPE_REF:
        return stored == SQLITE_TEXT && read_text(column, v);
    case TYPE_INT:
        *v = value_int(sqlite3_value_int64(column));
        return stored == SQLITE_INTEGER;
    case TYPE_BOOL:
        *v = value_bool(sqlite3_value_int64(column) != 0);
        return stored == SQLITE_INTEGER;
    case TYPE_DATETIME:
        *v = value_datetime(sqlite3_value_int64(column));
        return stored == SQLITE_INTEGER;
    case TYPE_FLOAT:
        return read_float(column, stored, v);
    case TYPE_SET:
    case TYPE_MAP:
        return stored == SQLITE_TEXT && read_json(arena, column, type, v);
    case TYPE_OPTION:
        return read_column(arena, column, type->item, v);
    case TYPE_RECORD:
    case TYPE_VOID:
    case TYPE_ANY:
        return false;
    }
    BUG("not a type");
}

static struct error *read_row(struct arena *arena, sqlite3_stmt *stmt, const struct class_info *class,
                              struct value *fields, struct sqlite_object *object)
{
    int at = 3;

    object->id = (uint64_t)sqlite3_column_int64(stmt, 0);
    object->ref = (const char *)sqlite3_column_text(stmt, 1);
    object->created = (uint64_t)sqlite3_column_int64(stmt, 2);
    object->fields = fields;
    for (unsigned i = 0; i < class->n_fields; i++) {
        const struct field_info *f = &class->fields[i];
        fields[i] = (f->flags & FIELD_INVERSE) != 0 ? value_set(NULL, 0) : f->fallback;
        if (!field_is_stored(f))
            continue;
        if (!read_column(arena, sqlite3_column_value(stmt, at), f->type, &fields[i]))
            return err_internal(arena, "the table %s is damaged: %s of %s is no %s", class->name, f->name, object->ref,
                                f->type->spelling);
        at++;
    }
    return NULL;
}

static struct error *select_prepare(struct arena *arena, sqlite3 *handle, const struct class_info *class,
                                    sqlite3_stmt **stmt_r)
{
    AUTO_TEXT sql = TEXT_INIT;

    text_add(&sql, "SELECT _id, ref, _created");
    for (unsigned i = 0; i < class->n_fields; i++)
        if (field_is_stored(&class->fields[i]))
            text_printf(&sql, ", \"%s\"", class->fields[i].name);
    text_printf(&sql, " FROM \"%s\" ORDER BY _id", class->name);
    return sqlite_prepare(arena, handle, sql.bytes, stmt_r);
}

/* At most ROWS_PER_ARENA rows; *more_r: there are more. */
static struct error *load_some(struct arena *errors, sqlite3 *handle, sqlite3_stmt *stmt,
                               const struct class_info *class, sqlite_object_fn *fn, void *ctx, bool *more_r)
{
    AUTO_ARENA arena = arena_new();
    struct value *fields = arena_calloc(arena, class->n_fields, sizeof(*fields));
    int rc = SQLITE_ROW;

    for (unsigned i = 0; i < ROWS_PER_ARENA && (rc = sqlite3_step(stmt)) == SQLITE_ROW; i++) {
        struct sqlite_object object;
        struct error *error = read_row(arena, stmt, class, fields, &object);
        if (error == NULL)
            error = fn(ctx, arena, class, &object);
        if (error != NULL)
            return error_dup(errors, error);
    }
    *more_r = rc == SQLITE_ROW;
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? NULL : sqlite_error(errors, handle, class->name);
}

struct error *sqlite_load(struct arena *arena, struct sqlite *s, const struct class_info *class, sqlite_object_fn *fn,
                          void *ctx)
{
    AUTO_SQLITE_STMT *stmt = NULL;
    bool more = true;

    TRY(select_prepare(arena, s->handle, class, &stmt));
    while (more)
        TRY(load_some(arena, s->handle, stmt, class, fn, ctx, &more));
    return NULL;
}
