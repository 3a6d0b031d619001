/* A disk in memory for the tests of the NBD server: answers at once, at the next turn of the loop in reverse order, or
 * when it is let go; fails where it is told to; counts what it is asked. */
#ifndef TESTS_LIB_RAM_BLOCK_H
#define TESTS_LIB_RAM_BLOCK_H

#include "storage/tapd/block.h"

#define RAM_UNIT 4096u /* what is a hole or is not */

struct ram_block {
    struct block block; /* first member */
    char *data;
    bool *there;        /* units that were written */
    /* How it answers. */
    bool later;         /* from the loop's next turn, last come first served; else inside submit */
    bool hold;          /* not before ram_block_let_go */
    int error;          /* for requests of error_op that reach beyond error_from; 0: none */
    enum block_op error_op;
    int64_t error_from;
    int extents_error;  /* for the next extents_errors calls */
    unsigned extents_errors;
    /* What it saw. */
    unsigned n[BLOCK_FLUSH + 1];
    unsigned in_flight, most_in_flight;
    unsigned last_flags;
    int64_t longest;
    /* ours */
    struct block_request *waiting;
    struct loop_idle idle;
};

struct ram_block *ram_block_new(struct loop *, int64_t size);
void ram_block_let_go(struct ram_block *); /* answers what is held; hold ends */
void ram_block_free(struct ram_block *);   /* or block_close */

#endif
