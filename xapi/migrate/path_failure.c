#include "xapi/migrate/path_probe.h"

struct value path_failure_value(struct arena *a, enum path_test test, const struct error *e)
{
    struct value_list params = { 0 };
    struct value_dict d = { 0 };
    for (unsigned i = 0; i < e->n_params; i++)
        value_list_add(a, &params, value_string(e->params[i]));
    value_dict_add(a, &d, "failed", value_string(path_test_name(test)));
    value_dict_add(a, &d, "code", value_string(e->code));
    value_dict_add(a, &d, "params", value_list_value(&params));
    value_dict_add(a, &d, "cause", value_string(e->cause != NULL ? e->cause : ""));
    return value_dict_value(&d);
}

struct error *path_failure_error(struct arena *a, const struct value *answer, const char *before)
{
    const char *code = value_get_string(answer, "code", NULL);
    if (code == NULL)
        return NULL;
    const struct value *params = value_get(answer, "params");
    unsigned n = params != NULL && params->kind == VALUE_SET ? params->len : 0;
    const char **strings = arena_calloc(a, n + 1, sizeof *strings);
    for (unsigned i = 0; i < n; i++)
        strings[i] = params->items[i].kind == VALUE_STRING ? params->items[i].s : "";
    struct error *e = error_from_strings(a, code, n, strings);
    e->cause = arena_printf(a, "%s%s", before, value_get_string(answer, "cause", ""));
    return e;
}
