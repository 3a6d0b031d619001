#include "xapi/pool/plugin.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/child.h"
#include "rpc/base/text.h"
#include "rpc/wire/xmlrpc.h"

#define TIMEOUT_MS 300000
#define OUTPUT_MAX ((size_t)4 << 20)

/* Only plain file names: nothing outside the directory. */
static bool name_fits(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static struct error *answer_read(struct call *c, const char *fn, int status, const char *output, const char **output_r)
{
    const char *reason;
    struct value answer;
    const struct value *list, *value;
    const char **params;

    if (!WIFEXITED(status) || !xmlrpc_parse_answer(c->arena, output, strlen(output), &answer, &reason))
        return err_xenapi_plugin_failure(c->arena, fn, output, "the plugin printed no XML-RPC answer");
    list = value_get(&answer, "ErrorDescription");
    value = value_get(&answer, "Value");
    if (strcmp(value_get_string(&answer, "Status", "Success"), "Failure") == 0 && list != NULL && list->kind == VALUE_SET && list->len > 0) {
        params = arena_calloc(c->arena, list->len, sizeof(*params));
        for (unsigned i = 1; i < list->len; i++)
            params[i - 1] = list->items[i].kind == VALUE_STRING ? list->items[i].s : "";
        return error_from_strings(c->arena, list->items[0].s, list->len - 1, params);
    }
    if (value == NULL)
        value = &answer;
    *output_r = value->kind == VALUE_STRING ? arena_strndup(c->arena, value->s, value->len) : "";
    return NULL;
}

static struct error *program_run(struct call *c, const char *path, const char *fn, const struct value *args, const char **output_r)
{
    struct value params[] = { value_string(""), args == NULL ? value_map(NULL, 0) : *args };
    struct child_spec spec = CHILD_SPEC_INIT;
    AUTO_TEXT call = TEXT_INIT;
    char *output = NULL;
    int status = 0, error;

    xmlrpc_write_call(&call, fn, params, ARRAY_LEN(params));
    spec.argv = (const char *const[]) { path, call.bytes, NULL };
    error = child_run(c->arena, &spec, TIMEOUT_MS, OUTPUT_MAX, &status, &output);
    if (error != 0)
        return err_xenapi_plugin_failure(c->arena, fn, output == NULL ? "" : output, strerror(-error));
    return answer_read(c, fn, status, output, output_r);
}

struct error *plugin_call(struct call *c, struct xapi *xapi, const char *plugin, const char *fn, const struct value *args, const char **output_r)
{
    const char *path = arena_printf(c->arena, "%s/%s", config_string(xapi->config, "plugins-dir"), plugin);

    if (name_fits(plugin) && access(path, X_OK) == 0)
        return program_run(c, path, fn, args, output_r);
    if (strcmp(plugin, "updater.py") == 0 && strcmp(fn, "check_update") == 0) {
        *output_r = "[]";
        return NULL;
    }
    return err_xenapi_missing_plugin(c->arena, plugin);
}
