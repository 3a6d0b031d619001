#include "rpc/base/relay.h"

#include <pthread.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

#define RELAY_BYTES (256u << 10)

struct pump { struct byte_stream *from, *to; struct cancel *cancel; };

/* What there is without waiting, at least a byte; 0 at the end or on failure. */
static size_t fill(struct byte_stream *from, char *buffer)
{
    size_t have = 0;

    do {
        ssize_t n = bytes_read(from, buffer + have, RELAY_BYTES - have);
        if (n <= 0)
            return have; /* an end shows again */
        have += (size_t)n;
    } while (have < RELAY_BYTES && from->ops->pending(from) > 0);
    return have;
}

static void *pump_run(void *arg)
{
    struct pump *p = arg;
    char *buffer = xcalloc(1, RELAY_BYTES);

    while (bytes_wait(p->from, cancel_fd(p->cancel), -1) > 0) {
        size_t n = fill(p->from, buffer);
        if (n == 0 || bytes_write(p->to, buffer, n) != 0)
            break;
    }
    bytes_abort(p->from); /* one way less: the other ends too */
    bytes_abort(p->to);
    cancel_raise(p->cancel);
    xfree(buffer);
    return NULL;
}

void relay_run(struct byte_stream *a, struct byte_stream *b, struct cancel *cancel)
{
    struct pump up = { a, b, cancel }, down = { b, a, cancel };
    pthread_t thread = thread_start("relay", pump_run, &down);

    pump_run(&up);
    CHECK(pthread_join(thread, NULL) == 0);
}
