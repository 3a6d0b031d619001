/* The tapds of this host: starting, finding again, watching over and talking to them.
 *
 * One tapd serves one VDI (key "<sr uuid>/<location>") from a directory of its own below 'dir'
 * (storage/tapd/control_protocol.h). They outlive this process: taps_new finds those that run. One that dies is
 * started again with the same spec, after 100 ms, then at most once a second, for as long as it has users; NBD
 * clients connect again by themselves. What the directory says is the truth, also about finished switches.
 *
 * Thread-safe. Lock class STORAGE for the table; never held over I/O. Calls for one tapd run one at a time.
 * Errors: SR_BACKEND_FAILURE ["tapd"; ""; text]; TASK_CANCELLED. All block but taps_list. */
#ifndef STORAGE_TAP_H
#define STORAGE_TAP_H

#include "rpc/base/call.h"
#include "rpc/base/error.h"
#include "rpc/base/value.h"

struct taps;
struct taps_options {
    const char *dir;        /* "<state>/tapd"; short: socket paths are limited to 107 bytes */
    const char *program;    /* tapd */
    const struct clock *clock;
    bool allow_faults;      /* its fault points may be armed */
    int64_t answer_ms;      /* how long a tapd may take for an answer; 0: 10,000 */
};
struct taps *taps_new(const struct taps_options *);
void taps_free(struct taps *); /* leaves the processes alone */
/* Called from a thread of the taps when a tapd's mirror changed state or was lost, or a tapd was started again. */
void taps_watch(struct taps *, void (*changed)(void *ctx, const char *key), void *ctx);

struct tap_spec {
    const char *key, *format, *path;
    bool read_only, cached;
    int64_t size;
    const char *cbt;        /* path of the log, or "" */
};
/* A user (a word such as "vbd-<uuid>") takes the VDI; the first one starts the process, inactive. Repeating it
 * is fine. A writer joining readers reopens it for writing. *uri_r (arena): what NBD clients open. */
NODISCARD struct error *tap_attach(struct call *, struct taps *, const struct tap_spec *, const char *user, const char **uri_r);
/* The last user ends the process; unknown key or user is fine. */
NODISCARD struct error *tap_detach(struct call *, struct taps *, const char *key, const char *user);
bool tap_exists(struct taps *, const char *key);
/* One verb of control_protocol.h; arguments and result are maps (NULL: none). fd -1: no descriptor rides along. */
NODISCARD struct error *tap_call(struct call *, struct taps *, const char *key, const char *verb, const struct value *arguments, int fd, struct value *result_r);
/* After a switch: the tapd serves another VDI now. The old key is gone, the new one taken (users stay). */
NODISCARD struct error *tap_rekey(struct call *, struct taps *, const char *key, const char *new_key);
/* What a mirror leads to, kept in the directory so that a switch is found out after a crash: the VDI and what its
 * image is called there. to NULL: nothing (any more). */
NODISCARD struct error *tap_lead(struct call *, struct taps *, const char *key, const char *to, const char *path);
bool tap_leads_to(struct taps *, struct arena *, const char *key, const char **to_r, const char **path_r);
bool tap_is_target(struct taps *, const char *key);
/* Where the tapd that had this key went by tap_rekey: its key now; NULL: nowhere that is known. */
const char *tap_successor(struct taps *, struct arena *, const char *key);
/* What the last status of a mirror said that was done or had switched, for as long as this process lives; void: none. */
struct value tap_last_mirror(struct taps *, struct arena *, const char *key);
/* All of them, each as the map of its spec and its last status (arena). */
struct value taps_list(struct taps *, struct arena *);

#endif
