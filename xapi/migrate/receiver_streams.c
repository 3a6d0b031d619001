/* The mem streams. Each has a thread, that of its PUT. Stream 0's waits for the others and restores from all of them; the
 * others' only keep their streams open until the conversation on the vm stream is over. */
#include "xapi/migrate/receiver.h"

#include <string.h>

#include "rpc/base/log.h"
#include "xapi/migrate/wire.h"
#include "xenops/stream/confirm.h"

LOG_MODULE(receiver);

#define MEM_CONNECT_MS 60000
#define LOOK_MS 1000

static bool attach(struct migrations *m, struct incoming *in, const struct put_words *w, struct byte_stream *stream)
{
    LOCK_SCOPE(&m->lock);
    if (in->phase != PHASE_RESTORING || in->released || w->stream >= w->streams || in->mem[w->stream] != NULL || in->image_done)
        return false;
    if (in->n_streams != 0 && in->n_streams != w->streams)
        return false;
    in->n_streams = w->streams;
    in->mem[w->stream] = stream;
    in->mem_threads++;
    cond_broadcast(&m->changed);
    return true;
}

static bool all_there(const struct incoming *in)
{
    for (unsigned i = 0; i < in->n_streams; i++)
        if (in->mem[i] == NULL)
            return false;
    return true;
}

static struct error *wait_all(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *streams[FAN_MAX])
{
    int64_t until = clock_ms(c->clock) + MEM_CONNECT_MS;

    LOCK_SCOPE(&m->lock);
    while (!all_there(in) && in->phase == PHASE_RESTORING && !m->stopping && clock_ms(c->clock) < until)
        cond_wait_ms(&m->changed, &m->lock, LOOK_MS);
    if (!all_there(in) || in->phase != PHASE_RESTORING)
        return err_internal(c->arena, "not all of the %u memory streams were opened", in->n_streams);
    memcpy(streams, in->mem, sizeof in->mem);
    return NULL;
}

static void set_reading(struct migrations *m, struct incoming *in, struct byte_stream *stream)
{
    LOCK_SCOPE(&m->lock);
    in->reading = stream;
    if (stream != NULL && in->phase != PHASE_RESTORING)
        bytes_abort(stream);
}

/* Behind the image the blocks end, and the connections are somebody else's again. */
static struct error *end_of_blocks(struct call *c, struct byte_stream *fan)
{
    char more;
    ssize_t n = bytes_read(fan, &more, 1);

    return n == 0 ? NULL : err_internal(c->arena, "memory stream: %s", n > 0 ? "bytes behind the image" : strerror((int)-n));
}

/* What was wrong with the blocks says more than that they could not be read. */
static struct error *restore_fanned(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w,
                                    struct byte_stream *const streams[FAN_MAX])
{
    struct byte_stream *fan = fan_in_new(streams, w->streams, w->confirm);

    set_reading(m, in, fan);
    struct error *e = xenops_restore(c, m->xapi->xenops, in->temp, &in->spec, fan);
    if (e == NULL)
        e = end_of_blocks(c, fan);
    set_reading(m, in, NULL);
    if (e != NULL && fan_in_fault(fan) != NULL)
        e = err_internal(c->arena, "memory stream: %s", fan_in_fault(fan));
    bytes_close(fan);
    return e;
}

static struct error *restore(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w)
{
    struct byte_stream *streams[FAN_MAX];

    TRY(wait_all(c, m, in, streams));
    if (w->fan)
        return restore_fanned(c, m, in, w, streams);
    if (w->streams > 1)
        return err_internal(c->arena, "several memory streams without blocks");
    struct byte_stream *confirming = w->confirm ? confirm_in_new(streams[0]) : NULL, *from = confirming != NULL ? confirming : streams[0];
    set_reading(m, in, from);
    struct error *e = xenops_restore(c, m->xapi->xenops, in->temp, &in->spec, from);
    set_reading(m, in, NULL);
    bytes_close(confirming);
    return e;
}

static void wait_released(struct migrations *m, struct incoming *in, unsigned stream)
{
    LOCK_SCOPE(&m->lock);
    while (!in->released)
        cond_wait(&m->changed, &m->lock);
    in->mem[stream] = NULL;
    in->mem_threads--;
    cond_broadcast(&m->changed);
}

void receive_mem(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w, struct byte_stream *stream)
{
    if (!attach(m, in, w, stream)) {
        int ignored = handshake_send(stream, err_internal(c->arena, "no migration waits for this memory stream"));
        log_warn("migration %s: an unexpected memory stream was refused (%d)", in->id, ignored);
        return;
    }
    struct error *e = NULL;
    int r = handshake_send(stream, NULL);
    if (r != 0)
        e = err_internal(c->arena, "memory stream %u broke at its start: %s", w->stream, strerror(-r));
    else if (w->stream == 0)
        e = restore(c, m, in, w);
    lock_take(&m->lock);
    if (w->stream == 0 || e != NULL) {
        if (!in->image_done)
            in->image_error = error_dup(in->arena, e);
        in->image_done = true;
    }
    cond_broadcast(&m->changed);
    lock_drop(&m->lock);
    wait_released(m, in, w->stream);
}

/* --- waiting for it -------------------------------------------------------------------------------------------- */
/* Bytes so far on all of them; whether any stream is there at all. */
static uint64_t received_locked(const struct incoming *in, bool *any_r)
{
    uint64_t n = 0;

    *any_r = false;
    for (unsigned i = 0; i < FAN_MAX; i++)
        if (in->mem[i] != NULL) {
            n += __atomic_load_n(&in->mem[i]->bytes_in, __ATOMIC_RELAXED);
            *any_r = true;
        }
    return n;
}

/* A source that sends nothing for migration-silence-s is lost, unless nobody waits for more (the image is here and being
 * checked). A source that holds sends a page now and then. */
static bool silent_locked(struct incoming *in, int64_t now, int64_t silence_ms, uint64_t *seen, int64_t *since)
{
    bool any;
    uint64_t n = received_locked(in, &any);

    if (!any || n != *seen || in->image_done || in->reading == NULL || !confirm_waits(in->reading)) {
        *seen = n;
        *since = now;
    }
    return now - *since >= silence_ms;
}

struct error *receive_wait_image(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *vm)
{
    int64_t silence_ms = config_int(m->xapi->config, "migration-silence-s") * 1000, since = clock_ms(c->clock);
    uint64_t seen = 0;
    bool silent = false;

    lock_take(&m->lock);
    while (!in->image_done && in->phase == PHASE_RESTORING && !m->stopping && !silent) {
        cond_wait_ms(&m->changed, &m->lock, LOOK_MS);
        silent = silent_locked(in, clock_ms(c->clock), silence_ms, &seen, &since);
        if (vm == NULL || in->image_done)
            continue;
        lock_drop(&m->lock);
        int ignored = handshake_send(vm, error_make(c->arena, __FILE__, __LINE__, HANDSHAKE_ALIVE, 0));
        if (ignored != 0)
            log_debug("migration %s: the source does not hear that this host is alive", in->id);
        lock_take(&m->lock);
    }
    struct error *e = NULL;
    if (in->image_done && in->phase == PHASE_RESTORING)
        e = error_dup(c->arena, in->image_error);
    else if (silent)
        e = err_internal(c->arena, "the source has sent nothing for %lld s", (long long)(silence_ms / 1000));
    else
        e = err_internal(c->arena, "migration %s was given up while its image was received", in->id);
    lock_drop(&m->lock);
    return e;
}
