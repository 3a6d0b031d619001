/* A migration into this pool as its ledger row and its VM's rows say: private to incoming*.c. */
#ifndef XAPI_MIGRATE_INCOMING_ROWS_H
#define XAPI_MIGRATE_INCOMING_ROWS_H

#include "xapi/core/api_call.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/ledger.h"

#define INCOMING_KEY METADATA_INCOMING /* in other_config of a VM that is on its way here: the migration's id */
#define INCOMING_HA_KEY METADATA_INCOMING_HA /* the same: ha_always_run as it is to be once it runs here */
#define INCOMING_TRANSIENT "transient" /* in other_config: the record goes when the VM is shut down */

struct incoming_move {
    const char *id, *vm /* ref, "" before it is admitted */, *host;
    bool running, persistent;
    const char *const *vdis; /* refs of what was made */
    unsigned n_vdis;
    struct value vbds, vifs; /* plugged devices */
};
/* The row's; false: no such migration. *row_r too. */
NODISCARD struct error *incoming_find(struct api_call *, const char *id, struct ledger_row *row_r, struct incoming_move *, bool *found_r);
void incoming_read(struct arena *, const struct ledger_row *, struct incoming_move *);
NODISCARD struct error *incoming_put(struct api_call *, const struct incoming_move *, const char *stage);

/* The VM's mark "import", held under the migration's name whoever runs. */
void incoming_mark(struct api_call *, const struct incoming_move *);
void incoming_unmark(struct api_call *, const struct incoming_move *);
/* An internal call under the migration's name: marks are keyed by it. */
void incoming_call(struct api_call *, struct xapi *, struct call *outer, const char *id);

/* The VM is here for good: rows, marks, disks' users. Idempotent. */
NODISCARD struct error *incoming_settle(struct api_call *, const struct incoming_move *, const char *power, int domid);
/* Everything that was made goes. Idempotent; what cannot go now is tried again. */
NODISCARD struct error *incoming_undo(struct api_call *, const struct incoming_move *);

#endif
