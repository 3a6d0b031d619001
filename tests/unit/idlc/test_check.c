#include "db/idlc/check.h"

#include <string.h>

#include "db/idlc/parser.h"
#include "tests/lib/unit.h"

static struct idl *check(struct arena *a, const char *text)
{
    struct idl *idl = idl_new(a);

    parser_read(idl, "T.idl", text, strlen(text));
    idl_check(idl);
    return idl;
}

/* A class that is all right up to what a case adds. */
#define VM "class VM role vm-admin \"V\"\nfield uuid string ro \"U\"\n"
#define OPS VM "enum ops start stop\nfield allowed_operations enum ops set ro \"O\"\n"
#define MSG(params) VM "message m \"M\"\nrole any\n" params

static void test_check_refuses(void **state)
{
    static const struct {
        const char *text, *wrong;
    } cases[] = {
        { "class VM role any\nfield uuid string ro \"U\"\n", "T.idl:1: class VM has no description" },
        { "class VM role any \"V\"\n", "T.idl:1: the first field of class VM must be 'uuid string'" },
        { "class VM role any \"V\"\nfield a string ro \"A\"\nfield uuid string ro \"U\"\n",
          "T.idl:1: the first field of class VM must be 'uuid string'" },
        { "class VM name_label role any \"V\"\nfield uuid string ro \"U\"\n",
          "T.idl:1: class VM is found by name_label but has no such string" },
        { VM "field a string ro\n", "T.idl:3: field VM.a has no description" },
        { VM "field a void ro \"A\"\n", "T.idl:3: field VM.a has no type" },
        { VM "field a VBD ref ro \"A\"\n", "T.idl:3: reference to an unknown class 'VBD'" },
        { VM "field a VBD record ro \"A\"\n", "T.idl:3: record to an unknown class 'VBD'" },
        { VM "field a enum mode ro \"A\"\n", "T.idl:3: unknown enum 'mode'" },
        { VM "field a string ro nullable \"A\"\n", "T.idl:3: field VM.a is nullable but no reference" },
        { VM "field a string ro required \"A\"\n", "T.idl:3: field VM.a is required but no constructor takes it" },
        { VM "field a int ro default x \"A\"\n", "T.idl:3: bad default: 'x' is no int" },
        { VM "enum e a b\nfield a enum e ro default c \"A\"\n", "T.idl:4: bad default: 'c' is no enum e" },
        { VM "field a string rw \"A\"\nprotect \"k\" any\n",
          "T.idl:3: field VM.a has protected keys but is no writable map" },
        { "class VM \"V\"\nfield uuid string ro \"U\"\nfield a string rw \"A\"\n",
          "T.idl:3: no role for the setter of VM.a: give 'writers', or the class a 'role'" },
        { VM "enum e\n", "T.idl:3: enum VM.e has no values" },
        { VM "enum e a a\n", "T.idl:3: duplicate enum value 'a'" },
        { VM "enum e a<b\n", "T.idl:3: enum value 'a<b' holds more than letters, digits, _ and -" },
        { VM "message m missing \"M\"\n", "T.idl:3: message VM.m has no role" },
        { VM "message m missing\nrole any\n", "T.idl:3: message VM.m has no description" },
        { VM "message m missing removed \"M\"\nrole any\n",
          "T.idl:3: message VM.m is removed, so it cannot be missing" },
        { MSG("errors NOPE\n"), "T.idl:3: unknown error 'NOPE' of VM.m" },
        { MSG("errors E E\nerror E\n"), "T.idl:3: error 'E' twice at VM.m" },
        { MSG("operation start\n"),
          "T.idl:3: operation 'start' of VM.m is none of its first parameter's allowed_operations" },
        { OPS "message m \"M\"\nrole any\nparam vm VM ref\noperation jump\n",
          "T.idl:5: operation 'jump' of VM.m is none of its first parameter's allowed_operations" },
        { MSG("param a VM ref\nruns_on host_param\n"),
          "T.idl:3: VM.m runs on host_param but has no parameter of type 'host ref'" },
        { MSG("param a int default 1\nparam b int\n"),
          "T.idl:6: parameter 'b' without a default behind one that has it" },
        { MSG("param a int added\nparam b int\n"), "T.idl:6: parameter 'b' behind an added one" },
        { MSG("param a int nullable\n"), "T.idl:5: parameter 'a' is nullable but no reference" },
        { MSG("param a void\n"), "T.idl:5: parameter 'a' has no type" },
        { MSG("param a bool default 1\n"), "T.idl:5: bad default: '1' is no bool" },
        { MSG("param a int\nparam a int\n"), "T.idl:6: duplicate parameter 'a'" },
        { MSG("param for int\nparam for_ int\n"), "T.idl:6: duplicate parameter 'for_'" },
        { VM "message create implied missing \"M\"\nparam a int\n",
          "T.idl:3: the implied message VM.create declares neither parameters nor a result" },
        { VM "message start implied missing \"M\"\n", "T.idl:3: no message VM.start is implied" },
        { VM "field a string ro \"A\"\nmessage set_a implied missing \"M\"\n",
          "T.idl:4: no message VM.set_a is implied" },
        { VM "field a string rw \"A\"\nmessage add_to_a implied missing \"M\"\n",
          "T.idl:4: no message VM.add_to_a is implied" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct idl *idl = check(a, cases[i].text);

        if (idl->complaints.n != 1)
            print_message("%s", cases[i].text);
        assert_int_equal(idl->complaints.n, 1);
        assert_string_equal(idl->complaints.items[0], cases[i].wrong);
    }
}

/* Where one mistake shows in several ways: the complaint is among them. */
static void test_check_refuses_among_others(void **state)
{
    static const struct {
        const char *text, *wrong;
    } cases[] = {
        { VM VM, "T.idl:3: duplicate class 'vm'" },
        { VM "class Vm role any \"V\"\nfield uuid string ro \"U\"\n", "T.idl:3: duplicate class 'vm'" },
        { VM "field a string ro \"A\"\nfield a int ro \"A\"\n", "T.idl:4: duplicate field 'a'" },
        { VM "message m \"M\"\nrole any\nmessage m \"M\"\nrole any\n", "T.idl:5: duplicate message 'm'" },
        { VM "enum e a\nenum e b\n", "T.idl:4: duplicate enum 'e'" },
        { VM "enum b_c x\nclass VM_b role any \"V\"\nfield uuid string ro \"U\"\nenum c x\n",
          "T.idl:6: duplicate C name 'enum_VM_b_c'" },
        { "error A\nerror A\n", "T.idl:2: duplicate error 'A'" },
        { "error A (b c, b_c)\n", "T.idl:1: duplicate parameter 'b_c'" },
        { "error ABC\nerror abc\n", "T.idl:2: duplicate C name 'err_abc'" },
        { "alert A 1\nalert A 1\n", "T.idl:2: duplicate alert 'A'" },
        { "class CREATE role any \"C\"\nfield uuid string ro \"U\"\n", "T.idl:1: duplicate C name 'CLASS_CREATE'" },
        { VM
          "field b_c string ro \"A\"\nclass VM_b role any \"V\"\nfield uuid string ro \"U\"\nfield c string ro \"C\"\n",
          "T.idl:6: duplicate C name 'F_VM_b_c'" },
        { VM "field up VM ref ro mirrored_by VM.down \"A\"\n", "T.idl:3: unknown field 'VM.down'" },
        { VM "field up VM ref ro \"A\"\nfield down VM ref set ro inverse VM.up \"D\"\n",
          "T.idl:4: one-sided relation: VM.up does not name VM.down" },
        { VM "field up VM ref ro mirrored_by VM.down \"A\"\nfield down VM ref set ro \"D\"\n",
          "T.idl:3: one-sided relation: VM.down does not name VM.up" },
        { VM "field up VM ref ro mirrored_by VM.down \"A\"\nfield down VM ref set ro mirrored_by VM.up \"D\"\n",
          "T.idl:3: relation VM.up <-> VM.down: one side is 'inverse', the other 'mirrored_by'" },
        { VM "field up VM ref ro mirrored_by VM.down \"A\"\nfield down VM ref ro inverse VM.up \"D\"\n",
          "T.idl:4: VM.down is 'inverse', so it is a 'VM ref set'" },
        { VM "field up string ro mirrored_by VM.down \"A\"\nfield down VM ref set ro inverse VM.up \"D\"\n",
          "T.idl:3: VM.up is 'mirrored_by VM.down', so it is a 'VM ref' or a set of them" },
        { VM "enum e a\nclass A role any \"A\"\nfield uuid string ro \"U\"\nenum e b\n"
             "class B role any \"B\"\nfield uuid string ro \"U\"\nfield x enum e ro \"X\"\n",
          "T.idl:9: enum 'e' is ambiguous: A and VM differ" },
    };
    AUTO_ARENA a = arena_new();

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct idl *idl = check(a, cases[i].text);
        bool found = false;

        IDL_EACH(const char, c, &idl->complaints)
            found |= strcmp(c, cases[i].wrong) == 0;
        if (!found)
            print_message("%s\nexpected: %s\n", cases[i].text, cases[i].wrong);
        assert_true(found);
    }
}

static void assert_clean(const struct idl *idl)
{
    assert_string_equal(idl->complaints.n > 0 ? idl->complaints.items[0] : "", "");
}

static void test_check_implied(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = check(a, VM "field label string rw \"L\"\nfield conf (string -> int) map rw writers any \"C\"\n"
                                  "field tags string set rw \"T\"\nfield size int ro \"S\"\n"
                                  "message create implied missing \"M\"\nmessage destroy implied \"M\"\n"
                                  "message set_label implied \"M\"\nmessage add_to_conf implied \"M\"\n"
                                  "message remove_from_conf implied \"M\"\nmessage add_tags implied \"M\"\n"
                                  "message set_size \"M\"\nparam self VM ref\nparam value int\nrole none\n");
    const struct idl_class *c = idl_find_class(idl, "VM");
    const struct idl_message *m = idl_find_message(c, "create");
    const struct idl_param *p = m->params.items[0];

    assert_clean(idl);
    assert_int_equal(c->flags, CLASS_CREATE | CLASS_DESTROY);
    assert_string_equal(p->name, "record");
    assert_string_equal(p->type->spelling, "VM record");
    assert_string_equal(m->result->spelling, "VM ref");
    assert_int_equal(m->roles, c->roles);
    m = idl_find_message(c, "add_to_conf");
    assert_int_equal(m->params.n, 3);
    p = m->params.items[2];
    assert_string_equal(p->name, "value");
    assert_string_equal(p->type->spelling, "int");
    assert_int_equal(m->roles, (1u << N_ROLES) - 1);
    assert_int_equal(idl_find_message(c, "remove_from_conf")->params.n, 2);
    assert_int_equal(idl_find_message(c, "add_tags")->params.n, 2);
    assert_true(idl_find_field(c, "label")->flags & FIELD_CUSTOM_SETTER);
    assert_true(idl_find_field(c, "tags")->flags & FIELD_CUSTOM_SETTER);
    assert_true(idl_find_field(c, "size")->flags & FIELD_CUSTOM_SETTER);
    assert_false(idl_find_field(c, "uuid")->flags & FIELD_CUSTOM_SETTER);
}

static void test_check_resolves(void **state)
{
    AUTO_ARENA a = arena_new();
    struct idl *idl = check(
        a, "class b role any \"B\"\nfield uuid string ro \"U\"\nfield a A ref ro mirrored_by A.bs \"A\"\n"
           "message z \"Z\"\nrole any\nmessage y \"Y\"\nrole any\n"
           "class A role any \"A\"\nenum e x\nfield uuid string ro \"U\"\nfield bs b ref set ro inverse b.a \"B\"\n"
           "field mode enum e ro default x \"M\"\n");
    const struct idl_class *first = idl->classes.items[0], *second = idl->classes.items[1];
    const struct idl_field *bs = idl_find_field(first, "bs");

    assert_clean(idl);
    assert_string_equal(first->name, "A");
    assert_int_equal(second->id, 1);
    assert_string_equal(((struct idl_message *)second->messages.items[0])->name, "y");
    assert_int_equal(((struct idl_message *)second->messages.items[1])->id, 1);
    assert_true(bs->flags & FIELD_INVERSE);
    assert_ptr_equal(bs->other_class, second);
    assert_int_equal(bs->other_field->index, 1);
    assert_ptr_equal(idl_find_field(first, "mode")->type->enum_->owner, first);
}

static void test_idl_names(void **state)
{
    AUTO_ARENA a = arena_new();

    assert_string_equal(idl_c_name(a, "default"), "default_");
    assert_string_equal(idl_c_name(a, "vm"), "vm");
    assert_string_equal(idl_c_lower(a, "Master IP address"), "master_ip_address");
    assert_string_equal(idl_c_lower(a, "3com"), "_3com");
    assert_string_equal(idl_c_lower(a, "Int"), "int_");
    assert_string_equal(idl_c_lower(a, ""), "_");
    assert_true(idl_is_identifier("_a9"));
    assert_false(idl_is_identifier("9a"));
    assert_false(idl_is_identifier(""));
    assert_false(idl_is_identifier("a-b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check_refuses), cmocka_unit_test(test_check_refuses_among_others),
        cmocka_unit_test(test_check_implied), cmocka_unit_test(test_check_resolves),
        cmocka_unit_test(test_idl_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
