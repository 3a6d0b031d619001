/* Group commit by one writer thread. */
#ifndef DB_COMMIT_H
#define DB_COMMIT_H

#include "db/change_set.h"

/* Gives the change set to the writer and drops txn_lock; waits for the outcome. The rows of the
 * transaction stay its own to release. */
NODISCARD struct error *commit_and_wait(struct txn *, uint64_t *generation_r);

void commit_writer_start(struct db *);
void commit_writer_join(struct db *); /* after it has committed what is queued */

#endif
