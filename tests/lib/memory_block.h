/* A disk in memory for tests of what is above it. Requests are done at once, or wait until the test says so,
 * in any order; a hook looks at each and may let it fail. */
#ifndef TESTS_LIB_MEMORY_BLOCK_H
#define TESTS_LIB_MEMORY_BLOCK_H

#include "storage/tapd/block.h"

#define MEMORY_PENDING_MAX 1024u

struct memory_block {
    struct block block;        /* first member */
    uint8_t *bytes;
    uint8_t *held;             /* for each 4,096: 0 a hole, 1 written, 2 the parent's (a hole for own_only) */
    bool later;                /* requests wait for memory_block_step */
    uint32_t seed;             /* not 0: a request of 'later' takes effect when it comes or when it is done, by chance */
    /* Called as a request comes. Its result becomes the request's (which then has no effect). NULL: none */
    int (*hook)(void *ctx, struct memory_block *, struct block_request *);
    void *ctx;
    struct { struct block_request *r; bool happened; int result; } pending[MEMORY_PENDING_MAX];
    unsigned n_pending;
    unsigned n_ops[5];         /* by enum block_op */
    int64_t n_bytes[5], n_extents;
    bool *closed_r;            /* set by close; the bytes are freed then */
};

struct memory_block *memory_block_new(struct loop *, int64_t size); /* zeros, all holes */
void memory_block_fill(struct memory_block *, int64_t offset, int64_t length, uint8_t value); /* as if written */
/* Ends the i-th of those that wait; does it need to be done, does it now. */
void memory_block_step(struct memory_block *, unsigned i);
void memory_block_step_all(struct memory_block *); /* until none waits */

/* One request over any block, turning the loop (and stepping m, if not NULL) until it is done. */
int memory_block_do(struct block *, struct memory_block *m, enum block_op, int64_t offset, uint32_t length, void *buffer);

#endif
