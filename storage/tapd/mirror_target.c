#include "storage/tapd/mirror_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "storage/tapd/mirror_private.h"

#define RETRY_US 200000

const struct mirror_remote mirror_remote_nbd = { nbd_is_lost, nbd_watch, nbd_reconnect, nbd_can_hash, nbd_hash };

static void retry_fired(struct loop_timer *);
static void lost(struct mirror *, const char *what, int result);
static void flush_done(struct block_request *);

/* The remote noticed by itself: nothing of ours need be in flight. */
static void noticed(void *ctx, int reason) { mirror_target_error(ctx, "watching", reason); }

void mirror_target_init(struct mirror *m)
{
    m->retry.fired = retry_fired;
    m->heard_us = loop_now_us(m->block.loop);
    if (m->remote == NULL)
        return;
    m->remote->watch(m->target, m->options.silence_us, noticed, m);
    if (m->remote->is_lost(m->target))
        lost(m, "starting", -ENOTCONN);
}

void mirror_target_sent(struct mirror *m)
{
    if (m->target_in_flight++ == 0)
        m->heard_us = loop_now_us(m->block.loop);
}

void mirror_target_heard(struct mirror *m, int result)
{
    m->target_in_flight--;
    if (result != -ETIMEDOUT) /* that is how silence ends */
        m->heard_us = loop_now_us(m->block.loop);
}

/* Over, it is the guest's disk: connected again also while the layer is being left. */
static bool in_use(const struct mirror *m) { return mirror_over(m) || mirror_runs(m); }
static bool still_wanted(const struct mirror *m) { return m->lost && (mirror_over(m) || !m->stopping); }

/* --- connecting again ----------------------------------------------------------------------------------- */

static void reconnected(void *ctx, int result)
{
    struct mirror *m = ctx;

    m->reconnecting = false;
    if (!still_wanted(m))
        return;
    if (result == 0) {
        m->lost = false;
        m->error[0] = '\0';
        m->heard_us = loop_now_us(m->block.loop);
        if (mirror_over(m))
            mirror_guests_release(m);
        else
            mirror_map_target_lost(m->map); /* nobody knows what the far side went through */
        m->changed(m->changed_ctx);
        mirror_kick(m);
        return;
    }
    if (!mirror_over(m) && (result == -ESTALE || mirror_now(m) - m->lost_at_us >= m->options.reconnect_us))
        mirror_fail(m, "the target was lost and could not be reached again: %s", strerror(-result));
    else
        loop_timer_set(m->block.loop, &m->retry, mirror_now(m) + RETRY_US);
}

static void reconnect(struct mirror *m)
{
    m->reconnecting = true;
    m->remote->reconnect(m->target, reconnected, m);
}

static void retry_fired(struct loop_timer *t)
{
    struct mirror *m = CONTAINER_OF(t, struct mirror, retry);

    if (still_wanted(m) && !m->reconnecting)
        reconnect(m);
}

static void lost(struct mirror *m, const char *what, int result)
{
    int64_t now = mirror_now(m);

    m->lost = true;
    m->lost_at_us = now;
    m->lost_us = result == -ETIMEDOUT ? now - m->heard_us : now - loop_now_us(m->block.loop);
    if (mirror_over(m))
        mirror_guests_hold(m);
    else
        mirror_switch_give_up(m);
    snprintf(m->error, sizeof(m->error), "the target is lost (%s: %s); connecting again", what, strerror(-result));
    m->changed(m->changed_ctx);
    /* not from here: what else was in flight is still being given back */
    loop_timer_set(m->block.loop, &m->retry, loop_now_us(m->block.loop) + 1);
}

void mirror_target_error(struct mirror *m, const char *what, int result)
{
    if (m->lost || !in_use(m))
        return;
    /* in mode point writes of the guest may be waiting for the target: it has no time for that */
    if (m->remote != NULL && m->remote->is_lost(m->target) && m->options.mode != MIRROR_POINT) {
        lost(m, what, result);
        return;
    }
    if (mirror_over(m)) /* the guest gets its error */
        return;
    m->lost_us = mirror_now(m) - loop_now_us(m->block.loop);
    mirror_fail(m, "%s the target: %s", what, strerror(-result));
}

void mirror_target_tick(struct mirror *m)
{
    int64_t silent = mirror_now(m) - m->heard_us;

    /* a remote watches by itself, byte by byte */
    if (m->remote != NULL || m->target_in_flight == 0 || !mirror_runs(m) || silent < m->options.silence_us)
        return;
    m->lost_us = silent;
    mirror_fail(m, "the target has been silent for %lld ms", (long long)(silent / 1000));
}

void mirror_target_stop(struct mirror *m)
{
    loop_timer_clear(m->block.loop, &m->retry);
    if (m->remote != NULL)
        m->remote->watch(m->target, 0, NULL, NULL);
}

/* --- making stable ------------------------------------------------------------------------------------------ */

void mirror_target_flush(struct mirror *m, void (*done)(struct mirror *, int result))
{
    m->flushing = true;
    m->flushed = done;
    m->jobs++;
    mirror_map_flush_begin(m->map);
    m->flush = (struct block_request){ .op = BLOCK_FLUSH, .flags = BLOCK_COPIER, .done = flush_done, .owner = m };
    mirror_target_sent(m);
    block_submit(m->target, &m->flush);
}

static void flush_done(struct block_request *r)
{
    struct mirror *m = r->owner;
    int result = fault_hit("mirror.flush") ? -EIO : r->result;

    m->flushing = false;
    mirror_target_heard(m, r->result);
    mirror_map_flush_end(m->map, result == 0);
    if (result == 0)
        m->stable_us = loop_now_us(m->block.loop);
    else
        mirror_target_error(m, "flushing", result);
    m->flushed(m, result);
    mirror_job_done(m);
}
