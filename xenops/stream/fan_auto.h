/* Whether compressing pays, by measurement. Belongs to the thread of a fan_out.
 *
 * While pages go plain, now and then a sample of them is compressed and thrown away: that gives what is left of them and how
 * fast one core does it. With the rate at which the link takes plain bytes that predicts the compressed rate. Where it
 * promises more, the next second goes compressed and is measured too; whichever was really faster goes on. */
#ifndef XENOPS_STREAM_FAN_AUTO_H
#define XENOPS_STREAM_FAN_AUTO_H

#include <stdbool.h>
#include <stdint.h>

struct fan_auto {
    unsigned lanes;                  /* that compress at once */
    bool packing;
    double ratio, pack_rate;         /* of the samples: packed / plain, bytes/s */
    double plain_rate, packed_rate;  /* measured, plain bytes/s; 0: not yet */
    int64_t sampled_us, plain_at_us, locked_until_us;
    int64_t window_us, busy_us, pack_us; /* of the window: length, time in writes, part of it compressing */
    uint64_t window_bytes;
};

void fan_auto_init(struct fan_auto *, unsigned lanes);
bool fan_auto_wants_sample(const struct fan_auto *, int64_t now_us);
void fan_auto_sample(struct fan_auto *, int64_t now_us, uint64_t plain, uint64_t packed, int64_t took_us);
/* Plain bytes went out, packed or not as fan_auto.packing says; the call took so long, pack_us of it in compressing. */
void fan_auto_moved(struct fan_auto *, int64_t now_us, uint64_t plain, int64_t took_us, int64_t pack_us);

#endif
