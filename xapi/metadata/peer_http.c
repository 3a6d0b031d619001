#include "xapi/metadata/peer_http.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "rpc/http/parse.h"
#include "rpc/wire/envelope.h"
#include "xapi/core/xapi.h"

#define PARAMS_MAX 8u
#define ANSWER_MAX ((size_t)64 << 20)
#define HEAD_MAX 65536u
#define PUT_MS 600000 /* for the answer to a PUT: the other side works before it answers */

static struct error *failed(const struct peer_http *p, int rc)
{
    struct arena *a = p->c->arena;
    struct error *e;

    if (rc == -ECANCELED)
        return err_task_cancelled(a, p->c->task != NULL ? p->c->task : REF_NULL);
    if (p->target->tls && (rc == -EPROTO || rc == -EKEYREJECTED))
        e = err_tls_connection_failed(a, p->target->address, arena_printf(a, "%d", p->target->port));
    else
        e = err_cannot_contact_host(a, p->target->address);
    e->cause = strerror(-rc);
    return e;
}

struct error *peer_http_call(const struct peer_http *p, const char *method, const struct value *params, unsigned n, struct value *result_r)
{
    struct value all[PARAMS_MAX + 1] = { value_string(p->session) };
    struct http_answer answer;
    AUTO_TEXT body = TEXT_INIT;

    if (n > PARAMS_MAX)
        return err_internal(p->c->arena, "%s with too many parameters", method);
    for (unsigned i = 0; i < n; i++)
        all[i + 1] = params[i];
    wire_write_call(&body, WIRE_JSON2, method, all, n + 1);
    int rc = http_client_post(&p->c->call, p->c->xapi->client, p->target, "/jsonrpc", "application/json", NULL, body.bytes, body.len, ANSWER_MAX, &answer);
    if (rc != 0)
        return failed(p, rc);
    if (answer.status != 200)
        return err_internal(p->c->arena, "%s: HTTP status %d", method, answer.status);
    return wire_parse_answer(p->c->arena, WIRE_JSON2, answer.body, answer.body_len, result_r);
}

/* The head of the answer; what follows it is nobody's. */
static int read_status(struct call *c, struct byte_stream *s, int *status_r)
{
    const struct head_limits limits = { .bytes = HEAD_MAX, .lines = 100 };
    struct head_scan scan = { 0 };
    struct head head;
    char *bytes = arena_alloc(c->arena, HEAD_MAX);
    size_t len = 0;

    for (;;) {
        long n = len > 0 ? head_scan(&scan, bytes, len, &limits) : 0;
        if (n < 0 || len == HEAD_MAX)
            return -EBADMSG;
        if (n > 0 && head_parse_answer(c->arena, bytes, (size_t)n, &head) != 0)
            return -EBADMSG;
        if (n > 0 && head.status >= 200) {
            *status_r = head.status;
            return 0;
        }
        if (n > 0) { /* 100 Continue */
            memmove(bytes, bytes + n, len -= (size_t)n);
            scan = (struct head_scan) { 0 };
            continue;
        }
        int ready = bytes_wait(s, c->cancel != NULL ? cancel_fd(c->cancel) : -1, PUT_MS);
        if (ready <= 0)
            return ready == 0 ? -ETIMEDOUT : ready;
        ssize_t got = bytes_read(s, bytes + len, HEAD_MAX - len);
        if (got <= 0)
            return got == 0 ? -ECONNRESET : (int)got;
        len += (size_t)got;
    }
}

struct error *peer_http_put(const struct peer_http *p, const char *path, const char *cookies, const void *body, size_t len, int *status_r)
{
    struct call *c = &p->c->call;
    struct byte_stream *stream;
    const char *extra = arena_printf(c->arena, "Cookie: session_id=%s%s\r\nContent-Length: %zu\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n",
                                     p->session, cookies, len);

    int rc = http_client_raw(c, p->c->xapi->client, p->target, "PUT", path, extra, &stream);
    if (rc != 0)
        return failed(p, rc);
    rc = len > 0 ? bytes_write(stream, body, len) : 0;
    if (rc == 0 || rc == -EPIPE || rc == -ECONNRESET) /* a refusal may stand there even so */
        rc = read_status(c, stream, status_r);
    bytes_close(stream);
    return rc != 0 ? failed(p, rc) : NULL;
}

const char *peer_http_encode(struct arena *a, const char *s)
{
    AUTO_TEXT t = TEXT_INIT;

    for (; *s != '\0'; s++) {
        bool plain = (*s >= '0' && *s <= '9') || (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || strchr("-_.~:", *s) != NULL;
        text_printf(&t, plain ? "%c" : "%%%02X", (unsigned char)*s);
    }
    return arena_strndup(a, t.len > 0 ? t.bytes : "", t.len);
}
