#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "storage/tapd/mirror_private.h"

#define SURE 0.6                /* of the budget may be filled by what is known to be left */
#define AHEAD_US 2000000        /* a flush that old still makes the next one short */
#define PATIENT_ATTEMPTS 3u     /* after so many that did not keep to the budget it grows */
#define PATIENCE_US 5000000     /* also each time that long passed in vain: what cannot be kept must not keep the disk for ever */
#define DOUBLED_MAX 7u           /* by time */
#define DOUBLED_ATTEMPTS_MAX 10u

/* Why not: nothing. What is under way for one attempt:
 *   SWITCH_FLUSH_AHEAD  the guest runs; the target makes stable what it has, so that the flush in the pause is short
 *   SWITCH_REST         the guest is held; what it had in flight ends, the rest is copied and proven
 *   SWITCH_FLUSH        both sides are made stable; then commit
 * Until commit was called an attempt can be given up at any moment. */

static void deadline_fired(struct loop_timer *);

void mirror_switch_init(struct mirror *m) { m->switching.deadline.fired = deadline_fired; }

int64_t mirror_budget(const struct mirror *m)
{
    const struct mirror_switching *s = &m->switching;
    int64_t times = s->wanted_us > 0 ? (loop_now_us(m->block.loop) - s->wanted_us) / PATIENCE_US : 0;

    return m->options.budget_us << (times < (int64_t)DOUBLED_MAX ? times : (int64_t)DOUBLED_MAX);
}

static bool fits(const struct mirror *m)
{
    int64_t pause = pace_pause(&m->pace, mirror_map_dirty(m->map), mirror_map_unproven(m->map));
    return (double)pause <= (double)mirror_budget(m) * SURE;
}

void mirror_switch_give_up(struct mirror *m)
{
    struct mirror_switching *s = &m->switching;

    if (s->stage == SWITCH_NO)
        return;
    bool held = s->stage != SWITCH_FLUSH_AHEAD;
    s->stage = SWITCH_NO;
    loop_timer_clear(m->block.loop, &s->deadline);
    if (!held)
        return;
    s->attempts++;
    m->pause_us = mirror_now(m) - s->held_us;
    if (m->state == MIRROR_SWITCHING)
        mirror_set_state(m, MIRROR_FOLLOWING);
    mirror_guests_release(m);
}

/* The guest has waited as long as it may. */
static void deadline_fired(struct loop_timer *t)
{
    struct mirror *m = CONTAINER_OF(t, struct mirror, switching.deadline);

    mirror_switch_give_up(m);
    mirror_kick(m);
}

static void hold(struct mirror *m)
{
    struct mirror_switching *s = &m->switching;
    int64_t allowed = mirror_budget(m);

    for (unsigned i = PATIENT_ATTEMPTS; i < s->attempts && i < PATIENT_ATTEMPTS + DOUBLED_ATTEMPTS_MAX && allowed < m->options.budget_us << DOUBLED_ATTEMPTS_MAX; i++)
        allowed *= 2;
    s->stage = SWITCH_REST;
    s->held_us = mirror_now(m);
    mirror_guests_hold(m);
    mirror_set_state(m, MIRROR_SWITCHING);
    loop_timer_set(m->block.loop, &s->deadline, s->held_us + allowed);
    mirror_kick(m);
}

/* --- over ---------------------------------------------------------------------------------------------------- */

static void go_over(struct mirror *m)
{
    struct mirror_switching *s = &m->switching;
    int rc = fault_hit("mirror.commit") ? -EIO : s->commit(s->ctx);

    if (rc != 0) {
        s->wanted = false;
        mirror_switch_give_up(m);
        snprintf(m->error, sizeof(m->error), "the switch could not be made durable: %s", strerror(-rc));
        m->changed(m->changed_ctx);
        return;
    }
    loop_timer_clear(m->block.loop, &s->deadline);
    s->stage = SWITCH_NO;
    mirror_map_forget(m->map);
    m->block.below = m->target;
    m->block.thin = m->target->thin;
    m->error[0] = '\0';
    mirror_set_state(m, MIRROR_SWITCHED);
    m->pause_us = mirror_now(m) - s->held_us;
    mirror_guests_release(m);
}

static void flushed(struct mirror *m)
{
    struct mirror_switching *s = &m->switching;

    if (s->stage != SWITCH_FLUSH || !s->target_flushed || !s->source_flushed)
        return;
    if (mirror_is_clean(m) && m->guests.in_flight == 0)
        go_over(m);
    else
        s->stage = SWITCH_REST;
}

static void target_flushed(struct mirror *m, int result)
{
    m->switching.target_flushed = result == 0;
    flushed(m); /* an error has ended the attempt already */
}

static void source_flushed(struct block_request *r)
{
    struct mirror *m = r->owner;
    struct mirror_switching *s = &m->switching;

    s->source_flushing = false;
    s->source_flushed = r->result == 0;
    if (r->result < 0)
        mirror_fail(m, "flushing the source: %s", strerror(-r->result));
    flushed(m);
    mirror_job_done(m);
}

static void flush_both(struct mirror *m)
{
    struct mirror_switching *s = &m->switching;

    if (m->flushing || s->source_flushing) /* of an attempt before: it comes back here */
        return;
    s->stage = SWITCH_FLUSH;
    s->target_flushed = s->source_flushed = false;
    s->source_flushing = true;
    m->jobs++;
    s->source_flush = (struct block_request){ .op = BLOCK_FLUSH, .done = source_flushed, .owner = m };
    mirror_target_flush(m, target_flushed);
    block_submit(m->source, &s->source_flush);
}

/* --- when ------------------------------------------------------------------------------------------------------ */

static void flushed_ahead(struct mirror *m, int result)
{
    struct mirror_switching *s = &m->switching;

    if (s->stage == SWITCH_FLUSH_AHEAD)
        s->stage = SWITCH_NO;
    s->flushed_us = result == 0 ? mirror_now(m) : 0;
    mirror_kick(m);
}

void mirror_switch_step(struct mirror *m)
{
    struct mirror_switching *s = &m->switching;

    if (!s->wanted || !mirror_runs(m))
        return;
    if (s->wanted_us == 0 && m->state == MIRROR_FOLLOWING)
        s->wanted_us = loop_now_us(m->block.loop);
    if (s->stage == SWITCH_REST && m->guests.in_flight == 0 && mirror_is_clean(m)) {
        flush_both(m);
        return;
    }
    if (s->stage != SWITCH_NO || m->state != MIRROR_FOLLOWING || m->flushing || !fits(m))
        return;
    if (s->flushed_us > 0 && mirror_now(m) - s->flushed_us < AHEAD_US) {
        hold(m);
        return;
    }
    s->stage = SWITCH_FLUSH_AHEAD;
    mirror_target_flush(m, flushed_ahead);
}

void mirror_switch(struct block *b, int (*commit)(void *ctx), void *ctx)
{
    struct mirror *m = CONTAINER_OF(b, struct mirror, block);
    struct mirror_switching *s = &m->switching;

    if (!s->wanted)
        s->attempts = s->wanted_us = 0;
    s->wanted = m->options.mode == MIRROR_FOLLOW || m->options.mode == MIRROR_MERGE;
    s->commit = commit;
    s->ctx = ctx;
    mirror_kick(m);
}
