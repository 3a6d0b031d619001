#include "xapi/core/options.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "xapi/core/options_table.h"

#define SIM_PREFIX "sim-"
#define FILE_MAX_SIZE (1u << 20)

const struct config_option *options_table(void) { return xapi_options; }

struct arguments {
    const char *file;
    bool must_exist;
    const char *sets[256]; /* "key=value" */
    unsigned n_sets;
};

static struct error *argument(struct arena *a, struct options *o, struct arguments *args, const char *word, const char *value, int *used)
{
    *used = 1;
    if (strcmp(word, "--foreground") == 0) {
        o->foreground = true;
    } else if (strcmp(word, "--print-config") == 0) {
        o->print_config = true;
    } else if (strcmp(word, "--version") == 0) {
        o->print_version = true;
    } else if (value == NULL) {
        return err_internal(a, "unknown argument '%s', or its value is missing", word);
    } else if (strcmp(word, "--config") == 0) {
        args->file = value;
        args->must_exist = true;
        *used = 2;
    } else if (strcmp(word, "--set") == 0) {
        if (strchr(value, '=') == NULL || args->n_sets == ARRAY_LEN(args->sets))
            return err_internal(a, "'--set %s' is no key=value, or there are too many", value);
        args->sets[args->n_sets++] = value;
        *used = 2;
    } else {
        return err_internal(a, "unknown argument '%s'", word);
    }
    return NULL;
}

static struct error *command_line(struct arena *a, int argc, char **argv, struct options *o, struct arguments *args)
{
    int i = 1, used;

    while (i < argc && argv[i][0] == '-') {
        TRY(argument(a, o, args, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used));
        i += used;
    }
    o->n_rest = argc - i;
    o->rest = argv + i;
    return NULL;
}

/* --- the simulator's keys ------------------------------------------------------------------------------- */

static void sim_key_add(struct arena *a, struct options *o, const char *key, size_t len)
{
    const char *name = arena_strndup(a, key, len);

    for (unsigned i = o->n_fixed; i < o->n_fixed + o->n_sim; i++)
        if (strcmp(o->table[i].key, name) == 0)
            return;
    o->table = xrealloc(o->table, (o->n_fixed + o->n_sim + 2) * sizeof(*o->table));
    o->table[o->n_fixed + o->n_sim++] =
        (struct config_option){ .key = name, .type = CONFIG_STRING, .fallback = "", .help = "for the simulator" };
}

static size_t key_len(const char *s) { return strcspn(s, "= \t\r\n#"); }

static struct error *sim_keys_of_file(struct arena *a, struct options *o, const struct arguments *args)
{
    char *text;
    size_t len;
    int rc = file_read(a, args->file, FILE_MAX_SIZE, &text, &len);

    if (rc == -ENOENT && !args->must_exist)
        return NULL;
    if (rc < 0)
        return err_internal(a, "%s: %s", args->file, strerror(-rc));
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += strspn(line, " \t\r\n");
        if (strncmp(line, SIM_PREFIX, strlen(SIM_PREFIX)) == 0)
            sim_key_add(a, o, line, key_len(line));
    }
    return NULL;
}

static struct error *table_make(struct arena *a, struct options *o, const struct arguments *args)
{
    while (xapi_options[o->n_fixed].key != NULL)
        o->n_fixed++;
    o->table = xcalloc(o->n_fixed + 1, sizeof(*o->table));
    memcpy(o->table, xapi_options, o->n_fixed * sizeof(*o->table));
    TRY(sim_keys_of_file(a, o, args));
    for (unsigned i = 0; i < args->n_sets; i++)
        if (strncmp(args->sets[i], SIM_PREFIX, strlen(SIM_PREFIX)) == 0)
            sim_key_add(a, o, args->sets[i], key_len(args->sets[i]));
    o->table[o->n_fixed + o->n_sim] = (struct config_option){ 0 };
    return NULL;
}

/* --- all of it --------------------------------------------------------------------------------------------- */

static struct error *sets_apply(struct arena *a, struct options *o, const struct arguments *args)
{
    for (unsigned i = 0; i < args->n_sets; i++) {
        const char *equals = strchr(args->sets[i], '=');
        const char *key = arena_strndup(a, args->sets[i], (size_t)(equals - args->sets[i]));
        TRY(config_set(a, o->config, key, equals + 1));
    }
    return NULL;
}

struct error *options_read(struct arena *a, int argc, char **argv, struct options *o)
{
    struct arguments args = { .file = OPTIONS_DEFAULT_FILE };

    *o = (struct options){ 0 };
    TRY(command_line(a, argc, argv, o, &args));
    TRY(table_make(a, o, &args));
    o->config = config_new(o->table);
    TRY(config_load(a, o->config, args.file, args.must_exist));
    return sets_apply(a, o, &args);
}

void options_release(struct options *o)
{
    config_free(o->config);
    xfree(o->table);
    *o = (struct options){ 0 };
}

struct value options_sim(struct arena *a, const struct options *o)
{
    struct value_dict d = { 0 };

    for (unsigned i = o->n_fixed; i < o->n_fixed + o->n_sim; i++)
        value_dict_add(a, &d, o->table[i].key, value_string(config_string(o->config, o->table[i].key)));
    return value_dict_value(&d);
}
