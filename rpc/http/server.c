#include "rpc/http/server.h"

#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "rpc/http/connection.h"
#include "rpc/http/listener.h"
#include "rpc/http/loop.h"
#include "rpc/http/quota.h"
#include "rpc/http/takeover.h"

#define THREADS_MAX 64u

static struct http_limits limits_of(const struct http_limits *given)
{
    struct http_limits l = *given;

    l.header_bytes = l.header_bytes != 0 ? l.header_bytes : 16 * 1024;
    l.header_lines = l.header_lines != 0 ? l.header_lines : 100;
    l.body_bytes = l.body_bytes != 0 ? l.body_bytes : 32u * 1024 * 1024;
    l.connections = l.connections != 0 ? l.connections : 4096;
    l.header_ms = l.header_ms != 0 ? l.header_ms : 10 * 1000;
    l.body_idle_ms = l.body_idle_ms != 0 ? l.body_idle_ms : 30 * 1000;
    l.idle_ms = l.idle_ms != 0 ? l.idle_ms : 300 * 1000;
    return l;
}

static unsigned threads_of(unsigned given)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (given != 0)
        return given < THREADS_MAX ? given : THREADS_MAX;
    return cores < 1 ? 1 : cores > 4 ? 4 : (unsigned)cores;
}

struct error *http_server_new(struct arena *arena, const struct http_server_options *o, struct http_server **server_r)
{
    struct http_server *s = xcalloc(1, sizeof *s);

    s->clock = o->clock;
    s->limits = limits_of(&o->limits);
    s->server_line = o->server_header != NULL ? xprintf("Server: %s\r\n", o->server_header) : xstrdup("");
    s->rpc_headers = xstrdup(o->rpc_headers != NULL ? o->rpc_headers : "");
    s->quota = quota_new();
    s->takeovers = takeover_list_new();
    lock_init(&s->lock, LOCK_HTTP);
    route_table_init(&s->routes, o->routes);
    unsigned n = threads_of(o->threads);

    s->loops = xcalloc(n, sizeof *s->loops);
    for (; s->n_loops < n; s->n_loops++) {
        int rc = loop_init(&s->loops[s->n_loops], s);

        if (rc != 0) {
            s->n_loops++; /* to be released too */
            http_server_free(s);
            return err_internal(arena, "cannot make an event loop: %s", strerror(-rc));
        }
    }
    *server_r = s;
    return NULL;
}

void http_server_start(struct http_server *s)
{
    s->started = true;
    for (unsigned i = 0; i < s->n_loops; i++)
        s->loops[i].thread = thread_start("http", http_loop_run, &s->loops[i]);
}

void http_server_wake(struct http_server *s, const uint64_t mask[2])
{
    for (unsigned i = 0; i < s->n_loops; i++)
        loop_wake(&s->loops[i], mask);
}

void http_server_stats(struct http_server *s, struct http_server_stats *r)
{
    *r = (struct http_server_stats){
        .connections = atomic_load(&s->n_connections),
        .parked = atomic_load(&s->n_parked),
        .requests = atomic_load(&s->n_requests),
        .refused = atomic_load(&s->n_refused),
    };
}

/* --- closing -------------------------------------------------------------------------------------- */

struct farewell { struct mail mail; struct listener *listener; bool cut; };

static void let_go(struct connection *c, bool cut)
{
    bool idle = c->state == CONN_HEAD && input_len(&c->in) == 0;

    if (c->state != CONN_HANDLING && c->state != CONN_WRITING && (cut || idle))
        connection_close(c);
    else
        c->draining = true;
}

static void let_go_all(struct link *list, int listener_id, bool cut)
{
    struct link *next;

    for (struct link *i = list->next; i != list; i = next) {
        struct connection *c = CONTAINER_OF(i, struct connection, link);

        next = i->next;
        if (c->listener_id == listener_id)
            let_go(c, cut);
    }
}

static void deliver_farewell(struct loop *l, struct mail *m)
{
    struct farewell *f = CONTAINER_OF(m, struct farewell, mail);

    let_go_all(&l->open, f->listener->id, f->cut);
    let_go_all(&l->parked, f->listener->id, f->cut);
    epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, f->listener->fd, NULL); /* before another loop frees it */
    listener_unref(f->listener);
    xfree(f);
}

void http_unlisten(struct http_server *s, int id, bool cut_open)
{
    struct listener *gone = NULL;

    lock_take(&s->lock);
    for (struct listener **l = &s->listeners; *l != NULL; l = &(*l)->next) {
        if ((*l)->id == id) {
            gone = *l;
            *l = gone->next;
            break;
        }
    }
    lock_drop(&s->lock);
    if (gone == NULL)
        return;
    listener_shut(gone);
    for (unsigned i = 0; i < s->n_loops; i++) {
        struct farewell *f = xcalloc(1, sizeof *f);

        *f = (struct farewell){ .mail = { .deliver = deliver_farewell }, .listener = gone, .cut = cut_open };
        loop_send(&s->loops[i], &f->mail);
    }
    if (cut_open)
        takeover_list_cut(s->takeovers, id);
    listener_unref(gone);
}

void http_server_free(struct http_server *s)
{
    static const uint64_t nothing[2];

    if (s == NULL)
        return;
    while (s->listeners != NULL)
        http_unlisten(s, s->listeners->id, false);
    atomic_store(&s->stop, true);
    takeover_list_abort(s->takeovers);
    http_server_wake(s, nothing);
    for (unsigned i = 0; s->started && i < s->n_loops; i++)
        pthread_join(s->loops[i].thread, NULL);
    takeover_list_free(s->takeovers);
    for (unsigned i = 0; i < s->n_loops; i++)
        loop_release(&s->loops[i]);
    xfree(s->loops);
    route_table_release(&s->routes);
    quota_free(s->quota);
    lock_release(&s->lock);
    xfree(s->server_line);
    xfree(s->rpc_headers);
    xfree(s);
}
