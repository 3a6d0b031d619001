/* What all of storage/sr*.c shares: the attached SRs, whose turn it is, and running one verb of a driver.
 * Private to storage/.
 *
 * Turns: one call at a time for the SR itself (location "") and for each VDI; beside that the calls that make or
 * remove images (TURN_MAKER) and the clearing up (TURN_CLEAN) keep each other out. A maker that has to wait
 * cancels the step of clearing up that is in its way: it is taken up again later. */
#ifndef STORAGE_SR_TABLE_H
#define STORAGE_SR_TABLE_H

#include "rpc/base/lock.h"
#include "storage/sr.h"
#include "storage/tap.h"

enum turn_kind { TURN_PLAIN, TURN_MAKER, TURN_CLEAN };
struct turn {
    struct turn *next;
    const char *sr, *location;
    enum turn_kind kind;
    struct cancel *cancel; /* of TURN_CLEAN: raised by a maker that waits */
};

/* An attached SR; owned by the storage, counted by the calls that use it. */
struct attached {
    struct attached *next;
    struct arena *arena; /* holds the strings of 'sr' */
    struct sr sr;
    unsigned users;
    bool gone; /* detached: freed by the last user */
};

/* Somebody who uses a VDI without a tapd of its own, or for a tapd under another key. */
struct direct_use { struct direct_use *next; char *sr, *location, *user; };

struct cleaner; /* sr_clean.c */
struct storage {
    struct lock lock;
    struct cond changed;
    struct attached *srs;
    struct turn *turns;
    struct direct_use *direct;
    struct taps *taps;
    struct cleaner *cleaner;
};

NODISCARD struct error *turn_begin(struct call *, struct storage *, struct turn *);
void turn_end(struct storage *, struct turn *);

/* NULL when it is not attached; else to be given back. */
struct attached *attached_use(struct storage *, const char *uuid);
void attached_leave(struct storage *, struct attached *);
struct attached *attached_new(const struct sr_spec *, const struct sr_driver *);
void attached_free(struct attached *);
void attached_insert(struct storage *, struct attached *);
void attached_remove(struct storage *, struct attached *);

/* What one verb needs; run() calls the driver. */
struct verb {
    const char *name;
    unsigned cap; /* 0: any driver can */
    enum turn_kind kind;
    struct error *(*run)(struct call *, struct sr *, struct verb *);
    const char *location, *uuid;
    const struct vdi_create_spec *create;
    int64_t size;
    bool flag; /* read_only, on */
    struct vdi_stat *vdi, **vdis;
    unsigned *n;
    struct sr_stat *stat;
    struct vdi_where *where;
    uint8_t **bitmap;
    size_t *len;
    bool *more;
    struct cancel *cancel; /* of TURN_CLEAN */
};
/* Takes the turn, checks that the SR is attached and can, hits "sr.<name>", runs, logs. */
NODISCARD struct error *verb_run(struct call *, struct storage *, const char *sr, struct verb *);

/* Driver calls with the fault points and the log, for code that holds the turn already. */
NODISCARD struct error *verb_in_turn(struct call *, struct storage *, const char *sr, struct verb *);

/* "<sr>/<location>": the key of a VDI's tapd. */
const char *vdi_key(struct arena *, const char *sr, const char *location);

/* The key of some VDI of the SR that a tapd serves or mirrors to; NULL: none. */
const char *sr_tap(struct arena *, struct storage *, const char *sr);

/* Remembers and forgets direct users. False: nobody of that name. */
void direct_add(struct storage *, const char *sr, const char *location, const char *user);
bool direct_remove(struct storage *, const char *sr, const char *location, const char *user);
bool direct_any(struct storage *, const char *sr, const char *location);

/* A fault point or a failure of our own, as SR_BACKEND_FAILURE. */
struct error *storage_failed(struct call *, const char *fmt, ...) PRINTF(2, 3);
#define STORAGE_FAULT(c, name) (fault_hit(name) ? storage_failed(c, "fault injected: %s", name) : NULL)
/* A call that goes on where its owner has given up: for undoing. */
struct call storage_calm(const struct call *);

/* sr_data.c: the driver lets go of a VDI that nobody uses any more. The caller has its turn. */
NODISCARD struct error *vdi_let_go(struct call *, struct storage *, const char *sr, const char *location);

/* sr_clean.c: after a call that may have left something to clear up. */
void cleaner_note(struct storage *, const char *sr);
void cleaner_forget(struct storage *, const char *sr);
void cleaner_free(struct storage *);

#endif
