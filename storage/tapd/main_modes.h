/* What the program tapd can be asked for, and what its ways of running share. Each mode returns the exit status. */
#ifndef STORAGE_TAPD_MAIN_MODES_H
#define STORAGE_TAPD_MAIN_MODES_H

#include "storage/tapd/block.h"
#include "storage/tapd/loop.h"

int main_tap(int argc, char **argv);   /* tapd DIR … */
int main_copy(int argc, char **argv);  /* tapd copy … */
int main_serve(int argc, char **argv); /* tapd serve … */

/* The loop, the I/O, and SIGTERM and SIGINT as a callback. */
struct main_base {
    struct loop *loop;
    struct disk_io *io;
    struct loop_fd signals;
    void (*stop)(void *ctx);
    void *ctx;
};
void main_begin(struct main_base *, bool threads, void (*stop)(void *ctx), void *ctx);
void main_end(struct main_base *);

/* "FORMAT:PATH", an NBD URI, or the path of a raw file; path points into text. */
void main_image(const char *text, char format_r[16], const char **path_r);
int main_usage(void); /* says how, on stderr; 2 */
/* The error on stderr; 1. */
int main_fail(struct arena *, const struct error *);

#endif
