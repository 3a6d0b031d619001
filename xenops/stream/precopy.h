/* Live saving: rounds of dirty pages until the rest fits the allowed downtime, then the last ones from
 * a suspended guest.
 *
 * A page is read only after its dirty bit was cleared (acquire), and the guest sets the bit after it
 * stored the page (release): what was torn or came later is sent in a later round, at the latest in
 * the last one, when the guest stands still.
 *
 * The bandwidth cap holds while the guest runs, not in the last round: that would only lengthen the
 * blackout.
 *
 * precopy_save returns with the guest suspended and everything sent, or with an error and the guest
 * running (resumed if it had been suspended). Cancellation is noticed between batches, also after the
 * suspension. Errors: TASK_CANCELLED, INTERNAL_ERROR, what the callbacks and the source return. */
#ifndef XENOPS_STREAM_PRECOPY_H
#define XENOPS_STREAM_PRECOPY_H

#include <stdatomic.h>

#include "rpc/base/bytes.h"
#include "xenops/backend.h"

/* The guest being saved. */
struct precopy_source {
    void *ctx;
    const uint8_t *memory; /* n_pages, mapped shared */
    uint64_t n_pages;
    int memory_fd;         /* its holes are never touched; -1: no holes */
    _Atomic uint64_t *dirty; /* one bit a page */
    bool stale_page;       /* fault: one page of the last round is left out */
    void (*track)(void *ctx, bool on); /* a live save begins, ends */
    struct error *(*suspend)(void *ctx, struct call *, const void **context_r, size_t *len_r);
    struct error *(*resume)(void *ctx, struct call *);
};

NODISCARD struct error *precopy_save(struct call *, const struct precopy_source *, const char *state, size_t state_len,
                                     struct byte_stream *, const struct save_policy *, const struct save_callbacks *,
                                     struct save_result *);

/* --- the decision after each round, apart for tests --- */
struct precopy_facts {
    unsigned rounds;          /* finished */
    uint64_t dirty, previous; /* pages now, and after the round before */
    unsigned stalled;         /* rounds in a row without progress; kept by precopy_decide */
    double throughput;        /* pages/s */
};
enum precopy_decision { PRECOPY_GO_ON, PRECOPY_FITS, PRECOPY_MAX_ROUNDS, PRECOPY_NO_PROGRESS };
enum precopy_decision precopy_decide(struct precopy_facts *, const struct save_policy *);

#endif
