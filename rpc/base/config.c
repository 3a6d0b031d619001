#include "rpc/base/config.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"

LOG_MODULE(config);

#define FILE_MAX_SIZE (1u << 20)

struct setting {
    char *text;
    _Atomic(int64_t) number; /* of an int or a bool */
};

struct config {
    const struct config_option *options; /* borrowed */
    unsigned n_options;
    struct setting *settings; /* one for each option */
};

static bool parse_number(const struct config_option *o, const char *s, int64_t *number_r)
{
    int64_t n;

    if (!text_to_int(s, &n))
        return false;
    if ((o->min != 0 || o->max != 0) && (n < o->min || n > o->max))
        return false;
    *number_r = n;
    return true;
}

static bool parse_bool(const char *s, int64_t *number_r)
{
    static const char *const words[][2] = { { "false", "true" }, { "no", "yes" }, { "off", "on" }, { "0", "1" } };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
        for (unsigned value = 0; value < 2; value++) {
            if (strcmp(words[i][value], s) == 0) {
                *number_r = value;
                return true;
            }
        }
    }
    return false;
}

static bool setting_set(struct config *c, unsigned i, const char *value)
{
    const struct config_option *o = &c->options[i];
    int64_t number = 0;

    switch (o->type) {
    case CONFIG_STRING:
        break;
    case CONFIG_INT:
        if (!parse_number(o, value, &number))
            return false;
        break;
    case CONFIG_BOOL:
        if (!parse_bool(value, &number))
            return false;
        break;
    }
    xfree(c->settings[i].text);
    c->settings[i].text = xstrdup(value);
    atomic_store(&c->settings[i].number, number);
    return true;
}

struct config *config_new(const struct config_option *options)
{
    struct config *c = xcalloc(1, sizeof(*c));

    c->options = options;
    while (options[c->n_options].key != NULL)
        c->n_options++;
    c->settings = xcalloc(c->n_options, sizeof(*c->settings));
    for (unsigned i = 0; i < c->n_options; i++)
        CHECK(setting_set(c, i, options[i].fallback));
    return c;
}

void config_free(struct config *c)
{
    if (c == NULL)
        return;
    for (unsigned i = 0; i < c->n_options; i++)
        xfree(c->settings[i].text);
    xfree(c->settings);
    xfree(c);
}

/* n_options when there is none. */
static unsigned option_find(const struct config *c, const char *key)
{
    unsigned i = 0;

    while (i < c->n_options && strcmp(c->options[i].key, key) != 0)
        i++;
    return i;
}

static void print_kind(const struct config_option *o, struct text *t)
{
    switch (o->type) {
    case CONFIG_STRING:
        text_add(t, "text");
        break;
    case CONFIG_INT:
        text_add(t, "number");
        if (o->min != 0 || o->max != 0)
            text_printf(t, " from %lld to %lld", (long long)o->min, (long long)o->max);
        break;
    case CONFIG_BOOL:
        text_add(t, "true or false");
        break;
    }
}

struct error *config_set(struct arena *a, struct config *c, const char *key, const char *value)
{
    AUTO_TEXT kind = TEXT_INIT;
    unsigned i = option_find(c, key);

    if (i == c->n_options) {
        log_warn("unknown option '%s'", key);
        return NULL;
    }
    if (setting_set(c, i, value))
        return NULL;
    print_kind(&c->options[i], &kind);
    return err_internal(a, "option '%s': '%s' is not a %s", key, value, kind.bytes);
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* Cuts blanks off both ends, in place. */
static char *trim(char *s)
{
    size_t len;

    while (is_blank(*s))
        s++;
    len = strlen(s);
    while (len > 0 && is_blank(s[len - 1]))
        s[--len] = '\0';
    return s;
}

/* A '#' starts a comment at the start of the line or after a blank. */
static void cut_comment(char *line)
{
    for (char *s = line; *s != '\0'; s++) {
        if (*s == '#' && (s == line || is_blank(s[-1]))) {
            *s = '\0';
            return;
        }
    }
}

static struct error *load_line(struct arena *a, struct config *c, char *line)
{
    cut_comment(line);
    line = trim(line);
    if (*line == '\0')
        return NULL;
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return err_internal(a, "'%s' is no \"key = value\"", line);
    *equals = '\0';
    return config_set(a, c, trim(line), trim(equals + 1));
}

struct error *config_load(struct arena *a, struct config *c, const char *path, bool must_exist)
{
    char *bytes;
    size_t len;
    int rc = file_read(a, path, FILE_MAX_SIZE, &bytes, &len);

    if (rc == -ENOENT && !must_exist)
        return NULL;
    if (rc < 0)
        return err_internal(a, "%s: %s", path, strerror(-rc));
    if (memchr(bytes, '\0', len) != NULL)
        return err_internal(a, "%s: not a text file", path);
    int number = 1;
    for (char *line = bytes; line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL)
            *end++ = '\0';
        struct error *e = load_line(a, c, line);
        if (e != NULL)
            return err_internal(a, "%s:%d: %s", path, number, e->params[0]);
        line = end;
    }
    return NULL;
}

static const struct setting *setting_of(const struct config *c, const char *key, enum config_type type)
{
    unsigned i = option_find(c, key);

    CHECK(i < c->n_options);
    CHECK(c->options[i].type == type);
    return &c->settings[i];
}

const char *config_string(const struct config *c, const char *key) { return setting_of(c, key, CONFIG_STRING)->text; }
int64_t config_int(const struct config *c, const char *key)
{
    return atomic_load(&setting_of(c, key, CONFIG_INT)->number);
}
bool config_bool(const struct config *c, const char *key)
{
    return atomic_load(&setting_of(c, key, CONFIG_BOOL)->number) != 0;
}

void config_print(const struct config *c, struct text *t)
{
    for (unsigned i = 0; i < c->n_options; i++) {
        const struct config_option *o = &c->options[i];
        text_printf(t, "%s# %s\n# (", i > 0 ? "\n" : "", o->help);
        print_kind(o, t);
        text_printf(t, ")\n#%s =%s%s\n", o->key, o->fallback[0] != '\0' ? " " : "", o->fallback);
    }
}
