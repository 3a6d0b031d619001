/* The options map of a move: defaults, xapi's lenient keys, our strict ones, and combinations. */
#include <string.h>

#include "rpc/base/memory.h"
#include "tests/lib/unit.h"
#include "xapi/migrate/move_options.h"

static struct error *read_one(struct arena *a, const char *key, const char *value, struct move_options *o)
{
    struct member *m = arena_calloc(a, 1, sizeof *m);
    struct value *map = arena_calloc(a, 1, sizeof *map);

    *m = member_of(key, value_string(value));
    *map = value_map(m, 1);
    return move_options_read(a, map, o);
}

static struct move_options good(struct arena *a, const char *key, const char *value)
{
    struct move_options o;
    struct error *e = read_one(a, key, value, &o);

    if (e != NULL)
        fail_msg("%s=%s: %s", key, value, error_text(a, e));
    return o;
}

static void refused(struct arena *a, const char *key, const char *value)
{
    struct move_options o;
    struct error *e = read_one(a, key, value, &o);

    if (e == NULL)
        fail_msg("%s=%s was taken", key, value);
    assert_string_equal(e->code, "INVALID_VALUE");
    assert_int_equal(e->n_params, 2);
    assert_string_equal(e->params[0], key);
    assert_string_equal(e->params[1], value);
}

static void test_defaults(void **state)
{
    AUTO_ARENA a = arena_new();
    struct value none = value_map(NULL, 0);
    struct move_options o;

    assert_null(move_options_read(a, &none, &o));
    assert_true(o.live && o.persistent);
    assert_false(o.force || o.copy || o.paused || o.keep_source || o.auto_converge || o.eject_cds || o.overwrite || o.fallback_non_live);
    assert_false(o.queue_refuse || o.hold);
    assert_int_equal(o.compress, COMPRESS_DEFAULT);
    assert_null(o.network);
    assert_null(o.migrate_address);
    assert_null(o.window);
    assert_int_equal(o.streams, 0);
    assert_int_equal(o.bandwidth, 0);
    assert_int_equal(o.on_timeout, TIMEOUT_CONTINUE);
    assert_int_equal(o.postcopy, POSTCOPY_NEVER);
    (void)good(a, "sockets", "lots"); /* unknown keys do not matter */
}

static void test_keys_of_xapi(void **state)
{
    AUTO_ARENA a = arena_new();
    static const struct { const char *word; enum move_compress is; } words[] = {
        { "true", COMPRESS_ON }, { "ON", COMPRESS_ON },  { "1", COMPRESS_ON },     { "False", COMPRESS_OFF },   { "off", COMPRESS_OFF },
        { "0", COMPRESS_OFF },   { "Auto", COMPRESS_AUTO }, { "yes", COMPRESS_DEFAULT }, { "", COMPRESS_DEFAULT },
    };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        assert_int_equal(good(a, "compress", words[i].word).compress, words[i].is);
    assert_true(good(a, "force", "true").force);
    assert_false(good(a, "force", "TRUE").force);
    assert_false(good(a, "force", "1").force);
    assert_true(good(a, "copy", "true").copy);
    assert_false(good(a, "copy", "yes").copy);
    assert_false(good(a, "live", "false").live);
    assert_false(good(a, "live", "Off").live);
    assert_true(good(a, "live", "perhaps").live);
    assert_string_equal(good(a, "network", "OpaqueRef:n").network, "OpaqueRef:n");
    assert_null(good(a, "network", "OpaqueRef:NULL").network);
}

static void test_memory(void **state)
{
    AUTO_ARENA a = arena_new();

    assert_int_equal(good(a, "streams", "16").streams, 16);
    refused(a, "streams", "17");
    refused(a, "streams", "-1");
    refused(a, "streams", "4x");
    assert_int_equal(good(a, "bandwidth", "10").bandwidth, 10 << 20);
    assert_int_equal(good(a, "bandwidth", "medium").bandwidth, 20 << 20);
    refused(a, "bandwidth", "quick");
    assert_int_equal(good(a, "max_downtime_ms", "300").max_downtime_ms, 300);
    refused(a, "max_downtime_ms", "0.5");
    assert_int_equal(good(a, "timeout_s", "60").timeout_s, 60);
    refused(a, "timeout_s", "soon");
    assert_int_equal(good(a, "on_timeout", "suspend").on_timeout, TIMEOUT_SUSPEND);
    refused(a, "on_timeout", "Suspend");
    assert_true(good(a, "fallback", "non-live").fallback_non_live);
    refused(a, "fallback", "nonlive");
    assert_true(good(a, "auto_converge", "on").auto_converge);
    refused(a, "auto_converge", "very");
}

static void test_postcopy(void **state)
{
    AUTO_ARENA a = arena_new();
    struct move_options o = good(a, "postcopy", "after:30");

    assert_int_equal(o.postcopy, POSTCOPY_AFTER);
    assert_int_equal(o.postcopy_after_s, 30);
    assert_int_equal(good(a, "postcopy", "allowed").postcopy, POSTCOPY_ALLOWED);
    assert_int_equal(good(a, "postcopy", "never").postcopy, POSTCOPY_NEVER);
    refused(a, "postcopy", "after");
    refused(a, "postcopy", "after:");
    refused(a, "postcopy", "after:-1");
    refused(a, "postcopy", "always");
}

static void test_uri(void **state)
{
    AUTO_ARENA a = arena_new();
    static const struct { const char *uri, *address; int port; } uris[] = {
        { "tcp://10.0.0.2:49152", "10.0.0.2", 49152 }, { "tcp://host-2.example", "host-2.example", 0 }, { "tcp:h:1", "h", 1 },
        { "10.0.0.2", "10.0.0.2", 0 },                 { "tcp://[fe80::1%eth0]:443", "fe80::1%eth0", 443 }, { "[::1]", "::1", 0 },
    };
    static const char *const wrong[] = { "tcp://:49152", ":80", "tcp://", "h:0", "h:65536", "h:", "h:1/", "rdma://h", "[::1", "[]:1", "h h" };

    for (unsigned i = 0; i < ARRAY_LEN(uris); i++) {
        struct move_options o = good(a, "migrate_uri", uris[i].uri);
        assert_string_equal(o.migrate_address, uris[i].address);
        assert_int_equal(o.migrate_port, uris[i].port);
    }
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
        refused(a, "migrate_uri", wrong[i]);
}

static void test_queue(void **state)
{
    AUTO_ARENA a = arena_new();
    static const char *const wrong[] = { "2:00-4:00", "02:00-24:00", "02:60-03:00", "02:00 04:00", "02:00-04:00 ", "0a:00-04:00", "02:00-" };

    assert_true(good(a, "queue", "refuse").queue_refuse);
    assert_false(good(a, "queue", "wait").queue_refuse);
    refused(a, "queue", "maybe");
    assert_int_equal(good(a, "priority", "-5").priority, -5);
    refused(a, "priority", "high");
    assert_int_equal(good(a, "not_before", "1700000000").not_before, 1700000000);
    assert_int_equal(good(a, "not_before", "20231114T22:13:20Z").not_before, 1700000000);
    refused(a, "not_before", "tomorrow");
    refused(a, "not_before", "-1");
    assert_string_equal(good(a, "window", "22:30-04:00").window, "22:30-04:00");
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++)
        refused(a, "window", wrong[i]);
    assert_true(good(a, "hold", "true").hold);
    refused(a, "hold", "on hold");
}

static void test_ends(void **state)
{
    AUTO_ARENA a = arena_new();

    assert_true(good(a, "cd", "eject").eject_cds);
    assert_false(good(a, "cd", "refuse").eject_cds);
    refused(a, "cd", "keep");
    assert_true(good(a, "paused", "true").paused);
    assert_true(good(a, "keep_source", "1").keep_source);
    assert_true(good(a, "overwrite", "true").overwrite);
    refused(a, "paused", "nope");
}

static const char *code_of(struct arena *a, const struct member *members, unsigned n)
{
    struct value map = value_map(members, n);
    struct move_options o;
    struct error *e = move_options_read(a, &map, &o);

    return e == NULL ? "" : e->code;
}

static void test_combinations(void **state)
{
    AUTO_ARENA a = arena_new();
    const struct member transient[] = { member_of("persistent", value_string("false")), member_of("keep_source", value_string("true")) };
    const struct member forced[] = { member_of("persistent", value_string("false")), member_of("force", value_string("true")) };
    const struct member copied[] = { member_of("persistent", value_string("false")), member_of("copy", value_string("true")) };
    const struct member late[] = { member_of("on_timeout", value_string("postcopy")), member_of("postcopy", value_string("allowed")) };

    assert_string_equal(code_of(a, transient, 1), "OPERATION_NOT_ALLOWED");
    assert_string_equal(code_of(a, transient, 2), "");
    assert_string_equal(code_of(a, forced, 2), "");
    assert_string_equal(code_of(a, copied, 2), "");
    assert_string_equal(code_of(a, late, 1), "OPERATION_NOT_ALLOWED");
    assert_string_equal(code_of(a, late, 2), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_keys_of_xapi), cmocka_unit_test(test_memory), cmocka_unit_test(test_postcopy),
        cmocka_unit_test(test_uri),      cmocka_unit_test(test_queue),        cmocka_unit_test(test_ends),   cmocka_unit_test(test_combinations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
