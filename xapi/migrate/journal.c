#include "xapi/migrate/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/wire/json.h"

LOG_MODULE(journal);

#define JOURNAL_FILE_MAX (1u << 20)
#define CHECKSUM_DIGITS 20

struct journal {
    char *dir;
};

static const char *const state_names[] = {
    [JOURNAL_PREPARED] = "PREPARED", [JOURNAL_STREAMING] = "STREAMING", [JOURNAL_SUSPENDED] = "SUSPENDED",
    [JOURNAL_GO_SENT] = "GO-SENT",   [JOURNAL_DONE] = "DONE",           [JOURNAL_RESUMED] = "RESUMED",
    [JOURNAL_READY] = "READY",       [JOURNAL_COMMITTED] = "COMMITTED", [JOURNAL_RUNNING] = "RUNNING",
    [JOURNAL_ABORTED] = "ABORTED",
};
static const char *const side_names[] = { [JOURNAL_SOURCE] = "source", [JOURNAL_DESTINATION] = "destination" };

const char *journal_state_name(enum journal_state state)
{
    return state_names[state];
}

static bool state_parse(const char *name, enum journal_state *state_r)
{
    for (unsigned i = 0; i < ARRAY_LEN(state_names); i++)
        if (strcmp(name, state_names[i]) == 0) {
            *state_r = (enum journal_state)i;
            return true;
        }
    return false;
}

/* Ids become file names: only what uuids are made of. */
static bool id_valid(const char *id)
{
    size_t len = strlen(id);
    return len > 0 && len <= 64 && strspn(id, "0123456789abcdefABCDEF-") == len;
}

static char *entry_path(struct arena *a, const struct journal *j, const char *id, enum journal_side side)
{
    return arena_printf(a, "%s/%s.%s", j->dir, id, side_names[side]);
}

struct error *journal_open(struct arena *a, const char *dir, struct journal **journal_r)
{
    int r = dir_create(dir, 0700);
    if (r != 0)
        return err_internal(a, "cannot create the migration journal %s: %s", dir, strerror(-r));
    struct journal *j = xcalloc(1, sizeof *j);
    j->dir = xstrdup(dir);
    *journal_r = j;
    return NULL;
}

void journal_close(struct journal *j)
{
    if (j == NULL)
        return;
    xfree(j->dir);
    xfree(j);
}

static void record_format(struct text *line, const char *id, enum journal_state state, const struct value *facts)
{
    struct member members[3] = { member_of("id", value_string(id)), member_of("state", value_string(state_names[state])),
                                 member_of("facts", facts != NULL ? *facts : value_map(NULL, 0)) };
    struct value v = value_map(members, ARRAY_LEN(members));
    AUTO_TEXT json = TEXT_INIT;
    json_write(&json, &v);
    text_printf(line, "%020" PRIu64 " ", (uint64_t)XXH64(json.bytes, json.len, 0));
    text_add_len(line, json.bytes, json.len);
    text_add_byte(line, '\n');
}

/* All of it is on the medium, or (as far as that can be had) nothing of it stays. */
static int add_line(int fd, off_t end, const struct text *line)
{
    int r = fd_write_all(fd, line->bytes, line->len);
    if (r == 0 && fdatasync(fd) == 0)
        return 0;
    r = r != 0 ? r : -errno;
    if (ftruncate(fd, end) != 0 || fdatasync(fd) != 0)
        log_err("a record that could not be written may be in the migration journal all the same");
    return r;
}

/* A torn last line must not swallow the next record: it is closed off with a newline first. */
static int append_durably(const char *path, const struct text *line, bool *created_r)
{
    AUTO_FD fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    off_t end = lseek(fd, 0, SEEK_END);
    *created_r = end == 0;
    char last = '\n';
    if (end > 0 && pread(fd, &last, 1, end - 1) != 1)
        return -EIO;
    if (last != '\n') {
        int r = fd_write_all(fd, "\n", 1);
        if (r != 0)
            return r;
    }
    return add_line(fd, last != '\n' ? end + 1 : end, line);
}

struct error *journal_write(struct arena *a, struct journal *j, const char *id, enum journal_side side, enum journal_state state,
                            const struct value *facts)
{
    if (!id_valid(id))
        return err_internal(a, "'%s' is no migration id", id);
    AUTO_TEXT line = TEXT_INIT;
    record_format(&line, id, state, facts);
    if (fault_hit("journal.write"))
        return err_internal(a, "cannot write the migration journal: injected fault");
    bool created = false;
    int r = append_durably(entry_path(a, j, id, side), &line, &created);
    if (r == 0 && created)
        r = dir_sync(j->dir);
    if (r != 0)
        return err_internal(a, "cannot write the migration journal in %s: %s", j->dir, strerror(-r));
    log_debug("migration %s %s %s", id, side_names[side], state_names[state]);
    return NULL;
}

/* One line without its newline; false when it is torn or foreign. */
static bool record_parse(struct arena *a, const char *line, size_t len, enum journal_state *state_r, struct value *facts_r)
{
    if (len <= CHECKSUM_DIGITS + 1 || line[CHECKSUM_DIGITS] != ' ')
        return false;
    const char *json = line + CHECKSUM_DIGITS + 1;
    size_t json_len = len - CHECKSUM_DIGITS - 1;
    uint64_t sum;
    if (!text_to_uint(arena_strndup(a, line, CHECKSUM_DIGITS), &sum) || sum != XXH64(json, json_len, 0))
        return false;
    struct value v;
    const char *reason;
    if (!json_parse(a, json, json_len, &v, &reason))
        return false;
    const struct value *facts = value_get(&v, "facts");
    *facts_r = facts != NULL ? *facts : value_map(NULL, 0);
    return state_parse(value_get_string(&v, "state", ""), state_r);
}

/* The last whole record of a file; facts of earlier records stay visible where later ones lack them. */
static bool file_last(struct arena *a, const char *path, enum journal_state *state_r, struct value *facts_r)
{
    char *bytes;
    size_t len;
    if (file_read(a, path, JOURNAL_FILE_MAX, &bytes, &len) != 0)
        return false;
    bool found = false;
    struct value_dict facts = { 0 };
    for (char *line = bytes, *stop = bytes + len; line < stop;) {
        char *end = memchr(line, '\n', (size_t)(stop - line));
        if (end == NULL)
            break;
        struct value more;
        if (record_parse(a, line, (size_t)(end - line), state_r, &more)) {
            found = true;
            for (unsigned i = 0; more.kind == VALUE_MAP && i < more.len; i++)
                value_dict_set(a, &facts, more.members[i].name, more.members[i].value);
        }
        line = end + 1;
    }
    *facts_r = value_dict_value(&facts);
    return found;
}

bool journal_state(struct journal *j, const char *id, enum journal_side side, enum journal_state *state_r)
{
    if (!id_valid(id))
        return false;
    AUTO_ARENA a = arena_new();
    struct value facts;
    return file_last(a, entry_path(a, j, id, side), state_r, &facts);
}

/* "<id>.source" or "<id>.destination" */
static bool name_parse(struct arena *a, const char *name, const char **id_r, enum journal_side *side_r)
{
    const char *dot = strrchr(name, '.');
    if (dot == NULL)
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(side_names); i++)
        if (strcmp(dot + 1, side_names[i]) == 0) {
            *side_r = (enum journal_side)i;
            *id_r = arena_strndup(a, name, (size_t)(dot - name));
            return id_valid(*id_r);
        }
    return false;
}

static bool state_final(enum journal_state state)
{
    return state == JOURNAL_DONE || state == JOURNAL_RESUMED || state == JOURNAL_RUNNING || state == JOURNAL_ABORTED;
}

static int compare_unfinished_first(const void *a, const void *b)
{
    const struct journal_entry *x = a, *y = b;
    int fx = state_final(x->state), fy = state_final(y->state);
    return fx != fy ? fx - fy : strcmp(x->migration_id, y->migration_id);
}

static void dir_cleanup(DIR **d)
{
    if (*d != NULL)
        closedir(*d);
}

struct error *journal_list(struct arena *a, struct journal *j, struct journal_entry **entries_r, unsigned *n_r)
{
    CLEANUP(dir_cleanup) DIR *dir = opendir(j->dir);
    if (dir == NULL)
        return err_internal(a, "cannot read the migration journal %s: %s", j->dir, strerror(errno));
    struct journal_entry *entries = NULL;
    unsigned n = 0, cap = 0;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        struct journal_entry e = { 0 };
        if (!name_parse(a, d->d_name, &e.migration_id, &e.side))
            continue;
        if (!file_last(a, entry_path(a, j, e.migration_id, e.side), &e.state, &e.facts))
            continue;
        if (n == cap) {
            cap = cap == 0 ? 16 : cap * 2;
            struct journal_entry *grown = arena_calloc(a, cap, sizeof *grown);
            if (n > 0)
                memcpy(grown, entries, n * sizeof *grown);
            entries = grown;
        }
        entries[n++] = e;
    }
    if (n > 1)
        qsort(entries, n, sizeof *entries, compare_unfinished_first);
    *entries_r = entries;
    *n_r = n;
    return NULL;
}

void journal_expire(struct journal *j, int64_t before)
{
    CLEANUP(dir_cleanup) DIR *dir = opendir(j->dir);
    AUTO_ARENA a = arena_new();
    struct stat st;

    for (struct dirent *d; dir != NULL && (d = readdir(dir)) != NULL;) {
        const char *id;
        enum journal_side side;
        if (name_parse(a, d->d_name, &id, &side) && fstatat(dirfd(dir), d->d_name, &st, 0) == 0 && st.st_mtime < before)
            journal_forget(j, id, side);
    }
}

void journal_forget(struct journal *j, const char *id, enum journal_side side)
{
    AUTO_ARENA a = arena_new();
    enum journal_state state;
    struct value facts;
    const char *path = entry_path(a, j, id, side);
    if (!id_valid(id) || !file_last(a, path, &state, &facts) || !state_final(state) || state == JOURNAL_ABORTED)
        return;
    if (unlink(path) != 0)
        log_warn("cannot forget migration %s: %s", id, strerror(errno));
}
