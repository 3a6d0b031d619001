#include <errno.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "storage/tapd/mirror_private.h"
#include "storage/tapd/mirror_zeros.h"

#define CALM_US 100000     /* without a request of the guest that long, nobody is in a hurry */
#define STARTS_MAX 64u     /* in one pump: others want their turn */
#define LARGE_GUEST (256u << 10)

static void read_done(struct block_request *);
static void write_next(struct mirror_copy *);
static void verify(struct mirror_copy *);

void mirror_copier_init(struct mirror *m)
{
    struct mirror_copier *c = &m->copier;
    bool back = m->options.mode == MIRROR_POINT && m->options.proof;
    size_t size = (size_t)COPY_LARGE_SLOTS * COPY_LARGE_MAX + (size_t)COPY_SMALL_SLOTS * COPY_SMALL;

    mirror_buffers_map(&c->buffers, back ? size * 2 : size);
    for (unsigned i = 0; i < COPY_SLOTS; i++) {
        struct mirror_copy *s = &c->slots[i];
        s->m = m;
        s->large = i < COPY_LARGE_SLOTS;
        s->buffer = mirror_buffers_take(&c->buffers, s->large ? COPY_LARGE_MAX : COPY_SMALL);
        s->back_buffer = back ? mirror_buffers_take(&c->buffers, s->large ? COPY_LARGE_MAX : COPY_SMALL) : NULL;
        struct mirror_copy **list = s->large ? &c->free_large : &c->free_small;
        s->next = *list;
        *list = s;
    }
}

void mirror_copier_release(struct mirror *m)
{
    loop_timer_clear(m->block.loop, &m->copier.cap);
    mirror_buffers_unmap(&m->copier.buffers);
}

/* --- one run ------------------------------------------------------------------------------------------ */

static void finish(struct mirror_copy *s, bool copied)
{
    struct mirror *m = s->m;
    struct mirror_copier *c = &m->copier;

    mirror_map_copy_end(m->map, s->offset, s->length, copied);
    struct mirror_copy **list = s->large ? &c->free_large : &c->free_small;
    s->next = *list;
    *list = s;
    c->active--;
    c->active_large -= s->large;
    c->copied_in_pass |= copied;
    if (m->options.mode == MIRROR_POINT)
        mirror_guests_retry_waiting(m);
    mirror_job_done(m);
}

static void start(struct mirror *m, struct mirror_copy *s, int64_t offset, uint32_t length)
{
    struct mirror_copier *c = &m->copier;
    struct mirror_copy **list = s->large ? &c->free_large : &c->free_small;

    *list = s->next;
    c->active++;
    c->active_large += s->large;
    m->jobs++;
    s->offset = offset;
    s->length = length;
    s->wrong = 0;
    pace_spend(&m->pace, length);
    mirror_map_copy_begin(m->map, offset, length);
    s->request = (struct block_request){ .op = BLOCK_READ, .flags = BLOCK_COPIER, .offset = offset, .length = length,
                                         .buffer = s->buffer, .done = read_done, .owner = s };
    block_submit(m->source, &s->request);
}

static void read_done(struct block_request *r)
{
    struct mirror_copy *s = r->owner;
    struct mirror *m = s->m;
    int result = fault_hit("mirror.read") ? -EIO : r->result;

    if (result < 0 || !mirror_runs(m)) {
        if (result < 0)
            mirror_fail(m, "reading the source at %lld: %s", (long long)s->offset, strerror(-result));
        finish(s, false);
        return;
    }
    if (s->back_buffer != NULL)
        proof_hash_blocks(s->buffer, s->length, s->mine);
    s->at = 0;
    write_next(s);
}

static void write_done(struct block_request *r)
{
    struct mirror_copy *s = r->owner;
    struct mirror *m = s->m;
    int result = fault_hit("mirror.write") ? -EIO : r->result;

    mirror_target_heard(m, r->result);
    if (result < 0) {
        finish(s, false);
        mirror_target_error(m, "writing", result);
        return;
    }
    pace_moved(&m->pace.send, s->piece);
    s->at += s->piece;
    if (s->at < s->length && mirror_runs(m))
        write_next(s);
    else if (s->at < s->length || s->back_buffer == NULL)
        finish(s, s->at >= s->length);
    else
        verify(s);
}

static void write_next(struct mirror_copy *s)
{
    struct mirror *m = s->m;
    bool zero;

    s->piece = (uint32_t)zeros_piece(s->buffer, s->at, s->length, &zero);
    s->request = (struct block_request){ .op = zero ? BLOCK_ZERO : BLOCK_WRITE, .flags = BLOCK_COPIER, .offset = s->offset + s->at,
                                         .length = s->piece, .buffer = s->buffer + s->at, .done = write_done, .owner = s };
    if (!zero && fault_hit("mirror.corrupt-target"))
        s->buffer[s->at + s->piece / 2] ^= 1;
    if (zero)
        pace_spend(&m->pace, -(int64_t)s->piece);
    else
        m->sent += s->piece;
    mirror_target_sent(m);
    block_submit(m->target, &s->request);
}

/* --- mode point: proven before the guest may overwrite the source ----------------------------------------- */

static void judge(struct mirror_copy *s, int result)
{
    struct mirror *m = s->m;
    bool same = true;

    mirror_target_heard(m, result);
    if (result < 0) {
        finish(s, false);
        mirror_target_error(m, "reading back", result);
        return;
    }
    for (unsigned i = 0; i * NBD_HASH_BLOCK < s->length; i++)
        same = proof_equal(s->mine, s->theirs, i) && same;
    if (same) {
        mirror_map_proven(m->map, s->offset, s->length);
        pace_moved(&m->pace.prove, s->length);
        finish(s, true);
        return;
    }
    m->prover.repaired++;
    if (++s->wrong >= WRONG_MAX)
        mirror_fail(m, "the target holds something else than was written, at %lld", (long long)s->offset);
    if (mirror_runs(m)) { /* the source may not be what it was: read it again only while nobody could change it */
        s->request = (struct block_request){ .op = BLOCK_READ, .flags = BLOCK_COPIER, .offset = s->offset, .length = s->length,
                                             .buffer = s->buffer, .done = read_done, .owner = s };
        block_submit(m->source, &s->request);
    } else {
        finish(s, false);
    }
}

static void back_done(struct block_request *r)
{
    struct mirror_copy *s = r->owner;

    if (r->result == 0)
        proof_hash_blocks(s->back_buffer, s->length, s->theirs);
    judge(s, r->result);
}

static void hash_done(struct nbd_hash *h) { judge(h->owner, h->result); }

static void verify(struct mirror_copy *s)
{
    struct mirror *m = s->m;

    mirror_target_sent(m);
    if (m->remote != NULL && m->remote->can_hash(m->target)) {
        s->hash = (struct nbd_hash){ .offset = s->offset, .length = s->length, .digests = s->theirs, .done = hash_done, .owner = s };
        m->remote->hash(m->target, &s->hash);
        return;
    }
    s->back = (struct block_request){ .op = BLOCK_READ, .flags = BLOCK_COPIER, .offset = s->offset, .length = s->length,
                                      .buffer = s->back_buffer, .done = back_done, .owner = s };
    block_submit(m->target, &s->back);
}

/* --- which run is next --------------------------------------------------------------------------------------- */

/* A slot for that many bytes; short runs may take a large one, long runs never many small ones. */
static struct mirror_copy *slot_for(struct mirror_copier *c, uint32_t length)
{
    if (length <= COPY_SMALL && c->free_small != NULL)
        return c->free_small;
    return c->free_large;
}

/* What a waiting write of the guest overwrites comes first. False: no slot. */
static bool serve_waiting(struct mirror *m)
{
    struct mirror_copier *c = &m->copier;

    for (struct block_request *r = m->guests.waiting.first; r != NULL;) {
        int64_t offset;
        uint32_t length;
        if (!mirror_runs(m) || !mirror_map_next_dirty(m->map, r->offset, r->offset + r->length, COPY_LARGE_MAX, &offset, &length)) {
            r = r->next;
            continue;
        }
        struct mirror_copy *s = slot_for(c, length);
        if (s == NULL)
            return false;
        unsigned retries = m->guests.retries;
        start(m, s, offset, length);
        if (m->guests.retries != retries) /* done at once: the queue is another one */
            r = m->guests.waiting.first;
    }
    return true;
}

/* The next run of the pass, clear of the guest's writes. False: this pass has come to its end. */
static bool next_run(struct mirror *m, int64_t *offset_r, uint32_t *length_r)
{
    struct mirror_copier *c = &m->copier;
    int64_t scanned = mirror_map_scanned(m->map), past;

    while (mirror_map_next_dirty(m->map, c->cursor, scanned, c->large, offset_r, length_r)) {
        if (mirror_guests_clear_of(m, *offset_r, length_r, &past))
            return true;
        c->cursor = past;
    }
    return false;
}

static void cap_fired(struct loop_timer *t) { mirror_kick(CONTAINER_OF(t, struct mirror, copier.cap)); }

/* Whether it may send now; else the timer is set. The guest that is held pays no attention to caps. */
static bool may_send(struct mirror *m)
{
    int64_t now = loop_now_us(m->block.loop);
    int64_t wait = m->state == MIRROR_SWITCHING ? 0 : pace_wait(&m->pace, now);

    if (wait > 0) {
        m->copier.cap.fired = cap_fired;
        loop_timer_set(m->block.loop, &m->copier.cap, now + wait);
    }
    return wait == 0;
}

/* Long runs make little work; short ones let the guest in between, and a tight cap flow evenly. */
static uint32_t longest_run(const struct mirror *m)
{
    bool calm = loop_now_us(m->block.loop) - m->guests.active_us >= CALM_US;
    uint32_t longest = m->options.mode == MIRROR_COPY || calm ? COPY_LARGE_MAX : LARGE_GUEST;

    while (m->pace.bandwidth > 0 && longest > COPY_SMALL && longest > m->pace.bandwidth / 32)
        longest /= 2;
    return longest;
}

static enum pace_load pass(struct mirror *m)
{
    struct mirror_copier *c = &m->copier;
    bool wrapped = false;

    for (unsigned starts = 0; starts < STARTS_MAX && mirror_runs(m); starts++) {
        int64_t offset;
        uint32_t length;
        if (!next_run(m, &offset, &length)) {
            if (wrapped || m->scanning)
                break;
            wrapped = true;
            c->cursor = 0;
            c->passes += c->copied_in_pass;
            c->copied_in_pass = false;
            continue;
        }
        struct mirror_copy *s = slot_for(c, length);
        if (s == NULL || !may_send(m))
            return PACE_FULL;
        c->cursor = offset + length;
        start(m, s, offset, length);
        if (starts + 1 == STARTS_MAX) {
            mirror_kick(m);
            return PACE_FULL;
        }
    }
    return c->active > 0 ? PACE_PART : PACE_IDLE;
}

void mirror_copier_pump(struct mirror *m)
{
    int64_t now = loop_now_us(m->block.loop);

    m->copier.large = longest_run(m);
    if (!serve_waiting(m)) {
        pace_load(&m->pace.send, PACE_FULL, now);
        return;
    }
    pace_load(&m->pace.send, pass(m), now);
}
