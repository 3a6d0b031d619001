#include "storage/tapd/control.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "storage/tapd/control_protocol.h"

LOG_MODULE(control);

#define FDS_MAX 4u /* descriptors that wait for their line */

struct control_conn {
    struct control *control;
    struct control_conn *next, **prev;
    struct loop_fd watch;
    char in[CONTROL_LINE_MAX + 1];
    size_t in_len;
    int fds[FDS_MAX];
    unsigned n_fds;
    struct text out;
    size_t sent;
    bool calling;      /* a request is not answered yet */
    bool leaving;      /* closed once 'out' is sent */
    bool gone;         /* the socket is closed; freed when nothing holds it any more */
    unsigned entered;  /* callbacks may nest */
};

struct control {
    struct loop *loop;
    struct loop_fd watch;
    void (*handle)(void *ctx, struct control_call *);
    void *ctx;
    struct control_conn *conns;
    unsigned n_conns;
};

static void conn_shut(struct control_conn *c)
{
    if (c->gone)
        return;
    c->gone = true;
    loop_remove(c->control->loop, &c->watch);
    fd_close(&c->watch.fd);
    while (c->n_fds > 0)
        fd_close(&c->fds[--c->n_fds]);
}

static void conn_free_if_unused(struct control_conn *c)
{
    if (!c->gone || c->calling || c->entered > 0)
        return;
    *c->prev = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    c->control->n_conns--;
    text_release(&c->out);
    xfree(c);
}

static void conn_send(struct control_conn *c)
{
    while (!c->gone && c->sent < c->out.len) {
        ssize_t n = send(c->watch.fd, c->out.bytes + c->sent, c->out.len - c->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            conn_shut(c);
        else
            c->sent += (size_t)n;
    }
    if (c->gone)
        return;
    bool all = c->sent == c->out.len;
    if (all) {
        text_clear(&c->out);
        c->sent = 0;
    }
    if (all && c->leaving)
        conn_shut(c);
    else
        loop_change(c->control->loop, &c->watch, (all ? 0u : EPOLLOUT) | (c->calling || c->leaving ? 0u : EPOLLIN));
}

static void say_error(struct text *t, const char *code, const char *words)
{
    const struct member members[] = { member_of("code", value_string(code)), member_of("text", value_string(words)) };
    struct value v = value_map(members, ARRAY_LEN(members));

    control_message_write(t, "error", &v);
    text_add_byte(t, '\n');
}

static void refuse(struct control_conn *c, const char *why)
{
    say_error(&c->out, "SR_BACKEND_FAILURE", why);
}

static struct control_call *call_new(struct arena *a)
{
    struct control_call *call = xcalloc(1, sizeof(*call));

    call->arena = a;
    call->fd = -1;
    call->arguments = value_map(NULL, 0);
    return call;
}

struct control_call *control_call_new(const char *verb)
{
    struct control_call *call = call_new(arena_new());

    call->verb = verb;
    return call;
}

static void take_line(struct control_conn *c, const char *line, size_t len)
{
    struct arena *a = arena_new();
    const char *verb;
    struct value arguments;

    if (!control_message_parse(a, line, len, &verb, &arguments)) {
        arena_free(a);
        refuse(c, "malformed request");
        return;
    }
    struct control_call *call = call_new(a);
    call->conn = c;
    call->verb = verb;
    call->arguments = arguments;
    if (c->n_fds > 0) {
        call->fd = c->fds[0];
        memmove(c->fds, c->fds + 1, --c->n_fds * sizeof(c->fds[0]));
    }
    c->calling = true;
    c->control->handle(c->control->ctx, call);
}

/* The lines that are there, one after the other's answer. */
static void take_lines(struct control_conn *c)
{
    char line[CONTROL_LINE_MAX + 1];
    char *end;

    while (!c->gone && !c->calling && !c->leaving && (end = memchr(c->in, '\n', c->in_len)) != NULL) {
        size_t len = (size_t)(end - c->in);
        memcpy(line, c->in, len);
        c->in_len -= len + 1;
        memmove(c->in, end + 1, c->in_len);
        take_line(c, line, len);
    }
    if (!c->calling && c->in_len == sizeof(c->in)) {
        refuse(c, "request too long");
        c->leaving = true;
    }
}

static void conn_read(struct control_conn *c)
{
    unsigned n_fds = FDS_MAX - c->n_fds;
    ssize_t n;

    if (c->in_len == sizeof(c->in))
        return;
    n = unix_recv_fds(c->watch.fd, c->in + c->in_len, sizeof(c->in) - c->in_len, c->fds + c->n_fds, &n_fds);
    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        conn_shut(c);
        return;
    }
    c->n_fds += n_fds;
    c->in_len += (size_t)n;
}

static void conn_go_on(struct control_conn *c)
{
    c->entered++;
    take_lines(c);
    conn_send(c);
    c->entered--;
    conn_free_if_unused(c);
}

static void conn_ready(struct loop_fd *f, uint32_t events)
{
    struct control_conn *c = CONTAINER_OF(f, struct control_conn, watch);

    if ((events & EPOLLIN) != 0 && !c->calling)
        conn_read(c);
    else if ((events & (EPOLLHUP | EPOLLERR)) != 0)
        conn_shut(c);
    conn_go_on(c);
}

static const char *text_of(const struct error *e) { return e->n_params > 0 ? e->params[e->n_params - 1] : ""; }

void control_answer(struct control_call *call, const struct error *e, const struct value *result)
{
    struct control_conn *c = call->conn;

    if (e != NULL)
        log_info("%s: %s", call->verb, error_text(call->arena, e));
    if (c != NULL && !c->gone) {
        if (e != NULL) {
            say_error(&c->out, e->code, text_of(e));
        } else {
            control_message_write(&c->out, "ok", result);
            text_add_byte(&c->out, '\n');
        }
    }
    fd_close(&call->fd);
    arena_free(call->arena);
    xfree(call);
    if (c == NULL)
        return;
    c->calling = false;
    if (c->entered > 0)
        conn_send(c); /* take_lines goes on by itself */
    else
        conn_go_on(c);
}

static void conn_new(struct control *control, int fd)
{
    struct control_conn *c = xcalloc(1, sizeof(*c));

    c->control = control;
    c->next = control->conns;
    c->prev = &control->conns;
    if (c->next != NULL)
        c->next->prev = &c->next;
    control->conns = c;
    control->n_conns++;
    c->watch = (struct loop_fd){ .fd = fd, .ready = conn_ready, .events = EPOLLIN };
    loop_add(control->loop, &c->watch);
}

static void accept_ready(struct loop_fd *f, uint32_t events)
{
    struct control *control = CONTAINER_OF(f, struct control, watch);
    AUTO_FD fd = accept4(f->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0 && control->n_conns < CONTROL_CLIENTS_MAX)
        conn_new(control, fd_steal(&fd));
    else if (fd >= 0)
        log_warn_rl("too many control connections: one was refused");
}

int control_new(struct loop *loop, const char *path, void (*handle)(void *ctx, struct control_call *), void *ctx, struct control **control_r)
{
    AUTO_FD fd = unix_listen(path, 0600, 16);

    if (fd < 0)
        return fd;
    int rc = fd_set_nonblock(fd, true);
    if (rc < 0)
        return rc;
    struct control *c = xcalloc(1, sizeof(*c));
    c->loop = loop;
    c->handle = handle;
    c->ctx = ctx;
    c->watch = (struct loop_fd){ .fd = fd_steal(&fd), .ready = accept_ready, .events = EPOLLIN };
    loop_add(loop, &c->watch);
    *control_r = c;
    return 0;
}

void control_free(struct control *control)
{
    if (control == NULL)
        return;
    while (control->conns != NULL) {
        struct control_conn *c = control->conns;
        CHECK(!c->calling && c->entered == 0);
        conn_shut(c);
        conn_free_if_unused(c);
    }
    loop_remove(control->loop, &control->watch);
    fd_close(&control->watch.fd);
    xfree(control);
}
