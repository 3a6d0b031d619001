#include "xapi/ctl/db_commands.h"

#include <stdio.h>
#include <string.h>

#include "db/maintenance.h"

#define DEFAULT_PATH "/var/lib/xapi/pool.db"

static int usage(void)
{
    fputs("usage: xapi-ctl db check [--file F]           look at every page, value and reference\n"
          "       xapi-ctl db backup [--file F] TO       copy the database, also while xapi runs\n"
          "       xapi-ctl db restore [--file F] FROM    put a backup in its place; xapi must be stopped\n"
          "F is " DEFAULT_PATH " unless given.\n",
          stderr);
    return 2;
}

static int say(const struct error *error)
{
    if (error == NULL)
        return 0;
    fprintf(stderr, "xapi-ctl: %s\n", error->n_params > 0 ? error->params[0] : error->code);
    return 1;
}

static int do_check(struct arena *arena, const char *path)
{
    AUTO_TEXT report = TEXT_INIT;
    struct maintenance_findings found;
    struct error *error = maintenance_check(arena, path, &report, &found);

    if (report.len > 0)
        fputs(report.bytes, stdout);
    if (error != NULL)
        return say(error);
    printf("%s: %u objects, %u errors, %u notes\n", path, found.n_objects, found.n_errors, found.n_notes);
    return found.n_errors > 0 ? 1 : 0;
}

static int do_backup(struct arena *arena, const char *path, const char *to)
{
    int status = say(maintenance_backup(arena, path, to));
    if (status == 0)
        printf("%s: copied to %s\n", path, to);
    return status;
}

static int do_restore(struct arena *arena, const char *path, const char *from)
{
    int status = say(maintenance_restore(arena, path, from));
    if (status == 0)
        printf("%s: restored from %s; what was there is %s.before-restore\n", path, from, path);
    return status;
}

int ctl_db(int argc, char **argv)
{
    AUTO_ARENA arena = arena_new();
    const char *path = DEFAULT_PATH, *operand = NULL;

    if (argc < 2)
        return usage();
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--file") == 0 && i + 1 < argc)
            path = argv[++i];
        else if (operand == NULL && argv[i][0] != '-')
            operand = argv[i];
        else
            return usage();
    }
    if (strcmp(argv[1], "check") == 0 && operand == NULL)
        return do_check(arena, path);
    if (strcmp(argv[1], "backup") == 0 && operand != NULL)
        return do_backup(arena, path, operand);
    if (strcmp(argv[1], "restore") == 0 && operand != NULL)
        return do_restore(arena, path, operand);
    return usage();
}
