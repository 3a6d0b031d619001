#include "xapi/core/forward.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/xapi.h"

LOG_MODULE(forward);

#define ANSWER_MAX (64u << 20)

static const char *host_named(const struct request *r)
{
    const struct message_info *m = r->method.message;

    for (unsigned i = 0; i < m->n_params; i++)
        if (m->params[i].type->kind == TYPE_REF && m->params[i].type->class != NULL && m->params[i].type->class->id == CLASS_host)
            return r->values[i].s;
    return NULL;
}

bool forward_is_here(const struct api_call *c, const struct request *r)
{
    const char *host = host_named(r);

    return !c->xapi->is_coordinator || host == NULL || ref_is_null(host) ||
           (c->xapi->host_ref != NULL && strcmp(host, c->xapi->host_ref) == 0);
}

/* An answer is {Status, Value} or {Status, ErrorDescription: [code, …]}. */
static struct error *answer_read(struct api_call *c, const char *host, const struct value *answer, struct value *result_r)
{
    const struct value *value = value_get(answer, "Value"), *failure = value_get(answer, "ErrorDescription");
    const char **words;

    if (value != NULL) {
        *result_r = *value;
        return NULL;
    }
    if (failure == NULL || failure->kind != VALUE_SET || failure->len == 0)
        return err_cannot_contact_host(c->arena, host);
    words = arena_calloc(c->arena, failure->len, sizeof(*words));
    for (uint32_t i = 0; i < failure->len; i++)
        words[i] = failure->items[i].kind == VALUE_STRING ? failure->items[i].s : "";
    return error_from_strings(c->arena, words[0], failure->len - 1, words + 1);
}

/* specs §5.7: a host known to be dead is not even asked. */
static struct error *check_live(struct api_call *c, const char *host_ref)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], host_ref);
    const struct row *metrics = host != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics)) : NULL;

    return metrics != NULL && !row_bool(metrics, F_host_metrics_live) ? err_host_offline(c->arena, host_ref) : NULL;
}

struct error *forward(struct api_call *c, const struct request *r, struct value *result_r)
{
    const struct message_info *m = r->method.message;
    const char *host = host_named(r), *reason = "";
    struct value *params = arena_calloc(c->arena, m->n_params + 1u, sizeof(*params));
    struct http_target target;
    struct http_answer answer;
    struct value value;
    AUTO_TEXT body = TEXT_INIT;

    if (c->xapi->host_target == NULL)
        return err_cannot_contact_host(c->arena, host);
    TRY(check_live(c, host));
    TRY(c->xapi->host_target(c, host, &target));
    params[0] = value_string(REF_NULL);
    memcpy(params + 1, r->values, m->n_params * sizeof(*params));
    xmlrpc_write_call(&body, m->full_name, params, m->n_params + 1);
    const char *cookie = arena_printf(c->arena, "Cookie: pool_secret=%s\r\n", c->xapi->pool_secret);
    int rc = http_client_post(&c->call, c->xapi->client, &target, "/", "text/xml", cookie, body.bytes, body.len, ANSWER_MAX, &answer);
    if (rc < 0 || answer.status != 200) {
        log_warn_rl("%s on %s: %s", m->full_name, target.address, rc < 0 ? strerror(-rc) : "not answered with 200");
        return err_cannot_contact_host(c->arena, host);
    }
    if (!xmlrpc_parse_answer(c->arena, answer.body, answer.body_len, &value, &reason)) {
        log_warn_rl("%s on %s: bad answer: %s", m->full_name, target.address, reason);
        return err_cannot_contact_host(c->arena, host);
    }
    return answer_read(c, host, &value, result_r);
}
