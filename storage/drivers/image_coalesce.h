/* Clearing up a tree of images: file_sr_clean (file_sr.h) in steps.
 *
 *   P <- X <- C, C'    P hidden, X its only child. What X holds goes into P while X is read over P, which no reader
 *                      of X can see. Then, X a base itself: C and C' become children of P one after the other
 *                      ("adopt"), and X, which nobody needs now, is removed by a later step. X a leaf: P takes its
 *                      name and place ("fold"), in one rename.
 *
 * The data are copied without the turn; tree and turn are looked at again afterwards. A verb that needs X ends the
 * copying. On a shared SR nothing is touched that another host has open or could open in between: X a leaf must be in
 * use on this host, X a base must have no descendant in use on another one. */
#ifndef STORAGE_DRIVERS_IMAGE_COALESCE_H
#define STORAGE_DRIVERS_IMAGE_COALESCE_H

#include "storage/drivers/file_sr.h"

/* The end of each: the data are in 'parent' already. Without the turn. */
NODISCARD struct error *image_adopt(struct call *, struct sr *, const struct image *child, const struct image *base, const struct image *parent);
/* active: leaf is paused, and goes on when this returns, also on failure. */
NODISCARD struct error *image_fold(struct call *, struct sr *, const struct image *leaf, const struct image *parent, bool active);

#endif
