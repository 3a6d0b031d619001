#include "xapi/core/call_log.h"

#include <inttypes.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "xapi/core/session.h"

LOG_MODULE(api);

#define STRING_MAX 60
#define LINE_MAX 600

static void add_value(struct text *t, const struct value *v)
{
    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        text_printf(t, "%.*s%s", STRING_MAX, v->s, v->len > STRING_MAX ? "…" : "");
        break;
    case VALUE_INT: case VALUE_INT32: case VALUE_DATETIME:
        text_printf(t, "%" PRId64, v->i);
        break;
    case VALUE_BOOL:
        text_add(t, v->i != 0 ? "true" : "false");
        break;
    case VALUE_FLOAT:
        text_printf(t, "%g", v->f);
        break;
    case VALUE_SET:
        text_printf(t, "[%u]", v->len);
        break;
    case VALUE_MAP:
        text_printf(t, "{%u}", v->len);
        break;
    case VALUE_RECORD: case VALUE_VOID: case VALUE_NIL:
        text_add(t, "-");
        break;
    }
}

static void add_params(struct text *t, const struct param_info *params, unsigned n, const struct value *values)
{
    for (unsigned i = 0; i < n && t->len < LINE_MAX; i++) {
        text_printf(t, " %s=", params[i].name);
        if (params[i].flags & PARAM_SECRET)
            text_add(t, "***");
        else
            add_value(t, &values[i]);
    }
}

static void add_args(struct text *t, const struct request *r)
{
    struct accessor_params p;

    if (r->values == NULL)
        return; /* refused before they were looked at */
    if (r->method.kind == METHOD_MESSAGE) {
        add_params(t, r->method.message->params, r->method.message->n_params, r->values);
    } else if (r->method.kind == METHOD_ACCESSOR) {
        accessor_params(&r->method.accessor, &p);
        add_params(t, p.params, p.n, r->values);
    }
}

static bool is_read(const struct request *r)
{
    if (r->method.kind == METHOD_ACCESSOR)
        return !accessor_writes(&r->method.accessor);
    if (r->method.kind == METHOD_MESSAGE)
        return (r->method.message->flags & MESSAGE_INLINE) != 0 || r->method.message->id == M_event_from;
    return true;
}

void call_log(const struct api_call *c, const struct request *r, const struct error *e, int64_t us)
{
    AUTO_TEXT args = TEXT_INIT;

    if (is_read(r) && !log_wanted(LOG_DEBUG, log_module_))
        return;
    add_args(&args, r);
    log_line(is_read(r) ? LOG_DEBUG : LOG_INFO, log_module_, "user=%s session=%s peer=%s call=%s%s task=%s result=%s ms=%.1f",
             c->user != NULL ? c->user : "-", session_log_name(c->arena, c->session), c->peer != NULL ? c->peer : "-", c->wire_name,
             args.bytes != NULL ? args.bytes : "", c->task != NULL ? c->task : "-", e == NULL ? "ok" : error_text(c->arena, e),
             (double)us / 1000);
}
