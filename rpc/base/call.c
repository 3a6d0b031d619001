#include "rpc/base/call.h"

#include <errno.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

struct cancel {
    atomic_uint refs;
    atomic_bool raised;
    atomic_int fd; /* an eventfd, made when first asked for; -1 until then */
};

struct cancel *cancel_new(void)
{
    struct cancel *c = xcalloc(1, sizeof(*c));

    atomic_init(&c->refs, 1);
    atomic_init(&c->raised, false);
    atomic_init(&c->fd, -1);
    return c;
}

struct cancel *cancel_ref(struct cancel *c)
{
    CHECK(atomic_fetch_add(&c->refs, 1) > 0);
    return c;
}

void cancel_unref(struct cancel *c)
{
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    int fd = atomic_load(&c->fd);
    if (fd >= 0)
        close(fd);
    xfree(c);
}

/* The counter of an eventfd that is never read cannot overflow by this. */
static void make_readable(int fd)
{
    int rc = eventfd_write(fd, 1);

    CHECK(rc == 0 || errno == EAGAIN);
}

/* cancel_raise sets the flag, then looks for an fd; cancel_fd publishes the fd, then looks at the
 * flag: whichever comes second makes it readable. */
void cancel_raise(struct cancel *c)
{
    if (atomic_exchange(&c->raised, true))
        return;
    int fd = atomic_load(&c->fd);
    if (fd >= 0)
        make_readable(fd);
}

bool cancel_raised(const struct cancel *c) { return atomic_load(&c->raised); }

int cancel_fd(const struct cancel *const_c)
{
    struct cancel *c = (struct cancel *)const_c; /* what is const to callers is the state, not the fd */
    int fd = atomic_load(&c->fd), none = -1;

    if (fd >= 0)
        return fd;
    fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return -1; /* out of descriptors: poll() ignores -1, and the flag still works */
    if (!atomic_compare_exchange_strong(&c->fd, &none, fd)) {
        close(fd);
        return none;
    }
    if (cancel_raised(c))
        make_readable(fd);
    return fd;
}

bool call_cancelled(const struct call *c)
{
    if (c->cancel != NULL && cancel_raised(c->cancel))
        return true;
    return c->deadline_ms != 0 && clock_ms(c->clock) >= c->deadline_ms;
}

void call_progress(struct call *c, double fraction)
{
    if (c->progress != NULL)
        c->progress(c, fraction);
}

static _Thread_local struct call *current;

struct call *call_enter(struct call *c)
{
    struct call *previous = current;

    current = c;
    return previous;
}

struct call *call_current(void) { return current; }
