#include "rpc/http/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/http/connection.h"
#include "rpc/http/listener.h"

#define EVENTS 256

static _Thread_local struct loop *current;

struct loop *loop_current(void) { return current; }

int loop_init(struct loop *l, struct http_server *server)
{
    *l = (struct loop){ .wake_source = { SOURCE_WAKE }, .server = server, .epoll_fd = -1, .wake_fd = -1, .spare_fd = -1 };
    lock_init(&l->lock, LOCK_HTTP);
    l->mail_end = &l->mail;
    link_init(&l->open);
    link_init(&l->parked);
    l->scratch = xcalloc(1, SCRATCH_SIZE);
    l->gather = xcalloc(1, GATHER_SIZE);
    l->now = clock_ms(server->clock);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN | EPOLLET, .data.ptr = &l->wake_source }; /* edge: never read */

    if (l->epoll_fd < 0 || l->wake_fd < 0 || l->spare_fd < 0 || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &e) != 0)
        return -errno;
    return 0;
}

static void poke(struct loop *l)
{
    if (!atomic_exchange(&l->poked, true))
        CHECK(eventfd_write(l->wake_fd, 1) == 0 || errno == EAGAIN);
}

void loop_send(struct loop *l, struct mail *m)
{
    m->next = NULL;
    LOCK_SCOPE(&l->lock);
    *l->mail_end = m;
    l->mail_end = &m->next;
    poke(l); /* under the lock: once the mail is taken the server may be freed */
}

void loop_wake(struct loop *l, const uint64_t mask[2])
{
    for (int i = 0; i < 2; i++)
        if (mask[i] != 0)
            atomic_fetch_or(&l->wake_mask[i], mask[i]);
    poke(l);
}

void loop_make_ready(struct connection *c)
{
    if (c->ready)
        return;
    c->ready = true;
    c->next_ready = c->loop->ready_list;
    c->loop->ready_list = c;
}

static void deliver_mail(struct loop *l)
{
    lock_take(&l->lock);
    struct mail *m = l->mail;

    l->mail = NULL;
    l->mail_end = &l->mail;
    lock_drop(&l->lock);
    while (m != NULL) {
        struct mail *next = m->next;

        m->deliver(l, m);
        m = next;
    }
}

static void wake_parked(struct loop *l)
{
    uint64_t mask[2] = { atomic_exchange(&l->wake_mask[0], 0), atomic_exchange(&l->wake_mask[1], 0) };
    struct link *next;

    if (mask[0] == 0 && mask[1] == 0)
        return;
    for (struct link *i = l->parked.next; i != &l->parked; i = next) {
        struct connection *c = CONTAINER_OF(i, struct connection, link);

        next = i->next;
        if ((c->parked->mask[0] & mask[0]) != 0 || (c->parked->mask[1] & mask[1]) != 0)
            park_poll(c, false);
    }
}

static void close_all(struct loop *l, struct link *list)
{
    struct link *next;

    for (struct link *i = list->next; i != list; i = next) {
        struct connection *c = CONTAINER_OF(i, struct connection, link);

        next = i->next;
        if (c->state != CONN_HANDLING) /* its handler will answer: then it ends */
            connection_close(c);
    }
}

static void expire(struct loop *l)
{
    struct timer *t;

    while ((t = timer_expired(&l->timers, l->now)) != NULL)
        connection_timeout(CONTAINER_OF(t, struct connection, timer));
}

static void serve_ready(struct loop *l)
{
    struct connection *c = l->ready_list;

    l->ready_list = NULL;
    while (c != NULL) {
        struct connection *next = c->next_ready;

        c->ready = false;
        if (c->state != CONN_CLOSED)
            connection_serve(c);
        c = next;
    }
}

static void bury(struct loop *l)
{
    struct connection *c = l->dead;

    l->dead = NULL;
    while (c != NULL) {
        struct connection *next = c->next_dead;

        if (c->ready) { /* still in the ready list */
            c->next_dead = l->dead;
            l->dead = c;
        } else {
            connection_free(c);
        }
        c = next;
    }
}

static int timeout_of(const struct loop *l)
{
    int64_t next = timer_next(&l->timers);

    if (l->ready_list != NULL || atomic_load(&l->poked))
        return 0;
    if (next == TIMER_NEVER)
        return -1;
    if (next <= l->now)
        return 0;
    return next - l->now > INT_MAX ? INT_MAX : (int)(next - l->now);
}

static void dispatch(struct loop *l, const struct epoll_event *e)
{
    struct source *s = e->data.ptr;

    switch (s->kind) {
    case SOURCE_WAKE:
        break; /* what it announces is looked for at every turn */
    case SOURCE_LISTENER:
        listener_accept(l, CONTAINER_OF(s, struct listener, source));
        break;
    case SOURCE_CONNECTION:
        connection_event(CONTAINER_OF(s, struct connection, source), e->events);
        break;
    }
}

static void turn(struct loop *l)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->epoll_fd, events, EVENTS, timeout_of(l));

    CHECK(n >= 0 || errno == EINTR);
    l->now = clock_ms(l->server->clock);
    serve_ready(l);
    for (int i = 0; i < n; i++)
        dispatch(l, &events[i]);
    if (atomic_exchange(&l->poked, false)) { /* what was announced before this is seen below, the time included */
        l->now = clock_ms(l->server->clock);
        deliver_mail(l);
        wake_parked(l);
    }
    expire(l);
    if (!l->stopping && atomic_load(&l->server->stop)) {
        l->stopping = true;
        close_all(l, &l->open);
        close_all(l, &l->parked);
    }
    bury(l);
}

void *http_loop_run(void *arg)
{
    struct loop *l = arg;

    current = l;
    while (!l->stopping || !link_alone(&l->open) || !link_alone(&l->parked))
        turn(l);
    deliver_mail(l);
    current = NULL;
    return NULL;
}

void loop_release(struct loop *l)
{
    if (l->scratch == NULL)
        return;
    deliver_mail(l);
    l->ready_list = NULL;
    for (struct connection *c = l->dead, *next; c != NULL; c = next) {
        next = c->next_dead;
        connection_free(c);
    }
    fd_close(&l->epoll_fd);
    fd_close(&l->wake_fd);
    fd_close(&l->spare_fd);
    timer_heap_release(&l->timers);
    lock_release(&l->lock);
    xfree(l->scratch);
    xfree(l->gather);
}
