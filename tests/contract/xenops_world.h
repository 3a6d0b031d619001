/* A host with a backend for the xenops contract tests: opened in a directory of its own, all its
 * domains destroyed at the end. A second host shares the witness directory, as two hosts of one
 * machine do. Needs the program xapi-guest next to (or above) the test's own. */
#ifndef TESTS_CONTRACT_XENOPS_WORLD_H
#define TESTS_CONTRACT_XENOPS_WORLD_H

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"
#include "xenops/xenops.h"

#define MIB (1ll << 20)
#define VM_UUID "11111111-2222-4333-8444-555555555555"
#define VM_OTHER "99999999-2222-4333-8444-555555555555"
#define WAIT_MS 30000

struct host {
    struct tempdir dir;
    struct call call;
    struct xenops *xenops;
    atomic_uint changes; /* calls of the watch function */
};

static inline void host_changed(void *ctx, const char *uuid)
{
    struct host *h = ctx;

    atomic_fetch_add(&h->changes, 1);
}

static inline const char *shown(struct error *e)
{
    static struct arena *a;

    if (e == NULL)
        return "";
    a = a != NULL ? a : arena_new();
    return error_text(a, e);
}
#define assert_ok(expr) assert_string_equal(shown(expr), "")
#define assert_fails(expr, error_code)           \
    do {                                         \
        struct error *failed_ = (expr);          \
        assert_non_null(failed_);                \
        assert_string_equal(failed_->code, error_code); \
    } while (0)

/* How long a guest may take to suspend; a test that waits for that in vain sets it lower. */
static const char *suspend_ms = "20000";

static inline void host_options(struct host *h, const char *witness_dir, struct value_dict *options)
{
    value_dict_set(h->call.arena, options, "sim-witness-dir", value_string(witness_dir));
    value_dict_set(h->call.arena, options, "sim-suspend-ack-ms", value_string(suspend_ms));
    value_dict_set(h->call.arena, options, "sim-suspend-ms", value_string(suspend_ms));
    value_dict_set(h->call.arena, options, "sim-memory-mib", value_string("256"));
}

static inline void host_reopen(struct host *h, const char *witness_dir)
{
    struct value_dict options = { 0 };

    host_options(h, witness_dir, &options);
    struct value v = value_dict_value(&options);
    assert_ok(xenops_open(h->call.arena, "sim", h->dir.path, &v, &clock_real, host_changed, h, &h->xenops));
}

/* Hosts that are open: what a failed test leaves is closed by hosts_close. */
static struct host hosts[2];

static inline struct host *host_open(const struct host *other)
{
    struct host *h = hosts[0].xenops == NULL ? &hosts[0] : &hosts[1];

    assert_null(h->xenops);
    *h = (struct host){ .call = { .arena = arena_new(), .clock = &clock_real, .id = "R:test", .cancel = cancel_new() } };
    tempdir_make(&h->dir);
    host_reopen(h, arena_printf(h->call.arena, "%s/witness", other != NULL ? other->dir.path : h->dir.path));
    return h;
}

static inline void host_close(struct host *h)
{
    struct call c = h->call;
    struct domain_info *infos;
    unsigned n;

    c.cancel = NULL;
    fault_disarm(NULL);
    assert_ok(xenops_list(&c, h->xenops, &infos, &n));
    for (unsigned i = 0; i < n; i++)
        assert_ok(xenops_destroy(&c, h->xenops, infos[i].uuid));
    xenops_close(h->xenops);
    h->xenops = NULL;
    tempdir_remove(&h->dir);
    cancel_unref(h->call.cancel);
    arena_free(h->call.arena);
}

static inline int hosts_close(void **state)
{
    suspend_ms = "20000";
    for (unsigned i = 0; i < ARRAY_LEN(hosts); i++)
        if (hosts[i].xenops != NULL)
            host_close(&hosts[i]);
    return 0;
}

/* A VM of 16 MiB; platform: "key=value" words separated by blanks. */
static inline struct vm_spec *spec_of(struct host *h, const char *uuid, const char *platform)
{
    struct vm_spec *s = arena_alloc(h->call.arena, sizeof(*s));
    struct value_dict keys = { 0 };

    for (const char *at = platform; *at != '\0';) {
        size_t key = strcspn(at, "="), len = strcspn(at, " ");
        const char *name = arena_strndup(h->call.arena, at, key);
        value_dict_add(h->call.arena, &keys, name, value_string(arena_strndup(h->call.arena, at + key + 1, len - key - 1)));
        at += len + (at[len] == ' ');
    }
    *s = (struct vm_spec){ .uuid = uuid, .name = "test", .kind = VM_KIND_HVM, .memory_static_max = 16 * MIB,
                           .memory_dynamic_max = 16 * MIB, .memory_dynamic_min = 8 * MIB, .vcpus_max = 2, .vcpus = 2,
                           .platform = value_dict_value(&keys), .xenstore_data = value_map(NULL, 0), .on_poweroff = "destroy",
                           .on_reboot = "restart", .on_crash = "restart" };
    return s;
}

/* The digits at the beginning of a text. */
static inline long long text_number(struct host *h, const char *text)
{
    int64_t n = -1;

    assert_true(text_to_int(arena_strndup(h->call.arena, text, strspn(text, "0123456789")), &n));
    return n;
}
static inline struct domain_info info_of(struct host *h, const char *uuid)
{
    struct domain_info info;

    assert_ok(xenops_find(&h->call, h->xenops, uuid, &info));
    return info;
}
static inline long long guest_number(struct host *h, const char *uuid, const char *key)
{
    struct domain_info info = info_of(h, uuid);

    return text_number(h, value_get_string(&info.guest, key, "0"));
}

/* Until 'key' of the guest has reached 'at_least', or the domain is in 'state'. */
static inline void wait_number(struct host *h, const char *uuid, const char *key, long long at_least)
{
    int64_t until = clock_ms(&clock_real) + WAIT_MS;

    while (guest_number(h, uuid, key) < at_least) {
        assert_true(clock_ms(&clock_real) < until);
        (void)poll(NULL, 0, 2);
    }
}
static inline void wait_state(struct host *h, const char *uuid, enum domain_state state)
{
    int64_t until = clock_ms(&clock_real) + WAIT_MS;

    while (info_of(h, uuid).state != state) {
        assert_true(clock_ms(&clock_real) < until);
        (void)poll(NULL, 0, 2);
    }
}

/* It lives and goes on writing. */
static inline void assert_runs(struct host *h, const char *uuid)
{
    assert_int_equal(info_of(h, uuid).state, DOMAIN_RUNNING);
    wait_number(h, uuid, "sim/pages_written", guest_number(h, uuid, "sim/pages_written") + 20);
}

#endif
