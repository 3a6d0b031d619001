#include "tests/lib/pool_world.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "tests/lib/unit.h"
#include "xapi/core/session.h"
#include "xapi/core/users.h"

#define ARGS_MAX 64

static void must_ok(struct arena *arena, const struct error *error, const char *what)
{
    if (error != NULL)
        fail_msg("%s: %s", what, error_text(arena, error));
}

static int free_port(const char *address)
{
    AUTO_FD fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in in = { .sin_family = AF_INET };
    socklen_t len = sizeof(in);

    assert_int_equal(inet_pton(AF_INET, address, &in.sin_addr), 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    return ntohs(in.sin_port);
}

void pool_world_init(struct pool_world *w, unsigned n_hosts)
{
    *w = (struct pool_world) { .n = n_hosts };
    tempdir_make(&w->dir);
    w->arena = arena_new();
    w->prefix = arena_printf(w->arena, "127.%d.%d", 2 + getpid() % 240, 1 + (getpid() / 240) % 250);
    w->port = free_port(arena_printf(w->arena, "%s.1", w->prefix));
    must_ok(w->arena, users_set(w->arena, tempdir_file(&w->dir, "users"), "root", POOL_PASSWORD), "users file");
}

void pool_world_release(struct pool_world *w)
{
    for (unsigned i = 0; i < w->n; i++)
        pool_host_stop(w, i);
    arena_free(w->arena);
    tempdir_remove(&w->dir);
}

void pool_world_option(struct pool_world *w, const char *key, const char *value)
{
    unsigned i = 0;

    while (w->more[i][0] != NULL)
        i++;
    assert_true(i + 1 < ARRAY_LEN(w->more));
    w->more[i][0] = key;
    w->more[i][1] = value;
}

static void args_add(struct arena *arena, char **argv, int *argc, const char *key, const char *value)
{
    assert_true(*argc + 3 < ARGS_MAX);
    argv[(*argc)++] = arena_strdup(arena, "--set");
    argv[(*argc)++] = arena_printf(arena, "%s=%s", key, value);
}

static void options_make(struct pool_world *w, unsigned i)
{
    struct pool_host *h = &w->hosts[i];
    const char *const fixed[][2] = {
        { "dir", h->dir },
        { "address", h->address },
        { "http-port", "-1" },
        { "https-port", arena_printf(h->arena, "%d", w->port) },
        { "unix-socket", "" },
        { "hypervisor", "sim" },
        { "tls-key", "p256" },
        { "users-file", tempdir_file(&w->dir, "users") },
        { "auth-fail-delay-ms", "10" },
        { "host-heartbeat-interval-ms", "200" },
        { "host-assumed-dead-interval-ms", "2000" },
        { "fuse-time-ms", "10" },
        { "local-sr-path", arena_printf(h->arena, "%s/sr", h->dir) },
        { "sim-memory-mib", "1024" },
    };
    char *argv[ARGS_MAX] = { arena_strdup(h->arena, "xapi") };
    int argc = 1;

    for (unsigned k = 0; k < ARRAY_LEN(fixed); k++)
        args_add(h->arena, argv, &argc, fixed[k][0], fixed[k][1]);
    for (unsigned k = 0; w->more[k][0] != NULL; k++)
        args_add(h->arena, argv, &argc, w->more[k][0], w->more[k][1]);
    must_ok(h->arena, options_read(h->arena, argc, argv, &h->options), "options");
}

void pool_host_start(struct pool_world *w, unsigned i)
{
    struct pool_host *h = &w->hosts[i];
    const struct session_spec root = { .kind = SESSION_NORMAL, .user = "root", .superuser = true };
    struct error *error;

    h->arena = arena_new();
    h->address = arena_printf(h->arena, "%s.%u", w->prefix, i + 1);
    h->dir = arena_strdup(h->arena, tempdir_file(&w->dir, arena_printf(h->arena, "host%u", i)));
    options_make(w, i);
    error = startup(&h->daemon, &h->options, &clock_real);
    h->up = true;
    if (error != NULL)
        fail_msg("host %u: %s", i, error_text(h->daemon.arena, error));
    h->session = NULL;
    if (h->daemon.xapi.is_coordinator)
        must_ok(h->arena, session_create(&h->daemon.xapi, h->arena, &root, &h->session), "session");
}

void pool_host_stop(struct pool_world *w, unsigned i)
{
    struct pool_host *h = &w->hosts[i];

    if (!h->up)
        return;
    h->up = false;
    shutdown_all(&h->daemon);
    options_release(&h->options);
    arena_free(h->arena);
}

void pool_world_start(struct pool_world *w)
{
    for (unsigned i = 0; i < w->n; i++)
        pool_host_start(w, i);
}

bool pool_host_wants_restart(struct pool_world *w, unsigned i)
{
    return atomic_load(&w->hosts[i].daemon.restart_at_ms) != 0;
}

void pool_host_await_restart(struct pool_world *w, unsigned i)
{
    POOL_UNTIL(pool_host_wants_restart(w, i));
    pool_host_stop(w, i);
    pool_host_start(w, i);
}

void pool_wait_step(unsigned tries, const char *what, const char *file, int line)
{
    if (tries > 1500)
        fail_msg("%s:%d: waited in vain for %s", file, line, what);
    (void)poll(NULL, 0, 20);
}

/* --- calls ------------------------------------------------------------------------------------------------ */
static struct error *call_with(struct pool_world *w, unsigned i, const char *method, struct value *result_r, unsigned n, va_list args)
{
    struct value *items = arena_calloc(w->arena, n + 1, sizeof(*items));
    struct xapi *xapi = pool_xapi(w, i);
    struct api_call c;

    items[0] = value_string(w->hosts[i].session != NULL ? w->hosts[i].session : "OpaqueRef:NULL");
    for (unsigned k = 0; k < n; k++)
        items[k + 1] = va_arg(args, struct value);
    struct value params = value_set(items, n + 1);
    api_call_init(&c, xapi, w->arena, method);
    c.peer = "test";
    c.trusted = w->hosts[i].session == NULL;
    *result_r = value_void();
    return dispatch(&c, &params, result_r);
}

struct error *pool_call(struct pool_world *w, unsigned i, const char *method, struct value *result_r, unsigned n, ...)
{
    struct error *error;
    va_list args;

    va_start(args, n);
    error = call_with(w, i, method, result_r, n, args);
    va_end(args);
    return error;
}

struct value pool_ok(struct pool_world *w, unsigned i, const char *method, unsigned n, ...)
{
    struct value result;
    struct error *error;
    va_list args;

    va_start(args, n);
    error = call_with(w, i, method, &result, n, args);
    va_end(args);
    if (error != NULL)
        fail_msg("%s: %s", method, error_text(w->arena, error));
    return result;
}

const struct error *pool_fails(struct pool_world *w, unsigned i, const char *code, const char *method, unsigned n, ...)
{
    struct value result;
    struct error *error;
    va_list args;

    va_start(args, n);
    error = call_with(w, i, method, &result, n, args);
    va_end(args);
    if (!error_is(error, code))
        fail_msg("%s: %s, expected %s", method, error == NULL ? "success" : error_text(w->arena, error), code);
    return error;
}

const char *pool_text(struct pool_world *w, unsigned i, const char *getter, const char *ref)
{
    struct value v = pool_ok(w, i, getter, 1, S(ref));

    switch ((enum value_kind)v.kind) {
    case VALUE_STRING:
        return v.s;
    case VALUE_BOOL:
        return v.i ? "true" : "false";
    case VALUE_INT:
    case VALUE_INT32:
        return arena_printf(w->arena, "%lld", (long long)v.i);
    case VALUE_VOID: case VALUE_FLOAT: case VALUE_DATETIME: case VALUE_SET: case VALUE_MAP: case VALUE_RECORD: case VALUE_NIL:
        break;
    }
    return "?";
}

struct xapi *pool_xapi(struct pool_world *w, unsigned i)
{
    return &w->hosts[i].daemon.xapi;
}

const char *pool_host_ref(struct pool_world *w, unsigned i)
{
    struct value refs = pool_ok(w, 0, "host.get_all", 0);

    for (unsigned k = 0; k < refs.len; k++)
        if (strcmp(pool_text(w, 0, "host.get_address", refs.items[k].s), w->hosts[i].address) == 0)
            return refs.items[k].s;
    return NULL;
}

bool pool_host_ready(struct pool_world *w, unsigned i)
{
    const char *ref = pool_host_ref(w, i);

    return ref != NULL && strcmp(pool_text(w, 0, "host.get_enabled", ref), "true") == 0 &&
           strcmp(pool_text(w, 0, "host_metrics.get_live", pool_text(w, 0, "host.get_metrics", ref)), "true") == 0;
}

void pool_world_join(struct pool_world *w, unsigned i)
{
    (void)pool_ok(w, i, "pool.join", 3, S(w->hosts[0].address), S("root"), S(POOL_PASSWORD));
    pool_host_await_restart(w, i);
    POOL_UNTIL(pool_host_ready(w, i));
}
