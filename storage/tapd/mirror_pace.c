#include "storage/tapd/mirror_pace.h"

#include <math.h>
#include <string.h>

#define FADE_S 1.0
#define ENOUGH_S 0.005            /* of full load make a rate */
#define BURST_S 0.05              /* of the cap that may be saved up */
#define BURST_MIN (256 << 10)
#define PRIOR_S 0.02              /* so much room is believed to have been written to at the guest's full rate */
#define SURE_US 1000000           /* that long the guest must be too fast before it is told */
#define GOAL 0.8                  /* of the budget */

void pace_init(struct mirror_pace *p, int64_t size, int64_t now_us)
{
    memset(p, 0, sizeof(*p));
    p->size = size;
    p->now_us = p->tokens_us = p->send.since_us = p->prove.since_us = now_us;
}

static double burst(const struct mirror_pace *p)
{
    double b = (double)p->bandwidth * BURST_S;
    return b > BURST_MIN ? b : BURST_MIN;
}

void pace_limit(struct mirror_pace *p, int64_t bandwidth, int64_t now_us)
{
    p->bandwidth = bandwidth;
    p->tokens = 0;
    p->tokens_us = now_us;
}

int64_t pace_wait(struct mirror_pace *p, int64_t now_us)
{
    if (p->bandwidth <= 0)
        return 0;
    if (now_us > p->tokens_us) {
        p->tokens += (double)(now_us - p->tokens_us) * 1e-6 * (double)p->bandwidth;
        p->tokens = p->tokens < burst(p) ? p->tokens : burst(p);
        p->tokens_us = now_us;
    }
    return p->tokens > 0 ? 0 : (int64_t)(-p->tokens / (double)p->bandwidth * 1e6) + 1;
}

void pace_spend(struct mirror_pace *p, int64_t bytes)
{
    if (p->bandwidth > 0)
        p->tokens -= (double)bytes;
}

void pace_wrote(struct mirror_pace *p, int64_t bytes, int64_t fresh_bytes)
{
    p->wrote_now += bytes;
    p->fresh_now += fresh_bytes;
}

void pace_load(struct pace_lane *l, enum pace_load load, int64_t now_us)
{
    if (now_us > l->since_us) {
        double s = (double)(now_us - l->since_us) * 1e-6, keep = exp(-s / FADE_S);
        l->bytes[l->load] = l->bytes[l->load] * keep + (double)l->moved;
        l->seconds[l->load] = l->seconds[l->load] * keep + s;
        l->moved = 0;
        l->since_us = now_us;
    }
    l->load = load;
}

static double lane_rate(const struct pace_lane *l)
{
    enum pace_load of = l->seconds[PACE_FULL] >= ENOUGH_S ? PACE_FULL : PACE_PART;
    return l->seconds[of] > 0 ? l->bytes[of] / l->seconds[of] : 0;
}

static double link_rate(const struct mirror_pace *p)
{
    double rate = lane_rate(&p->send);
    return p->bandwidth > 0 && rate > (double)p->bandwidth ? (double)p->bandwidth : rate;
}

/* The guest's rate as the model means it. */
static double model_write_rate(const struct mirror_pace *p)
{
    double plain = p->span > 0 ? p->wrote / p->span : 0;
    return (p->fresh + plain * PRIOR_S) / (p->room + PRIOR_S);
}

void pace_tick(struct mirror_pace *p, int64_t now_us, int64_t dirty)
{
    double s = (double)(now_us - p->now_us) * 1e-6, keep = exp(-s / FADE_S);
    double clean_now = 1.0 - (double)dirty / (double)p->size, clean = (p->clean + clean_now) / 2;

    pace_load(&p->send, p->send.load, now_us);
    pace_load(&p->prove, p->prove.load, now_us);
    if (s <= 0)
        return;
    p->wrote = p->wrote * keep + (double)p->wrote_now;
    p->fresh = p->fresh * keep + (double)p->fresh_now;
    p->room = p->room * keep + (clean > 0 ? clean : 0) * s;
    p->span = p->span * keep + s;
    p->wrote_now = p->fresh_now = 0;
    p->clean = clean_now;
    p->now_us = now_us;
    if (link_rate(p) <= 0 || model_write_rate(p) < link_rate(p))
        p->diverging_us = 0;
    else if (p->diverging_us == 0)
        p->diverging_us = now_us;
}

int64_t pace_rate(const struct mirror_pace *p) { return (int64_t)link_rate(p); }
int64_t pace_write_rate(const struct mirror_pace *p) { return p->span > 0 ? (int64_t)(p->wrote / p->span) : 0; }

double pace_model(double size, double link, double write, double dirty, double goal, double *left_r)
{
    *left_r = 0;
    if (dirty <= goal)
        return 0;
    if (write < link * 1e-6)
        return (dirty - goal) / link;
    double settles = size * (1.0 - link / write);
    if (settles >= goal) {
        *left_r = settles;
        return -1;
    }
    return size / write * log((dirty - settles) / (goal - settles));
}

struct pace_forecast pace_forecast(const struct mirror_pace *p, int64_t dirty, int64_t unproven, int64_t budget_us)
{
    struct pace_forecast f = { 0, 0 };
    double link = link_rate(p), write = model_write_rate(p), prove = lane_rate(&p->prove), left;
    double budget = (double)budget_us * 1e-6 * GOAL;

    if (link <= 0)
        return f;
    double s = pace_model((double)p->size, link, write, (double)dirty, link * budget, &left);
    if (s < 0 && p->now_us - p->diverging_us >= SURE_US && p->diverging_us > 0)
        return (struct pace_forecast){ -1, (int64_t)left };
    if (s < 0) /* not sure yet: as if the guest stopped */
        s = (double)dirty / link;
    if (prove > write && unproven > dirty) { /* beside the copying, or after it */
        double t = pace_model((double)p->size, prove, write, (double)unproven, prove * budget, &left);
        s = t > s ? t : s;
    }
    f.eta_us = (int64_t)(s * 1e6);
    return f;
}

int64_t pace_pause(const struct mirror_pace *p, int64_t dirty, int64_t unproven)
{
    double link = lane_rate(&p->send), prove = lane_rate(&p->prove);

    if ((dirty > 0 && link <= 0) || (unproven > 0 && prove <= 0))
        return INT64_MAX;
    return (int64_t)(((dirty > 0 ? (double)dirty / link : 0) + (unproven > 0 ? (double)unproven / prove : 0)) * 1e6);
}
