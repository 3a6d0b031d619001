#include "xapi/migrate/decide.h"

#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/migrate/migrations.h"

LOG_MODULE(decide);

#define COMMIT "commit\n"
#define ABORT "abort\n"

static const char *path_of(struct arena *a, const struct xapi *xapi, const char *id)
{
    return arena_printf(a, "%s/decisions/%s", xapi->dir, id);
}

struct error *decide_put(struct arena *a, struct xapi *xapi, const char *id, bool committed)
{
    enum journal_state state;
    const char *dir = arena_printf(a, "%s/decisions", xapi->dir), *word = committed ? COMMIT : ABORT;

    if (!uuid_valid(id) || !journal_state(xapi->migrations->journal, id, JOURNAL_SOURCE, &state))
        return err_operation_not_allowed(a, "This host sends no migration of that name");
    if (state != JOURNAL_GO_SENT)
        return err_operation_not_allowed(a, arena_printf(a, "The migration stands at %s: there is nothing to decide", journal_state_name(state)));
    int rc = dir_create(dir, 0700);
    if (rc == 0)
        rc = file_replace(path_of(a, xapi, id), word, strlen(word), 0600);
    if (rc < 0)
        return err_internal(a, "%s: %s", dir, strerror(-rc));
    log_warn("migration %s: an operator decided that it has %s", id, committed ? "committed: the copy here goes" : "not happened: the guest goes on here");
    return NULL;
}

bool decide_take(struct xapi *xapi, const char *id, bool *committed_r)
{
    AUTO_ARENA a = arena_new();
    const char *path = path_of(a, xapi, id);
    size_t len;
    char *bytes;

    if (access(path, F_OK) != 0 || file_read(a, path, 64, &bytes, &len) != 0)
        return false;
    *committed_r = strcmp(bytes, COMMIT) == 0;
    bool known = *committed_r || strcmp(bytes, ABORT) == 0;
    unlink(path);
    return known;
}
