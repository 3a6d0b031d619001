#include "tests/lib/sql.h"

#include <sqlite3.h>

#include "tests/lib/unit.h"

struct answer {
    struct arena *arena;
    const char *text;
};

static int add_row(void *ctx, int n, char **values, char **names)
{
    struct answer *a = ctx;
    if (a->text[0] != '\0')
        a->text = arena_printf(a->arena, "%s\n", a->text);
    for (int i = 0; i < n; i++)
        a->text = arena_printf(a->arena, "%s%s%s", a->text, i > 0 ? "|" : "", values[i] != NULL ? values[i] : "NULL");
    return 0;
}

const char *sql_ask(struct arena *arena, const char *path, const char *sql)
{
    struct answer a = { .arena = arena, .text = "" };
    sqlite3 *handle = NULL;
    char *message = NULL;

    assert_int_equal(sqlite3_open(path, &handle), SQLITE_OK);
    if (sqlite3_exec(handle, sql, add_row, &a, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    assert_int_equal(sqlite3_close(handle), SQLITE_OK);
    return a.text;
}

void sql_run(const char *path, const char *sql)
{
    AUTO_ARENA arena = arena_new();
    (void)sql_ask(arena, path, sql);
}
