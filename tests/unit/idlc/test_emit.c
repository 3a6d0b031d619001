#include "db/idlc/emit.h"

#include <string.h>

#include "db/idlc/check.h"
#include "db/idlc/parser.h"
#include "tests/lib/unit.h"

static const char model[] =
    "schema version 3 checksum 0\n"
    "error BAD_STATE (vm, Master IP address)\n"
    "error OURS added\n"
    "alert VM_STARTED 5\n"
    "class VM get_all since rio role vm-admin \"A \\\"machine\\\".\"\n"
    "enum power Halted Running\n"
    "field uuid string ro \"Identifier.\"\n"
    "field power_state enum power constructor default Running volatile \"State.\"\n"
    "field conf (string -> string) map rw default { \"a<\" -> \"b\" } writers any \"Settings.\"\n"
    "  protect \"folder*\" vm-operator\n"
    "field up VM ref ro nullable mirrored_by VM.down \"Up.\"\n"
    "field down VM ref set ro inverse VM.up \"Down.\"\n"
    "field ours int ro added unpublished default -3 \"Ours.\"\n"
    "message start \"Starts.\"\n"
    "  param vm VM ref\n"
    "  param default bool default true\n"
    "  param extra (VM ref -> int) map default {} added\n"
    "  result string set\n"
    "  errors BAD_STATE\n"
    "  role vm-operator client-cert\n"
    "message stop missing \"Stops.\"\n"
    "  role none\n"
    "message own added removed \"Own.\"\n"
    "  role any\n"
    "message create implied \"Makes one.\"\n"
    "class event not_stored \"Changes.\"\n"
    "message from missing no_session emergency \"Waits.\"\n"
    "  result an event batch\n"
    "  role any\n";

static struct idl *load(struct arena *a, const char *text)
{
    struct idl *idl = idl_new(a);

    parser_read(idl, "T.idl", text, strlen(text));
    assert_true(idl_check(idl));
    return idl;
}

static void assert_has(const struct text *t, const char *part)
{
    if (strstr(t->bytes, part) == NULL)
        print_message("no '%s' in:\n%s\n", part, t->bytes);
    assert_non_null(strstr(t->bytes, part));
}

static void test_emit_dump(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;

    emit_dump(load(a, model), &t);
    assert_string_equal(
        t.bytes, "enum VM.power Halted Running\n"
                 "error BAD_STATE vm,Master IP address\n"
                 "error OURS added\n"
                 "field VM.conf RW (string -> string) map\n"
                 "field VM.down RO/runtime VM ref set\n"
                 "field VM.ours RO/runtime int added\n"
                 "field VM.power_state RO/constructor enum power\n"
                 "field VM.up RO/runtime VM ref\n"
                 "field VM.uuid RO/runtime string\n"
                 "message VM.own() -> void "
                 "roles=pool-admin,pool-operator,vm-power-admin,vm-admin,vm-operator,client-cert,read-only added\n"
                 "message VM.start(VM ref vm, bool default) -> string set "
                 "roles=pool-admin,pool-operator,vm-power-admin,vm-admin,vm-operator,client-cert\n"
                 "message VM.start(VM ref vm, bool default, (VM ref -> int) map extra) -> string set "
                 "roles=pool-admin,pool-operator,vm-power-admin,vm-admin,vm-operator,client-cert added\n"
                 "message VM.stop() -> void roles= missing\n"
                 "message event.from() -> an event batch "
                 "roles=pool-admin,pool-operator,vm-power-admin,vm-admin,vm-operator,client-cert,read-only missing\n");
}

static void test_emit_todo(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;

    emit_todo(load(a, model), &t);
    assert_string_equal(t.bytes, "VM                     1 of   4\n"
                                 "event                  1 of   1\n"
                                 "total missing          2 of   5\n");
}

static void test_emit_model_tables(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;

    emit_model_tables(load(a, model), &t);
    assert_has(&t, "static const char *const values_VM_power[] = {\n    \"Halted\", \"Running\",\n};");
    assert_has(&t, "static const struct member default_VM_conf[] = {\n    { \"a<\", 2, 0, PLAIN(\"b\") },\n};");
    assert_has(&t, "\"<member><name>power_state</name><value>\",");
    assert_has(&t, "\"\\\"power_state\\\":\",");
    assert_has(&t, "published_VM[] = {\n    1, 1, 1, 1, 1, 0,\n};");
    assert_has(&t, ".flags = FIELD_VOLATILE,\n      .fallback = PLAIN(\"Running\")");
    assert_has(&t, ".fallback = { .kind = VALUE_MAP, .len = 1, .members = default_VM_conf }");
    assert_has(&t, "    { \"folder*\", ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN | ROLE_VM_ADMIN | "
                   "ROLE_VM_OPERATOR },\n    { 0 },");
    assert_has(&t, ".flags = FIELD_INVERSE,\n      .fallback = { .kind = VALUE_SET },\n"
                   "      .inverse_class = &model_classes[CLASS_VM], .inverse_field = F_VM_up");
    assert_has(&t, ".fallback = PLAIN(\"OpaqueRef:NULL\")");
    assert_has(&t, ".fallback = { .kind = VALUE_INT, .i = -3 }");
    assert_has(&t, "offsetof(struct api_VM_start_args, default_)");
    assert_has(&t, ".n_params = 3, .n_required = 1,");
    assert_has(&t, "[M_event_from] = { .name = \"from\", .full_name = \"event.from\"");
    assert_has(&t, ".flags = MESSAGE_NO_SESSION | MESSAGE_MISSING | MESSAGE_EMERGENCY, .runs_on = RUNS_HERE");
    assert_has(&t, ".doc = \"A \\\"machine\\\".\"");
    assert_has(&t, ".flags = CLASS_GET_ALL | CLASS_CREATE,");
    assert_has(&t, "{ \"BAD_STATE\", error_params_BAD_STATE, 2 }");
    assert_has(&t, "{ \"VM_STARTED\", 5 }");
    assert_has(&t, "const unsigned model_schema_version = 3;");
}

static void test_emit_headers(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT ids = TEXT_INIT, errors = TEXT_INIT, proto = TEXT_INIT, table = TEXT_INIT;
    struct idl *idl = load(a, model);

    emit_model_ids(idl, &ids);
    assert_has(&ids, "    CLASS_VM = 0,\n    CLASS_event = 1,\n    N_CLASSES = 2\n");
    assert_has(&ids, "    F_VM_ours = 5,\n    N_FIELDS_VM = 6\n");
    assert_has(&ids, "    M_event_from = 4,\n    N_MESSAGES = 5\n");
    emit_errors(idl, &errors);
    assert_has(&errors, "#define err_bad_state(arena, vm, master_ip_address) \\\n"
                        "    error_make((arena), __FILE__, __LINE__, \"BAD_STATE\", 2, (const char *) { (vm) }, "
                        "(const char *) { (master_ip_address) })\n");
    assert_has(&errors, "#define err_ours(arena) \\\n    error_make((arena), __FILE__, __LINE__, \"OURS\", 0)\n");
    emit_api_proto(idl, &proto);
    assert_has(&proto, "struct api_VM_start_args {\n    const char *vm; /* VM ref */\n    bool default_; /* bool */\n"
                       "    const struct value *extra; /* (VM ref -> int) map */\n};\n");
    assert_has(&proto, "struct api_VM_stop_args {\n    char none;\n};\n");
    assert_has(&proto, "struct api_VM_create_args {\n    const struct value *record; /* VM record */\n};\n");
    emit_api_table(idl, &table);
    assert_has(&table, "    return api_VM_start(c, args, result_r);\n");
    assert_has(&table, "    [M_VM_create] = call_VM_create,\n");
    assert_null(strstr(table.bytes, "VM_stop")); /* missing */
    assert_null(strstr(table.bytes, "VM_own"));  /* removed */
}

static void test_emit_doc(void **state)
{
    AUTO_ARENA a = arena_new();
    AUTO_TEXT t = TEXT_INIT;

    emit_doc(load(a, model), &t);
    assert_has(&t, "## VM\n\nA \"machine\". Since rio.\n");
    assert_has(&t, "| power_state | `enum power` | read; set when created | State. |\n");
    assert_has(&t,
               "### VM.stop\n\n`void stop()`\n\nStops.\n\nRoles: local root only. Since rio. Not implemented yet.\n");
    assert_has(&t, "Roles: any role.");
}

static const char *checksum(struct arena *a, const char *fields)
{
    return emit_schema_checksum(
        load(a, arena_printf(a, "class VM role any \"V\"\nenum e x y\nfield uuid string ro \"U\"\n%s", fields)));
}

static void test_emit_schema_checksum(void **state)
{
    AUTO_ARENA a = arena_new();
    const char *base = checksum(a, "field a string ro \"A\"\n");

    assert_int_equal(strlen(base), 16);
    assert_string_equal(base, checksum(a, "field a string rw default \"x\" \"Other\"\n"));
    assert_string_equal(base, checksum(a, "field a string ro \"A\"\nfield v int ro volatile \"V\"\n"));
    assert_string_not_equal(base, checksum(a, "field a int ro \"A\"\n"));
    assert_string_not_equal(base, checksum(a, "field b string ro \"A\"\n"));
    assert_string_not_equal(base, checksum(a, "field a string ro \"A\"\nfield b string ro \"B\"\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_emit_dump),         cmocka_unit_test(test_emit_todo),
        cmocka_unit_test(test_emit_model_tables), cmocka_unit_test(test_emit_headers),
        cmocka_unit_test(test_emit_doc),          cmocka_unit_test(test_emit_schema_checksum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
