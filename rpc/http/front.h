/* The objects inside the front and who owns them; included by rpc/http only.
 *
 * server 1─N loop (one I/O thread each) 1─N connection 1─0..1 exchange.
 *
 * (1) A loop, its connections and their exchanges are touched by that loop's thread only. Other
 *     threads send mail (loop_send): a reply, a takeover, a parking, a closed listener.
 * (2) A connection has one exchange at a time; pipelined requests wait in its input or in the kernel.
 * (3) While a handler holds the exchange the connection is not freed, whatever the client does.
 * (4) A connection is never served inside the serving of another: a reply to another connection's
 *     exchange goes by mail even on the same thread. So the loop's scratch buffer has one user.
 *
 *   HANDSHAKE ─▶ HEAD ─▶ BODY ─▶ HANDLING ─▶ WRITING ─▶ HEAD … or LINGER or closed
 *                 └──────────────▲  └▶ PARKED ─▲    HANDLING ─▶ (taken over, leaves the loop) */
#ifndef RPC_HTTP_FRONT_H
#define RPC_HTTP_FRONT_H

#include <stdatomic.h>

#include "rpc/base/lock.h"
#include "rpc/http/chunk.h"
#include "rpc/http/input.h"
#include "rpc/http/parse.h"
#include "rpc/http/route.h"
#include "rpc/http/server.h"
#include "rpc/http/timer.h"
#include "rpc/http/tls_session.h"

#define PEER_SIZE 48 /* INET6_ADDRSTRLEN and a little */

struct loop;
struct listener;
struct outgoing;

/* A ring; the head is an entry too. */
struct link { struct link *prev, *next; };

enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_CONNECTION };
struct source { enum source_kind kind; }; /* what an epoll event points at; first member of it */

struct mail {
    struct mail *next;
    void (*deliver)(struct loop *, struct mail *); /* on the loop's thread; owns the mail */
};

enum connection_state { CONN_HANDSHAKE, CONN_HEAD, CONN_BODY, CONN_HANDLING, CONN_PARKED, CONN_WRITING, CONN_LINGER, CONN_CLOSED };

/* Which deadline is running; NONE makes connection_serve set it afresh. */
enum connection_wait { WAIT_NONE, WAIT_HANDSHAKE, WAIT_IDLE, WAIT_HEAD, WAIT_BODY, WAIT_HANDLER, WAIT_PARKED, WAIT_WRITE, WAIT_LINGER };

struct connection {
    struct source source;
    enum connection_state state;
    int fd;
    int listener_id;
    unsigned uid;       /* of a unix peer */
    bool unix_socket;
    bool can_read;      /* the socket may have bytes, or its end */
    bool hung_up;       /* the peer sent its end (EPOLLRDHUP) or the socket broke */
    bool in_handler;
    bool keep_alive;    /* after the current reply */
    bool body_unread;   /* the request's body was not (all) read: no next request */
    bool head_only;     /* HEAD: the reply has no body */
    bool counted;       /* in the per-address quota */
    bool ready;         /* in loop->ready_list */
    bool answered;      /* the running handler answered, on this thread */
    bool draining;      /* its listener is gone: the next reply is the last */
    bool linger;        /* read on after the reply, so that the client gets to see it */
    uint8_t minor;
    enum connection_wait wait;
    struct tls_session *tls;
    struct loop *loop;
    struct link link;   /* in loop->open or loop->parked; alone once closed */
    struct connection *next_ready, *next_dead;
    struct timer timer;
    struct input in;
    struct head_scan scan;
    struct http_exchange *exchange; /* BODY, HANDLING; streams keep it while WRITING */
    struct http_parked *parked;     /* PARKED */
    struct outgoing *out;           /* WRITING, or just answered */
    char peer[PEER_SIZE];
};

enum answer_kind { ANSWER_NONE, ANSWER_REPLY, ANSWER_TAKEOVER, ANSWER_PARK };

/* Lives in its own arena. From the handler's start until it answered it belongs to the handler; the
 * connection only remembers it. */
struct http_exchange {
    struct http_request request;
    struct http_server *server;
    struct connection *connection;
    struct arena *arena;
    const struct http_route *route;
    struct text body;
    int64_t body_left;
    struct chunk_decoder chunks;
    bool chunked, expect_continue, head_only;
    /* the answer, on its way to the loop */
    struct mail mail;
    enum answer_kind answer;
    struct outgoing *out;
    struct http_parked *parked;
    void (*takeover)(struct http_exchange *, struct byte_stream *, void *);
    void *takeover_ctx;
};

struct takeover_list;
struct quota;

struct http_server {
    const struct clock *clock;
    struct http_limits limits;
    struct route_table routes;
    char *server_line; /* "Server: …\r\n" or "" */
    char *rpc_headers;
    struct loop *loops;
    unsigned n_loops;
    bool started;
    struct lock lock; /* listeners */
    struct listener *listeners;
    int last_id;
    struct quota *quota;
    struct takeover_list *takeovers;
    atomic_bool stop;
    atomic_uint n_connections, n_parked;
    _Atomic uint64_t n_requests, n_refused;
};

static inline void link_init(struct link *l) { l->prev = l->next = l; }
static inline bool link_alone(const struct link *l) { return l->next == l; }
static inline void link_remove(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    link_init(l);
}
static inline void link_append(struct link *head, struct link *l)
{
    l->prev = head->prev;
    l->next = head;
    head->prev->next = l;
    head->prev = l;
}

#endif
