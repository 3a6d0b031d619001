/* Live saving: rounds of dirty pages until the rest fits the allowed downtime, then the last ones from
 * a suspended guest.
 *
 * A page is read only after its dirty bit was cleared (acquire), and the guest sets the bit after it
 * stored the page (release): what was torn or came later is sent in a later round, at the latest in
 * the last one, when the guest stands still.
 *
 * A round ends when the peer has read it (confirm.h), where the stream tells that: the sockets' buffers are no link. The
 * bandwidth cap holds while the guest runs, not in the last round: that would only lengthen the blackout.
 *
 * When to stop (precopy_decide): the pages left at the measured rate, and what the switch costs beside them (precopy_fixed),
 * within max_downtime. Goals that cannot be kept go down a ladder: post-copy where it is allowed, slowing the guest down step
 * by step, stopping it anyway where that is allowed or nothing was declared, else SAVE_NO_CONVERGENCE.
 *
 * precopy_save returns with the guest suspended and everything sent (or left to post-copy: result.postcopy; postcopy.h), or
 * with an error and the guest running (resumed if it had been suspended). Cancellation is noticed between batches, also after
 * the suspension. Errors: TASK_CANCELLED, SAVE_YIELDED, SAVE_TIMEOUT, SAVE_NO_CONVERGENCE, INTERNAL_ERROR, what the callbacks and
 * the source return. */
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
    void (*throttle)(void *ctx, unsigned percent); /* as of xenops_throttle; NULL: cannot. Whoever saves takes it back at the end */
    struct error *(*suspend)(void *ctx, struct call *, const void **context_r, size_t *len_r);
    struct error *(*resume)(void *ctx, struct call *);
};

NODISCARD struct error *precopy_save(struct call *, const struct precopy_source *, const char *state, size_t state_len,
                                     struct byte_stream *, const struct save_policy *, const struct save_callbacks *,
                                     struct save_result *);

/* --- what the switch costs beside the last pages: suspending, disks, handshakes, completing the image there --- */
/* Remembered in this process by the size of guests, slowly forgotten downwards. Any thread. Microseconds. */
int64_t precopy_fixed_us(uint64_t n_pages); /* an assumption until something was learned */
int64_t precopy_fixed_usual_us(uint64_t n_pages); /* the same as it mostly is, for predictions */
bool precopy_fixed_known(void);
void precopy_fixed_learn(int64_t n_pages, int64_t us);
void precopy_fixed_doubt(uint64_t n_pages); /* a save failed because of it: next time a little less is taken for true */
void precopy_fixed_forget(void); /* for tests */

#endif
