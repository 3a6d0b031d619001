/* The core of the daemon without sockets, hypervisor or disk: an in-memory database with roles, a pool
 * and a host, sessions, tasks, events; calls go through dispatch() as from the front. */
#ifndef TESTS_LIB_CORE_WORLD_H
#define TESTS_LIB_CORE_WORLD_H

#include "tests/lib/tempdir.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/xapi.h"

struct core_world {
    struct xapi xapi;
    struct clock_fake fake;  /* used when the world was made with it */
    struct arena *arena;     /* results live here */
    struct tempdir dir;
    const char *session;     /* of root */
    const char *pool, *host; /* refs */
};

void core_world_init(struct core_world *);
/* The same with a clock that stands still. */
void core_world_init_fake(struct core_world *);
void core_world_release(struct core_world *);

/* A call with the session as its first parameter. The result or error lives in the world's arena. */
struct error *core_call(struct core_world *, const char *session, const char *method, struct value *result_r, unsigned n, ...);
/* The same as root; an error fails the test. */
struct value core_ok(struct core_world *, const char *method, unsigned n, ...);
/* As root; fails the test unless the call fails with this code; gives the error. */
const struct error *core_fails(struct core_world *, const char *code, const char *method, unsigned n, ...);
/* As another session. */
struct value core_ok_as(struct core_world *, const char *session, const char *method, unsigned n, ...);
const struct error *core_fails_as(struct core_world *, const char *session, const char *code, const char *method, unsigned n, ...);

/* Parameters just as they stand (log-ins have no session). */
struct error *core_call_raw(struct core_world *, const char *method, const struct value *params, bool trusted, struct value *result_r);

/* A session of a subject with one role, for tests of rights. */
const char *core_session_with_role(struct core_world *, const char *role);

/* Rows made directly. */
const char *core_row(struct core_world *, unsigned class_id, const struct field_value *, unsigned n);
const char *core_vm(struct core_world *, const char *name);

#define S(text) value_string(text)
/* Fails the test unless the value is this string. */
void core_is_string(struct value, const char *expected);

#endif
