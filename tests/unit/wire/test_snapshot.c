/* Records, their snapshots, and replies in pieces. */
#include "rpc/wire/envelope.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "rpc/wire/json.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/lib/unit.h"
#include "tests/unit/wire/random_value.h"

#define LONG_NAME "a_name_that_is_much_longer_than_any_of_the_model_and_does_not_fit_into_sixteen_times_anything"

static const char *const names[] = { "secret", "uuid", "memory", "tags", "other_config", LONG_NAME, "hidden" };
static const char *const xml_open[] = { "<member><name>secret</name><value>", "<member><name>uuid</name><value>",
                                        "<member><name>memory</name><value>", "<member><name>tags</name><value>",
                                        "<member><name>other_config</name><value>", "<member><name>" LONG_NAME "</name><value>",
                                        "<member><name>hidden</name><value>" };
static const char *const json_open[] = { "\"secret\":", "\"uuid\":", "\"memory\":", "\"tags\":", "\"other_config\":", "\"" LONG_NAME "\":", "\"hidden\":" };
static const uint8_t published[] = { 0, 1, 1, 1, 1, 1, 0 };
static const uint8_t unpublished[ARRAY_LEN(names)];
static const struct record_shape shape = {
    .class_name = "VM", .n_fields = ARRAY_LEN(names), .names = names, .xml_open = xml_open, .json_open = json_open, .published = published,
};
static const struct record_shape empty_shape = {
    .class_name = "VM", .n_fields = ARRAY_LEN(names), .names = names, .xml_open = xml_open, .json_open = json_open, .published = unpublished,
};

static struct record *record_new(struct arena *a, unsigned *seed)
{
    struct record *r = arena_alloc(a, sizeof(*r));
    struct value *fields = arena_calloc(a, ARRAY_LEN(names), sizeof(*fields));

    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        fields[i] = random_value(a, seed, 2);
    r->shape = &shape;
    r->fields = fields;
    return r;
}

static void record_release(struct record *r)
{
    for (unsigned i = 0; i < RECORD_FORMATS; i++)
        blob_unref(r->snapshots[i]);
}

static const struct wire_call calls[] = {
    { .format = WIRE_XMLRPC },
    { .format = WIRE_JSON1, .id_text = "1", .id_text_len = 1 },
    { .format = WIRE_JSON2, .id_text = "\"x\"", .id_text_len = 3 },
};

/* A record is written as the map of its published fields is, with and without a snapshot. */
static void test_record_written_as_map(void **state)
{
    unsigned seed = 1;

    for (unsigned i = 0; i < 300; i++) {
        AUTO_ARENA a = arena_new();
        struct record *r = record_new(a, &seed);
        struct value v = value_record(r), map = value_dup(a, &v);

        assert_int_equal(map.kind, VALUE_MAP);
        for (unsigned c = 0; c < ARRAY_LEN(calls); c++) {
            AUTO_TEXT as_map = TEXT_INIT, fresh = TEXT_INIT, cached = TEXT_INIT;
            wire_write_success(&as_map, &calls[c], &map);
            wire_write_success(&fresh, &calls[c], &v);
            blob_unref(record_snapshot(r, calls[c].format));
            wire_write_success(&cached, &calls[c], &v);
            assert_string_equal(fresh.bytes, as_map.bytes);
            assert_string_equal(cached.bytes, as_map.bytes);
        }
        record_release(r);
    }
}

static void test_record_without_fields(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    unsigned seed = 1;
    struct record *r = record_new(a, &seed);
    struct value v = value_record(r);

    r->shape = &empty_shape;
    xmlrpc_write_value(&t, &v);
    assert_string_equal(t.bytes, "<value><struct></struct></value>");
    text_clear(&t);
    json_write(&t, &v);
    assert_string_equal(t.bytes, "{}");
}

/* More shapes than the table of plans has room for in one place. */
static void test_record_many_shapes(void **state)
{
    static struct record_shape shapes[2000]; /* static: plans are kept for ever */
    AUTO_ARENA a = arena_new();
    AUTO_TEXT expected = TEXT_INIT;
    unsigned seed = 5;
    struct record *r = record_new(a, &seed);
    struct value v = value_record(r);

    json_write(&expected, &v);
    for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
        AUTO_TEXT t = TEXT_INIT;
        shapes[i] = shape;
        r->shape = &shapes[i];
        json_write(&t, &v);
        assert_string_equal(t.bytes, expected.bytes);
    }
}

static void test_record_snapshot_shared(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;
    unsigned seed = 3;
    struct record *r = record_new(a, &seed);
    struct value v = value_record(r);

    struct blob *one = record_snapshot(r, WIRE_JSON1), *two = record_snapshot(r, WIRE_JSON2), *x = record_snapshot(r, WIRE_XMLRPC);
    assert_ptr_equal(one, two);
    assert_ptr_not_equal(one, x);
    assert_int_equal(one->refs, 3);
    json_write(&t, &v);
    assert_int_equal(one->len, t.len);
    assert_memory_equal(one->bytes, t.bytes, t.len);
    blob_unref(one);
    blob_unref(x);
    record_release(r); /* the row goes, the reader still has it */
    assert_memory_equal(two->bytes, t.bytes, t.len);
    blob_unref(two);
    blob_unref(NULL);
}

struct race {
    struct record **records;
    unsigned n;
    pthread_barrier_t *barrier;
};

static void *take_snapshots(void *arg)
{
    const struct race *race = arg;

    pthread_barrier_wait(race->barrier);
    for (unsigned i = 0; i < race->n; i++) {
        struct blob *b = record_snapshot(race->records[i], i % 2 ? WIRE_XMLRPC : WIRE_JSON2);
        AUTO_TEXT t = TEXT_INIT;
        struct value v = value_record(race->records[i]);

        if (i % 2)
            xmlrpc_write_value(&t, &v);
        else
            json_write(&t, &v);
        if (t.len != b->len + (i % 2 ? 15u : 0u))
            abort();
        blob_unref(b);
    }
    return NULL;
}

static void test_record_snapshot_concurrently(void **state)
{
    enum { THREADS = 4, RECORDS = 200 };
    struct record *records[RECORDS];
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    AUTO_ARENA a = arena_new();
    unsigned seed = 4;

    for (unsigned i = 0; i < RECORDS; i++)
        records[i] = record_new(a, &seed);
    struct race race = { .records = records, .n = RECORDS, .barrier = &barrier };
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        threads[i] = thread_start("snapshots", take_snapshots, &race);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&barrier);
    for (unsigned i = 0; i < RECORDS; i++) {
        assert_int_equal(records[i]->snapshots[i % 2 ? 0 : 1]->refs, 1);
        record_release(records[i]);
    }
}

/* --- pieces ------------------------------------------------------------------------------------- */

static void assert_pieces_equal_whole(const struct wire_call *call, const struct value *v, size_t want)
{
    AUTO_TEXT whole = TEXT_INIT, pieces = TEXT_INIT;
    struct wire_writer w;
    bool more = true;

    wire_write_success(&whole, call, v);
    for (wire_writer_init(&w, call, v); more;) {
        AUTO_TEXT piece = TEXT_INIT;
        more = wire_writer_fill(&w, &piece, want);
        assert_true(piece.len > 0);
        if (more)
            assert_true(piece.len >= want);
        text_add_len(&pieces, piece.bytes, piece.len);
    }
    assert_int_equal(pieces.len, whole.len);
    assert_string_equal(pieces.bytes, whole.bytes);
    assert_false(wire_writer_fill(&w, &pieces, want));
    assert_int_equal(pieces.len, whole.len);
}

static void test_wire_writer_pieces(void **state)
{
    static const size_t wants[] = { 0, 1, 100, 1000, 5000, 1u << 20 };
    unsigned seed = 9;

    for (unsigned n = 0; n < 30; n = n * 2 + 1) {
        AUTO_ARENA a = arena_new();
        struct value_list list = { 0 };
        struct value_dict dict = { 0 };

        for (unsigned i = 0; i < n; i++) {
            struct record *r = record_new(a, &seed);
            value_list_add(a, &list, i % 3 ? value_record(r) : random_value(a, &seed, 2));
            value_dict_add(a, &dict, arena_printf(a, "OpaqueRef:%u", i), value_record(r));
        }
        struct value values[] = { value_list_value(&list), value_dict_value(&dict), random_value(a, &seed, 2), value_void() };
        for (unsigned c = 0; c < ARRAY_LEN(calls); c++)
            for (unsigned k = 0; k < ARRAY_LEN(values); k++)
                for (unsigned i = 0; i < ARRAY_LEN(wants); i++)
                    assert_pieces_equal_whole(&calls[c], &values[k], wants[i]);
    }
}

/* Filling behind what stands there already, and cutting where asked. */
static void test_wire_writer_appends(void **state)
{
    AUTO_TEXT t = TEXT_INIT;
    struct value items[] = { value_string("aaaaaaaaaa"), value_string("bbbbbbbbbb"), value_string("cccccccccc") }, v = value_set(items, 3);
    struct wire_writer w;

    text_add(&t, "before:");
    wire_writer_init(&w, &calls[2], &v);
    assert_true(wire_writer_fill(&w, &t, 30));
    assert_string_equal(t.bytes, "before:{\"jsonrpc\":\"2.0\",\"result\":[\"aaaaaaaaaa\"");
    assert_true(wire_writer_fill(&w, &t, 5));
    assert_string_equal(t.bytes, "before:{\"jsonrpc\":\"2.0\",\"result\":[\"aaaaaaaaaa\",\"bbbbbbbbbb\"");
    assert_false(wire_writer_fill(&w, &t, 5));
    assert_string_equal(t.bytes, "before:{\"jsonrpc\":\"2.0\",\"result\":[\"aaaaaaaaaa\",\"bbbbbbbbbb\",\"cccccccccc\"],\"id\":\"x\"}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_written_as_map),
        cmocka_unit_test(test_record_without_fields),
        cmocka_unit_test(test_record_many_shapes),
        cmocka_unit_test(test_record_snapshot_shared),
        cmocka_unit_test(test_record_snapshot_concurrently),
        cmocka_unit_test(test_wire_writer_pieces),
        cmocka_unit_test(test_wire_writer_appends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
