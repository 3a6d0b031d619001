#include "xapi/core/tapd_command.h"

#include <string.h>

#include "rpc/wire/json.h"
#include "storage/sr.h"

static const char *const numbers[] = { "clients", "in_flight", "reads", "writes", "flushes", "bytes_read", "bytes_written", "errors" };

static void add_users(struct text *t, const struct value *users)
{
    text_add(t, " users=");
    for (unsigned i = 0; users != NULL && users->kind == VALUE_SET && i < users->len; i++)
        text_printf(t, "%s%s", i > 0 ? "," : "", users->items[i].s);
}

static void list_line(struct text *t, const struct value *tap)
{
    text_printf(t, "%lld %s %s %s:%s%s", (long long)value_get_int(tap, "pid", 0), value_get_string(tap, "state", "unknown"),
                value_get_string(tap, "key", ""), value_get_string(tap, "format", "?"), value_get_string(tap, "path", ""),
                value_get_int(tap, "read_only", 0) != 0 ? " ro" : "");
    add_users(t, value_get(tap, "users"));
    text_add_byte(t, '\n');
}

static void stats_line(struct text *t, const struct value *tap)
{
    text_add(t, value_get_string(tap, "key", ""));
    for (unsigned i = 0; i < ARRAY_LEN(numbers); i++)
        text_printf(t, " %s=%lld", numbers[i], (long long)value_get_int(tap, numbers[i], 0));
    text_printf(t, " io=%s mirror=%s", value_get_string(tap, "io", "?"), value_get_string(tap, "mirror", "none"));
    for (uint32_t i = 0; tap->kind == VALUE_MAP && strcmp(value_get_string(tap, "mirror", "none"), "none") != 0 && i < tap->len; i++)
        if (strncmp(tap->members[i].name, "mirror_", strlen("mirror_")) == 0 && tap->members[i].value.kind == VALUE_STRING)
            text_printf(t, " %s=%s", tap->members[i].name, tap->members[i].value.s);
    text_add_byte(t, '\n');
}

bool tapd_command(struct xapi *xapi, unsigned n, char **words, struct text *answer)
{
    AUTO_ARENA a = arena_new();
    bool stats = strcmp(words[1], "stats") == 0, json = strcmp(words[1], "json") == 0;

    if (!stats && !json && strcmp(words[1], "list") != 0) {
        text_add(answer, "tapd list | tapd stats | tapd json");
        return false;
    }
    struct value taps = storage_taps(xapi->storage, a);
    if (json) {
        json_write(answer, &taps);
        text_add_byte(answer, '\n');
        return true;
    }
    for (unsigned i = 0; i < taps.len; i++)
        (stats ? stats_line : list_line)(answer, &taps.items[i]);
    return true;
}
