/* Whole daemons inside the test's process, each on a loopback address of its own with the same port:
 * real sockets, TLS, files and databases; only exec is missing, so a restart is stop and start. */
#ifndef TESTS_LIB_POOL_WORLD_H
#define TESTS_LIB_POOL_WORLD_H

#include "tests/lib/tempdir.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/startup.h"

#define POOL_HOSTS_MAX 4
#define POOL_PASSWORD "pool-password"

struct pool_host {
    struct daemon_state daemon;
    struct options options;
    struct arena *arena; /* of the options */
    const char *address, *dir;
    const char *session; /* root's; NULL on a member */
    bool up;
};

struct pool_world {
    struct tempdir dir;
    struct arena *arena; /* results live here */
    struct pool_host hosts[POOL_HOSTS_MAX];
    unsigned n;
    int port;
    const char *prefix; /* "127.45.67" */
    const char *more[16][2]; /* options added by the test before pool_world_start */
};

void pool_world_init(struct pool_world *, unsigned n_hosts);
void pool_world_release(struct pool_world *);
/* Adds an option for all hosts. */
void pool_world_option(struct pool_world *, const char *key, const char *value);
void pool_world_start(struct pool_world *); /* all hosts, each a pool of one */

void pool_host_start(struct pool_world *, unsigned i);
void pool_host_stop(struct pool_world *, unsigned i);
/* Waits until the host has asked for its restart, and does it. */
void pool_host_await_restart(struct pool_world *, unsigned i);
bool pool_host_wants_restart(struct pool_world *, unsigned i);

/* As root on host i: session and n parameters. */
struct error *pool_call(struct pool_world *, unsigned i, const char *method, struct value *result_r, unsigned n, ...);
struct value pool_ok(struct pool_world *, unsigned i, const char *method, unsigned n, ...);
const struct error *pool_fails(struct pool_world *, unsigned i, const char *code, const char *method, unsigned n, ...);
/* A field of a record: Class.get_<field>, as text. */
const char *pool_text(struct pool_world *, unsigned i, const char *getter, const char *ref);
/* Host i as host 0 (the coordinator) knows it: its ref. */
const char *pool_host_ref(struct pool_world *, unsigned i);
struct xapi *pool_xapi(struct pool_world *, unsigned i);

/* Joins host i to host 0's pool and waits until it is live and enabled. */
void pool_world_join(struct pool_world *, unsigned i);
bool pool_host_ready(struct pool_world *, unsigned i); /* live and enabled */

/* Polls until the condition holds; fails the test after 20 s. */
#define POOL_UNTIL(condition)                                             \
    do {                                                                  \
        for (unsigned tries_ = 0; !(condition); tries_++)                 \
            pool_wait_step(tries_, #condition, __FILE__, __LINE__);       \
    } while (0)
void pool_wait_step(unsigned tries, const char *what, const char *file, int line);

#define S(text) value_string(text)

#endif
