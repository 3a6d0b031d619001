/* xapi-ctl migrations …: what is under way, what was, and an operator's last word.
 *
 *   migrations                          as a table on a terminal, else (or with --json) this host's journal as JSON
 *   migrations --history [--vm UUID] [--outcome success|failed|cancelled] [--since DATE] [--limit N] [--csv|--json]
 *   migrations show ID                  all that is known of one
 *   migrations decide ID commit|abort   abort needs --i-know-it-does-not-run-there
 *
 * DATE: 2026-11-22, 2026-11-22T10:00:00Z or seconds of the epoch. */
#ifndef XAPI_CTL_MIGRATIONS_COMMANDS_H
#define XAPI_CTL_MIGRATIONS_COMMANDS_H

#include "xapi/core/options.h"

/* rest[0] is "migrations". Exit status: 0 fine, 1 something is wrong (said on stderr), 2 misuse. */
int ctl_migrations(struct arena *, const struct options *);

#endif
