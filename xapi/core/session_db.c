#include "xapi/core/session_db.h"

#include <unistd.h>

#include "db/maintenance.h"
#include "rpc/base/memory.h"

struct session_db { struct db *db; char *path; };

/* The file and what SQLite and our lock put beside it. */
static void remove_copy(const char *path)
{
    static const char *const endings[] = { "", "-wal", "-shm", "-journal", ".lock" };
    for (unsigned i = 0; i < ARRAY_LEN(endings); i++) {
        AUTO_FREE char *file = xprintf("%s%s", path, endings[i]);
        (void)unlink(file);
    }
}

struct error *session_db_open(struct arena *a, const struct clock *clock, const char *filename, const char *copy, struct session_db **own_r)
{
    struct db *db = NULL;
    const struct db_options options = { .path = copy, .clock = clock };
    TRY(maintenance_backup(a, filename, copy));
    struct error *e = db_open(a, &options, &db);
    if (e != NULL) {
        remove_copy(copy);
        return e;
    }
    struct session_db *own = xcalloc(1, sizeof *own);
    *own = (struct session_db){ .db = db, .path = xstrdup(copy) };
    *own_r = own;
    return NULL;
}

void session_db_close(struct session_db *own)
{
    if (own == NULL)
        return;
    db_close(own->db);
    remove_copy(own->path);
    xfree(own->path);
    xfree(own);
}

struct db *session_db_of(struct session_db *own)
{
    return own->db;
}
