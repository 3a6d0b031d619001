/* Suspend and resume: the memory of a VM as a disk. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/api_create.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/agent.h"
#include "xapi/core/vdi_path.h"

LOG_MODULE(vm_suspend);

#define SUSPEND_ROOM (16ll << 20) /* headers, vCPU state and page lists beside the memory itself */

/* --- suspend ----------------------------------------------------------------------------------------------- */
/* The VM's own, else the pool's, the host's, the pool's default; the first one this host can use. */
static struct error *suspend_sr(struct api_call *c, const struct row *vm, const char *host_ref, const char **sr_r)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    struct row_list pools = txn_all(txn, &model_classes[CLASS_pool]);
    const char *candidates[] = {
        row_string(vm, F_VM_suspend_SR),
        pools.n > 0 ? row_string(pools.rows[0], F_pool_suspend_image_SR) : REF_NULL,
        row_string(host, F_host_suspend_image_sr),
        pools.n > 0 ? row_string(pools.rows[0], F_pool_default_SR) : REF_NULL,
    };
    for (unsigned i = 0; i < ARRAY_LEN(candidates); i++)
        if (placement_sr_attached(txn, candidates[i], host_ref)) {
            *sr_r = arena_strdup(c->arena, candidates[i]);
            return NULL;
        }
    return err_vm_no_suspend_sr(c->arena, vm->ref);
}

static bool for_checkpoint(const struct row *vm)
{
    const struct value *current = row_value(vm, F_VM_current_operations);
    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, "checkpoint") == 0)
            return true;
    return false;
}

static struct error *image_mark(struct api_call *c, const struct row *vm, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vdi;
    TRY(txn_need(txn, CLASS_VDI, vdi_ref, &vdi));
    TRY(txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, VM_IMAGE_SELF, value_string(row_string(vdi, F_VDI_uuid))));
    TRY(txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, VM_IMAGE_OF, value_string(vm->ref)));
    return txn_commit(txn, NULL);
}

static bool is_own_image(const struct row *vdi)
{
    return strcmp(row_map(vdi, F_VDI_sm_config, VM_IMAGE_SELF, ""), row_string(vdi, F_VDI_uuid)) == 0;
}

struct error *vm_image_give_up(struct txn *txn, const char *vdi_ref)
{
    const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdi_ref);
    if (vdi == NULL || !is_own_image(vdi))
        return NULL;
    return txn_map_put(txn, CLASS_VDI, vdi_ref, F_VDI_sm_config, VM_IMAGE_VOID, value_string("true"));
}

/* Its memory is not on any disk, whatever its row still says. */
static bool runs_undisturbed(const struct row *vm)
{
    return strcmp(row_string(vm, F_VM_power_state), "Running") == 0 && row_value(vm, F_VM_current_operations)->len == 0;
}

/* One that was made for a VM which was then found without a domain may be all that is left of its memory: it stays. */
bool vm_image_is_unused(struct api_call *c, const struct row *vdi)
{
    if (!is_own_image(vdi) || row_value(vdi, F_VDI_current_operations)->len > 0 || row_value(vdi, F_VDI_VBDs)->len > 0)
        return false;
    struct row_list vms = db_all(c->db, c->arena, &model_classes[CLASS_VM]);
    for (unsigned i = 0; i < vms.n; i++)
        if (strcmp(row_string(vms.rows[i], F_VM_suspend_VDI), vdi->ref) == 0 && !runs_undisturbed(vms.rows[i]))
            return false;
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], row_map(vdi, F_VDI_sm_config, VM_IMAGE_OF, ""));
    if (vm == NULL || strcmp(row_map(vdi, F_VDI_sm_config, VM_IMAGE_VOID, ""), "true") == 0)
        return true;
    return runs_undisturbed(vm);
}

static struct error *make_image(struct api_call *c, const struct row *vm, const char *host_ref, const char **vdi_r)
{
    const char *sr = REF_NULL;
    TRY(suspend_sr(c, vm, host_ref, &sr));
    int64_t memory = row_int(vm, F_VM_memory_static_max);
    const struct member raw[] = { member_of("type", value_string("raw")) }; /* hosts write and read it themselves */
    const struct member wakes[] = { member_of(VM_IMAGE_WAKES, value_string("true")) };
    const struct member fields[] = {
        member_of("name_label", value_string("Suspend image")),
        member_of("name_description", value_string("Memory of a suspended VM")),
        member_of("SR", value_string(sr)),
        member_of("virtual_size", value_int(memory + memory / 256 + SUSPEND_ROOM)),
        member_of("type", value_string("suspend")),
        member_of("sharable", value_bool(false)),
        member_of("read_only", value_bool(false)),
        member_of("other_config", value_map(wakes, for_checkpoint(vm) ? 1 : 0)),
        member_of("sm_config", value_map(raw, ARRAY_LEN(raw))),
    };
    TRY(api_create(c, M_VDI_create, fields, ARRAY_LEN(fields), vdi_r));
    return image_mark(c, vm, *vdi_r);
}

static struct error *record_suspended(struct api_call *c, const char *vm_ref, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_suspend_VDI, vdi_ref));
    TRY(vm_set_power_state(c, txn, vm_ref, "Suspended", NULL, -1));
    return txn_commit(txn, NULL);
}

/* The image as a file on the host, with no tapd between. */
static const char *image_user(struct api_call *c, const struct row *vm) { return arena_printf(c->arena, "suspend-%s", row_string(vm, F_VM_uuid)); }

static struct error *image_path(struct api_call *c, const struct row *vm, const char *vdi_ref, const char *host_ref, bool read_only, const char **path_r)
{
    const struct vdi_path_use use = { .user = image_user(c, vm), .read_only = read_only, .direct = true, .activate = true };
    return vdi_path(c, vdi_ref, host_ref, &use, path_r);
}

static struct error *suspend_to(struct api_call *c, const struct row *vm, const char *host_ref, const char *vdi_ref)
{
    const char *path;
    TRY(image_path(c, vm, vdi_ref, host_ref, false, &path));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))), member_of("path", value_string(path)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    return vm_run_error(c, vm->ref, agent_call(c, host_ref, "vm.suspend", &v, &ignored));
}

/* A host that cannot be asked may have written the image and ended the domain: then it is the only copy. */
static void drop_image(struct api_call *c, const struct error *why, const char *vdi_ref)
{
    if (error_is(why, "CANNOT_CONTACT_HOST") || error_is(why, "HOST_OFFLINE"))
        log_warn("the suspend image %s is kept: nobody knows whether it is complete", vdi_ref);
    else
        api_discard_vdi(c, vdi_ref, "the unused suspend image");
}

struct error *vm_run_suspend(struct api_call *c, const char *vm_ref)
{
    const struct row *vm;
    const char *host, *vdi;
    TRY(vm_run_residence(c, vm_ref, "running", &vm, &host));
    TRY(make_image(c, vm, host, &vdi));
    struct api_call calm = internal_call_cleanup(c);
    task_set_cancellable(c, true);
    struct error *e = suspend_to(c, vm, host, vdi);
    if (e == NULL) /* first of all: from here on the image is the guest's memory */
        e = record_suspended(c, vm_ref, vdi);
    else
        drop_image(c, e, vdi);
    vdi_path_release(&calm, vdi, host, image_user(c, vm));
    TRY(e);
    vm_disks_release(&calm, vm_ref, host);
    vm_run_tell(c, vm_ref, "VM_SUSPENDED", "suspended");
    return NULL;
}

/* A simulated guest notices that its memory is an old one; here that is meant. */
static void accept_old_image(struct api_call *c, const struct row *image, struct vm_spec *spec)
{
    struct value_dict d = { 0 };
    if (strcmp(row_map(image, F_VDI_other_config, VM_IMAGE_OLD, "false"), "true") != 0)
        return;
    for (unsigned i = 0; i < spec->platform.len; i++)
        value_dict_add(c->arena, &d, spec->platform.members[i].name, spec->platform.members[i].value);
    value_dict_set(c->arena, &d, "sim-witness-reset", value_string("true"));
    spec->platform = value_dict_value(&d);
}

/* --- resume -------------------------------------------------------------------------------------------------- */
static struct error *resume_reserved(struct api_call *c, const struct row *vm, const char *host_ref, bool paused)
{
    struct vm_spec spec;
    const char *path;
    const struct row *image;
    TRY(vm_spec_of(c, vm->ref, host_ref, &spec));
    TRY(db_need(c->db, c->arena, CLASS_VDI, row_string(vm, F_VM_suspend_VDI), &image));
    accept_old_image(c, image, &spec);
    TRY(image_path(c, vm, image->ref, host_ref, true, &path));
    struct member args[] = { member_of("spec", vm_spec_to_value(c->arena, &spec)), member_of("path", value_string(path)),
                             member_of("paused", value_bool(paused)) };
    struct value v = value_map(args, ARRAY_LEN(args)), info;
    TRY(vm_run_error(c, vm->ref, agent_call(c, host_ref, "vm.resume", &v, &info)));
    return vm_run_record(c, vm->ref, host_ref, &info, false);
}

static struct error *image_used(struct api_call *c, const char *vm_ref, const char *vdi_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(txn_set_string(txn, CLASS_VM, vm_ref, F_VM_suspend_VDI, REF_NULL));
    TRY(vm_image_give_up(txn, vdi_ref));
    return txn_commit(txn, NULL);
}

struct error *vm_run_resume(struct api_call *c, const char *vm_ref, const char *host_ref, bool paused, bool force)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    const char *image = row_string(vm, F_VM_suspend_VDI), *host;
    if (db_get(c->db, c->arena, &model_classes[CLASS_VDI], image) == NULL)
        return err_vm_has_no_suspend_vdi(c->arena, vm_ref);
    TRY(vm_run_reserve(c, vm_ref, host_ref, "vm_resume", (force ? 0 : PLACE_CPU) | PLACE_SR | PLACE_MEMORY, &host));
    OPERATION_SCOPE on_host = { c, CLASS_host, host, "vm_resume" };
    struct api_call calm = internal_call_cleanup(c);
    struct error *e = resume_reserved(c, vm, host, paused);
    vdi_path_release(&calm, image, host, image_user(c, vm));
    if (e != NULL) {
        vm_run_unreserve(c, vm_ref);
        vm_disks_release(&calm, vm_ref, host);
        return e;
    }
    TRY(image_used(c, vm_ref, image));
    api_discard_vdi(c, image, "the used suspend image");
    vm_run_tell(c, vm_ref, "VM_RESUMED", "resumed");
    return NULL;
}
