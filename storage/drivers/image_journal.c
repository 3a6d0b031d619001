#include "storage/drivers/image_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "storage/drivers/driver_error.h"
#include "storage/drivers/image_dir.h"

LOG_MODULE(file_sr);

#define HEAD "image journal 1\n"
#define JOURNAL_MAX 4096u

static const struct { const char *name; size_t at; } words[] = {
    { "operation", offsetof(struct journal, operation) },
    { "leaf", offsetof(struct journal, leaf) },
    { "base", offsetof(struct journal, base) },
    { "made", offsetof(struct journal, made) },
    { "format", offsetof(struct journal, format) },
};

static const char **word(struct journal *j, unsigned i)
{
    return (const char **)(void *)((char *)j + words[i].at);
}

/* FNV-1a: tells a whole file from a torn one. */
static uint64_t sum(const char *bytes, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull;

    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3ull;
    return h;
}

static const char *image_journal_path(struct call *c, const char *dir, const char *leaf)
{
    return arena_printf(c->arena, "%s/" JOURNAL_PREFIX "%s", dir, leaf);
}

static int write_whole(const char *path, const struct text *text)
{
    AUTO_FD fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int error;

    if (fd < 0)
        return -errno;
    error = fd_write_all(fd, text->bytes, text->len);
    return error != 0 ? error : fsync(fd) != 0 ? -errno : 0;
}

struct error *image_journal_write(struct call *c, const char *dir, const struct journal *journal)
{
    struct journal j = *journal;
    AUTO_TEXT text = TEXT_INIT;
    const char *path = image_journal_path(c, dir, j.leaf), *part = part_path(c, path);
    int error;

    text_add(&text, HEAD);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        text_printf(&text, "%s=%s\n", words[i].name, *word(&j, i) == NULL ? "" : *word(&j, i));
    text_printf(&text, "sum=%016llx\n", (unsigned long long)sum(text.bytes, text.len));
    error = write_whole(part, &text);
    if (error == 0 && rename(part, path) != 0)
        error = -errno;
    if (error == 0)
        error = dir_sync(dir);
    if (error == 0)
        return NULL;
    unlink(part);
    unlink(path);
    return driver_failed(c, "writing", path, -error);
}

struct error *image_journal_remove(struct call *c, const char *dir, const char *leaf)
{
    const char *path = image_journal_path(c, dir, leaf);

    if (unlink(path) != 0 && errno != ENOENT)
        return driver_failed(c, "removing", path, errno);
    return dir_flush(c, dir);
}

/* --- reading ------------------------------------------------------------------------------------- */
/* The value of "name=value\n" at *at, which moves behind it; NULL when it is not there. */
static const char *take_word(struct call *c, const char **at, const char *name)
{
    size_t n = strlen(name), len;
    const char *value;

    if (strncmp(*at, name, n) != 0 || (*at)[n] != '=')
        return NULL;
    value = *at + n + 1;
    len = strcspn(value, "\n");
    if (value[len] != '\n')
        return NULL;
    *at = value + len + 1;
    return arena_strndup(c->arena, value, len);
}

static bool parse(struct call *c, const char *bytes, size_t len, struct journal *j)
{
    const char *at = bytes + strlen(HEAD), *check;

    if (strlen(bytes) != len || strncmp(bytes, HEAD, strlen(HEAD)) != 0)
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if ((*word(j, i) = take_word(c, &at, words[i].name)) == NULL)
            return false;
    check = arena_printf(c->arena, "sum=%016llx\n", (unsigned long long)sum(bytes, (size_t)(at - bytes)));
    return strcmp(at, check) == 0;
}

struct reading { const char *dir; struct journal *journals; unsigned n, cap; };

static struct error *image_journal_read(struct call *c, const char *name, void *ctx)
{
    struct reading *r = ctx;
    const char *path = image_path(c, r->dir, name);
    size_t prefix = strlen(JOURNAL_PREFIX), len;
    char *bytes;
    struct journal j = { .made = "" };
    int error;

    if (strncmp(name, JOURNAL_PREFIX, prefix) != 0 || strchr(name + prefix, '.') != NULL)
        return NULL;
    error = file_read(c->arena, path, JOURNAL_MAX, &bytes, &len);
    if (error != 0 && error != -EFBIG)
        return driver_failed(c, "reading", path, -error);
    if (error != 0 || !parse(c, bytes, len, &j) || strcmp(j.leaf, name + prefix) != 0) {
        log_warn("%s is no journal: removed", path);
        return unlink(path) == 0 || errno == ENOENT ? NULL : driver_failed(c, "removing", path, errno);
    }
    if (r->n == r->cap) {
        struct journal *more = arena_calloc(c->arena, r->cap + 8, sizeof(*more));

        if (r->n > 0)
            memcpy(more, r->journals, r->n * sizeof(*more));
        r->journals = more;
        r->cap += 8;
    }
    r->journals[r->n++] = j;
    return NULL;
}

struct error *journals_read(struct call *c, const char *dir, struct journal **journals_r, unsigned *n_r)
{
    struct reading r = { .dir = dir };

    TRY(dir_each(c, dir, image_journal_read, &r));
    *journals_r = r.journals;
    *n_r = r.n;
    return NULL;
}
