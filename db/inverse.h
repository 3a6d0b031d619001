/* Reverse relations: keeps VM.VBDs right when VBD.VM is written.
 *
 * The sets follow the refs whatever the order: an object that is made after others already name it
 * (a replica, an import) starts with its sets filled. For that, refs that name no object are counted. */
#ifndef DB_INVERSE_H
#define DB_INVERSE_H

#include "db/change_set.h"

/* Finds out which fields are mirrored; once, at open. */
void inverse_init(struct db *);
/* Fills the inverse sets of everything just loaded, and the count of dangling refs. No lock needed. */
void inverse_load(struct db *);
/* Counts the dangling refs anew from slot.newest, after queued transactions were dropped. txn_lock. */
void inverse_recount(struct db *);
void inverse_release(struct db *);

/* A field of 'slot' goes from one value to the other; either may be NULL (object made, deleted). */
void inverse_field_changed(struct txn *, struct slot *, unsigned field, const struct value *from, const struct value *to);
/* After the object's own fields were taken care of. */
void inverse_object_made(struct txn *, struct slot *);
void inverse_object_deleted(struct txn *, struct slot *, const struct value *fields);
void inverse_abort(struct txn *); /* takes back the counting */

#endif
