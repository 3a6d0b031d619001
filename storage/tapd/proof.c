#include <errno.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/memory.h"
#include "storage/tapd/mirror_bits.h"
#include "storage/tapd/mirror_private.h"

#define HOLE_WINDOW ((int64_t)64 << 20)
#define HOLE_MIN ((int64_t)256 << 10) /* shorter ones are read */
#define BESIDE_LARGE 2u               /* proofs while the copier has all it can do */
#define BESIDE_SMALL 12u
#define STARTS_MAX 32u

void prover_init(struct mirror *m)
{
    struct prover *p = &m->prover;

    if (!m->options.proof)
        return;
    mirror_buffers_map(&p->buffers, 2 * ((size_t)PROOF_LARGE_SLOTS * PROOF_LARGE + (size_t)PROOF_SMALL_SLOTS * PROOF_SMALL));
    for (unsigned i = 0; i < PROOF_SLOTS; i++) {
        struct proof *s = &p->slots[i];
        s->m = m;
        s->large = i < PROOF_LARGE_SLOTS;
        s->source_buffer = mirror_buffers_take(&p->buffers, s->large ? PROOF_LARGE : PROOF_SMALL);
        s->target_buffer = mirror_buffers_take(&p->buffers, s->large ? PROOF_LARGE : PROOF_SMALL);
        struct proof **list = s->large ? &p->free_large : &p->free_small;
        s->next = *list;
        *list = s;
    }
    uint64_t n = ((uint64_t)m->block.size + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;
    p->wrong = xcalloc(WRONG_MAX - 1, sizeof(*p->wrong));
    for (unsigned i = 0; i < WRONG_MAX - 1; i++) {
        p->wrong_words[i] = xcalloc(bits_bytes(n), 1);
        bits_init(&p->wrong[i], p->wrong_words[i], n);
    }
}

void prover_release(struct mirror *m)
{
    struct prover *p = &m->prover;

    mirror_buffers_unmap(&p->buffers);
    for (unsigned i = 0; p->wrong != NULL && i < WRONG_MAX - 1; i++) {
        bits_release(&p->wrong[i]);
        xfree(p->wrong_words[i]);
    }
    xfree(p->wrong);
}

bool proof_equal(uint8_t (*mine)[PROOF_DIGEST], uint8_t (*theirs)[PROOF_DIGEST], unsigned i)
{
    if (fault_hit("mirror.hash"))
        theirs[i][0] ^= 1;
    return memcmp(mine[i], theirs[i], PROOF_DIGEST) == 0;
}

/* --- judging ---------------------------------------------------------------------------------------------- */

/* One more difference in a row in these blocks. True when one of them has had too many. */
static bool wrong_again(struct prover *p, int64_t offset, uint32_t length)
{
    uint64_t first = (uint64_t)offset / MIRROR_MAP_BLOCK, n = (length + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;

    if (bits_any(&p->wrong[1], first, n))
        return true;
    for (uint64_t at = first; (at = bits_next_set(&p->wrong[0], at, first + n)) < first + n; at++)
        bits_set(&p->wrong[1], at, 1);
    bits_set(&p->wrong[0], first, n);
    return false;
}

static void right_again(struct prover *p, int64_t offset, uint32_t length)
{
    uint64_t first = (uint64_t)offset / MIRROR_MAP_BLOCK, n = (length + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;

    for (unsigned i = 0; i < WRONG_MAX - 1 && p->wrong[i].set > 0; i++)
        bits_clear(&p->wrong[i], first, n);
}

/* One hash block of a proof, both sides read. */
static void judge(struct proof *s, unsigned i)
{
    struct mirror *m = s->m;
    uint32_t at = i * NBD_HASH_BLOCK, length = s->length - at < NBD_HASH_BLOCK ? s->length - at : NBD_HASH_BLOCK;
    int64_t offset = s->offset + at;

    if (mirror_map_touched(m->map, offset, length)) {
        mirror_map_prove_end(m->map, offset, length, false);
        return;
    }
    if (proof_equal(s->mine, s->theirs, i)) {
        mirror_map_prove_end(m->map, offset, length, true);
        right_again(&m->prover, offset, length);
        pace_moved(&m->pace.prove, length);
        return;
    }
    mirror_map_prove_end(m->map, offset, length, false);
    m->prover.repaired++;
    if (wrong_again(&m->prover, offset, length))
        mirror_fail(m, "the target differs at %lld, again and again", (long long)offset);
    else if (s->zeros)
        s->mend = true;
    else
        mirror_map_written(m->map, offset, length);
}

static void give(struct proof *s)
{
    struct mirror *m = s->m;
    struct prover *p = &m->prover;

    struct proof **list = s->large ? &p->free_large : &p->free_small;
    s->next = *list;
    *list = s;
    p->active--;
    p->active_large -= s->large;
    mirror_job_done(m);
}

static void mended(struct block_request *r)
{
    struct proof *s = r->owner;

    mirror_target_heard(s->m, r->result);
    if (r->result < 0)
        mirror_target_error(s->m, "writing", r->result);
    give(s);
}

/* The source has moved on, but it is known what belongs there. */
static void mend(struct proof *s)
{
    s->target = (struct block_request){ .op = BLOCK_ZERO, .flags = BLOCK_COPIER, .offset = s->offset, .length = s->length,
                                        .done = mended, .owner = s };
    mirror_target_sent(s->m);
    block_submit(s->m->target, &s->target);
}

static void finish(struct proof *s)
{
    struct mirror *m = s->m;
    bool good = s->source_result == 0 && s->target_result == 0;

    s->mend = false;
    for (unsigned i = 0; good && i * NBD_HASH_BLOCK < s->length; i++)
        judge(s, i);
    if (!good)
        mirror_map_prove_end(m->map, s->offset, s->length, false);
    if (s->source_result < 0)
        mirror_fail(m, "reading the source at %lld: %s", (long long)s->offset, strerror(-s->source_result));
    if (s->mend && mirror_runs(m))
        mend(s);
    else
        give(s);
}

static void side_done(struct proof *s)
{
    if (--s->pending == 0)
        finish(s);
}

static void source_done(struct block_request *r)
{
    struct proof *s = r->owner;

    s->source_result = r->result;
    if (r->result == 0)
        proof_hash_blocks(s->source_buffer, s->length, s->mine);
    side_done(s);
}

/* An error is told at once: later, with the other side, it could be of a connection that is long replaced. */
static void target_side_done(struct proof *s, int result)
{
    mirror_target_heard(s->m, result);
    s->target_result = result;
    if (result < 0)
        mirror_target_error(s->m, "reading back", result);
    side_done(s);
}

static void target_done(struct block_request *r)
{
    struct proof *s = r->owner;

    if (r->result == 0)
        proof_hash_blocks(s->target_buffer, s->length, s->theirs);
    target_side_done(s, r->result);
}

static void hash_done(struct nbd_hash *h)
{
    target_side_done(h->owner, h->result);
}

/* --- reading both sides --------------------------------------------------------------------------------------- */

static void read_source(struct proof *s)
{
    struct mirror *m = s->m;

    s->zeros = m->options.mode == MIRROR_POINT; /* only holes are left to this: the rest is proven as it is copied */
    if (s->zeros) {
        for (unsigned i = 0; i * NBD_HASH_BLOCK < s->length; i++) {
            uint32_t left = s->length - i * NBD_HASH_BLOCK;
            proof_hash_zeros(left < NBD_HASH_BLOCK ? left : NBD_HASH_BLOCK, s->mine[i]);
        }
        s->source_result = 0;
        side_done(s);
        return;
    }
    s->source = (struct block_request){ .op = BLOCK_READ, .flags = BLOCK_COPIER, .offset = s->offset, .length = s->length,
                                        .buffer = s->source_buffer, .done = source_done, .owner = s };
    block_submit(m->source, &s->source);
}

static void read_target(struct proof *s)
{
    struct mirror *m = s->m;

    mirror_target_sent(m);
    if (m->remote != NULL && m->remote->can_hash(m->target)) {
        s->hash = (struct nbd_hash){ .offset = s->offset, .length = s->length, .digests = s->theirs, .done = hash_done, .owner = s };
        m->remote->hash(m->target, &s->hash);
        return;
    }
    s->target = (struct block_request){ .op = BLOCK_READ, .flags = BLOCK_COPIER, .offset = s->offset, .length = s->length,
                                        .buffer = s->target_buffer, .done = target_done, .owner = s };
    block_submit(m->target, &s->target);
}

static void start(struct mirror *m, struct proof *s, int64_t offset, uint32_t length)
{
    struct prover *p = &m->prover;
    struct proof **list = s->large ? &p->free_large : &p->free_small;

    *list = s->next;
    p->active++;
    p->active_large += s->large;
    m->jobs++;
    s->offset = offset;
    s->length = length;
    s->pending = 2;
    mirror_map_prove_begin(m->map, offset, length);
    read_target(s); /* first: it takes longer */
    read_source(s);
}

/* --- holes ------------------------------------------------------------------------------------------------------ */

/* A range that reads as zeros in the target must do so in the source too: both say so themselves. */
static bool source_extent(void *ctx, const struct block_extent *e)
{
    struct mirror *m = ctx;
    int64_t first = (e->offset + MIRROR_MAP_BLOCK - 1) & ~(int64_t)(MIRROR_MAP_BLOCK - 1), end = e->offset + e->length;

    if (end < m->block.size)
        end &= ~(int64_t)(MIRROR_MAP_BLOCK - 1);
    if ((e->hole || e->zero) && end > first && !mirror_map_is_dirty(m->map, first, end - first))
        mirror_map_proven(m->map, first, end - first);
    return true;
}

static bool target_extent(void *ctx, const struct block_extent *e)
{
    struct mirror *m = ctx;

    if (!e->hole && !e->zero)
        return true;
    if (m->options.mode == MIRROR_POINT) /* whatever was not copied was zeros at the moment */
        return source_extent(m, e);
    return block_extents(m->source, e->offset, e->length, false, source_extent, m) == 0;
}

/* Long unproven runs are asked about first, once in a round: holes need no reading. Not over a network while a
 * guest is served: the answer is waited for. */
static void prove_holes(struct mirror *m)
{
    struct prover *p = &m->prover;
    int64_t offset, length, from = p->cursor > p->holes_until ? p->cursor : p->holes_until;

    if ((m->remote != NULL && m->options.mode != MIRROR_COPY) || m->scanning || from >= m->block.size)
        return;
    if (!mirror_map_next_unproven_run(m->map, from, m->block.size, HOLE_WINDOW, &offset, &length)) {
        p->holes_until = offset;
        return;
    }
    p->holes_until = offset + length;
    if (length < HOLE_MIN)
        return;
    block_extents(m->target, offset, length, false, target_extent, m); /* whoever cannot say is read */
}

/* --- which range is next -------------------------------------------------------------------------------------------- */

static struct proof *slot_for(struct mirror *m, uint32_t length)
{
    struct prover *p = &m->prover;
    bool beside = m->pace.send.load == PACE_FULL;

    if (length <= PROOF_SMALL && p->free_small != NULL)
        return beside && p->active - p->active_large >= BESIDE_SMALL ? NULL : p->free_small;
    return beside && p->active_large >= BESIDE_LARGE ? NULL : p->free_large;
}

static enum pace_load round_on(struct mirror *m)
{
    struct prover *p = &m->prover;
    bool wrapped = false;

    for (unsigned starts = 0; starts < STARTS_MAX && mirror_runs(m) && mirror_map_unproven(m->map) > 0; starts++) {
        int64_t offset;
        uint32_t length;
        if (p->cursor >= p->holes_until)
            prove_holes(m);
        if (!mirror_map_next_unproven(m->map, p->cursor, PROOF_LARGE, &offset, &length)) {
            p->cursor = offset;
            if (offset < m->block.size) /* it has looked long enough for once */
                break;
            p->cursor = p->holes_until = 0;
            if (wrapped)
                break;
            wrapped = true;
            continue;
        }
        struct proof *s = slot_for(m, length);
        if (s == NULL)
            return PACE_FULL;
        p->cursor = offset + length;
        start(m, s, offset, length);
        if (starts + 1 == STARTS_MAX)
            mirror_kick(m);
    }
    return p->active > 0 ? PACE_PART : PACE_IDLE;
}

void prover_pump(struct mirror *m)
{
    enum pace_load load = m->options.proof ? round_on(m) : PACE_IDLE;
    pace_load(&m->pace.prove, load, loop_now_us(m->block.loop));
}
