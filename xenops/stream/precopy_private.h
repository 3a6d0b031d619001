/* One live save, as precopy*.c share it. */
#ifndef XENOPS_STREAM_PRECOPY_PRIVATE_H
#define XENOPS_STREAM_PRECOPY_PRIVATE_H

#include "xenops/stream/output.h"
#include "xenops/stream/precopy.h"
#include "xenops/stream/precopy_decide.h"

struct saver {
    struct call *c;
    const struct precopy_source *source;
    const struct save_policy *policy;
    const struct save_callbacks *callbacks;
    struct stream_output out;
    uint64_t *sent;       /* one bit a page: it went out, or was said to be empty */
    uint64_t n_words;
    bool capped;          /* the bandwidth limit holds: not in the last round */
    uint64_t stale;       /* fault: this page is left out; UINT64_MAX: none */
    int64_t started_us, paced_us; /* paced: when the bytes so far may have been sent */
    uint64_t paced_bytes;
    int64_t reported_ms;
    struct save_progress progress;
    uint64_t round_pages; /* to send in this round */
    uint64_t round_done;
    uint64_t data_until;  /* where the run of data that was found last ends */
    bool confirmed;       /* the peer tells what it has read */
    enum precopy_decision leave; /* not GO_ON: the round was left for this */
    int64_t burst_us, busy_us;   /* of the round: when the burst began, time in which the link was at work */
    uint64_t burst_bytes, busy_bytes;
    struct precopy_facts facts;
    struct precopy_history history;
};

static inline int64_t saver_now_us(const struct saver *s) { return clock_us(s->c->clock); }
static inline struct save_control *saver_control(const struct saver *s) { return s->policy->control; }
int64_t saver_bandwidth(const struct saver *); /* bytes/s as it is now; 0: unlimited, and in the last round */

/* precopy_pace.c: progress, the cap, what the peer has read, what somebody wants */
void saver_report(struct saver *, bool now);
NODISCARD struct error *saver_flush(struct saver *); /* the batch, and all of the above; may set 'leave' */
NODISCARD struct error *saver_settle(struct saver *); /* until the peer has read it; nothing where it does not tell */
NODISCARD struct error *saver_look(struct saver *);   /* cancelled, yielded, out of time, told to finish */
NODISCARD struct error *saver_pause(struct saver *, int64_t ms); /* less when something happens */

/* precopy_pages.c */
NODISCARD struct error *saver_send_all(struct saver *);
NODISCARD struct error *saver_send_dirty(struct saver *);
NODISCARD struct error *saver_send_again(struct saver *, uint64_t page); /* for a sign of life */
uint64_t saver_count_dirty(const struct saver *);
NODISCARD struct error *saver_last_pages(struct saver *, bool live);

#endif
