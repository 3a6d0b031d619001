/* A few threads that do the system calls, where the kernel has no io_uring. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "storage/tapd/disk_io_backend.h"

#define THREADS 8

struct slots {
    struct disk_io_op_slot *first, **last;
};

struct threads {
    struct disk_io io;
    struct loop_fd ready;
    int event;
    unsigned in_flight; /* loop's thread only */
    pthread_t threads[THREADS];

    struct lock lock; /* guards all below */
    struct cond posted;
    struct slots waiting, done;
    bool ending;
};

static void put(struct slots *q, struct disk_io_op_slot *s)
{
    s->next = NULL;
    *q->last = s;
    q->last = &s->next;
}

static struct disk_io_op_slot *get(struct slots *q)
{
    struct disk_io_op_slot *s = q->first;

    if (s == NULL)
        return NULL;
    q->first = s->next;
    if (q->first == NULL)
        q->last = &q->first;
    return s;
}

/* The next slot, or NULL at the end. Lock held. */
static struct disk_io_op_slot *next_slot(struct threads *t)
{
    while (t->waiting.first == NULL && !t->ending)
        cond_wait(&t->posted, &t->lock);
    return get(&t->waiting);
}

static void *worker(void *arg)
{
    struct threads *t = arg;
    struct disk_io_op_slot *s;
    uint64_t one = 1;

    lock_take(&t->lock);
    while ((s = next_slot(t)) != NULL) {
        lock_drop(&t->lock);
        while (!disk_io_step(s, disk_io_call(s)))
            ;
        lock_take(&t->lock);
        bool wake = t->done.first == NULL;
        put(&t->done, s);
        if (wake)
            CHECK(write(t->event, &one, sizeof(one)) == sizeof(one));
    }
    lock_drop(&t->lock);
    return NULL;
}

static void submit(struct disk_io *io, struct disk_io_op_slot *s)
{
    struct threads *t = CONTAINER_OF(io, struct threads, io);

    disk_io_begin(s);
    t->in_flight++;
    LOCK_SCOPE(&t->lock);
    put(&t->waiting, s);
    cond_signal(&t->posted);
}

static void ready(struct loop_fd *f, uint32_t events)
{
    struct threads *t = CONTAINER_OF(f, struct threads, ready);
    struct disk_io_op_slot *s;
    uint64_t n;

    (void)!read(t->event, &n, sizeof(n));
    for (;;) {
        lock_take(&t->lock);
        s = get(&t->done);
        lock_drop(&t->lock);
        if (s == NULL)
            return;
        t->in_flight--;
        s->done(s);
    }
}

static void threads_free(struct disk_io *io)
{
    struct threads *t = CONTAINER_OF(io, struct threads, io);

    CHECK(t->in_flight == 0);
    lock_take(&t->lock);
    t->ending = true;
    cond_broadcast(&t->posted);
    lock_drop(&t->lock);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(t->threads[i], NULL);
    loop_remove(io->loop, &t->ready);
    fd_close(&t->event);
    cond_release(&t->posted);
    lock_release(&t->lock);
    xfree(t);
}

static const struct disk_io_ops threads_ops = { .name = "threads", .submit = submit, .free = threads_free };

struct disk_io *disk_io_threads_new(struct loop *loop)
{
    struct threads *t = xcalloc(1, sizeof(*t));

    t->io = (struct disk_io){ .ops = &threads_ops, .loop = loop };
    t->waiting.last = &t->waiting.first;
    t->done.last = &t->done.first;
    lock_init(&t->lock, LOCK_LEAF);
    cond_init(&t->posted);
    t->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(t->event >= 0);
    t->ready = (struct loop_fd){ .fd = t->event, .ready = ready, .events = EPOLLIN };
    loop_add(loop, &t->ready);
    for (unsigned i = 0; i < THREADS; i++)
        t->threads[i] = thread_start("disk io", worker, t);
    return &t->io;
}
