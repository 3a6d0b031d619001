#include "db/idlc/parser.h"

#include <string.h>

#include "tests/lib/unit.h"

static struct idl *parse(struct arena *a, const char *text)
{
    struct idl *idl = idl_new(a);

    parser_read(idl, "T.idl", text, strlen(text));
    return idl;
}

static void assert_clean(const struct idl *idl)
{
    assert_string_equal(idl->complaints.n > 0 ? idl->complaints.items[0] : "", "");
}

static void test_parser_class(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = parse(
        a, "# head\n\nclass VM get_all name_label volatile since rio deprecated role vm-admin client-cert \"A VM.\"\n"
           "enum power Halted Running balance-slb\n");
    const struct idl_class *c = idl_find_class(idl, "VM");
    const struct idl_enum *e;

    assert_clean(idl);
    assert_int_equal(c->flags, CLASS_GET_ALL | CLASS_NAME_LABEL | CLASS_VOLATILE);
    assert_int_equal(c->roles,
                     ROLE_POOL_ADMIN | ROLE_POOL_OPERATOR | ROLE_VM_POWER_ADMIN | ROLE_VM_ADMIN | ROLE_CLIENT_CERT);
    assert_string_equal(c->doc, "A VM.");
    assert_string_equal(c->since, "rio");
    assert_string_equal(c->state, "deprecated");
    assert_int_equal(c->pos.line, 3);
    e = idl_find_enum(c, "power");
    assert_int_equal(e->values.n, 3);
    assert_true(idl_enum_has(e, "balance-slb"));
    assert_false(idl_enum_has(e, "balance"));
    assert_null(idl_find_enum(c, "Power"));
}

static void test_parser_field(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = parse(
        a, "class VM\n"
           "field oc (string -> string) map rw default { \"a\" -> \"b\" } writers vm-operator since miami \"Config.\"\n"
           "  protect \"folder\" vm-operator\n"
           "  protect \"XenCenter.*\" any\n"
           "field up VM ref constructor required nullable secret unpublished added volatile mirrored_by VM.down \"U\"\n"
           "field down VM ref set ro inverse VM.up \"D\"\n");
    const struct idl_class *c = idl_find_class(idl, "VM");
    const struct idl_field *oc = idl_find_field(c, "oc"), *up = idl_find_field(c, "up"),
                           *down = idl_find_field(c, "down");

    assert_clean(idl);
    assert_int_equal(oc->qualifier, FIELD_RW);
    assert_int_equal(oc->fallback->kind, LITERAL_MAP);
    assert_true(oc->has_writers);
    assert_int_equal(oc->protect.n, 2);
    assert_string_equal(((struct idl_protect *)oc->protect.items[1])->key, "XenCenter.*");
    assert_int_equal(((struct idl_protect *)oc->protect.items[1])->roles, (1u << N_ROLES) - 1);
    assert_int_equal(up->qualifier, FIELD_RO_CONSTRUCTOR);
    assert_int_equal(up->flags, FIELD_NULLABLE | FIELD_SECRET | FIELD_UNPUBLISHED | FIELD_ADDED | FIELD_VOLATILE);
    assert_true(up->required);
    assert_string_equal(up->other, "VM.down");
    assert_false(up->kept);
    assert_int_equal(down->qualifier, FIELD_RO_RUNTIME);
    assert_true(down->kept);
}

static void test_parser_message(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = parse(a, "class VM\n"
                               "message start missing inline hidden since tampa \"Starts.\"\n"
                               "  param vm VM ref nullable no_check\n"
                               "  param force bool secret default false added\n"
                               "  result VM ref\n"
                               "  errors A B\n"
                               "  errors C\n"
                               "  role none\n"
                               "  operation start\n"
                               "  runs_on host_param\n"
                               "  code xapi/api/vm.c\n"
                               "message die emergency removed \"Dies.\"\n"
                               "message old missing retired \"Old.\"\n");
    const struct idl_class *c = idl_find_class(idl, "VM");
    const struct idl_message *m = idl_find_message(c, "start"), *die = idl_find_message(c, "die");
    const struct idl_param *vm = m->params.items[0], *force = m->params.items[1];

    assert_clean(idl);
    assert_int_equal(m->flags, MESSAGE_MISSING | MESSAGE_INLINE | MESSAGE_HIDDEN);
    assert_int_equal(vm->flags, PARAM_NULLABLE | PARAM_NO_CHECK);
    assert_int_equal(force->flags, PARAM_SECRET | PARAM_HAS_DEFAULT);
    assert_true(force->added);
    assert_string_equal(m->result->spelling, "VM ref");
    assert_int_equal(m->errors.n, 3);
    assert_true(m->has_role);
    assert_int_equal(m->roles, 0);
    assert_string_equal(m->operation, "start");
    assert_int_equal(m->runs_on, RUNS_ON_HOST_PARAM);
    assert_string_equal(m->code_file, "xapi/api/vm.c");
    assert_string_equal(m->since, "tampa");
    assert_int_equal(die->runs_on, RUNS_HERE);
    assert_string_equal(die->state, "removed");
    assert_string_equal(idl_find_message(c, "old")->state, "removed");
    assert_int_equal(idl_find_message(c, "old")->flags, MESSAGE_MISSING);
}

static void test_parser_errors_alerts_schema(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = parse(
        a, "schema version 12 checksum 00ff\n"
           "error NONE\nerror TWO (current auth_type, Master IP address)\nerror NEW (a) added \"Ours.\"\n"
           "alert VM_STARTED 5\n");
    const struct idl_error *two = idl_find_error(idl, "TWO"), *new = idl_find_error(idl, "NEW");

    assert_clean(idl);
    assert_true(idl->has_schema);
    assert_int_equal(idl->schema_version, 12);
    assert_string_equal(idl->schema_checksum, "00ff");
    assert_int_equal(two->params.n, 2);
    assert_string_equal(two->params.items[1], "Master IP address");
    assert_true(new->added);
    assert_int_equal(((struct idl_alert *)idl->alerts.items[0])->priority, 5);
}

#define C "class VM\n"
#define M C "message start \"S\"\n"

static void test_parser_refuses(void **state)
{
    static const struct {
        const char *text, *wrong;
    } cases[] = {
        { "clazz VM\n", "T.idl:1: unknown line 'clazz'" },
        { "\"text\"\n", "T.idl:1: unknown line 'text'" },
        { "field a string rw\n", "T.idl:1: 'field' without a class" },
        { C "param a string\n", "T.idl:2: 'param' without a message" },
        { C "field a string rw\nparam b int\n", "T.idl:3: 'param' without a message" },
        { C "protect \"a\" any\n", "T.idl:2: 'protect' without a field" },
        { "class 9VM\n", "T.idl:1: class name expected, not '9VM'" },
        { "class VM shiny\n", "T.idl:1: unexpected 'shiny'" },
        { "class VM role king\n", "T.idl:1: unknown role 'king'" },
        { "class VM \"a\" \"b\"\n", "T.idl:1: unexpected 'b'" },
        { "class VM \"a */ b\"\n", "T.idl:1: a description is a line of text without comment marks" },
        { C "field a-b string rw\n", "T.idl:2: field name expected, not 'a-b'" },
        { C "field a strin rw\n", "T.idl:2: unknown type 'strin'" },
        { C "field a string\n", "T.idl:2: rw, ro or constructor expected, not 'end of line'" },
        { C "field a string rw default\n", "T.idl:2: value expected, not 'end of line'" },
        { C "field a string rw inverse VBD\n", "T.idl:2: one CLASS.FIELD expected, not 'VBD'" },
        { C "field a string rw inverse VBD.VM mirrored_by X.Y\n", "T.idl:2: one CLASS.FIELD expected, not 'X.Y'" },
        { C "field a string rw since\n", "T.idl:2: unexpected 'end of line'" },
        { C "field a string rw\nprotect key any\n", "T.idl:3: protect: a key in quotes expected, not 'key'" },
        { C "message start quickly\n", "T.idl:2: unexpected 'quickly'" },
        { M "param a bool default\n", "T.idl:3: value expected, not 'end of line'" },
        { M "param a bool maybe\n", "T.idl:3: unexpected 'maybe'" },
        { M "result int\nresult int\n", "T.idl:4: second result" },
        { M "role king\n", "T.idl:3: unknown role 'king'" },
        { M "role any king\n", "T.idl:3: unknown role 'king'" },
        { M "runs_on moon\n", "T.idl:3: a message runs on coordinator, here or host_param, not 'moon'" },
        { M "operation a b\n", "T.idl:3: exactly one word expected" },
        { M "errors A (\n", "T.idl:3: unexpected '('" },
        { "error A (\n", "T.idl:1: the parameters of an error are spelt (one, another one)" },
        { "error A ()\n", "T.idl:1: the parameters of an error are spelt (one, another one)" },
        { "error A (a b\n", "T.idl:1: the parameters of an error are spelt (one, another one)" },
        { "alert A 6\n", "T.idl:1: an alert has a priority from 1 to 5" },
        { "schema version x checksum 1\n", "T.idl:1: one line 'schema version N checksum X' expected" },
        { "class VM ;\n", "T.idl:1: unexpected byte 0x3b" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct idl *idl = parse(a, cases[i].text);

        assert_int_equal(idl->complaints.n, 1);
        assert_string_equal(idl->complaints.items[0], cases[i].wrong);
    }
}

static void test_parser_keeps_reading(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = parse(a, "nonsense\nclass VM\nfield x nonsense rw\nfield y string rw");

    assert_int_equal(idl->complaints.n, 2);
    assert_non_null(idl_find_field(idl_find_class(idl, "VM"), "y"));
    assert_null(idl_find_field(idl_find_class(idl, "VM"), "x"));
}

static void test_idl_complain_is_bounded(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = idl_new(a);

    for (int i = 0; i < 1000; i++)
        parser_read(idl, "T.idl", "nonsense\n", 9);
    assert_int_equal(idl->complaints.n, 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parser_class),
        cmocka_unit_test(test_parser_field),
        cmocka_unit_test(test_parser_message),
        cmocka_unit_test(test_parser_errors_alerts_schema),
        cmocka_unit_test(test_parser_refuses),
        cmocka_unit_test(test_parser_keeps_reading),
        cmocka_unit_test(test_idl_complain_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
