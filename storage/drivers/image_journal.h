/* What is being done to the tree of images, written down before it is done.
 *
 * One small file ".journal-<uuid of the leaf>" while an operation runs; whoever takes the turn next (also after a
 * crash or a power loss) finds it and finishes the operation or takes it back (image_recover.h). Durable when
 * image_journal_write returns; the file of a journal that was not is no journal. */
#ifndef STORAGE_DRIVERS_IMAGE_JOURNAL_H
#define STORAGE_DRIVERS_IMAGE_JOURNAL_H

#include "rpc/base/call.h"
#include "rpc/base/error.h"

struct journal {
    const char *operation; /* "snapshot", "clone", "revert", "copy", "fold", "adopt" */
    const char *leaf;      /* locations */
    const char *base;      /* a branch: what the leaf's data become; fold: what takes the leaf's place; adopt: the new parent */
    const char *made;      /* a branch: the second child; copy: the copy; adopt: the old parent; or "" */
    const char *format;
};

NODISCARD struct error *image_journal_write(struct call *, const char *dir, const struct journal *);
NODISCARD struct error *image_journal_remove(struct call *, const char *dir, const char *leaf);
/* The journals there are. A file that is none is removed, with a warning. */
NODISCARD struct error *journals_read(struct call *, const char *dir, struct journal **journals_r, unsigned *n_r);

#endif
