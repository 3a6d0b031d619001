/* xapi.conf: "key = value" lines, '#' comments; one table says every key, its type, default and help.
 *
 * Command line "--set key=value" overrides the file. An unknown key is a warning, a malformed value
 * an error that names file and line. Values are read-only after start unless marked 'live'. */
#ifndef RPC_BASE_CONFIG_H
#define RPC_BASE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/base/error.h"
#include "rpc/base/text.h"

enum config_type { CONFIG_STRING, CONFIG_INT, CONFIG_BOOL };

struct config_option {
    const char *key;
    enum config_type type;
    const char *fallback; /* as it would stand in the file */
    const char *help;     /* one line */
    int64_t min, max;     /* of an int; 0, 0: any */
};

struct config;
/* 'options' ends with a NULL key and must outlive the config. */
struct config *config_new(const struct config_option *options);
void config_free(struct config *);
/* A missing file is an error only when must_exist. The error text names file, line and reason. */
NODISCARD struct error *config_load(struct arena *, struct config *, const char *path, bool must_exist);
NODISCARD struct error *config_set(struct arena *, struct config *, const char *key, const char *value);

/* The key must be in the table (CHECK). Strings live until the option is set again or the config is freed. */
const char *config_string(const struct config *, const char *key);
int64_t config_int(const struct config *, const char *key);
bool config_bool(const struct config *, const char *key);
/* The documented sample file, generated from the table. */
void config_print(const struct config *, struct text *);

#endif
