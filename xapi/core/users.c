#include "xapi/core/users.h"

#include <crypt.h>
#include <errno.h>
#include <string.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

#define FILE_MAX_SIZE (4u << 20)

/* A hash no password has: checked instead of an unknown user's. */
#define NOBODY "$6$0123456789abcdef$0"

static bool equal_in_constant_time(const char *a, const char *b)
{
    size_t n = strlen(a);
    volatile unsigned char diff = n != strlen(b);

    if (diff != 0)
        return false; /* lengths of hashes are no secret */
    for (size_t i = 0; i < n; i++)
        diff |= (unsigned char)(a[i] ^ b[i]);
    return diff == 0;
}

static struct error *load(struct arena *a, const char *path, char **text_r)
{
    size_t len;
    int rc = file_read(a, path, FILE_MAX_SIZE, text_r, &len);

    if (rc == -ENOENT)
        *text_r = arena_strdup(a, "");
    else if (rc < 0)
        return err_internal(a, "users file %s: %s", path, strerror(-rc));
    return NULL;
}

/* The next line that names a user; NULL at the end. Cuts the text into pieces. */
static char *next_entry(char **at, char **hash_r)
{
    while (**at != '\0') {
        char *line = *at;
        size_t len = strcspn(line, "\n");
        *at += len + (line[len] != '\0');
        line[len] = '\0';
        char *colon = strchr(line, ':');
        if (*line == '#' || colon == NULL)
            continue;
        *colon = '\0';
        *hash_r = colon + 1;
        (*hash_r)[strcspn(*hash_r, ":\r ")] = '\0';
        return line;
    }
    return NULL;
}

static struct error *find(struct arena *a, const char *path, const char *user, const char **hash_r)
{
    char *text, *name, *hash;

    *hash_r = NULL;
    TRY(load(a, path, &text));
    while ((name = next_entry(&text, &hash)) != NULL)
        if (strcmp(name, user) == 0)
            *hash_r = hash;
    return NULL;
}

struct error *users_has(struct arena *a, const char *path, const char *user, bool *known_r)
{
    const char *hash;

    TRY(find(a, path, user, &hash));
    *known_r = hash != NULL;
    return NULL;
}

struct error *users_check(struct arena *a, const char *path, const char *user, const char *password, bool *ok_r)
{
    AUTO_FREE struct crypt_data *data = xcalloc(1, sizeof(*data));
    const char *hash, *made;

    *ok_r = false;
    TRY(find(a, path, user, &hash));
    made = crypt_r(password, hash != NULL ? hash : NOBODY, data);
    *ok_r = hash != NULL && *hash != '\0' && made != NULL && *made != '*' && equal_in_constant_time(made, hash);
    explicit_bzero(data, sizeof(*data));
    return NULL;
}

static struct error *hash_make(struct arena *a, const char *password, char **hash_r)
{
    AUTO_FREE struct crypt_data *data = xcalloc(1, sizeof(*data));
    char salt[CRYPT_GENSALT_OUTPUT_SIZE];

    if (crypt_gensalt_rn("$6$", 0, NULL, 0, salt, sizeof(salt)) == NULL)
        return err_internal(a, "no salt for a password: %s", strerror(errno));
    const char *made = crypt_r(password, salt, data);
    if (made == NULL || *made == '*')
        return err_internal(a, "the password cannot be hashed: %s", strerror(errno));
    *hash_r = arena_strdup(a, made);
    explicit_bzero(data, sizeof(*data));
    return NULL;
}

struct error *users_set(struct arena *a, const char *path, const char *user, const char *password)
{
    char *text, *name, *old, *hash = NULL;
    AUTO_TEXT out = TEXT_INIT;

    if (*user == '\0' || *user == '#' || strpbrk(user, ":\n\r") != NULL)
        return err_internal(a, "'%s' cannot be a user's name", user);
    TRY(hash_make(a, password, &hash));
    TRY(load(a, path, &text));
    text_add(&out, "# user:hash, written by xapi-ctl passwd\n");
    while ((name = next_entry(&text, &old)) != NULL)
        if (strcmp(name, user) != 0)
            text_printf(&out, "%s:%s\n", name, old);
    text_printf(&out, "%s:%s\n", user, hash);
    int rc = file_replace(path, out.bytes, out.len, 0600);
    return rc < 0 ? err_internal(a, "users file %s: %s", path, strerror(-rc)) : NULL;
}
