/* A struct call for tests: an arena, a clock that stands still, a cancel flag. */
#ifndef TESTS_LIB_FAKECALL_H
#define TESTS_LIB_FAKECALL_H

#include "rpc/base/call.h"

#define FAKECALL_WALL_AT 1700000000 /* 20231114T22:13:20Z */

struct fakecall {
    struct call call; /* .arena, .clock, .cancel and .id are set; no deadline */
    struct clock_fake clock;
    double progress; /* the last one reported */
    unsigned n_progress;
};

void fakecall_init(struct fakecall *); /* also enters it: call_current() is &call */
void fakecall_release(struct fakecall *);

#define AUTO_FAKECALL CLEANUP(fakecall_release) struct fakecall

#endif
