/* xapi.conf: the table of all keys, and the command line.
 *
 *   xapi [--config FILE] [--set key=value]… [--foreground] [--print-config] [--version]
 *
 * Every key "sim-…" found in the file or on the command line is an option too: those are the
 * simulator's, and only it knows them. */
#ifndef XAPI_CORE_OPTIONS_H
#define XAPI_CORE_OPTIONS_H

#include "rpc/base/config.h"
#include "rpc/base/value.h"

#define OPTIONS_DEFAULT_FILE "/etc/xapi.conf"

struct options {
    struct config *config;
    struct config_option *table;  /* what the config was made from; with the sim- keys found */
    unsigned n_fixed, n_sim;      /* the sim- keys follow the fixed ones */
    bool foreground, print_config, print_version;
    int n_rest;                   /* arguments that are no options (xapi-ctl's commands) */
    char **rest;
};

/* Reads the command line and the files it names. Unknown arguments that start with '-' are errors;
 * the first other one ends the options. 'rest' points into argv. */
NODISCARD struct error *options_read(struct arena *, int argc, char **argv, struct options *options_r);
void options_release(struct options *);

/* The simulator's options, as a map of strings in the arena. */
struct value options_sim(struct arena *, const struct options *);

/* The table of fixed keys, ended by a NULL key: for tests that need a config. */
const struct config_option *options_table(void);

#endif
