#include "xapi/core/proxy.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/work.h"
#include "xapi/core/xapi.h"

LOG_MODULE(proxy);

#define ANSWER_MAX (512u << 20)

static bool runs_here(const struct method *m)
{
    if (m->kind != METHOD_MESSAGE)
        return m->kind == METHOD_LIST_METHODS || m->kind == METHOD_IS_ALIVE;
    return (m->message->flags & MESSAGE_EMERGENCY) != 0 || m->message->runs_on == RUNS_HERE;
}

bool proxy_wanted(const struct rpc *rpc)
{
    return !rpc->xapi->is_coordinator && http_request(rpc->x)->unix_socket && rpc->c.trusted && !runs_here(&rpc->r.method);
}

static void send_failure(struct rpc *rpc, const struct error *e)
{
    struct text body = TEXT_INIT;

    wire_write_failure(&body, &rpc->call, e);
    http_reply(rpc->x, 200, wire_content_type(rpc->call.format), NULL, &body);
    text_release(&body);
}

static struct error *ask(struct rpc *rpc, struct http_answer *answer_r)
{
    const struct http_request *request = http_request(rpc->x);
    struct xapi *xapi = rpc->xapi;
    struct arena *a = rpc->c.arena;
    struct http_target target;

    TRY(xapi->coordinator_target(a, xapi, &target));
    const char *cookie = arena_printf(a, "Cookie: pool_secret=%s\r\n", xapi->pool_secret);
    int rc = http_client_post(&rpc->c.call, xapi->client, &target, request->path, wire_content_type(rpc->call.format), cookie,
                              request->body, request->body_len, ANSWER_MAX, answer_r);
    if (rc == 0 && answer_r->status == 200)
        return NULL;
    log_warn_rl("coordinator %s: %s", target.address, rc < 0 ? strerror(-rc) : "not answered with 200");
    return err_cannot_contact_host(a, xapi->coordinator_address);
}

static void relay(void *arg)
{
    struct rpc *rpc = arg;
    struct http_answer answer;
    struct text body = TEXT_INIT;
    struct error *e = ask(rpc, &answer);

    if (e != NULL) {
        send_failure(rpc, e);
        return;
    }
    text_add_len(&body, answer.body, answer.body_len);
    http_reply(rpc->x, 200, wire_content_type(rpc->call.format), NULL, &body);
    text_release(&body);
}

void proxy_start(struct rpc *rpc)
{
    if (!work_pool_post(rpc->xapi->workers, relay, rpc))
        send_failure(rpc, err_too_many_pending_tasks(rpc->c.arena));
}
