/* How fast a mirror goes, how fast the guest runs away from it, and what comes of that.
 *
 * The model: a disk of S bytes of which Q are dirty, L bytes/s to the target, w bytes/s written by the guest all
 * over the disk. A write makes new dirt only where there was none, so
 *     dQ/dt = w (1 - Q/S) - L,   which ends at 0 when w < L, else stays at S (1 - L/w) for ever.
 * w is measured as the dirt that is really new, divided by the clean share of the disk at that time: for a guest
 * that writes in a small place it is smaller than what it writes, as it should be. Rates are of about the
 * last second. Times are arguments, in microseconds. Nothing here allocates or fails. */
#ifndef STORAGE_TAPD_MIRROR_PACE_H
#define STORAGE_TAPD_MIRROR_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* How busy the copier or the prover is: rates are those of FULL times, when only its own limits held it back
 * (a mirror with little to do is not a slow one); of PART times until there was a FULL one. */
enum pace_load { PACE_IDLE, PACE_PART, PACE_FULL, PACE_LOADS };
struct pace_lane {
    double bytes[PACE_LOADS], seconds[PACE_LOADS]; /* fading by 1/e in a second of that load */
    enum pace_load load;
    int64_t since_us, moved;                       /* not yet taken in */
};

struct mirror_pace {
    int64_t size;
    int64_t bandwidth;           /* cap, bytes/s; 0: none */
    double tokens;               /* may be negative after a large request */
    int64_t tokens_us;
    struct pace_lane send, prove;
    int64_t now_us;              /* of the last tick */
    double wrote, fresh, room, span; /* bytes by the guest, of them new dirt; clean share times seconds; seconds; all fading */
    int64_t wrote_now, fresh_now;    /* since the last tick */
    double clean;                /* share of the disk, at the last tick */
    int64_t diverging_us;        /* since when the guest is too fast; 0: it is not */
};

void pace_init(struct mirror_pace *, int64_t size, int64_t now_us);

/* --- the cap ------------------------------------------------------------------------------------- */
void pace_limit(struct mirror_pace *, int64_t bandwidth, int64_t now_us);
int64_t pace_wait(struct mirror_pace *, int64_t now_us); /* 0: send; else for how long not */
void pace_spend(struct mirror_pace *, int64_t bytes);

/* --- what happens ----------------------------------------------------------------------------------- */
void pace_load(struct pace_lane *, enum pace_load, int64_t now_us); /* from now on */
static inline void pace_moved(struct pace_lane *l, int64_t bytes) { l->moved += bytes; }
void pace_wrote(struct mirror_pace *, int64_t bytes, int64_t fresh_bytes);
void pace_tick(struct mirror_pace *, int64_t now_us, int64_t dirty); /* takes it in; dirty: bytes now */

/* --- what comes of it --------------------------------------------------------------------------------- */
int64_t pace_rate(const struct mirror_pace *);       /* bytes/s to the target; 0: not known */
int64_t pace_write_rate(const struct mirror_pace *); /* bytes/s by the guest */
struct pace_forecast { int64_t eta_us, left; };      /* -1: never, 'left' bytes stay; left 0 otherwise */
/* Until what is left fits the budget. */
struct pace_forecast pace_forecast(const struct mirror_pace *, int64_t dirty, int64_t unproven, int64_t budget_us);
/* How long the guest would have to wait if it were held now: (dirty + unproven) at the measured rates. */
int64_t pace_pause(const struct mirror_pace *, int64_t dirty, int64_t unproven); /* INT64_MAX: not known */

/* The model itself: seconds from Q dirty bytes to 'goal'; -1 when it never gets there, then *left_r. */
double pace_model(double size, double link, double write, double dirty, double goal, double *left_r);

#endif
