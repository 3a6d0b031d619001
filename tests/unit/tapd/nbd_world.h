/* What the tests of tapd's NBD client stand on: a loop, requests that are waited for, an nbdkit. */
#ifndef TESTS_UNIT_TAPD_NBD_WORLD_H
#define TESTS_UNIT_TAPD_NBD_WORLD_H

#include "tests/lib/unit.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/tapd/nbd_client.h"
#include "tests/lib/tempdir.h"

struct world {
    struct arena *arena;
    struct loop *loop;
    struct tempdir dir;
    struct block *block;
    pid_t server;
    const char *socket;
    int lost, lost_reason; /* how often 'lost' was called */
};

static inline void world_make(struct world *w)
{
    *w = (struct world) { .arena = arena_new(), .loop = loop_new(&clock_real) };
    tempdir_make(&w->dir);
    w->socket = tempdir_file(&w->dir, "sock");
}

static inline void server_end(struct world *w, int how)
{
    int status;
    if (w->server <= 0)
        return;
    kill(w->server, how);
    kill(w->server, SIGCONT);
    waitpid(w->server, &status, 0);
    w->server = 0;
    unlink(w->socket);
}

static inline void world_end(struct world *w)
{
    assert_int_equal(block_close(w->block), 0);
    server_end(w, SIGTERM);
    loop_free(w->loop);
    arena_free(w->arena);
    tempdir_remove(&w->dir);
}

/* nbdkit with these words (NULL-terminated) on w->socket, ready. */
static inline void server_start(struct world *w, const char *const *words)
{
    const char *pidfile = tempdir_file(&w->dir, "pid");
    const char *argv[32] = { "nbdkit", "--exit-with-parent", "-f", "-U", w->socket, "-P", pidfile };
    struct child_spec spec = CHILD_SPEC_INIT;
    unsigned n = 7;

    unlink(pidfile);
    unlink(w->socket);
    while (*words != NULL)
        argv[n++] = *words++;
    spec.argv = argv;
    assert_int_equal(child_start(&spec, &w->server), 0);
    for (unsigned i = 0; access(pidfile, F_OK) != 0; i++) {
        assert_true(i < 2000);
        assert_int_equal(waitpid(w->server, NULL, WNOHANG), 0);
        poll(NULL, 0, 5);
    }
}
#define SERVER(w, ...) server_start(w, (const char *const[]) { __VA_ARGS__, NULL })

static inline void world_lost(void *ctx, int reason)
{
    struct world *w = ctx;
    w->lost++;
    w->lost_reason = reason;
}

static inline struct error *world_try(struct world *w, const struct nbd_options *options, bool read_only)
{
    struct block_open o = { .loop = w->loop, .format = "nbd", .path = nbd_uri_unix(w->arena, w->socket), .read_only = read_only };
    return nbd_open_with(w->arena, &o, options, &w->block);
}

static inline void world_open(struct world *w, struct nbd_options options)
{
    struct error *e;
    options.lost = world_lost;
    options.ctx = w;
    e = world_try(w, &options, false);
    if (e != NULL)
        fail_msg("%s", error_text(w->arena, e));
}

/* --- requests ----------------------------------------------------------------------------------------- */

static inline void request_done(struct block_request *r) { *(bool *)r->owner = true; }

static inline void turn_until(struct world *w, const bool *flag)
{
    for (unsigned i = 0; !*flag; i++) {
        assert_true(i < 100000);
        loop_turn(w->loop, 10);
    }
}

static inline int run(struct world *w, enum block_op op, unsigned flags, int64_t offset, uint32_t length, void *buffer)
{
    bool done = false;
    struct block_request r = { .op = op, .flags = flags, .offset = offset, .length = length, .buffer = buffer, .done = request_done, .owner = &done };
    block_submit(w->block, &r);
    turn_until(w, &done);
    return r.result;
}

#endif
