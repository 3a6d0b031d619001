/* From a token to the events after it, and to the bytes of a reply. */
#ifndef XAPI_CORE_EVENT_BATCH_H
#define XAPI_CORE_EVENT_BATCH_H

#include "rpc/base/text.h"
#include "rpc/wire/envelope.h"
#include "xapi/core/event_filter.h"

struct event_batch {
    const struct change **changes; /* messages first, then adds, mods, dels */
    unsigned n;
    uint64_t generation; /* to ask with next */
};

/* What came after the tokens and passes the filter; rows are held by the arena. */
void event_batch_collect(struct db *, struct arena *, const struct event_filter *, uint64_t since, uint64_t since_messages,
                         struct event_batch *batch_r);
/* {events, valid_ref_counts, token} in the arena; records are VALUE_RECORD. */
struct value event_batch_value(struct db *, struct arena *, const struct event_batch *);
/* The same as the bytes of a value in a wire format: what stands between <value> and </value>, or the
 * JSON. Snapshots come ready-made from the rows. */
void event_batch_write(struct db *, const struct event_batch *, enum wire_format, struct text *);

#endif
