/* xapi-ctl: what an operator does to a host beside the API.
 *
 *   xapi-ctl [--config FILE] [--set key=value]… COMMAND
 *
 *   passwd USER             sets a password in the users file; reads it from standard input
 *   db …                    check, backup, restore: see db_commands.h
 *   migrations …            what is under way and what was: see migrations_commands.h
 *   status, log set MODULE LEVEL, fault arm SPEC, fault disarm [NAME], fault list, tapd list, tapd stats, tapd json
 *                           asked of the running daemon through <dir>/xapi-ctl.sock */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "xapi/core/options.h"
#include "xapi/core/users.h"
#include "xapi/ctl/daemon.h"
#include "xapi/ctl/db_commands.h"
#include "xapi/ctl/migrations_commands.h"

#define PASSWORD_MAX 1024

static int usage(void)
{
    fputs("usage: xapi-ctl [--config FILE] [--set key=value]… COMMAND\n"
          "  passwd USER\n  db check|backup|restore …\n  status\n  log set MODULE|all err|warn|info|debug\n"
          "  fault arm NAME=ACTION[@N]\n  fault disarm [NAME]\n  fault list\n  migrations …\n  tapd list|stats|json\n",
          stderr);
    return EXIT_FAILURE;
}

static int failed(struct arena *a, const struct error *e)
{
    fprintf(stderr, "xapi-ctl: %s\n", e->n_params > 0 ? e->params[e->n_params - 1] : error_text(a, e));
    return EXIT_FAILURE;
}

/* --- passwd ------------------------------------------------------------------------------------------- */

/* One line; not shown when typed. */
static bool password_read(char *line)
{
    struct termios shown, hidden;
    bool typed = tcgetattr(STDIN_FILENO, &shown) == 0;

    if (typed) {
        fputs("Password: ", stderr);
        hidden = shown;
        hidden.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
    }
    bool ok = fgets(line, PASSWORD_MAX, stdin) != NULL;
    if (typed) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
        fputc('\n', stderr);
    }
    if (ok)
        line[strcspn(line, "\r\n")] = '\0';
    return ok && *line != '\0';
}

static int command_passwd(struct arena *a, const struct options *o)
{
    const char *path = config_string(o->config, "users-file");
    char password[PASSWORD_MAX];

    if (o->n_rest != 2)
        return usage();
    if (*path == '\0') {
        fputs("xapi-ctl: users-file is not set: passwords are PAM's, use passwd(1)\n", stderr);
        return EXIT_FAILURE;
    }
    if (!password_read(password)) {
        fputs("xapi-ctl: no password given\n", stderr);
        return EXIT_FAILURE;
    }
    struct error *e = users_set(a, path, o->rest[1], password);
    explicit_bzero(password, sizeof(password));
    return e != NULL ? failed(a, e) : EXIT_SUCCESS;
}

/* --- commands for the daemon -------------------------------------------------------------------------------- */

static int command_daemon(struct arena *a, const struct options *o)
{
    const char *text;

    if (!ctl_ask(a, o, (const char *const *)o->rest, o->n_rest, &text))
        return EXIT_FAILURE;
    fputs(text, stdout);
    return EXIT_SUCCESS;
}

static int run(struct arena *a, const struct options *o)
{
    if (o->n_rest == 0)
        return usage();
    if (strcmp(o->rest[0], "passwd") == 0)
        return command_passwd(a, o);
    if (strcmp(o->rest[0], "db") == 0)
        return ctl_db(o->n_rest, o->rest);
    if (strcmp(o->rest[0], "migrations") == 0)
        return ctl_migrations(a, o);
    return command_daemon(a, o);
}

int main(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    struct options o;
    struct error *e = options_read(a, argc, argv, &o);
    int status = e != NULL ? failed(a, e) : run(a, &o);

    options_release(&o);
    return status;
}
