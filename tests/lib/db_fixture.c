#include "tests/lib/db_fixture.h"

#include <string.h>

#include "gen/model_ids.h"
#include "tests/lib/unit.h"

void db_fixture_must(const struct error *error, const char *file, int line)
{
    if (error == NULL)
        return;
    print_error("%s: %s\n", error->code, error->n_params > 0 ? error->params[0] : "");
    _fail(file, line);
}

void db_fixture_must_fail(const struct error *error, const char *code, const char *file, int line)
{
    if (error_is(error, code))
        return;
    print_error("wanted %s, got %s\n", code, error != NULL ? error->code : "no error");
    _fail(file, line);
}

void db_fixture_memory(struct db_fixture *f)
{
    *f = (struct db_fixture){ .arena = arena_new(), .options = { .clock = &clock_real } };
    must(db_open(f->arena, &f->options, &f->db));
}

void db_fixture_file(struct db_fixture *f)
{
    *f = (struct db_fixture){ .arena = arena_new(), .options = { .clock = &clock_real } };
    tempdir_make(&f->dir);
    f->options.path = tempdir_file(&f->dir, "pool.db");
    must(db_open(f->arena, &f->options, &f->db));
}

void db_fixture_reopen(struct db_fixture *f)
{
    db_close(f->db);
    f->db = NULL;
    must(db_open(f->arena, &f->options, &f->db));
}

void db_fixture_release(struct db_fixture *f)
{
    arena_free(f->arena);
    db_close(f->db);
    if (f->options.path != NULL)
        tempdir_remove(&f->dir);
}

const char *db_fixture_create(struct db_fixture *f, unsigned class_id, const struct field_value *fields, unsigned n)
{
    const char *ref = NULL;
    AUTO_TXN txn = txn_begin(f->db, f->arena);
    must(txn_create(txn, class_id, NULL, NULL, fields, n, &ref));
    must(txn_commit(txn, NULL));
    return ref;
}

const char *db_fixture_vm(struct db_fixture *f, const char *name)
{
    struct field_value fields[] = { { F_VM_name_label, value_string(name) } };
    return db_fixture_create(f, CLASS_VM, fields, 1);
}

const char *db_fixture_vbd(struct db_fixture *f, const char *vm, const char *vdi)
{
    struct field_value fields[] = { { F_VBD_VM, value_string(vm) }, { F_VBD_VDI, value_string(vdi) } };
    return db_fixture_create(f, CLASS_VBD, fields, 2);
}

void db_fixture_set(struct db_fixture *f, unsigned class_id, const char *ref, unsigned field, struct value value)
{
    must(db_set(f->db, f->arena, class_id, ref, field, value));
}

void db_fixture_delete(struct db_fixture *f, unsigned class_id, const char *ref)
{
    must(db_delete(f->db, f->arena, class_id, ref));
}

const struct row *db_fixture_row(struct db_fixture *f, unsigned class_id, const char *ref)
{
    return db_get(f->db, f->arena, &model_classes[class_id], ref);
}

const char *db_fixture_name(struct db_fixture *f, const char *vm)
{
    const struct row *row = db_fixture_row(f, CLASS_VM, vm);
    return row != NULL ? row_string(row, F_VM_name_label) : "";
}

const char *db_fixture_set_text(struct db_fixture *f, unsigned class_id, const char *ref, unsigned field)
{
    const struct row *row = db_fixture_row(f, class_id, ref);
    const char *text = "";
    assert_non_null(row);
    const struct value *v = row_value(row, field);
    for (uint32_t i = 0; i < v->len; i++)
        text = arena_printf(f->arena, "%s%s%s", text, i > 0 ? " " : "", v->items[i].s);
    return text;
}

struct class_set db_fixture_classes(unsigned n, const unsigned *class_ids)
{
    struct class_set set = { { 0 } };
    for (unsigned i = 0; i < n; i++)
        class_set_add(&set, class_ids[i]);
    for (unsigned i = 0; n == 0 && i < model_n_classes; i++)
        class_set_add(&set, i);
    return set;
}
