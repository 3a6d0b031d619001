/* A directory under $TMPDIR or /tmp for one test. */
#ifndef TESTS_LIB_TEMPDIR_H
#define TESTS_LIB_TEMPDIR_H

#include "rpc/base/arena.h"

struct tempdir {
    char path[64];
    struct arena *arena; /* for the paths handed out */
};

void tempdir_make(struct tempdir *); /* stops the process when it cannot */
void tempdir_remove(struct tempdir *); /* with everything in it */

/* The path of 'name' in it; lives until tempdir_remove. */
const char *tempdir_file(struct tempdir *, const char *name);
/* Writes a file of that text and returns its path. */
const char *tempdir_write(struct tempdir *, const char *name, const char *text);
/* The contents of a file; "" when there is none. Lives until tempdir_remove. */
const char *tempdir_read(struct tempdir *, const char *name);

#define AUTO_TEMPDIR CLEANUP(tempdir_remove) struct tempdir

#endif
