#include "db/idlc/files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "db/idlc/parser.h"
#include "rpc/base/fd.h"

#define MAX_FILE (4u << 20)

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The names of the *.idl files in a folder, sorted; false with errno set. */
static bool list_dir(struct idl *idl, const char *dir, struct idl_list *names)
{
    DIR *d = opendir(dir);

    if (d == NULL)
        return false;
    for (const struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        size_t n = strlen(e->d_name);

        if (n > 4 && strcmp(e->d_name + n - 4, ".idl") == 0 && e->d_name[0] != '.')
            idl_list_add(idl->arena, names, arena_strdup(idl->arena, e->d_name));
    }
    closedir(d);
    if (names->n > 1)
        qsort(names->items, names->n, sizeof(*names->items), by_name);
    return true;
}

/* A file with classes holds one, the one it is named after. */
static void check_file_name(struct idl *idl, const char *name, const char *path, unsigned first)
{
    size_t stem = strlen(name) - 4;

    for (unsigned i = first; i < idl->classes.n; i++) {
        const struct idl_class *c = idl->classes.items[i];

        if (strlen(c->name) != stem || strncmp(c->name, name, stem) != 0)
            idl_complain(idl, c->pos, "class %s does not belong into %s", c->name, path);
    }
}

void files_read(struct idl *idl, const char *dir)
{
    struct idl_list names = { 0 };

    if (!list_dir(idl, dir, &names)) {
        idl_complain(idl, (struct idl_pos){ dir, 0 }, "%s", strerror(errno));
        return;
    }
    if (names.n == 0)
        idl_complain(idl, (struct idl_pos){ dir, 0 }, "no *.idl files");
    IDL_EACH(const char, name, &names) {
        const char *path = arena_printf(idl->arena, "%s/%s", dir, name);
        AUTO_ARENA scratch = arena_new();
        unsigned first = idl->classes.n;
        size_t len = 0;
        char *bytes = NULL;
        int rc = file_read(scratch, path, MAX_FILE, &bytes, &len);

        if (rc != 0) {
            idl_complain(idl, (struct idl_pos){ path, 0 }, "%s", strerror(-rc));
            continue;
        }
        parser_read(idl, path, bytes, len);
        check_file_name(idl, name, path, first);
    }
}

static bool same_as_file(struct arena *arena, const char *path, const struct text *text)
{
    size_t len = 0;
    char *bytes = NULL;

    return file_read(arena, path, MAX_FILE, &bytes, &len) == 0 && len == text->len &&
           memcmp(bytes, text->bytes, len) == 0;
}

static bool write_text(const char *path, const struct text *text)
{
    FILE *f = fopen(path, "we");

    if (f == NULL)
        return false;
    bool ok = fwrite(text->bytes, 1, text->len, f) == text->len;

    return fclose(f) == 0 && ok;
}

bool files_write(struct arena *arena, const char *dir, const char *name, const struct text *text)
{
    const char *path = arena_printf(arena, "%s/%s", dir, name), *tmp = arena_printf(arena, "%s/%s.tmp", dir, name);

    if (same_as_file(arena, path, text))
        return true;
    if (mkdir(dir, 0777) != 0 && errno != EEXIST) {
        fprintf(stderr, "idlc: %s: %s\n", dir, strerror(errno));
        return false;
    }
    if (write_text(tmp, text) && rename(tmp, path) == 0)
        return true;
    fprintf(stderr, "idlc: %s: %s\n", path, strerror(errno));
    return false;
}
