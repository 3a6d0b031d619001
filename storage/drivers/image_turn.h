/* Whose turn it is on the images of one SR.
 *
 * The tree (which image is whose parent, which names there are) is changed and listed by one at a time: image_turn_take
 * … give. It is short: milliseconds, no copying of data. On a shared SR other hosts are kept out too, by a lock on the
 * file ".lock" of the directory. Besides, a verb *uses* the image it is about, and the one who merges an image in the
 * background steps back as soon as somebody wants to use it.
 *
 * Thread-safe. Lock class STORAGE, a leaf here; never held over I/O. */
#ifndef STORAGE_DRIVERS_IMAGE_TURN_H
#define STORAGE_DRIVERS_IMAGE_TURN_H

#include <stdbool.h>

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/base/lock.h"

struct image_use { struct image_use *next; const char *location; };

struct image_turn {
    struct lock lock;
    struct cond changed;
    bool taken;
    int lock_fd;                  /* ".lock"; -1 where one host only has the SR */
    struct image_use *uses;       /* verbs that run */
    struct image_use *active;     /* VDIs that are activated; heap */
    const char *merging;          /* location; NULL: nothing is merged */
    struct cancel *merge_cancel;  /* of the one who merges */
};

/* lock_path NULL: one host only. 0 or -errno. */
NODISCARD int image_turn_init(struct image_turn *, const char *lock_path);
void image_turn_release(struct image_turn *);

/* Waits for the turn; TASK_CANCELLED. */
NODISCARD struct error *image_turn_take(struct call *, struct image_turn *);
void image_turn_give(struct image_turn *);

/* A verb on 'location' begins: ends what merges it, and waits for that. */
NODISCARD struct error *image_use_begin(struct call *, struct image_turn *, struct image_use *, const char *location);
void image_use_end(struct image_turn *, struct image_use *);

/* A tapd may open it from now on, until it may not. Both end what merges it. */
NODISCARD struct error *image_active_set(struct call *, struct image_turn *, const char *location, bool active);
bool image_is_active(struct image_turn *, const char *location);

/* False where a verb uses it or something is merged already. 'cancel' is raised when it shall end. */
bool image_merge_begin(struct image_turn *, const char *location, struct cancel *);
void image_merge_end(struct image_turn *);

#endif
