#include "xapi/transfer/nbd_gate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/relay.h"
#include "rpc/base/work.h"
#include "rpc/http/tls_session.h"
#include "rpc/nbd/nbd_endian.h"
#include "rpc/nbd/nbd_protocol.h"
#include "rpc/nbd/nbd_uri.h"

LOG_MODULE(nbd_front);

#define NEGOTIATION_MS 30000
#define OPTIONS_MAX 64          /* before a disk is named */
#define OPTION_HEAD 16u
#define REPLY_HEAD 20u

struct option { uint32_t number, length; unsigned char data[NBD_NAME_MAX + 64]; };

void nbd_gate_init(struct nbd_gate *g, struct xapi *xapi, struct tls_context *tls, int fd)
{
    *g = (struct nbd_gate){ .xapi = xapi, .tls = tls, .fd = fd, .cancel = cancel_new() };
    g->call = (struct call){ .arena = arena_new(), .clock = xapi->clock, .id = "nbd", .cancel = g->cancel };
}

void nbd_gate_abort(struct nbd_gate *g)
{
    cancel_raise(g->cancel);
}

void nbd_gate_release(struct nbd_gate *g)
{
    bytes_close(g->tapd);
    bytes_close(g->client);
    fd_close(&g->fd);
    arena_free(g->call.arena);
    cancel_unref(g->cancel);
}

/* --- reading and answering options ------------------------------------------------------------------------------- */
static int receive(struct nbd_gate *g, void *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        int ready = bytes_wait(g->client, cancel_fd(g->cancel), NEGOTIATION_MS);
        if (ready <= 0)
            return ready == 0 ? -ETIMEDOUT : ready;
        ssize_t got = bytes_read(g->client, (char *)bytes + at, n - at);
        if (got <= 0)
            return got == 0 ? -EPIPE : (int)got;
        at += (size_t)got;
    }
    return 0;
}

static int reply(struct nbd_gate *g, uint32_t option, uint32_t type)
{
    unsigned char head[REPLY_HEAD], *p = nbd_put64(head, NBD_MAGIC_OPTION_REPLY);

    p = nbd_put32(p, option);
    p = nbd_put32(p, type);
    (void)nbd_put32(p, 0);
    return bytes_write(g->client, head, sizeof head);
}

static int receive_option(struct nbd_gate *g, struct option *o)
{
    unsigned char head[OPTION_HEAD];
    int rc = receive(g, head, sizeof head);

    if (rc != 0)
        return rc;
    o->number = nbd_get32(head + 8);
    o->length = nbd_get32(head + 12);
    if (nbd_get64(head) != NBD_MAGIC_OPTION || o->length > sizeof o->data)
        return -EPROTO;
    return receive(g, o->data, o->length);
}

static int greet(struct nbd_gate *g)
{
    unsigned char hello[18], flags[4], *p = nbd_put64(hello, NBD_MAGIC_INIT);

    p = nbd_put64(p, NBD_MAGIC_OPTION);
    (void)nbd_put16(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    int rc = bytes_write(g->client, hello, sizeof hello);
    if (rc == 0)
        rc = receive(g, flags, sizeof flags);
    if (rc != 0)
        return rc;
    uint32_t said = nbd_get32(flags);
    g->no_zeroes = (said & NBD_FLAG_NO_ZEROES) != 0;
    return (said & NBD_FLAG_FIXED_NEWSTYLE) != 0 && (said & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) == 0 ? 0 : -EPROTO;
}

/* --- TLS ------------------------------------------------------------------------------------------------------------ */
/* The plain stream reads no further than it was asked to, so its descriptor can be taken over. */
static int encrypt(struct nbd_gate *g)
{
    AUTO_FD fd = fcntl(g->client->ops->fd(g->client), F_DUPFD_CLOEXEC, 3);
    struct tls_session *s = NULL;
    int rc = fd < 0 ? -errno : fd_set_nonblock(fd, true);

    if (rc == 0 && (s = tls_session_new(g->tls, fd, NULL)) == NULL)
        rc = -ENOMEM;
    while (rc == 0) {
        short events = 0;
        int step = tls_session_handshake(s, &events);
        if (step != -EAGAIN) {
            rc = step;
            break;
        }
        struct pollfd fds[] = { { .fd = fd, .events = events }, { .fd = cancel_fd(g->cancel), .events = POLLIN } };
        if (poll(fds, ARRAY_LEN(fds), NEGOTIATION_MS) == 0 || fds[1].revents != 0)
            rc = -ETIMEDOUT;
    }
    if (rc != 0) {
        tls_session_free(s);
        return rc;
    }
    bytes_close(g->client);
    tls_session_bulk(s);
    g->client = tls_stream_new(s, fd_steal(&fd));
    g->encrypted = true;
    return 0;
}

/* --- the disk ------------------------------------------------------------------------------------------------------- */
/* Where the name stands in an option; false: it names none. */
static bool option_name(const struct option *o, const char **name_r, uint32_t *len_r)
{
    if (o->number == NBD_OPT_EXPORT_NAME) {
        *name_r = (const char *)o->data;
        *len_r = o->length;
        return true;
    }
    if (o->number != NBD_OPT_GO && o->number != NBD_OPT_INFO && o->number != NBD_OPT_LIST_META_CONTEXT && o->number != NBD_OPT_SET_META_CONTEXT)
        return false;
    *len_r = o->length >= 4 ? nbd_get32(o->data) : UINT32_MAX;
    *name_r = (const char *)o->data + 4;
    return *len_r <= o->length - 4;
}

/* "/<uuid>?session_id=<ref>" */
static struct error *admit(struct nbd_gate *g, const char *name, uint32_t len)
{
    struct arena *a = g->call.arena;
    const char *text = arena_strndup(a, name, len), *query = strchr(text, '?'), *key = "session_id=";
    const char *session = query != NULL ? strstr(query, key) : NULL;

    text += text[0] == '/';
    if (session == NULL)
        return error_make(a, __FILE__, __LINE__, "SESSION_INVALID", 1, "");
    session += strlen(key);
    const struct transfer_request r = {
        .kind = TRANSFER_NBD,
        .session = arena_strndup(a, session, strcspn(session, "&")),
        .vdi = arena_strndup(a, text, strcspn(text, "?")),
    };
    TRY(transfer_begin(&g->call, g->xapi, &r, &g->transfer));
    g->open = true;
    if (g->transfer.address != NULL)
        return err_internal(a, "another host has the disk: %s", g->transfer.address);
    const char *uri_text, *none;
    struct nbd_uri uri;
    TRY(transfer_open(&g->call, g->xapi, &g->transfer, false, &uri_text, &none));
    if (!nbd_uri_parse(a, uri_text, &uri) || uri.socket == NULL)
        return err_internal(a, "the disk has no socket: %s", uri_text);
    int fd = unix_connect(uri.socket);
    if (fd < 0)
        return err_internal(a, "%s: %s", uri.socket, strerror(-fd));
    g->tapd = bytes_from_fd(fd);
    return NULL;
}

/* Tells the tapd what the client has negotiated, and the option that named the disk. */
static int hand_on(struct nbd_gate *g, const struct option *o)
{
    unsigned char hello[18], out[4 + OPTION_HEAD], head[OPTION_HEAD], *p;
    int rc = bytes_read_all(g->tapd, hello, sizeof hello);

    p = nbd_put32(out, NBD_FLAG_FIXED_NEWSTYLE | (g->no_zeroes ? NBD_FLAG_NO_ZEROES : 0));
    p = nbd_put64(p, NBD_MAGIC_OPTION);
    p = nbd_put32(p, NBD_OPT_STRUCTURED_REPLY);
    (void)nbd_put32(p, 0);
    if (rc == 0)
        rc = bytes_write(g->tapd, out, g->structured ? sizeof out : 4);
    if (rc == 0 && g->structured) {
        unsigned char answer[REPLY_HEAD];
        rc = bytes_read_all(g->tapd, answer, sizeof answer);
        if (rc == 0 && nbd_get32(answer + 12) != NBD_REP_ACK)
            rc = -EPROTO;
    }
    p = nbd_put64(head, NBD_MAGIC_OPTION);
    p = nbd_put32(p, o->number);
    (void)nbd_put32(p, o->length);
    if (rc == 0)
        rc = bytes_write(g->tapd, head, sizeof head);
    return rc == 0 ? bytes_write(g->tapd, o->data, o->length) : rc;
}

static int open_disk(struct nbd_gate *g, const struct option *o, bool *opened_r)
{
    const char *name;
    uint32_t len;

    *opened_r = false;
    if (!option_name(o, &name, &len))
        return reply(g, o->number, NBD_REP_ERR_INVALID);
    struct error *e = admit(g, name, len);
    if (e == NULL) {
        *opened_r = true;
        return hand_on(g, o);
    }
    log_info("a client of the NBD server is refused: %s", error_text(g->call.arena, e));
    return o->number == NBD_OPT_EXPORT_NAME ? -EACCES : reply(g, o->number, NBD_REP_ERR_UNKNOWN);
}

/* --- negotiation ------------------------------------------------------------------------------------------------------ */
static int plain_option(struct nbd_gate *g, const struct option *o)
{
    if (o->number == NBD_OPT_EXPORT_NAME)
        return -EACCES; /* there is no other way to refuse it */
    if (o->number != NBD_OPT_STARTTLS)
        return reply(g, o->number, NBD_REP_ERR_TLS_REQD);
    if (o->length != 0)
        return reply(g, o->number, NBD_REP_ERR_INVALID);
    int rc = reply(g, o->number, NBD_REP_ACK);
    return rc == 0 ? encrypt(g) : rc;
}

static int secure_option(struct nbd_gate *g, const struct option *o, bool *opened_r)
{
    switch (o->number) {
    case NBD_OPT_STRUCTURED_REPLY:
        g->structured = g->structured || o->length == 0;
        return reply(g, o->number, o->length == 0 ? NBD_REP_ACK : NBD_REP_ERR_INVALID);
    case NBD_OPT_LIST:
        return reply(g, o->number, NBD_REP_ERR_POLICY);
    case NBD_OPT_EXPORT_NAME:
    case NBD_OPT_GO:
    case NBD_OPT_INFO:
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return open_disk(g, o, opened_r);
    default:
        return reply(g, o->number, NBD_REP_ERR_UNSUP);
    }
}

static int negotiate(struct nbd_gate *g)
{
    struct option *o = arena_alloc(g->call.arena, sizeof *o);
    bool opened = false;
    int rc = greet(g);

    for (unsigned i = 0; rc == 0 && !opened; i++) {
        rc = i < OPTIONS_MAX ? receive_option(g, o) : -EPROTO;
        if (rc == 0 && o->number == NBD_OPT_ABORT) {
            (void)!reply(g, o->number, NBD_REP_ACK);
            return -ECANCELED;
        }
        if (rc == 0)
            rc = g->encrypted ? secure_option(g, o, &opened) : plain_option(g, o);
    }
    return rc;
}

/* --- the whole ---------------------------------------------------------------------------------------------------------- */
void nbd_gate_serve(struct nbd_gate *g)
{
    struct call *before = call_enter(&g->call), calm;

    g->client = bytes_from_fd(fd_steal(&g->fd));
    int rc = negotiate(g);
    if (rc == 0)
        relay_run(g->client, g->tapd, g->cancel);
    else if (rc != -ECANCELED && rc != -EPIPE)
        log_debug("a client of the NBD server: %s", strerror(-rc));
    calm = g->call;
    calm.cancel = NULL;
    if (g->open) {
        bytes_close(g->tapd);
        g->tapd = NULL;
        transfer_close(&calm, g->xapi, &g->transfer);
        transfer_end(&calm, g->xapi, &g->transfer, NULL);
    }
    call_enter(before);
}
