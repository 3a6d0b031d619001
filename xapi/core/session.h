/* Sessions: a table in memory for the hot path, and a volatile row each for clients.
 *
 * Looked up once per call, so the table is all that is asked; the row's last_active follows slowly.
 * A session ends by logout, by inactivity, by its user opening too many, or with the process; ending
 * it wakes its waiting event calls. */
#ifndef XAPI_CORE_SESSION_H
#define XAPI_CORE_SESSION_H

#include <stdatomic.h>

#include "xapi/core/api_call.h"

/* Counted; immutable but for the atomics. */
struct session {
    atomic_uint refs;
    const char *ref, *user, *subject, *sid, *originator;
    enum session_kind kind;
    bool superuser;
    unsigned roles;             /* ROLE_* mask; of a superuser: all */
    int64_t created_ms;
    _Atomic int64_t active_ms;  /* last use, mono */
    _Atomic int64_t shown_ms;   /* as the row's last_active says */
    atomic_bool gone;
    struct session_db *own;     /* the database it looks at (session_db.h), or NULL: the pool's; owned */
    struct session *next;       /* table */
};
void session_unref(struct session *); /* NULL is fine */

struct sessions *sessions_new(struct xapi *);
void sessions_free(struct sessions *);

struct session_spec {
    enum session_kind kind;     /* SESSION_LOCAL sessions have no row */
    const char *user, *subject, *sid, *originator; /* NULL: none */
    const char *host;           /* this_host; NULL: ours */
    bool superuser;
    unsigned roles;
    struct session_db *own;     /* taken when the session was made; NULL: the pool's database */
};
NODISCARD struct error *session_create(struct xapi *, struct arena *, const struct session_spec *, const char **ref_r);
/* False when there is no such session. */
bool session_destroy(struct xapi *, struct arena *, const char *ref);
/* Ends all sessions of a subject identifier; the number ended. */
unsigned session_destroy_of(struct xapi *, struct arena *, const char *sid);

/* The live session, counted and marked as used; NULL if there is none. */
struct session *session_find(struct sessions *, const char *ref);
/* Fills the call's session fields from 'ref': SESSION_INVALID [ref]. The call's arena holds the session. */
NODISCARD struct error *session_enter(struct api_call *c, const char *ref);

/* Ends what was idle too long, and writes last_active of the others. */
void session_gc(struct xapi *, int64_t now_ms);

/* Every live session's subject identifier, without doubles, in the arena. */
struct value session_subject_identifiers(struct xapi *, struct arena *);

/* Compares secrets in time that depends on their lengths only. */
bool secret_equal(const char *, const char *);
/* "s:1f2e3d4c" for the log. */
const char *session_log_name(struct arena *, const char *ref);

#endif
