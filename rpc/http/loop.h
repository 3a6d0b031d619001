/* One I/O thread: epoll, mail from other threads, wakes, deadlines. */
#ifndef RPC_HTTP_LOOP_H
#define RPC_HTTP_LOOP_H

#include "rpc/http/front.h"

#define SCRATCH_SIZE (64u * 1024)
#define GATHER_SIZE (16u * 1024)

struct loop {
    struct source wake_source;
    struct http_server *server;
    pthread_t thread;
    int epoll_fd, wake_fd;
    int spare_fd; /* given up for a moment when descriptors run out */
    atomic_bool poked;
    _Atomic uint64_t wake_mask[2];
    struct lock lock; /* mail */
    struct mail *mail, **mail_end;
    struct link open, parked;
    struct connection *ready_list, *dead;
    struct timer_heap timers;
    atomic_uint load; /* connections it has or is about to get */
    int64_t now;
    bool stopping;
    char *scratch, *gather;
};

/* 0 or -errno. */
NODISCARD int loop_init(struct loop *, struct http_server *);
void loop_release(struct loop *); /* after its thread ended, or was never started; delivers what mail is left */
void *http_loop_run(void *loop);       /* the thread: until http_server.stop and the last connection is gone */

struct loop *loop_current(void); /* of this thread; NULL on others */
void loop_send(struct loop *, struct mail *); /* any thread */
void loop_wake(struct loop *, const uint64_t mask[2]); /* any thread */
void loop_make_ready(struct connection *); /* served again at the next turn */

#endif
