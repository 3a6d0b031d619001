#include "storage/tapd/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "storage/tapd/control_protocol.h"

static const char *const state_names[] = { [SPEC_INACTIVE] = "inactive", [SPEC_ACTIVE] = "active", [SPEC_PAUSED] = "paused" };

const char *spec_state_name(enum spec_state state) { return state_names[state]; }

static bool state_parse(const char *name, enum spec_state *state_r)
{
    for (unsigned i = 0; i < ARRAY_LEN(state_names); i++)
        if (strcmp(state_names[i], name) == 0) {
            *state_r = (enum spec_state)i;
            return true;
        }
    return false;
}

bool argument_bool(const struct value *arguments, const char *name, bool fallback)
{
    const struct value *v = value_get(arguments, name);

    if (v == NULL || (v->kind == VALUE_STRING && v->len == 0))
        return fallback;
    return v->kind == VALUE_STRING ? strcmp(v->s, "1") == 0 || strcmp(v->s, "true") == 0 : v->i != 0;
}

int64_t argument_int(const struct value *arguments, const char *name, int64_t fallback)
{
    const struct value *v = value_get(arguments, name);
    int64_t n;

    if (v == NULL || (v->kind == VALUE_STRING && v->len == 0))
        return fallback;
    if (v->kind == VALUE_STRING)
        return text_to_int(v->s, &n) ? n : INT64_MIN;
    return v->kind == VALUE_INT || v->kind == VALUE_BOOL ? v->i : INT64_MIN;
}

void spec_set_string(char **s, const char *to)
{
    char *old = *s;

    *s = xstrdup(to);
    xfree(old);
}

static bool take_numbers(const struct value *v, struct spec *s)
{
    s->size = argument_int(v, "size", 0);
    s->throttle_bytes = argument_int(v, "throttle_bytes", 0);
    s->throttle_operations = argument_int(v, "throttle_operations", 0);
    return s->size >= 0 && (s->size & 511) == 0 && s->throttle_bytes >= 0 && s->throttle_operations >= 0;
}

bool spec_from(const struct value *v, struct spec *s)
{
    const char *format = value_get_string(v, "format", ""), *path = value_get_string(v, "path", "");

    *s = (struct spec){ 0 };
    if (format[0] == '\0' || path[0] == '\0' || !state_parse(value_get_string(v, "state", "inactive"), &s->state) || !take_numbers(v, s)) {
        *s = (struct spec){ 0 };
        return false;
    }
    spec_set_string(&s->key, value_get_string(v, "key", ""));
    spec_set_string(&s->format, format);
    spec_set_string(&s->path, path);
    spec_set_string(&s->cbt, value_get_string(v, "cbt", ""));
    spec_set_string(&s->mirror, value_get_string(v, "mirror", ""));
    spec_set_string(&s->mirror_options, value_get_string(v, "mirror_options", ""));
    spec_set_string(&s->users, value_get_string(v, "users", ""));
    s->read_only = argument_bool(v, "read_only", false);
    s->cached = argument_bool(v, "cached", false);
    s->sealed = argument_bool(v, "sealed", false);
    return true;
}

struct value spec_value(struct arena *a, const struct spec *s)
{
    struct value_dict d = { 0 };

    value_dict_add(a, &d, "key", value_string(s->key));
    value_dict_add(a, &d, "format", value_string(s->format));
    value_dict_add(a, &d, "path", value_string(s->path));
    value_dict_add(a, &d, "read_only", value_bool(s->read_only));
    value_dict_add(a, &d, "cached", value_bool(s->cached));
    value_dict_add(a, &d, "size", value_int(s->size));
    value_dict_add(a, &d, "state", value_string(spec_state_name(s->state)));
    value_dict_add(a, &d, "cbt", value_string(s->cbt));
    value_dict_add(a, &d, "mirror", value_string(s->mirror));
    value_dict_add(a, &d, "mirror_options", value_string(s->mirror_options));
    value_dict_add(a, &d, "users", value_string(s->users));
    value_dict_add(a, &d, "throttle_bytes", value_int(s->throttle_bytes));
    value_dict_add(a, &d, "throttle_operations", value_int(s->throttle_operations));
    if (s->sealed)
        value_dict_add(a, &d, "sealed", value_bool(true));
    return value_dict_value(&d);
}

int spec_read(const char *path, struct spec *s)
{
    AUTO_ARENA a = arena_new();
    struct value words;
    const char *verb;
    char *bytes;
    size_t len;

    *s = (struct spec){ 0 };
    int rc = file_read(a, path, CONTROL_LINE_MAX + 1, &bytes, &len);
    if (rc < 0)
        return rc;
    if (len > 0 && bytes[len - 1] == '\n')
        len--;
    if (!control_message_parse(a, bytes, len, &verb, &words) || strcmp(verb, "spec") != 0 || !spec_from(&words, s))
        return -EINVAL;
    return 0;
}

/* Against our own death a rename is enough. */
static int replace_quickly(const char *path, const struct text *t)
{
    AUTO_FREE char *temporary = xprintf("%s.new", path);
    AUTO_FD fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    int rc = fd_write_all(fd, t->bytes, t->len);
    if (rc == 0 && rename(temporary, path) < 0)
        rc = -errno;
    if (rc < 0)
        unlink(temporary);
    return rc;
}

int spec_write(const char *path, const struct spec *s, bool durable)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    struct value v = spec_value(a, s);

    control_message_write(&t, "spec", &v);
    if (t.len > CONTROL_LINE_MAX)
        return -E2BIG;
    text_add_byte(&t, '\n');
    return durable ? file_replace(path, t.bytes, t.len, 0600) : replace_quickly(path, &t);
}

void spec_copy(struct spec *to, const struct spec *from)
{
    AUTO_ARENA a = arena_new();
    struct value v = spec_value(a, from);

    CHECK(spec_from(&v, to));
}

void spec_release(struct spec *s)
{
    xfree(s->key);
    xfree(s->format);
    xfree(s->path);
    xfree(s->cbt);
    xfree(s->mirror);
    xfree(s->mirror_options);
    xfree(s->users);
    *s = (struct spec){ 0 };
}
