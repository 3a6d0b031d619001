/* VMs made from others: clones share unchanged blocks with their origin, copies share nothing. */
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/pool/vm_copy.h"

static struct error *make(struct api_call *c, const struct vm_copy_plan *plan, struct value *result_r)
{
    const char *ref;

    TRY(vm_copy(c, plan, &ref));
    *result_r = value_string(ref);
    return NULL;
}

struct error *api_VM_clone(struct api_call *c, const struct api_VM_clone_args *a, struct value *result_r)
{
    const struct vm_copy_plan plan = { .vm = a->vm, .name = a->new_name, .kind = VM_COPY_CLONE };

    return make(c, &plan, result_r);
}

struct error *api_VM_copy(struct api_call *c, const struct api_VM_copy_args *a, struct value *result_r)
{
    const struct row *sr = ref_is_null(a->sr) ? NULL : db_get(c->db, c->arena, &model_classes[CLASS_SR], a->sr);
    const struct vm_copy_plan plan = { .vm = a->vm, .name = a->new_name, .kind = VM_COPY_FULL, .sr = sr != NULL ? a->sr : NULL };

    if (sr != NULL && strcmp(row_string(sr, F_SR_content_type), "iso") == 0)
        return err_operation_not_allowed(c->arena, "Cannot copy a VM's disks to an ISO SR");
    return make(c, &plan, result_r);
}
