/* The options map of VM.pool_migrate and VM.migrate_send, read once (specs/migration-semantics.md §1.2 and design §10).
 *
 * Unknown keys are ignored; an empty value is an absent one. Of the keys that xapi knows the reading is xapi's (force,
 * copy: strict; compress, live: lenient). Of ours a value that is not understood is INVALID_VALUE [key; value]: nothing is
 * guessed. Booleans of ours: true, on, 1, false, off, 0. */
#ifndef XAPI_MIGRATE_MOVE_OPTIONS_H
#define XAPI_MIGRATE_MOVE_OPTIONS_H

#include "xapi/core/api_call.h"

enum move_compress { COMPRESS_DEFAULT, COMPRESS_OFF, COMPRESS_ON, COMPRESS_AUTO };
enum move_on_timeout { TIMEOUT_CONTINUE, TIMEOUT_ABORT, TIMEOUT_SUSPEND, TIMEOUT_POSTCOPY };
enum move_postcopy { POSTCOPY_NEVER, POSTCOPY_ALLOWED, POSTCOPY_AFTER };

struct move_options {
    bool live;                   /* default true */
    bool force, copy;
    enum move_compress compress;
    const char *network;         /* ref, or NULL (pool_migrate) */
    unsigned streams;            /* 1..16; 0: chosen */
    int64_t bandwidth;           /* bytes/s; 0: unlimited ("bandwidth" in MiB/s, or a word of disk_move_bandwidth) */
    unsigned max_downtime_ms;    /* 0: the engine's default */
    int64_t timeout_s;           /* 0: none */
    enum move_on_timeout on_timeout;
    enum move_postcopy postcopy;
    int64_t postcopy_after_s;
    bool fallback_non_live;      /* fallback=non-live (none) */
    bool paused, keep_source, auto_converge, overwrite;
    bool eject_cds;              /* cd=eject (refuse) */
    bool persistent;             /* default true */
    const char *migrate_address; /* of migrate_uri (tcp://host:port), or NULL */
    int migrate_port;            /* 0: none; a port without an address is refused */
    /* the queue (queue.h) */
    bool queue_refuse;           /* queue=refuse (wait) */
    int priority;                /* higher goes first; 0 */
    int64_t not_before;          /* wall seconds (given so or as a datetime); 0: now */
    const char *window;          /* "HH:MM-HH:MM" (UTC) in which the switch may happen, or NULL */
    bool hold;                   /* wait before the switch until the task's other_config says release=true */
};

/* INVALID_VALUE [key; value]; OPERATION_NOT_ALLOWED [reason] for combinations: persistent=false with keep_source=false
 * needs force; on_timeout=postcopy needs postcopy. Strings belong to the map or the arena. */
NODISCARD struct error *move_options_read(struct arena *, const struct value *map, struct move_options *);

#endif
