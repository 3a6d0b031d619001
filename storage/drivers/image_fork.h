/* A tree of images gets a new branch: how snapshot, clone and revert work where images can have parents.
 *
 *      source           base (hidden: what source was)        or, where source holds nothing of its own,
 *               ->       /  \                                 made becomes one more child of its parent
 *                   source  made
 *
 * source keeps its name and is never missing: 'base' begins as a second link to it, both children are made under
 * ".part" names while the guest writes, and a rename of the new child over source's name, inside a short pause, is
 * what commits it. With the turn held (file_tree_begin). */
#ifndef STORAGE_DRIVERS_IMAGE_FORK_H
#define STORAGE_DRIVERS_IMAGE_FORK_H

#include "storage/drivers/file_sr.h"

struct fork {
    const char *operation;      /* "snapshot", "clone", "revert": of the journal and the fault points */
    const struct image *source;
    const char *made;           /* location of the second child */
    bool replaces;              /* made exists, with other contents: revert */
    bool snapshot;              /* made is a snapshot of source */
    bool paused;                /* the caller pauses and resumes source, if need be */
};
/* On failure all is as before. */
NODISCARD struct error *image_fork(struct call *, struct sr *, const struct fork *);

#endif
