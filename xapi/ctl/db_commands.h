/* xapi-ctl db check|backup|restore: care for the pool database of this host. */
#ifndef XAPI_CTL_DB_COMMANDS_H
#define XAPI_CTL_DB_COMMANDS_H

/* argv[0] is "db". Exit status: 0 fine, 1 something is wrong (said on stderr), 2 misuse. */
int ctl_db(int argc, char **argv);

#endif
