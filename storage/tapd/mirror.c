#include "storage/tapd/mirror.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/memory.h"
#include "storage/tapd/mirror_private.h"

#define BUDGET_US 10000
#define SILENCE_US 2000000
#define RECONNECT_US 30000000
#define TICK_US 50000
#define UNFIT_US 500000          /* that long it must not fit any more before 'following' is 'copying' again */
#define STABLE_US 10000000       /* so often a remote target makes stable what it has */
#define PROOF_SHARE 0.25         /* of the copying's share in the progress */

static void pump(struct loop_idle *);
static void tick(struct loop_timer *);
static const struct block_ops mirror_ops;

bool mirror_is(const struct block *b) { return b->ops == &mirror_ops; }
static struct mirror *of(const struct block *b)
{
    CHECK(mirror_is(b));
    return CONTAINER_OF(b, struct mirror, block);
}

/* --- small questions ----------------------------------------------------------------------------------- */

static bool active(const struct mirror *m) { return m->state == MIRROR_COPYING || m->state == MIRROR_FOLLOWING || m->state == MIRROR_SWITCHING; }
bool mirror_runs(const struct mirror *m) { return active(m) && !m->lost && !m->stopping; }
bool mirror_over(const struct mirror *m) { return m->state == MIRROR_SWITCHED; }
int64_t mirror_now(const struct mirror *m) { return clock_us(loop_clock(m->block.loop)); }
static bool ends_by_itself(const struct mirror *m)
{
    return m->options.mode == MIRROR_COPY || m->options.mode == MIRROR_POINT || m->handing.wanted;
}

bool mirror_is_clean(const struct mirror *m)
{
    return !m->scanning && m->copier.active == 0 && m->prover.active == 0 && mirror_map_dirty(m->map) == 0 && mirror_map_unproven(m->map) == 0;
}

/* --- states ------------------------------------------------------------------------------------------------ */

void mirror_kick(struct mirror *m) { loop_later(m->block.loop, &m->pump_later); }

void mirror_set_state(struct mirror *m, enum mirror_state state)
{
    if (m->state == state)
        return;
    m->state = state;
    m->changed(m->changed_ctx);
}

static void __attribute__((format(printf, 2, 0))) set_error(struct mirror *m, const char *fmt, va_list args)
{
    vsnprintf(m->error, sizeof(m->error), fmt, args);
}

void mirror_fail(struct mirror *m, const char *fmt, ...)
{
    va_list args;

    if (!active(m) || m->stopping)
        return;
    va_start(args, fmt);
    set_error(m, fmt, args);
    va_end(args);
    /* from now on the guest's writes are not followed: nobody may ever resume from this map */
    mirror_map_spoil(m->map);
    m->state = MIRROR_FAILED;
    mirror_switch_give_up(m);
    m->lost = false;
    loop_timer_clear(m->block.loop, &m->retry);
    mirror_guests_release(m);
    m->changed(m->changed_ctx);
}

static bool handed_over(struct mirror *m)
{
    int rc = fault_hit("mirror.commit") ? -EIO : m->handing.commit(m->handing.ctx);

    m->pause_us = mirror_now(m) - m->handing.since_us;
    if (rc == 0)
        return true;
    mirror_hand_back(&m->block);
    snprintf(m->error, sizeof(m->error), "the hand-over could not be made durable: %s", strerror(-rc));
    m->changed(m->changed_ctx);
    return false;
}

static void finished(struct mirror *m, int result)
{
    m->finishing = false;
    if (result != 0 || !ends_by_itself(m) || !mirror_runs(m) || !mirror_is_clean(m))
        return;
    if (!m->handing.wanted || handed_over(m))
        mirror_set_state(m, MIRROR_DONE);
}

static bool fits(const struct mirror *m, unsigned times)
{
    if (m->scanning)
        return false;
    int64_t pause = pace_pause(&m->pace, mirror_map_dirty(m->map), mirror_map_unproven(m->map));
    return pause / times <= mirror_budget(m);
}

static void step_state(struct mirror *m)
{
    if (!mirror_runs(m))
        return;
    if (ends_by_itself(m)) {
        if (mirror_is_clean(m) && !m->flushing && !m->finishing) {
            m->finishing = true;
            mirror_target_flush(m, finished);
        }
        return;
    }
    if (m->state == MIRROR_COPYING && fits(m, 1)) {
        m->unfit_since_us = 0;
        mirror_set_state(m, MIRROR_FOLLOWING);
    } else if (m->state == MIRROR_FOLLOWING) {
        int64_t now = loop_now_us(m->block.loop);
        if (fits(m, 3) || m->switching.stage != SWITCH_NO)
            m->unfit_since_us = 0;
        else if (m->unfit_since_us == 0)
            m->unfit_since_us = now;
        else if (now - m->unfit_since_us > UNFIT_US)
            mirror_set_state(m, MIRROR_COPYING);
    }
}

static void end_if_quiet(struct mirror *m)
{
    if (!m->stopping || m->jobs > 0 || m->ended == NULL)
        return;
    void (*ended)(void *) = m->ended;
    m->ended = NULL;
    ended(m->ended_ctx);
}

void mirror_job_done(struct mirror *m)
{
    m->jobs--;
    mirror_kick(m);
}

/* Everyone's turn; whoever starts something that ends at once only asks for another one. */
static void pump(struct loop_idle *i)
{
    struct mirror *m = CONTAINER_OF(i, struct mirror, pump_later);

    if (m->stopping) {
        end_if_quiet(m);
        return;
    }
    if (m->guests.waiting.first != NULL)
        mirror_guests_retry_waiting(m);
    if (mirror_runs(m) && m->scanning)
        mirror_scan(m);
    if (mirror_runs(m))
        mirror_copier_pump(m);
    if (mirror_runs(m))
        prover_pump(m);
    if (mirror_runs(m) && mirror_is_clean(m))
        step_state(m);
    mirror_switch_step(m);
}

static void nothing(struct mirror *m, int result) {}

/* --- the tick: measuring, deciding, looking for silence -------------------------------------------------------- */

static void measure(struct mirror *m)
{
    int64_t dirty = mirror_map_dirty(m->map), unproven = mirror_map_unproven(m->map), size = m->block.size;
    double share = m->options.proof ? PROOF_SHARE : 0;

    pace_tick(&m->pace, loop_now_us(m->block.loop), dirty);
    m->forecast = pace_forecast(&m->pace, dirty, unproven, ends_by_itself(m) ? 0 : mirror_budget(m));
    if (size - dirty > m->copied_most)
        m->copied_most = size - dirty;
    double fraction = ((double)(size - dirty) + (double)(size - unproven) * share) / ((double)size * (1 + share));
    if (fraction > m->fraction_most)
        m->fraction_most = fraction;
}

static void tick(struct loop_timer *t)
{
    struct mirror *m = CONTAINER_OF(t, struct mirror, tick);

    if (!active(m) || m->stopping)
        return;
    loop_timer_set(m->block.loop, t, loop_now_us(m->block.loop) + TICK_US);
    if (m->lost)
        return;
    measure(m);
    mirror_target_tick(m);
    if (m->remote != NULL && mirror_runs(m) && !m->flushing && m->switching.stage == SWITCH_NO && mirror_map_unflushed(m->map) > 0 &&
        loop_now_us(m->block.loop) - m->stable_us > STABLE_US)
        mirror_target_flush(m, nothing);
    step_state(m);
    mirror_kick(m);
}

/* --- status ---------------------------------------------------------------------------------------------------- */

void mirror_get(const struct block *b, struct mirror_status *s)
{
    const struct mirror *m = of(b);
    bool over = m->state == MIRROR_SWITCHED || m->state == MIRROR_DONE;

    *s = (struct mirror_status){ .state = m->state, .total = b->size, .error = "" };
    snprintf(s->error, sizeof(s->error), "%s", m->error);
    if (m->map == NULL)
        return;
    s->dirty = mirror_map_dirty(m->map);
    s->unproven = mirror_map_unproven(m->map);
    s->proven = m->options.proof ? s->total - s->unproven : 0;
    s->copied = over ? s->total : m->copied_most;
    s->sent = m->sent;
    s->rate = pace_rate(&m->pace);
    s->write_rate = pace_write_rate(&m->pace);
    s->eta_us = over ? 0 : m->forecast.eta_us;
    s->left = over ? 0 : m->forecast.left;
    s->passes = m->copier.passes;
    s->repaired = m->prover.repaired;
    s->pause_us = m->pause_us;
    s->lost_us = m->lost_us;
    s->lost = m->lost && active(m);
    s->fraction = over ? 1 : m->fraction_most < 0.999 ? m->fraction_most : 0.999;
}

void mirror_set(struct block *b, int64_t bandwidth, int64_t budget_us)
{
    struct mirror *m = of(b);

    if (bandwidth >= 0) {
        m->options.bandwidth = bandwidth;
        pace_limit(&m->pace, m->handing.wanted ? 0 : bandwidth, loop_now_us(b->loop));
        loop_timer_clear(b->loop, &m->copier.cap);
    }
    if (budget_us >= 0)
        m->options.budget_us = budget_us > 0 ? budget_us : BUDGET_US;
    mirror_kick(m);
}

/* --- handing over -------------------------------------------------------------------------------------------------- */

void mirror_hand_over(struct block *b, int (*commit)(void *ctx), void *ctx)
{
    struct mirror *m = of(b);

    CHECK(m->options.mode == MIRROR_FOLLOW && m->guests.in_flight == 0);
    mirror_switch_give_up(m);
    m->switching.wanted = false;
    m->handing = (struct mirror_handing){ .wanted = true, .since_us = mirror_now(m), .commit = commit, .ctx = ctx };
    m->error[0] = '\0';
    pace_limit(&m->pace, 0, loop_now_us(b->loop));
    loop_timer_clear(b->loop, &m->copier.cap);
    mirror_kick(m);
}

void mirror_hand_back(struct block *b)
{
    struct mirror *m = of(b);

    if (!m->handing.wanted || m->state == MIRROR_DONE)
        return;
    m->handing.wanted = false;
    pace_limit(&m->pace, m->options.bandwidth, loop_now_us(b->loop));
    mirror_kick(m);
}

bool mirror_hands_over(const struct block *b) { return of(b)->handing.wanted && active(of(b)); }

/* --- beginning and end --------------------------------------------------------------------------------------------- */

static const char *mode_name(enum mirror_mode mode)
{
    static const char *const names[] = { [MIRROR_FOLLOW] = "mirror", [MIRROR_COPY] = "copy", [MIRROR_POINT] = "point", [MIRROR_MERGE] = "merge" };
    return names[mode];
}

/* Opens the map and decides what a hole of the source is worth. */
static void begin(struct mirror *m, struct arena *arena)
{
    const struct mirror_options *o = &m->options;
    const char *identity = arena_printf(arena, "%s\n%s\n%s", mode_name(o->mode), o->source != NULL ? o->source : "", o->target != NULL ? o->target : "");
    struct mirror_map_spec spec = { .path = o->map_path, .size = m->block.size, .identity = identity,
                                    .proof = o->proof, .once = o->mode == MIRROR_POINT };
    enum mirror_map_found found = MIRROR_MAP_FRESH;

    m->state = MIRROR_FAILED;
    int rc = mirror_map_open(&spec, &m->map, &found);
    if (rc < 0) {
        snprintf(m->error, sizeof(m->error), "the map %s: %s", o->map_path != NULL ? o->map_path : "", strerror(-rc));
        return;
    }
    if (m->target->size < m->block.size) {
        snprintf(m->error, sizeof(m->error), "the target has %lld bytes, the disk %lld", (long long)m->target->size, (long long)m->block.size);
    } else if (m->target->read_only) {
        snprintf(m->error, sizeof(m->error), "the target cannot be written");
    } else if (found == MIRROR_MAP_DOUBTFUL && o->mode == MIRROR_POINT) {
        snprintf(m->error, sizeof(m->error), "the map of what was copied is lost, and the moment to copy is over");
    } else {
        m->state = MIRROR_COPYING;
    }
    if (m->state == MIRROR_FAILED) {
        mirror_map_forget(m->map);
        return;
    }
    if (found == MIRROR_MAP_DOUBTFUL && o->mode != MIRROR_MERGE)
        mirror_map_set_scanned(m->map, m->block.size); /* nobody knows what the target holds: zeros are sent too */
    m->scanning = mirror_map_scanned(m->map) < m->block.size;
}

struct block *mirror_layer(struct arena *arena, struct block *below, struct block *target, const struct mirror_options *options,
                           void (*changed)(void *), void *ctx)
{
    struct mirror *m = xcalloc(1, sizeof(*m));
    struct mirror_options *o = &m->options;

    *o = *options;
    o->budget_us = o->budget_us > 0 ? o->budget_us : BUDGET_US;
    o->silence_us = o->silence_us > 0 ? o->silence_us : SILENCE_US;
    o->reconnect_us = o->reconnect_us > 0 ? o->reconnect_us : RECONNECT_US;
    m->block = (struct block){ .ops = &mirror_ops, .below = below, .loop = below->loop, .size = below->size, .read_only = below->read_only, .thin = below->thin };
    m->source = below;
    m->target = target;
    m->remote = o->remote != NULL ? o->remote : nbd_is(target) ? &mirror_remote_nbd : NULL;
    m->changed = changed;
    m->changed_ctx = ctx;
    m->pump_later.run = pump;
    m->tick.fired = tick;
    m->stable_us = loop_now_us(below->loop);
    mirror_guests_init(m);
    begin(m, arena);
    o->map_path = o->source = o->target = NULL; /* the caller's strings */
    if (m->state == MIRROR_FAILED)
        return &m->block;
    pace_init(&m->pace, m->block.size, mirror_now(m)); /* opening may have taken a while since the turn began */
    pace_limit(&m->pace, o->bandwidth, mirror_now(m));
    mirror_copier_init(m);
    prover_init(m);
    mirror_target_init(m);
    mirror_switch_init(m);
    loop_timer_set(below->loop, &m->tick, loop_now_us(below->loop) + TICK_US);
    mirror_kick(m);
    return &m->block;
}

void mirror_stop(struct block *b, void (*ended)(void *), void *ctx)
{
    struct mirror *m = of(b);

    mirror_switch_give_up(m);
    m->stopping = true;
    m->ended = ended;
    m->ended_ctx = ctx;
    loop_timer_clear(b->loop, &m->tick);
    loop_timer_clear(b->loop, &m->copier.cap);
    if (!mirror_over(m)) {
        m->lost = false;
        mirror_target_stop(m);
    }
    if (m->map != NULL)
        mirror_map_forget(m->map);
    if (!m->lost)
        mirror_guests_release(m);
    mirror_kick(m);
}

struct block *mirror_take(struct block *b)
{
    struct mirror *m = of(b);
    struct block *stays = b->below, *goes = stays == m->target ? m->source : m->target;

    CHECK(m->stopping && m->jobs == 0 && m->guests.in_flight == 0);
    mirror_target_stop(m);
    block_close(goes); /* it is over with it: an error has nobody to tell */
    m->source = m->target = b->below = NULL;
    return stays;
}

/* --- the block --------------------------------------------------------------------------------------------------------- */

static int mirror_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return block_extents(b->below, offset, length, own_only, fn, ctx);
}

static int mirror_resized(struct block *b, int64_t size)
{
    struct mirror *m = of(b);

    if (active(m) && !m->stopping)
        return -EBUSY; /* the target would have to grow too */
    int rc = block_resized(b->below, size);
    if (rc == 0)
        b->size = b->below->size;
    return rc;
}

/* Not stopped: a tapd that ends in mid-mirror. Its map stays, unless there is nothing to resume. */
static void let_end(struct mirror *m)
{
    m->stopping = true;
    loop_timer_clear(m->block.loop, &m->tick);
    mirror_target_stop(m);
    while (m->jobs > 0)
        loop_turn(m->block.loop, -1);
}

static int mirror_close(struct block *b)
{
    struct mirror *m = of(b);
    int rc = 0, rc2;

    if (!m->stopping && m->target != NULL)
        let_end(m);
    CHECK(m->jobs == 0 && m->guests.in_flight == 0);
    loop_not_later(b->loop, &m->pump_later);
    loop_timer_clear(b->loop, &m->switching.deadline);
    loop_timer_clear(b->loop, &m->retry);
    if (m->source != NULL)
        rc = block_close(m->source);
    if (m->target != NULL && (rc2 = block_close(m->target)) < 0 && rc == 0)
        rc = rc2;
    mirror_map_close(m->map, false);
    mirror_copier_release(m);
    prover_release(m);
    xfree(m);
    return rc;
}

static const struct block_ops mirror_ops = {
    .name = "mirror", .submit = mirror_guest_submit, .extents = mirror_extents, .close = mirror_close, .resized = mirror_resized,
};
