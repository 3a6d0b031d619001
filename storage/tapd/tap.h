/* The tap: what one tapd serves, its stack of layers, and the verbs on it. Internal to the tapd program.
 *
 *   tap.c         making, starting, ending; verbs one at a time; holding the guest
 *   tap_stack.c   opening, linking, closing what is below the gate
 *   tap_verbs.c   the table of verbs; activate, pause, resume, …
 *   tap_status.c  status
 *   tap_mirror.c  the verbs of the mirror
 *
 * Stack: gate -> statistics -> throttle -> [cbt] -> [mirror] -> [faults] -> chain. Changed blocks are tracked above
 * the mirror, so that a merge into the parent loses none.
 *
 * What the spec says is what a restart does: 'active' opens and serves, 'inactive' and 'paused' hold. */
#ifndef STORAGE_TAPD_TAP_H
#define STORAGE_TAPD_TAP_H

#include "storage/tapd/block.h"
#include "storage/tapd/control.h"
#include "storage/tapd/gate.h"
#include "storage/tapd/mirror.h"
#include "storage/tapd/nbd_client.h"
#include "storage/tapd/nbd_server.h"
#include "storage/tapd/spec.h"

struct tap;
struct tap_options {
    struct loop *loop;
    struct disk_io *io;
    const char *dir;    /* has a spec */
    bool allow_faults;
};
/* Listens on both sockets and begins what the spec asks for. Errors for the log. */
NODISCARD struct error *tap_new(struct arena *, const struct tap_options *, struct tap **tap_r);
/* SIGTERM: drains and flushes, then stops the loop; the spec stays, a restart goes on. */
void tap_shutdown(struct tap *);
void tap_free(struct tap *); /* after the loop has stopped */

#define TAP_AWAY "the disk is on another machine that cannot be reached now"

/* --- inside ------------------------------------------------------------------------------------------ */
typedef void tap_after_fn(struct tap *, int result);
struct tap_mirror_options {
    struct mirror_options layer;
    unsigned streams; /* connections to a target by NBD; 0: as the client likes */
};
typedef void tap_verb_fn(struct tap *, struct control_call *); /* ends with tap_answer, at once or later */

struct tap {
    struct loop *loop;
    struct disk_io *io;
    char *dir, *spec_path, *map_path;
    bool allow_faults;
    struct spec spec;
    struct control *control;
    struct nbd_server *server;
    struct loop_timer again; /* opening failed at the start */

    struct block *gate;             /* always */
    struct block *stats, *throttle; /* from the first opening on */
    struct block *cbt, *mirror;     /* may be NULL */
    struct block *source;           /* the chain with its fault layer; NULL: closed */
    struct block *remote;           /* the chain when it is one by NBD */

    struct control_call *call; /* the verb that runs; the others wait */
    struct control_call *queue, **queue_last;
    struct loop_idle next_call;

    struct block_request flush;
    struct loop_idle flush_done;
    tap_after_fn *after;      /* of tap_hold, tap_mirror_leave */
    bool wants_flush;         /* tap_hold */
    bool was_open;            /* the gate, when a verb of the mirror closed it */

    struct arena *mirror_arena;            /* as long as the layer */
    struct tap_mirror_options mirror_options;
    struct block *target;                  /* opened, not yet in the layer */
    unsigned leaving;                      /* what tap_mirror_leave still waits for */
    bool switched;                         /* the mirror has committed */
    bool handing;                          /* a hand-over holds the gate */
    tap_after_fn *then;                    /* of tap_mirror_take_back */
    struct { enum mirror_state state; bool handed; char text[256]; struct mirror_status last; } past; /* of one whose layer is gone */
};

/* tap.c */
void tap_answer(struct tap *, const struct error *, const struct value *result);
/* "ok state=…" */
void tap_answer_state(struct tap *);
struct error *tap_error(struct arena *, const char *what, int rc); /* rc 0: the text alone */
/* Closes the gate; when all is drained, and flushed where asked, 'after' goes on. The gate stays closed. */
void tap_hold(struct tap *, bool flush, tap_after_fn *after);
NODISCARD struct error *tap_save(struct tap *, struct arena *, bool durable);
void tap_fail_later(struct tap *); /* tries to open once more in a second */

/* tap_stack.c: the gate is closed and drained. */
NODISCARD struct error *tap_open(struct tap *, struct arena *, const char *format, const char *path, const char *cbt);
int tap_close(struct tap *); /* closes all below the throttle; nothing open is fine. 0 or -errno */
void tap_link(struct tap *); /* after source, mirror or cbt changed */
void tap_take_chain(struct tap *, struct block *chain); /* becomes the source, with its fault layer */
bool tap_is_away(const struct tap *); /* the disk is remote and lost: nothing can be drained now */
void tap_throttle(struct tap *);
NODISCARD struct error *tap_open_image(struct tap *, struct arena *, const char *format, const char *path, const struct nbd_options *,
                                      struct block **block_r);

/* tap_mirror.c */
bool tap_has_mirror(const struct tap *); /* one that is not ended, also a failed one */
void tap_mirror_get(const struct tap *, struct mirror_status *);
const char *mirror_state_name(enum mirror_state);
const char *tap_mirror_mode(const struct tap *); /* "merge", …; of one there is or was */
void tap_mirror_load(struct tap *);                  /* at the start: a mirror that had ended */
void tap_mirror_again(struct tap *, struct arena *); /* after opening: the one of the spec; the gate is closed */
/* Closes the gate and takes the mirror out of the stack; then after(0), the gate still closed. */
void tap_mirror_leave(struct tap *, tap_after_fn *after);
/* The layer is gone: what status says of it from now on, and the spec (not saved). */
void tap_mirror_past(struct tap *, enum mirror_state, const char *text);
/* The disk is served here again: a hand-over under way is taken back, one that is done is forgotten. Then after(0). */
void tap_mirror_take_back(struct tap *, tap_after_fn *after);
/* Handing over holds the gate; nothing else does then. */
bool tap_mirror_holds(const struct tap *);
tap_verb_fn verb_mirror_start, verb_mirror_set, verb_mirror_switch, verb_mirror_hand_over, verb_mirror_abort, verb_mirror_end;

/* tap_verbs.c, tap_status.c */
void tap_run(struct tap *, struct control_call *);
bool tap_runs_at_once(const struct control_call *);
tap_verb_fn verb_status;

#endif
