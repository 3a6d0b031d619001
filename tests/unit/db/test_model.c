#include "db/model.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "gen/api_proto.h"
#include "gen/errors.h"
#include "gen/model_ids.h"
#include "rpc/base/text.h"
#include "tests/lib/unit.h"

static void test_model_class(void **state)
{
    for (unsigned i = 0; i < model_n_classes; i++) {
        const struct class_info *c = &model_classes[i];

        assert_ptr_equal(model_class(c->name), c);
        assert_int_equal(c->id, i);
        assert_string_equal(c->shape->class_name, c->name);
        assert_int_equal(c->shape->n_fields, c->n_fields);
        assert_ptr_equal(model_class_nocase(c->lower, strlen(c->lower)), c);
        assert_int_equal(strcasecmp(c->name, c->lower), 0);
    }
    assert_null(model_class("vm"));
    assert_null(model_class(""));
    assert_null(model_class("VMX"));
    assert_ptr_equal(model_class("VM"), &model_classes[CLASS_VM]);
}

static void test_model_class_nocase(void **state)
{
    assert_ptr_equal(model_class_nocase("vM_Metrics", 10), &model_classes[CLASS_VM_metrics]);
    assert_ptr_equal(model_class_nocase("vm_metrics", 2), &model_classes[CLASS_VM]);
    assert_null(model_class_nocase("vm\0xx", 5));
    assert_null(model_class_nocase("", 0));
}

static void test_model_fields(void **state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < model_n_classes; i++) {
        const struct class_info *c = &model_classes[i];

        for (unsigned f = 0; f < c->n_fields; f++) {
            assert_int_equal(model_field(c, c->fields[f].name), f);
            assert_string_equal(c->shape->names[f], c->fields[f].name);
            assert_int_equal(c->shape->published[f], !(c->fields[f].flags & FIELD_UNPUBLISHED));
            n += !(c->fields[f].flags & FIELD_ADDED);
        }
        if (!(c->flags & CLASS_NOT_STORED))
            assert_string_equal(c->fields[0].name, "uuid");
        assert_int_equal(c->name_label_field, model_field(c, "name_label"));
    }
    assert_int_equal(n, 845); /* XenAPI 24.16 */
    assert_int_equal(model_field(model_class("VM"), "power_state"), F_VM_power_state);
    assert_int_equal(model_field(model_class("VM"), "virtual_size"), -1);
    assert_int_equal(model_field(model_class("auth"), "uuid"), -1);
}

static void assert_fits(const struct type_info *type, const struct value *v)
{
    static const enum value_kind kinds[] = {
        [TYPE_VOID] = VALUE_VOID,   [TYPE_STRING] = VALUE_STRING, [TYPE_INT] = VALUE_INT,
        [TYPE_BOOL] = VALUE_BOOL,   [TYPE_FLOAT] = VALUE_FLOAT,   [TYPE_DATETIME] = VALUE_DATETIME,
        [TYPE_ENUM] = VALUE_STRING, [TYPE_REF] = VALUE_STRING,    [TYPE_SET] = VALUE_SET,
        [TYPE_MAP] = VALUE_MAP,     [TYPE_RECORD] = VALUE_VOID,   [TYPE_OPTION] = VALUE_VOID,
        [TYPE_ANY] = VALUE_VOID,
    };

    assert_int_equal(v->kind, kinds[type->kind]);
    if (v->kind == VALUE_STRING) {
        assert_int_equal(strlen(v->s), v->len);
        assert_int_equal(text_is_plain(v->s, v->len), (v->flags & VALUE_PLAIN) != 0);
    }
    if (type->kind == TYPE_ENUM)
        assert_true(model_enum_has(type->enum_info, v->s));
    if (type->kind == TYPE_REF)
        assert_int_equal(strncmp(v->s, "OpaqueRef:", 10), 0);
    for (unsigned i = 0; v->kind == VALUE_SET && i < v->len; i++)
        assert_fits(type->item, &v->items[i]);
    for (unsigned i = 0; v->kind == VALUE_MAP && i < v->len; i++) {
        assert_int_equal(strlen(v->members[i].name), v->members[i].name_len);
        assert_fits(type->item, &v->members[i].value);
    }
}

static void test_model_fallbacks(void **state)
{
    const struct field_info *license = &model_class("host")->fields[F_host_license_server];

    for (unsigned i = 0; i < model_n_classes; i++)
        for (unsigned f = 0; f < model_classes[i].n_fields; f++)
            assert_fits(model_classes[i].fields[f].type, &model_classes[i].fields[f].fallback);
    assert_string_equal(model_class("VM")->fields[F_VM_power_state].fallback.s, "Halted");
    assert_string_equal(value_get_string(&license->fallback, "port", ""), "27000");
    assert_int_equal(model_class("VLAN")->fields[F_VLAN_tag].fallback.i, -1);
    assert_true(model_class("PUSB")->fields[F_PUSB_speed].fallback.f == -1.0);
}

static void test_model_relations(void **state)
{
    const struct field_info *vbds = &model_class("VM")->fields[F_VM_VBDs];

    assert_true(vbds->flags & FIELD_INVERSE);
    assert_ptr_equal(vbds->inverse_class, model_class("VBD"));
    assert_int_equal(vbds->inverse_field, F_VBD_VM);
    for (unsigned i = 0; i < model_n_classes; i++)
        for (unsigned f = 0; f < model_classes[i].n_fields; f++) {
            const struct field_info *field = &model_classes[i].fields[f];

            if (!(field->flags & FIELD_INVERSE))
                continue;
            const struct type_info *type = field->inverse_class->fields[field->inverse_field].type;

            assert_int_equal(field->type->kind, TYPE_SET);
            assert_ptr_equal(field->type->item->class, field->inverse_class);
            assert_ptr_equal(type->kind == TYPE_SET ? type->item->class : type->class, &model_classes[i]);
        }
}

static void test_model_messages(void **state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < model_n_messages; i++) {
        const struct message_info *m = &model_messages[i];
        const char *rest = NULL;

        assert_int_equal(m->id, i);
        assert_ptr_equal(model_message(m->class, m->name), m);
        assert_ptr_equal(model_split(m->full_name, &rest), m->class);
        assert_string_equal(rest, m->name);
        assert_true(m >= m->class->messages && m < m->class->messages + m->class->n_messages);
        for (unsigned e = 0; m->errors[e] != NULL; e++)
            assert_non_null(model_error(m->errors[e]));
        for (unsigned p = 0; p < m->n_params; p++) {
            assert_int_equal(p < m->n_required, !(m->params[p].flags & PARAM_HAS_DEFAULT));
            assert_true(m->params[p].offset < m->args_size);
            if (m->params[p].flags & PARAM_HAS_DEFAULT)
                assert_fits(m->params[p].type, &m->params[p].fallback);
        }
        n += !(m->flags & (MESSAGE_IMPLIED | MESSAGE_ADDED)) && !(m->class->flags & CLASS_ADDED);
    }
    assert_int_equal(n, 479); /* XenAPI 24.16 */
    assert_null(model_message(model_class("VM"), "reboot"));
    assert_null(model_message(model_class("VBD"), "start"));
}

static void test_model_message_start(void **state)
{
    const struct message_info *m = model_message(model_class("VM"), "start");

    assert_int_equal(m->id, M_VM_start);
    assert_int_equal(m->n_params, 3);
    assert_string_equal(m->params[1].name, "start_paused");
    assert_int_equal(m->params[1].offset, offsetof(struct api_VM_start_args, start_paused));
    assert_int_equal(m->args_size, sizeof(struct api_VM_start_args));
    assert_string_equal(m->operation, "start");
    assert_int_equal(m->result->kind, TYPE_VOID);
    assert_true(m->roles & ROLE_VM_OPERATOR);
    assert_false(m->roles & ROLE_READ_ONLY);
}

static void test_model_split(void **state)
{
    static const struct {
        const char *wire, *class, *rest;
    } cases[] = {
        { "VM.start", "VM", "start" },
        { "VM_start", "VM", "start" },
        { "VM_get_record", "VM", "get_record" },
        { "VM_metrics_get_record", "VM_metrics", "get_record" },
        { "VM_guest_metrics.get_all", "VM_guest_metrics", "get_all" },
        { "host_crashdump_destroy", "host_crashdump", "destroy" },
        { "host_get_crashdumps", "host", "get_crashdumps" },
        { "VM.a.b", "VM", "a.b" },
        { "VM", NULL, NULL },
        { "VM.", NULL, NULL },
        { "VM_", NULL, NULL },
        { ".start", NULL, NULL },
        { "_", NULL, NULL },
        { "", NULL, NULL },
        { "vm.start", NULL, NULL },
        { "system.listMethods", NULL, NULL },
        { "nothing_at_all", NULL, NULL },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *rest = NULL;
        const struct class_info *c = model_split(cases[i].wire, &rest);

        if (cases[i].class == NULL) {
            assert_null(c);
            continue;
        }
        assert_string_equal(c->name, cases[i].class);
        assert_string_equal(rest, cases[i].rest);
    }
}

static void test_model_errors(void **state)
{
    AUTO_ARENA a = arena_new();
    const struct error *e = err_vm_bad_power_state(a, "OpaqueRef:1", "halted", "running");

    for (unsigned i = 0; i < model_n_errors; i++)
        assert_ptr_equal(model_error(model_errors[i].code), &model_errors[i]);
    assert_null(model_error("vm_bad_power_state"));
    assert_int_equal(model_error("VM_BAD_POWER_STATE")->n_params, 3);
    assert_string_equal(model_error("HOST_IS_SLAVE")->params[0], "Master IP address");
    assert_true(error_is(e, "VM_BAD_POWER_STATE"));
    assert_int_equal(e->n_params, 3);
    assert_string_equal(e->params[2], "running");
}

static void test_model_roles_text(void **state)
{
    AUTO_TEXT t = TEXT_INIT;

    model_roles_text(ROLE_POOL_ADMIN | ROLE_VM_OPERATOR, &t);
    assert_string_equal(t.bytes, "pool-admin, vm-operator");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_class),         cmocka_unit_test(test_model_class_nocase),
        cmocka_unit_test(test_model_fields),        cmocka_unit_test(test_model_fallbacks),
        cmocka_unit_test(test_model_relations),     cmocka_unit_test(test_model_messages),
        cmocka_unit_test(test_model_message_start), cmocka_unit_test(test_model_split),
        cmocka_unit_test(test_model_errors),        cmocka_unit_test(test_model_roles_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
