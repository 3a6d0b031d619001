#include "tests/lib/tempdir.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"

#define FILE_MAX_SIZE (64u << 20)

void tempdir_make(struct tempdir *t)
{
    const char *parent = getenv("TMPDIR");

    if (parent == NULL || strlen(parent) > sizeof(t->path) - sizeof("/xapi-test-XXXXXX"))
        parent = "/tmp"; /* short, so that Unix sockets fit in */
    snprintf(t->path, sizeof(t->path), "%s/xapi-test-XXXXXX", parent);
    CHECK(mkdtemp(t->path) != NULL);
    t->arena = arena_new();
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) { return remove(path); }

void tempdir_remove(struct tempdir *t)
{
    if (t->path[0] != '\0')
        nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    arena_free(t->arena);
    *t = (struct tempdir){ .path = "" };
}

const char *tempdir_file(struct tempdir *t, const char *name) { return arena_printf(t->arena, "%s/%s", t->path, name); }

const char *tempdir_write(struct tempdir *t, const char *name, const char *text)
{
    const char *path = tempdir_file(t, name);

    CHECK(file_replace(path, text, strlen(text), 0600) == 0);
    return path;
}

const char *tempdir_read(struct tempdir *t, const char *name)
{
    char *bytes;
    size_t len;

    return file_read(t->arena, tempdir_file(t, name), FILE_MAX_SIZE, &bytes, &len) == 0 ? bytes : "";
}
