/* Virtual trusted platform modules: as far as a record goes that moves with its VM. */
#include <string.h>

#include "xapi/core/operations.h"
#include "xapi/metadata/vtpm_secret.h"

#define MOST "1" /* of one VM */

static struct error *check_halted(struct api_call *c, const struct row *vm)
{
    const char *state = row_string(vm, F_VM_power_state);
    return strcmp(state, "Halted") == 0 ? NULL : err_vm_bad_power_state(c->arena, vm->ref, "Halted", state);
}

struct error *api_VTPM_create(struct api_call *c, const struct api_VTPM_create_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    const char *secret, *ref;

    TRY(txn_need(txn, CLASS_VM, a->vM, &vm));
    TRY(check_halted(c, vm));
    if (row_value(vm, F_VM_VTPMs)->len > 0)
        return err_vtpm_max_amount_reached(c->arena, MOST);
    TRY(vtpm_secret_make(txn, "", &secret));
    const struct field_value fields[] = { { F_VTPM_VM, value_string(a->vM) }, { F_VTPM_is_unique, value_bool(a->is_unique) },
                                          { F_VTPM_contents, value_string(secret) } };
    TRY(txn_create(txn, CLASS_VTPM, NULL, NULL, fields, ARRAY_LEN(fields), &ref));
    TRY(txn_commit(txn, NULL));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_VTPM_destroy(struct api_call *c, const struct api_VTPM_destroy_args *a, struct value *result_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vtpm, *vm;

    TRY(txn_need(txn, CLASS_VTPM, a->self, &vtpm));
    vm = txn_get(txn, &model_classes[CLASS_VM], row_string(vtpm, F_VTPM_VM));
    if (vm != NULL)
        TRY(check_halted(c, vm));
    TRY(vtpm_delete(txn, vtpm));
    return txn_commit(txn, NULL);
}
