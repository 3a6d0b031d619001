/* For each class random records: written, read back from the file, equal. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "db/encode.h"
#include "db/store.h"
#include "gen/model_ids.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"

#define ROUNDS 8

struct random {
    struct arena *arena;
    uint64_t state;
};

static uint64_t next(struct random *r)
{
    r->state ^= r->state << 13;
    r->state ^= r->state >> 7;
    r->state ^= r->state << 17;
    return r->state;
}

static const char *random_string(struct random *r)
{
    static const char *const parts[] = { "",  "a", "\"", "\\", "'",  "\n",   "\x01", "\x1f", "\x7f",
                                         "ä", "€", "😀",  "{}", "[]", "null", ",",    "nan",  "1e3" };
    const char *s = "";
    for (uint64_t n = next(r) % 6; n > 0; n--)
        s = arena_printf(r->arena, "%s%s", s, parts[next(r) % ARRAY_LEN(parts)]);
    return s;
}

static double random_float(struct random *r)
{
    static const double odd[] = { 0,        1,         -1,  0.1, 1e300, -1e-300, DBL_MAX, DBL_MIN, DBL_TRUE_MIN,
                                  INFINITY, -INFINITY, NAN, 3.0, 1e15,  1e16 };
    double f;
    uint64_t bits = next(r);
    if (bits % 2 != 0)
        return odd[next(r) % ARRAY_LEN(odd)];
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static int64_t random_int(struct random *r)
{
    static const int64_t odd[] = { 0, 1, -1, INT64_MAX, INT64_MIN, 1ll << 53, (1ll << 53) + 1, 4294967296 };
    return next(r) % 2 != 0 ? odd[next(r) % ARRAY_LEN(odd)] : (int64_t)next(r);
}

static struct value random_value(struct random *r, const struct type_info *type)
{
    struct value_list list = { 0 };
    struct value_dict dict = { 0 };

    switch (type->kind) {
    case TYPE_STRING:
    case TYPE_ENUM:
    case TYPE_REF:
        return value_string(random_string(r));
    case TYPE_INT:
        return value_int(random_int(r));
    case TYPE_DATETIME:
        return value_datetime(random_int(r));
    case TYPE_BOOL:
        return value_bool(next(r) % 2 != 0);
    case TYPE_FLOAT:
        return value_float(random_float(r));
    case TYPE_SET:
        for (uint64_t n = next(r) % 4; n > 0; n--)
            value_list_add(r->arena, &list, random_value(r, type->item));
        return value_list_value(&list);
    case TYPE_MAP:
        for (uint64_t n = next(r) % 4; n > 0; n--)
            value_dict_set(r->arena, &dict, random_string(r), random_value(r, type->item));
        return value_dict_value(&dict);
    case TYPE_OPTION:
    case TYPE_RECORD:
    case TYPE_VOID:
    case TYPE_ANY:
        break;
    }
    fail_msg("a field of type %s", type->spelling);
    return value_void();
}

static const char *make(struct db_fixture *f, struct random *r, const struct class_info *class)
{
    struct field_value *fields = arena_calloc(f->arena, class->n_fields, sizeof(*fields));
    unsigned n = 0;
    for (unsigned i = 1; i < class->n_fields; i++)
        if (field_is_stored(&class->fields[i]))
            fields[n++] = (struct field_value){ i, random_value(r, class->fields[i].type) };
    return db_fixture_create(f, class->id, fields, n);
}

static void change(struct db_fixture *f, struct random *r, const struct class_info *class, const char *ref)
{
    AUTO_TXN txn = txn_begin(f->db, f->arena);
    for (unsigned i = 1; i < class->n_fields; i++)
        if (field_is_stored(&class->fields[i]) && next(r) % 4 == 0)
            must(txn_set(txn, class->id, ref, i, random_value(r, class->fields[i].type)));
    must(txn_commit(txn, NULL));
}

static void test_roundtrip_all_classes(void **state)
{
    AUTO_DB_FIXTURE f;
    db_fixture_file(&f);
    struct random r = { .arena = f.arena, .state = 88172645463325252u };
    const struct row *rows[ROUNDS * DB_MAX_CLASSES];
    unsigned n = 0;

    for (unsigned i = 0; i < model_n_classes; i++) {
        for (unsigned round = 0; round < ROUNDS && class_is_stored(&model_classes[i]); round++) {
            const char *ref = make(&f, &r, &model_classes[i]);
            if (round % 2 != 0)
                change(&f, &r, &model_classes[i], ref);
            rows[n++] = db_fixture_row(&f, i, ref);
        }
    }
    db_fixture_reopen(&f);
    for (unsigned i = 0; i < n; i++) {
        const struct row *row = db_fixture_row(&f, rows[i]->class->id, rows[i]->ref);
        assert_non_null(row);
        for (unsigned k = 0; k < row->class->n_fields; k++)
            if (field_is_stored(&row->class->fields[k]) && !value_equal(&rows[i]->fields[k], &row->fields[k]))
                fail_msg("%s.%s came back different", row->class->name, row->class->fields[k].name);
    }
}

static const struct type_info string_type = { .kind = TYPE_STRING };
static const struct type_info int_type = { .kind = TYPE_INT };
static const struct type_info float_type = { .kind = TYPE_FLOAT };
static const struct type_info strings = { .kind = TYPE_SET, .item = &string_type };
static const struct type_info floats = { .kind = TYPE_SET, .item = &float_type };
static const struct type_info map = { .kind = TYPE_MAP, .key = &string_type, .item = &strings };

static void test_encode_nested(void **state)
{
    AUTO_ARENA arena = arena_new();
    AUTO_TEXT text = TEXT_INIT;
    struct value items[] = { value_string(""), value_string("b\t\"") }, back;
    struct member members[] = { member_of("", value_set(items, 2)), member_of("k", value_set(NULL, 0)) };
    struct value v = value_map(members, 2);

    encode_value(&text, &v);
    assert_string_equal(text.bytes, "{\"\":[\"\",\"b\\u0009\\\"\"],\"k\":[]}");
    assert_true(decode_value(arena, &map, text.bytes, text.len, &back));
    assert_true(value_equal(&v, &back));

    AUTO_TEXT odd = TEXT_INIT;
    struct value numbers[] = { value_float(NAN), value_float(-INFINITY), value_float(0.1) };
    v = value_set(numbers, 3);
    encode_value(&odd, &v);
    assert_string_equal(odd.bytes, "[\"nan\",\"-inf\",0.10000000000000001]");
    assert_true(decode_value(arena, &floats, odd.bytes, odd.len, &back));
    assert_true(value_equal(&v, &back));
}

static void test_decode_by_hand(void **state)
{
    AUTO_ARENA arena = arena_new();
    struct value v;
    static const char fine[] = " [ \"a\\n\\/\\u00e9\\u20AC\" ,\"b\" ] ";
    static const struct {
        const struct type_info *type;
        const char *text;
    } bad[] = {
        { &strings, "" },
        { &strings, "[" },
        { &strings, "[\"a\"" },
        { &strings, "[\"a\",]" },
        { &strings, "[1]" },
        { &strings, "{}" },
        { &strings, "[\"a\"]x" },
        { &strings, "[\"\\x\"]" },
        { &strings, "[\"\\u00\"]" },
        { &strings, "[\"\\ud800\"]" },
        { &strings, "[\"\\u0000\"]" },
        { &strings, "[\"a]" },
        { &strings, "[\"a\\" },
        { &map, "{\"a\"}" },
        { &map, "{\"a\":[],}" },
        { &map, "{\"a\":\"b\"}" },
        { &int_type, "12x" },
        { &int_type, "99999999999999999999" },
        { &float_type, "1e" },
        { &int_type, "" },
    };

    assert_true(decode_value(arena, &strings, fine, strlen(fine), &v));
    assert_int_equal(v.len, 2);
    assert_string_equal(v.items[0].s, "a\n/é€");
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        if (decode_value(arena, bad[i].type, bad[i].text, strlen(bad[i].text), &v))
            fail_msg("took '%s'", bad[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roundtrip_all_classes),
        cmocka_unit_test(test_encode_nested),
        cmocka_unit_test(test_decode_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
