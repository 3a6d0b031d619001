/* A mirror over two disks in memory, a fake clock, a guest with a model of what it was told is written, and a
 * remote whose connection can break. Everything happens by a seed. */
#ifndef TESTS_UNIT_TAPD_MIRROR_WORLD_H
#define TESTS_UNIT_TAPD_MIRROR_WORLD_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/memory.h"
#include "storage/tapd/mirror.h"
#include "storage/tapd/mirror_target.h"
#include "storage/tapd/proof_hash.h"
#include "tests/lib/memory_block.h"
#include "tests/lib/unit.h"

#define WORLD_GUESTS 12u
#define SECTOR 512
#define KIB 1024
#define MIB (1024 * KIB)

struct world;
struct guest_op {
    struct world *w;
    struct block_request r;
    uint8_t *buffer;
    bool busy;
};

struct world {
    struct clock_fake clock;
    struct loop *loop;
    struct arena *arena;
    struct memory_block *source, *target;
    bool source_closed, target_closed;
    struct block *layer;
    struct mirror_options options;
    uint8_t *model;           /* what was acknowledged */
    uint8_t *moment;          /* mode point: the disk at the start */
    uint8_t *claimed;         /* sectors with a guest's request in flight */
    int64_t size;
    struct guest_op guests[WORLD_GUESTS];
    unsigned n_guests;        /* in flight */
    uint32_t seed;
    uint64_t serial;          /* of writes */
    unsigned n_changed, n_commits, commit_fails;
    bool ended, switched_seen;
    double fraction;
    /* the remote */
    bool lost, reconnecting, cannot_hash, unreachable;
    struct nbd_hash *hashes[256];
    unsigned n_hashes;
    void (*lost_fn)(void *, int);
    void *lost_ctx;
    void (*reconnected)(void *, int);
    void *reconnect_ctx;
    unsigned n_reconnects;
};

static struct world *world_of_remote; /* there is one at a time */

static inline uint32_t pick(struct world *w, uint32_t n)
{
    w->seed = w->seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)w->seed * n) >> 32);
}

/* --- the remote -------------------------------------------------------------------------------------- */

static inline bool remote_is_lost(const struct block *b) { return world_of_remote->lost; }
static inline void remote_watch(struct block *b, int64_t silence_us, void (*lost)(void *, int), void *ctx)
{
    world_of_remote->lost_fn = lost;
    world_of_remote->lost_ctx = ctx;
}
static inline void remote_reconnect(struct block *b, void (*done)(void *, int), void *ctx)
{
    struct world *w = world_of_remote;

    assert_true(w->lost && !w->reconnecting);
    w->reconnecting = true;
    w->reconnected = done;
    w->reconnect_ctx = ctx;
    w->n_reconnects++;
}
static inline bool remote_can_hash(const struct block *b) { return !world_of_remote->cannot_hash; }
static inline void remote_hash(struct block *b, struct nbd_hash *h)
{
    struct world *w = world_of_remote;

    assert_true(w->n_hashes < 256);
    if (w->lost) {
        h->result = -ECONNRESET;
        h->done(h);
        return;
    }
    w->hashes[w->n_hashes++] = h;
}
static const struct mirror_remote world_remote = { remote_is_lost, remote_watch, remote_reconnect, remote_can_hash, remote_hash };

static inline void remote_step(struct world *w)
{
    if (w->n_hashes == 0)
        return;
    unsigned i = pick(w, w->n_hashes);
    struct nbd_hash *h = w->hashes[i];
    w->hashes[i] = w->hashes[--w->n_hashes];
    proof_hash_blocks(w->target->bytes + h->offset, h->length, h->digests);
    h->result = 0;
    h->done(h);
}

static inline int refuse_lost(void *ctx, struct memory_block *m, struct block_request *r) { return ((struct world *)ctx)->lost ? -ECONNRESET : 0; }

/* The connection breaks: what is in flight may have happened or not, and is not answered. */
static inline void remote_break(struct world *w)
{
    w->lost = true;
    while (w->target->n_pending > 0) {
        unsigned i = pick(w, w->target->n_pending);
        w->target->pending[i].result = -ECONNRESET;
        memory_block_step(w->target, i);
    }
    while (w->n_hashes > 0) {
        struct nbd_hash *h = w->hashes[--w->n_hashes];
        h->result = -ECONNRESET;
        h->done(h);
    }
    if (w->lost_fn != NULL)
        w->lost_fn(w->lost_ctx, -ECONNRESET);
}

static inline void remote_return(struct world *w)
{
    if (!w->reconnecting)
        return;
    w->reconnecting = false;
    w->lost = w->unreachable;
    w->reconnected(w->reconnect_ctx, w->unreachable ? -ECONNREFUSED : 0);
}

/* --- the guest ----------------------------------------------------------------------------------------- */

static inline void claim(struct world *w, const struct block_request *r, bool on)
{
    for (int64_t s = r->offset / SECTOR; s < (r->offset + r->length) / SECTOR; s++)
        w->claimed[s] = on;
}

static inline void guest_done(struct block_request *r)
{
    struct guest_op *g = r->owner;
    struct world *w = g->w;

    if (r->result != 0)
        fail_msg("the guest got %d", r->result);
    if (r->op == BLOCK_READ && memcmp(r->buffer, w->model + r->offset, r->length) != 0)
        fail_msg("the guest read something else at %lld", (long long)r->offset);
    if (r->op == BLOCK_WRITE)
        memcpy(w->model + r->offset, r->buffer, r->length);
    else if (r->op == BLOCK_ZERO || r->op == BLOCK_DISCARD)
        memset(w->model + r->offset, 0, r->length);
    claim(w, r, false);
    g->busy = false;
    w->n_guests--;
}

static inline bool choose_range(struct world *w, int64_t *offset_r, uint32_t *length_r)
{
    int64_t sectors = w->size / SECTOR, first = pick(w, (uint32_t)sectors), n = 1 + pick(w, pick(w, 4) == 0 ? 512 : 24);

    if (pick(w, 2) == 0) {
        first = first / 8 * 8;
        n = (n + 7) / 8 * 8;
    }
    n = n < sectors - first ? n : sectors - first;
    for (int64_t s = first; s < first + n; s++)
        if (w->claimed[s])
            return false;
    *offset_r = first * SECTOR;
    *length_r = (uint32_t)(n * SECTOR);
    return true;
}

static inline void guest_act(struct world *w)
{
    struct guest_op *g = &w->guests[pick(w, WORLD_GUESTS)];
    static const enum block_op ops[] = { BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_WRITE, BLOCK_ZERO, BLOCK_DISCARD, BLOCK_READ, BLOCK_FLUSH };
    int64_t offset = 0;
    uint32_t length = 0;

    if (g->busy)
        return;
    enum block_op op = ops[pick(w, ARRAY_LEN(ops))];
    if (op != BLOCK_FLUSH && !choose_range(w, &offset, &length))
        return;
    g->w = w;
    g->busy = true;
    w->n_guests++;
    if (op == BLOCK_WRITE) {
        bool zero = pick(w, 10) == 0;
        w->serial++;
        for (uint32_t i = 0; i < length; i += 8)
            memcpy(g->buffer + i, zero ? &(uint64_t){ 0 } : &(uint64_t){ w->serial << 16 | i / SECTOR }, 8);
    }
    g->r = (struct block_request){ .op = op, .offset = offset, .length = length, .buffer = g->buffer, .done = guest_done, .owner = g };
    claim(w, &g->r, true);
    block_submit(w->layer, &g->r);
}

/* --- life ------------------------------------------------------------------------------------------------ */

static inline void world_changed(void *ctx)
{
    struct world *w = ctx;
    struct mirror_status s;

    w->n_changed++;
    if (w->layer != NULL && getenv("TALK") != NULL) { /* to follow a life that went wrong */
        mirror_get(w->layer, &s);
        print_message("%lld us: state %d %s\n", (long long)w->clock.now_us, s.state, s.error);
    }
}

static inline void world_status(struct world *w, struct mirror_status *s)
{
    mirror_get(w->layer, s);
    assert_true(s->fraction >= w->fraction && s->fraction <= 1); /* it never goes back */
    w->fraction = s->fraction;
}

static inline enum mirror_state world_state(struct world *w)
{
    struct mirror_status s;
    world_status(w, &s);
    return s.state;
}

/* Two disks; the source holds something here and there. */
static inline void world_make(struct world *w, uint32_t seed, int64_t size)
{
    memset(w, 0, sizeof(*w));
    world_of_remote = w;
    w->seed = seed;
    w->size = size;
    clock_fake_init(&w->clock, 0);
    w->loop = loop_new(&w->clock.clock);
    w->arena = arena_new();
    w->source = memory_block_new(w->loop, size);
    w->target = memory_block_new(w->loop, size);
    w->source->closed_r = &w->source_closed;
    w->target->closed_r = &w->target_closed;
    w->target->hook = refuse_lost;
    w->target->ctx = w;
    for (int64_t at = 0; at < size;) {
        int64_t n = (1 + (int64_t)pick(w, 40)) * 4096;
        n = n < size - at ? n : size - at;
        uint32_t what = pick(w, 4);
        if (what >= 1) /* written zeros too */
            memory_block_fill(w->source, at, n, what == 1 ? 0 : (uint8_t)(1 + pick(w, 255)));
        at += n;
    }
    w->model = xcalloc((size_t)size, 1);
    w->moment = xcalloc((size_t)size, 1);
    w->claimed = xcalloc((size_t)(size / SECTOR), 1);
    memcpy(w->model, w->source->bytes, (size_t)size);
    memcpy(w->moment, w->source->bytes, (size_t)size);
    for (unsigned i = 0; i < WORLD_GUESTS; i++)
        w->guests[i].buffer = xcalloc(512, SECTOR);
    w->options = (struct mirror_options){ .mode = MIRROR_FOLLOW, .proof = true };
}

static inline void world_start(struct world *w)
{
    w->layer = mirror_layer(w->arena, &w->source->block, &w->target->block, &w->options, world_changed, w);
}

static inline void world_later(struct world *w)
{
    w->source->later = w->target->later = true;
    w->source->seed = w->seed | 1;
    w->target->seed = w->seed * 7 | 1;
}

/* A little of everything, then a turn of the loop and some time. */
static inline void world_step(struct world *w, unsigned guest_of_100)
{
    if (pick(w, 100) < guest_of_100)
        guest_act(w);
    for (unsigned n = pick(w, 4); n > 0 && w->source->n_pending > 0 && !w->source_closed; n--)
        memory_block_step(w->source, pick(w, w->source->n_pending));
    for (unsigned n = pick(w, 4); n > 0 && w->target->n_pending > 0 && !w->target_closed; n--)
        memory_block_step(w->target, pick(w, w->target->n_pending));
    remote_step(w);
    w->clock.now_us += pick(w, 400);
    loop_turn(w->loop, 0);
}

/* Until the guest has nothing in flight. */
static inline void world_quiet(struct world *w)
{
    for (unsigned i = 0; w->n_guests > 0; i++) {
        assert_true(i < 100000);
        world_step(w, 0);
    }
}

/* Until the state is one of those that last, or 'steps' are over. */
static inline enum mirror_state world_run(struct world *w, unsigned steps, unsigned guest_of_100)
{
    enum mirror_state s = world_state(w);

    for (unsigned i = 0; i < steps && s != MIRROR_SWITCHED && s != MIRROR_DONE && s != MIRROR_FAILED; i++) {
        world_step(w, guest_of_100);
        s = world_state(w);
    }
    return s;
}

static inline void assert_same(const uint8_t *a, const uint8_t *b, int64_t size, const char *what)
{
    if (memcmp(a, b, (size_t)size) == 0)
        return;
    int64_t at = 0;
    while (a[at] == b[at])
        at++;
    fail_msg("%s differ at %lld (block %lld): %02x %02x", what, (long long)at, (long long)(at / 4096), a[at], b[at]);
}

static inline int world_commit(void *ctx)
{
    struct world *w = ctx;

    w->n_commits++;
    if (w->commit_fails > 0) {
        w->commit_fails--;
        return -EIO;
    }
    assert_same(w->target->bytes, w->model, w->size, "the target and what was acknowledged, at the switch");
    assert_true(w->target->n_ops[BLOCK_FLUSH] > 0);
    return 0;
}

static inline void world_ended(void *ctx) { ((struct world *)ctx)->ended = true; }

/* Stops the mirror and takes the layer away; what remains must be the disk. */
static inline void world_finish(struct world *w, bool target_stays)
{
    mirror_stop(w->layer, world_ended, w);
    for (unsigned i = 0; !w->ended || w->n_guests > 0; i++) {
        assert_true(i < 100000);
        world_step(w, 0);
        if (w->reconnecting)
            remote_return(w);
    }
    struct block *rest = mirror_take(w->layer);
    assert_ptr_equal(rest, target_stays ? &w->target->block : &w->source->block);
    assert_int_equal(w->source_closed, target_stays);
    assert_int_equal(w->target_closed, !target_stays);
    assert_same(target_stays ? w->target->bytes : w->source->bytes, w->model, w->size, "the disk and what was acknowledged, at the end");
    assert_int_equal(block_close(w->layer), 0);
    assert_int_equal(block_close(rest), 0);
}

static inline void world_free(struct world *w)
{
    fault_disarm(NULL);
    for (unsigned i = 0; i < WORLD_GUESTS; i++)
        xfree(w->guests[i].buffer);
    xfree(w->model);
    xfree(w->moment);
    xfree(w->claimed);
    loop_free(w->loop);
    arena_free(w->arena);
}

/* --- by chance --------------------------------------------------------------------------------------------- */

/* How many random lives each kind of test has: RUNS in the environment for more. */
static inline unsigned runs(unsigned n)
{
    const char *more = getenv("RUNS");
    return more != NULL ? n * (unsigned)strtoul(more, NULL, 10) : n;
}

static inline int64_t random_size(struct world *w, uint32_t seed)
{
    w->seed = seed;
    pick(w, 2);
    return (int64_t)(1 + pick(w, 400)) * 4096 + (pick(w, 3) == 0 ? 512 * (int64_t)pick(w, 8) : 0);
}

static inline void vary(struct world *w)
{
    w->options.budget_us = pick(w, 3) == 0 ? 0 : (int64_t)(1 + pick(w, 200)) * 1000;
    w->options.proof = pick(w, 5) != 0;
    w->options.remote = pick(w, 2) == 0 ? &world_remote : NULL;
    w->cannot_hash = pick(w, 3) == 0;
    w->options.bandwidth = pick(w, 5) == 0 ? (int64_t)(1 + pick(w, 50)) * MIB : 0;
    if (pick(w, 4) != 0)
        world_later(w);
}

static inline void drive_to_switch(struct world *w)
{
    /* less and less, so that it must converge at last */
    for (unsigned busy = 60; world_state(w) != MIRROR_SWITCHED; busy /= 2) {
        assert_int_not_equal(world_state(w), MIRROR_FAILED);
        enum mirror_state s = world_run(w, busy > 0 ? 1000 : 100000, busy);
        assert_true(s == MIRROR_SWITCHED || busy > 0);
    }
}

struct failing { struct world *w; unsigned left; int error; bool failed; };
static inline int fail_at(void *ctx, struct memory_block *m, struct block_request *r)
{
    struct failing *f = ctx;

    if (f->failed || --f->left > 0)
        return 0;
    f->failed = true;
    return f->error;
}

#endif
