/* The two ends of a disk's move to another host: the source hands over, the target is cut off from outside. */
#include <poll.h>
#include <string.h>

#include "gen/errors.h"
#include "storage/sr_copy.h"

#define POLL_MIN_MS 2
#define POLL_MAX_MS 50
#define ASKED_MAX 20u
#define LOST_MS 60000 /* a tapd that does not come back is waited for that long */

static bool is(const struct value *status, const char *state) { return strcmp(value_get_string(status, "mirror", "none"), state) == 0; }

static struct error *cancelled(struct call *c) { return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0); }

static bool rest(struct call *c, unsigned ms)
{
    struct pollfd fd = { .fd = c->cancel != NULL ? cancel_fd(c->cancel) : -1, .events = POLLIN };

    (void)!poll(&fd, 1, (int)ms);
    return !call_cancelled(c);
}

/* Also while its tapd is being started again: then no status. */
static struct error *look(struct call *c, struct storage *s, const char *key, int64_t *lost_since_ms, struct value *status_r, bool *there_r)
{
    struct error *error = tap_call(c, s->taps, key, "status", NULL, -1, status_r);
    int64_t now = clock_ms(c->clock);

    *there_r = error == NULL;
    if (error == NULL || error_is(error, "TASK_CANCELLED") || !tap_exists(s->taps, key)) {
        *lost_since_ms = 0;
        return error;
    }
    if (*lost_since_ms == 0)
        *lost_since_ms = now;
    return now - *lost_since_ms > LOST_MS ? error : NULL;
}

static struct error *needs_tap(struct call *c, struct storage *s, const char *key)
{
    return s->taps != NULL && tap_exists(s->taps, key) ? NULL : storage_failed(c, "%s is not being mirrored", key);
}

struct error *vdi_mirror_hand_over(struct call *c, struct storage *s, const char *sr, const char *location)
{
    const char *key = vdi_key(c->arena, sr, location);
    int64_t lost_ms = 0;
    unsigned asked = 0;
    struct value status;
    bool there;

    TRY(needs_tap(c, s, key));
    for (unsigned ms = POLL_MIN_MS;; ms = ms * 2 < POLL_MAX_MS ? ms * 2 : POLL_MAX_MS) {
        TRY(look(c, s, key, &lost_ms, &status, &there));
        if (there && is(&status, "done") && value_get_int(&status, "mirror_handed", 0) != 0)
            return NULL;
        if (there && (is(&status, "failed") || is(&status, "none") || is(&status, "done") || is(&status, "switched")))
            return mirror_failure(c, key, &status);
        if (there && value_get_int(&status, "mirror_handing", 0) == 0 && value_get_int(&status, "serving", 0) != 0) {
            /* first, or after the tapd was started again */
            struct error *error = asked < ASKED_MAX ? tap_call(c, s->taps, key, "mirror-hand-over", NULL, -1, NULL) : mirror_failure(c, key, &status);

            if (error != NULL && (asked >= ASKED_MAX || error_is(error, "TASK_CANCELLED")))
                return error;
            asked++;
        }
        if (!rest(c, ms))
            return cancelled(c);
    }
}

struct error *vdi_mirror_ready(struct call *c, struct storage *s, const char *sr, const char *location, int64_t timeout_ms)
{
    const char *key = vdi_key(c->arena, sr, location);
    int64_t lost_ms = 0, until_ms = clock_ms(c->clock) + timeout_ms;
    struct value status;
    bool there;

    TRY(needs_tap(c, s, key));
    for (;;) {
        TRY(look(c, s, key, &lost_ms, &status, &there));
        if (there && is(&status, "following") && value_get_int(&status, "mirror_lost", 0) == 0)
            return NULL;
        if (there && is(&status, "done") && value_get_int(&status, "mirror_handed", 0) != 0)
            return NULL;
        if (there && !is(&status, "copying") && !is(&status, "following") && !is(&status, "switching"))
            return mirror_failure(c, key, &status);
        if (clock_ms(c->clock) >= until_ms)
            return storage_failed(c, "the mirror of %s is still %lld bytes behind", key, (long long)value_get_int(&status, "mirror_dirty", 0));
        if (!rest(c, POLL_MAX_MS))
            return cancelled(c);
    }
}

struct error *vdi_cut(struct call *c, struct storage *s, const char *sr, const char *location)
{
    const char *key = vdi_key(c->arena, sr, location);

    if (s->taps == NULL || !tap_exists(s->taps, key))
        return NULL;
    return tap_call(c, s->taps, key, "cut", NULL, -1, NULL);
}

bool vdi_is_served(struct storage *s, const char *sr, const char *location)
{
    AUTO_ARENA a = arena_new();

    return s->taps != NULL && tap_exists(s->taps, vdi_key(a, sr, location));
}
