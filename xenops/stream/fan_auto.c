#include "xenops/stream/fan_auto.h"

#define WINDOW_US 1000000
#define FIRST_WINDOW_US 200000
#define SAMPLE_US 250000
#define LOCKED_US 5000000
#define PROMISE 1.08      /* predicted gain worth a try */
#define RATIO_MAX 0.9
#define FRESH_US 5000000  /* how old the plain rate may become while everything is packed */
#define BUSY_PACKING 0.7  /* of the time: then the link waits for the compressor, and may be faster than known */

void fan_auto_init(struct fan_auto *a, unsigned lanes) { *a = (struct fan_auto){ .lanes = lanes, .ratio = 1 }; }

bool fan_auto_wants_sample(const struct fan_auto *a, int64_t now_us)
{
    return !a->packing && (a->sampled_us == 0 || now_us - a->sampled_us >= SAMPLE_US);
}

void fan_auto_sample(struct fan_auto *a, int64_t now_us, uint64_t plain, uint64_t packed, int64_t took_us)
{
    double ratio = (double)packed / (double)plain, rate = took_us > 0 ? (double)plain * 1e6 / (double)took_us : 0;
    bool first = a->sampled_us == 0;

    a->ratio = first ? ratio : 0.7 * a->ratio + 0.3 * ratio;
    a->pack_rate = first ? rate : 0.7 * a->pack_rate + 0.3 * rate;
    a->sampled_us = now_us;
}

static void decide_plain(struct fan_auto *a, int64_t now_us)
{
    double by_cpu = a->pack_rate * a->lanes, by_link = a->ratio > 0 ? a->plain_rate / a->ratio : 0;
    double promised = by_cpu < by_link ? by_cpu : by_link;

    a->plain_at_us = now_us;
    if (now_us >= a->locked_until_us && a->ratio < RATIO_MAX && promised > a->plain_rate * PROMISE)
        a->packing = true;
}

static void decide_packed(struct fan_auto *a, int64_t now_us)
{
    bool worse = a->packed_rate < a->plain_rate;
    bool unsure = now_us - a->plain_at_us > FRESH_US && (double)a->pack_us > BUSY_PACKING * (double)a->busy_us;

    if (!worse && !unsure)
        return;
    a->packing = false;
    if (worse)
        a->locked_until_us = now_us + LOCKED_US;
}

void fan_auto_moved(struct fan_auto *a, int64_t now_us, uint64_t plain, int64_t took_us, int64_t pack_us)
{
    int64_t length = !a->packing && a->plain_at_us == 0 ? FIRST_WINDOW_US : WINDOW_US;

    a->window_bytes += plain;
    a->busy_us += took_us;
    a->pack_us += pack_us;
    if (a->window_us == 0)
        a->window_us = now_us - took_us;
    if (now_us - a->window_us < length || a->busy_us <= 0)
        return;
    double rate = (double)a->window_bytes * 1e6 / (double)a->busy_us;
    if (a->packing) {
        a->packed_rate = rate;
        decide_packed(a, now_us);
    } else {
        a->plain_rate = rate;
        decide_plain(a, now_us);
    }
    a->window_us = now_us;
    a->window_bytes = 0;
    a->busy_us = a->pack_us = 0;
}
