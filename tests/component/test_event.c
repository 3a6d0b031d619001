/* Events: tokens, filters, batches, waiting, and the old log of event.next. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/alert.h"
#include "xapi/core/session.h"

static int setup(void **state)
{
    static struct core_world w;

    core_world_init(&w);
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    core_world_release(*state);
    return 0;
}

static struct value from(struct core_world *w, const char *class, const char *token, double timeout)
{
    struct value name = S(class);

    return core_ok(w, "event.from", 3, value_set(&name, 1), S(token), value_float(timeout));
}

static const char *token_of(const struct value *batch) { return value_get_string(batch, "token", ""); }
static const struct value *events_of(const struct value *batch) { return value_get(batch, "events"); }

/* A token at the present. */
static const char *now(struct core_world *w) { return arena_printf(w->arena, "%" PRIu64 ",%" PRIu64, db_generation(w->xapi.db), db_generation(w->xapi.db)); }

static const struct value *find(const struct value *batch, const char *ref)
{
    const struct value *events = events_of(batch);

    for (uint32_t i = 0; i < events->len; i++)
        if (strcmp(value_get_string(&events->items[i], "ref", ""), ref) == 0)
            return &events->items[i];
    return NULL;
}

static void test_from_the_beginning(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "one");
    struct value batch = from(w, "*", "", 30);
    const struct value *event = find(&batch, vm), *counts = value_get(&batch, "valid_ref_counts");

    assert_non_null(event);
    assert_string_equal(value_get_string(event, "class", ""), "vm");
    assert_string_equal(value_get_string(event, "operation", ""), "add");
    assert_string_equal(value_get_string(event, "timestamp", ""), "0.0");
    assert_true(strtoll(value_get_string(event, "id", ""), NULL, 10) > 0);
    assert_int_equal(value_get(event, "snapshot")->kind, VALUE_RECORD);
    assert_non_null(find(&batch, w->pool));
    assert_non_null(find(&batch, w->host));
    assert_null(find(&batch, w->session)); /* sessions have no events */
    assert_int_equal(value_get(counts, "vm")->kind, VALUE_INT32);
    assert_int_equal(value_get(counts, "vm")->i, db_count(w->xapi.db, &model_classes[CLASS_VM]));
    assert_int_equal(value_get(counts, "session")->i, 1);
    assert_non_null(value_get(counts, "pool"));
    assert_int_equal(strlen(token_of(&batch)), 41);
}

static void test_filters(void **state)
{
    struct core_world *w = *state;
    const char *a = core_vm(w, "a"), *b = core_vm(w, "b");
    struct value batch = from(w, "vM", "", 0);

    assert_non_null(find(&batch, a));
    assert_null(find(&batch, w->host));
    batch = from(w, arena_printf(w->arena, "Vm/%s", b), "", 0);
    assert_int_equal(events_of(&batch)->len, 1);
    assert_non_null(find(&batch, b));
    assert_int_equal(events_of(&(struct value[]){ from(w, "session", "", 0) }[0])->len, 0);
    assert_int_equal(events_of(&(struct value[]){ from(w, "no:thing", "", 0) }[0])->len, 0);
    assert_int_equal(events_of(&(struct value[]){ from(w, "VM/", "", 0) }[0])->len, 0);
}

static void test_changes_are_folded(void **state)
{
    struct core_world *w = *state;
    const char *old = core_vm(w, "old"), *token = now(w);
    const char *fresh = core_vm(w, "fresh"), *brief = core_vm(w, "brief");
    struct value batch;

    core_ok(w, "VM.set_name_label", 2, S(old), S("x"));
    core_ok(w, "VM.set_name_label", 2, S(old), S("y"));
    core_ok(w, "VM.set_name_label", 2, S(fresh), S("z"));
    must(db_delete(w->xapi.db, w->arena, CLASS_VM, brief));
    batch = from(w, "vm", token, 0);
    assert_int_equal(events_of(&batch)->len, 2); /* made and deleted: nothing */
    assert_string_equal(value_get_string(&events_of(&batch)->items[0], "operation", ""), "add"); /* adds first */
    assert_string_equal(value_get_string(find(&batch, old), "operation", ""), "mod");
    token = token_of(&batch);
    must(db_delete(w->xapi.db, w->arena, CLASS_VM, old));
    batch = from(w, "vm", token, 0);
    assert_string_equal(value_get_string(find(&batch, old), "operation", ""), "del");
    assert_null(value_get(find(&batch, old), "snapshot"));
}

static void test_equal_write_is_no_event(void **state)
{
    struct core_world *w = *state;
    const char *vm = core_vm(w, "same"), *token = now(w);
    struct value batch;

    core_ok(w, "VM.set_name_label", 2, S(vm), S("same"));
    batch = from(w, "vm", token, 0);
    assert_int_equal(events_of(&batch)->len, 0);
}

static void test_messages_come_first(void **state)
{
    struct core_world *w = *state;
    const char *token = now(w);
    struct value uuid = core_ok(w, "host.get_uuid", 1, S(w->host)), batch;

    core_vm(w, "before");
    message_post(&w->xapi, "VM_STARTED", "VM", uuid.s, "it runs");
    batch = from(w, "*", token, 0);
    assert_string_equal(value_get_string(&events_of(&batch)->items[0], "class", ""), "message");
    /* the second half of the token is for messages */
    batch = from(w, "*", arena_printf(w->arena, "%" PRIu64 ",0", db_generation(w->xapi.db)), 0);
    assert_true(events_of(&batch)->len >= 1);
    assert_string_equal(value_get_string(&events_of(&batch)->items[0], "class", ""), "message");
}

static void test_tokens(void **state)
{
    struct core_world *w = *state;
    static const char *const bad[] = { "x", "1", "1,", ",1", "1,2,3", "-1,2", "1, 2", "0x1,2", "99999999999999999999,1" };
    struct value name = S("vm"), batch;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        const struct error *e = core_fails(w, "EVENT_FROM_TOKEN_PARSE_FAILURE", "event.from", 3, value_set(&name, 1), S(bad[i]), value_float(0));
        assert_string_equal(e->params[0], bad[i]);
    }
    core_vm(w, "one");
    batch = from(w, "vm", "1000000000,1000000000", 0); /* from a future we do not know */
    assert_true(events_of(&batch)->len >= 1);
}

static void test_timeout_is_an_empty_batch(void **state)
{
    struct core_world *w = *state;
    const char *token = now(w);
    int64_t began = clock_ms(&clock_real);
    struct value batch = from(w, "vm", token, 0.1);

    assert_int_equal(events_of(&batch)->len, 0);
    assert_true(clock_ms(&clock_real) - began >= 100);
    assert_true(strcmp(token_of(&batch), "") != 0);
}

static void *later_change(void *arg)
{
    struct core_world *w = arg;
    struct arena *a = arena_new();

    must(db_map_put(w->xapi.db, a, CLASS_pool, w->pool, F_pool_other_config, "later", "1"));
    arena_free(a);
    return NULL;
}

static void test_waiting(void **state)
{
    struct core_world *w = *state;
    const char *token = now(w);
    pthread_t thread = thread_start("later", later_change, w);
    struct value batch = from(w, "pool", token, 30);

    pthread_join(thread, NULL);
    assert_int_equal(events_of(&batch)->len, 1);
    assert_non_null(find(&batch, w->pool));
}

static void test_inject(void **state)
{
    struct core_world *w = *state;
    struct value token = core_ok(w, "event.inject", 2, S("pool"), S(w->pool)), batch = from(w, "pool", token.s, 0);
    const struct error *e;

    assert_int_equal(strlen(token.s), 41);
    assert_non_null(find(&batch, w->pool));
    e = core_fails(w, "HANDLE_INVALID", "event.inject", 2, S("pool"), S("OpaqueRef:no"));
    assert_string_equal(e->params[0], "pool");
    core_fails(w, "HANDLE_INVALID", "event.inject", 2, S("Pool"), S(w->pool));
    core_fails(w, "HANDLE_INVALID", "event.inject", 2, S("nonsense"), S(w->pool));
}

/* --- event.next ------------------------------------------------------------------------------------------ */

static void test_next_needs_registration(void **state)
{
    struct core_world *w = *state;
    const struct error *e = core_fails(w, "SESSION_NOT_REGISTERED", "event.next", 0);

    assert_int_equal(strncmp(e->params[0], "trackid=", 8), 0);
}

static void test_next_gives_each_change(void **state)
{
    struct core_world *w = *state;
    struct value vm_class = S("vm"), events;
    const char *vm = core_vm(w, "before");

    core_ok(w, "event.register", 1, value_set(&vm_class, 1));
    core_ok(w, "VM.set_name_label", 2, S(vm), S("x"));
    core_ok(w, "VM.set_name_label", 2, S(vm), S("y"));
    must(db_delete(w->xapi.db, w->arena, CLASS_VM, vm));
    events = core_ok(w, "event.next", 0);
    assert_int_equal(events.len, 3); /* not folded */
    assert_string_equal(value_get_string(&events.items[0], "operation", ""), "mod");
    assert_string_equal(value_get_string(&events.items[2], "operation", ""), "del");
    assert_non_null(value_get(&events.items[2], "snapshot"));
    assert_true(strtoll(value_get_string(&events.items[0], "id", ""), NULL, 10) < strtoll(value_get_string(&events.items[1], "id", ""), NULL, 10));
    core_ok(w, "event.unregister", 1, value_set(&vm_class, 1));
    core_fails(w, "SESSION_NOT_REGISTERED", "event.next", 0);
}

static void test_next_loses_events(void **state)
{
    struct core_world *w = *state;
    struct value all = S("*");
    const char *vm = core_vm(w, "noisy");

    core_ok(w, "event.register", 1, value_set(&all, 1));
    struct value text = S(memset(arena_alloc(w->arena, 600001), 'x', 600000));
    for (unsigned i = 0; i < 40; i++)
        core_ok(w, "VM.set_name_description", 2, S(vm), i % 2 ? text : S(""));
    core_fails(w, "EVENTS_LOST", "event.next", 0);
    core_ok(w, "VM.set_name_label", 2, S(vm), S("quiet"));
    assert_int_equal(core_ok(w, "event.next", 0).len, 1);
    core_ok(w, "event.unregister", 1, value_set(&all, 1));
}

static void test_registration_ends_with_the_session(void **state)
{
    struct core_world *w = *state;
    const struct session_spec spec = { .kind = SESSION_NORMAL, .superuser = true };
    struct value all = S("*");
    const char *session;

    must(session_create(&w->xapi, w->arena, &spec, &session));
    core_ok_as(w, session, "event.register", 1, value_set(&all, 1));
    core_ok_as(w, session, "session.logout", 0);
    core_fails_as(w, session, "SESSION_INVALID", "event.next", 0);
}

/* --- messages ----------------------------------------------------------------------------------------------- */

static void test_messages(void **state)
{
    struct core_world *w = *state;
    struct value uuid = core_ok(w, "host.get_uuid", 1, S(w->host)), record;
    struct value ref = core_ok(w, "message.create", 5, S("HELLO"), value_int(3), S("Host"), uuid, S("body"));

    record = core_ok(w, "message.get_record", 1, ref);
    record = value_dup(w->arena, &record);
    assert_string_equal(value_get_string(&record, "name", ""), "HELLO");
    assert_int_equal(value_get(&record, "priority")->i, 3);
    struct value found = core_ok(w, "message.get", 3, S("Host"), uuid, value_datetime(0));
    assert_non_null(value_get(&found, ref.s));
    assert_int_equal(core_ok(w, "message.get", 3, S("SR"), uuid, value_datetime(0)).len, 0);
    assert_int_equal(core_ok(w, "message.get_since", 1, value_datetime(clock_wall(&clock_real) + 100)).len, 0);
    found = core_ok(w, "message.get_all_records_where", 1, S("field \"name\" = \"HELLO\""));
    assert_int_equal(found.len, 1);
    core_is_string(core_ok(w, "message.get_by_uuid", 1, S(value_get_string(&record, "uuid", ""))), ref.s);
    core_fails(w, "UUID_INVALID", "message.create", 5, S("A"), value_int(3), S("Host"), S("no uuid"), S(""));
    core_ok(w, "message.destroy", 1, ref);
    core_fails(w, "HANDLE_INVALID", "message.destroy", 1, ref);
    core_fails(w, "MESSAGE_METHOD_UNKNOWN", "message.get_name", 1, ref);
}

static void test_messages_limit(void **state)
{
    struct core_world *w = *state;
    struct value uuid = core_ok(w, "host.get_uuid", 1, S(w->host)), first = { 0 }, ref = { 0 };

    must(config_set(w->arena, w->xapi.config, "messages-limit", "5"));
    for (unsigned i = 0; i < 10; i++) {
        ref = core_ok(w, "message.create", 5, S("N"), value_int(3), S("Host"), uuid, S(""));
        if (i == 0)
            first = ref;
    }
    assert_int_equal(core_ok(w, "message.get_all", 0).len, 5);
    core_fails(w, "HANDLE_INVALID", "message.get_record", 1, first);
    core_ok(w, "message.get_record", 1, ref);
    struct value all = core_ok(w, "message.get_all", 0);
    core_ok(w, "message.destroy_many", 1, all);
    assert_int_equal(core_ok(w, "message.get_all", 0).len, 0);
    must(config_set(w->arena, w->xapi.config, "messages-limit", "10000"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_the_beginning),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_changes_are_folded),
        cmocka_unit_test(test_equal_write_is_no_event),
        cmocka_unit_test(test_messages_come_first),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_timeout_is_an_empty_batch),
        cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_inject),
        cmocka_unit_test(test_next_needs_registration),
        cmocka_unit_test(test_next_gives_each_change),
        cmocka_unit_test(test_next_loses_events),
        cmocka_unit_test(test_registration_ends_with_the_session),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_messages_limit),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
