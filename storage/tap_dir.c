/* The files of a tapd's directory that this side reads and writes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/tap_table.h"
#include "storage/tapd/control_protocol.h"

#define LOG_TAIL 1000

/* --- users ------------------------------------------------------------------------------------------------ */
bool tap_user_has(const struct tap *tap, const char *user)
{
    for (unsigned i = 0; i < tap->n_users; i++)
        if (strcmp(tap->users[i], user) == 0)
            return true;
    return false;
}

static void user_add_locked(struct tap *tap, const char *user, size_t len)
{
    tap->users = xrealloc(tap->users, (tap->n_users + 1) * sizeof(*tap->users));
    tap->users[tap->n_users++] = xstrndup(user, len);
}

void tap_user_add(struct taps *t, struct tap *tap, const char *user)
{
    LOCK_SCOPE(&t->lock);
    if (!tap_user_has(tap, user))
        user_add_locked(tap, user, strlen(user));
}

void tap_user_remove(struct taps *t, struct tap *tap, const char *user)
{
    LOCK_SCOPE(&t->lock);
    for (unsigned i = 0; i < tap->n_users; i++)
        if (strcmp(tap->users[i], user) == 0) {
            xfree(tap->users[i]);
            tap->users[i] = tap->users[--tap->n_users];
            return;
        }
}

const char *tap_users_text(struct arena *a, const struct tap *tap)
{
    const char *text = "";

    for (unsigned i = 0; i < tap->n_users; i++)
        text = arena_printf(a, "%s%s%s", text, i > 0 ? "," : "", tap->users[i]);
    return text;
}

/* --- lines -------------------------------------------------------------------------------------------------- */
static const char *path_in(struct arena *a, const char *dir, const char *name) { return arena_printf(a, "%s/%s", dir, name); }

static bool line_read(struct arena *a, const char *path, const char *verb, struct value *words_r)
{
    const char *found;
    char *bytes;
    size_t len;

    if (file_read(a, path, CONTROL_LINE_MAX + 1, &bytes, &len) != 0)
        return false;
    if (len > 0 && bytes[len - 1] == '\n')
        len--;
    return control_message_parse(a, bytes, len, &found, words_r) && strcmp(found, verb) == 0;
}

static int line_write(const char *path, const char *verb, const struct value *words)
{
    AUTO_TEXT t = TEXT_INIT;

    control_message_write(&t, verb, words);
    text_add_byte(&t, '\n');
    return t.len > CONTROL_LINE_MAX ? -E2BIG : file_replace(path, t.bytes, t.len, 0600);
}

/* --- owner ---------------------------------------------------------------------------------------------------- */
int tap_owner_write(const struct tap *tap)
{
    AUTO_ARENA a = arena_new();
    struct value_dict d = { 0 };
    struct value words;

    value_dict_add(a, &d, "key", value_string(tap->key));
    value_dict_add(a, &d, "users", value_string(tap_users_text(a, tap)));
    if (tap->from != NULL)
        value_dict_add(a, &d, "from", value_string(tap->from));
    if (tap->lead_to != NULL) {
        value_dict_add(a, &d, "to", value_string(tap->lead_to));
        value_dict_add(a, &d, "to_path", value_string(tap->lead_path));
    }
    words = value_dict_value(&d);
    return line_write(path_in(a, tap->dir, "owner"), "owner", &words);
}

static char *word_dup(const struct value *words, const char *name)
{
    const char *word = value_get_string(words, name, NULL);

    return word != NULL ? xstrdup(word) : NULL;
}

struct tap *tap_owner_read(struct arena *a, const char *dir)
{
    struct value words;

    if (!line_read(a, path_in(a, dir, "owner"), "owner", &words) || value_get_string(&words, "key", "")[0] == '\0')
        return NULL;
    struct tap *tap = tap_entry_new(value_get_string(&words, "key", ""), dir);
    for (const char *user = value_get_string(&words, "users", ""); *user != '\0';) {
        size_t len = strcspn(user, ",");

        if (len > 0)
            user_add_locked(tap, user, len);
        user += len + (user[len] == ',');
    }
    tap->from = word_dup(&words, "from");
    tap->lead_to = word_dup(&words, "to");
    tap->lead_path = word_dup(&words, "to_path");
    if (tap->lead_to != NULL && tap->lead_path == NULL)
        tap->lead_path = xstrdup("");
    return tap;
}

/* --- spec ------------------------------------------------------------------------------------------------------ */
int tap_spec_write(struct arena *a, const char *dir, const struct tap_spec *spec)
{
    const struct member members[] = {
        member_of("key", value_string(spec->key)),
        member_of("format", value_string(spec->format)),
        member_of("path", value_string(spec->path)),
        member_of("read_only", value_int(spec->read_only)),
        member_of("cached", value_int(spec->cached)),
        member_of("size", value_int(spec->size)),
        member_of("state", value_string("inactive")),
        member_of("cbt", value_string(spec->cbt != NULL ? spec->cbt : "")),
    };
    struct value words = value_map(members, ARRAY_LEN(members));

    return line_write(path_in(a, dir, "spec"), "spec", &words);
}

bool tap_spec_read(struct arena *a, const char *dir, struct value *spec_r)
{
    return line_read(a, path_in(a, dir, "spec"), "spec", spec_r);
}

int tap_spec_patch(struct arena *a, const char *dir, const struct member *words, unsigned n)
{
    struct value_dict d = { 0 };
    struct value spec;

    if (!tap_spec_read(a, dir, &spec))
        return -EINVAL;
    for (uint32_t i = 0; i < spec.len; i++)
        value_dict_add(a, &d, spec.members[i].name, spec.members[i].value);
    for (unsigned i = 0; i < n; i++)
        value_dict_set(a, &d, words[i].name, words[i].value);
    spec = value_dict_value(&d);
    return line_write(path_in(a, dir, "spec"), "spec", &spec);
}

/* --- the rest ---------------------------------------------------------------------------------------------------- */
static void remove_in(DIR *d)
{
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
}

/* "owner" goes first: what is left of a directory without it is removed at the next start. */
void tap_dir_remove(const char *dir)
{
    AUTO_ARENA a = arena_new();
    DIR *d;

    unlink(path_in(a, dir, "owner"));
    d = opendir(dir);
    if (d != NULL) {
        remove_in(d);
        closedir(d);
    }
    rmdir(dir);
}

const char *tap_log_tail(struct arena *a, const char *dir)
{
    AUTO_FD fd = open(path_in(a, dir, "log"), O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *text = arena_alloc(a, LOG_TAIL + 1);

    if (fd < 0 || fstat(fd, &st) != 0)
        return "";
    ssize_t n = pread(fd, text, LOG_TAIL, st.st_size > LOG_TAIL ? st.st_size - LOG_TAIL : 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}
