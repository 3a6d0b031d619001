/* VM.provision: the disks that a template describes, and the end of being a template. */
#include <ctype.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "rpc/base/uuid.h"
#include "xapi/core/allowed.h"
#include "xapi/core/api_create.h"
#include "xapi/core/internal_call.h"

LOG_MODULE(vm_provision);

struct provision {
    struct api_call *c;
    const struct row *vm;
    struct value_list vbds, vdis; /* made so far */
};

/* The value of name="…" or name='…' inside one XML element; NULL when it has none. */
static const char *attribute(struct arena *a, const char *element, const char *end, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = element + 1; p + len + 2 < end; p++) {
        char quote = p[len + 1];
        if (strncmp(p, name, len) != 0 || p[len] != '=' || (quote != '"' && quote != '\'') || !isspace((unsigned char)p[-1]))
            continue;
        const char *value = p + len + 2, *close = memchr(value, quote, (size_t)(end - value));
        return close != NULL ? arena_strndup(a, value, (size_t)(close - value)) : NULL;
    }
    return NULL;
}

/* The SR named by uuid, else the pool's default. */
static struct error *disk_sr(struct api_call *c, const char *uuid, const char **sr_r)
{
    const struct row *sr = uuid != NULL && uuid[0] != '\0' ? db_by_uuid(c->db, c->arena, &model_classes[CLASS_SR], uuid) : NULL;
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    *sr_r = sr != NULL ? sr->ref : pools.n > 0 ? row_string(pools.rows[0], F_pool_default_SR) : REF_NULL;
    return db_get(c->db, c->arena, &model_classes[CLASS_SR], *sr_r) == NULL ? err_default_sr_not_found(c->arena, *sr_r) : NULL;
}

static struct error *make_disk(struct provision *p, const char *device, int64_t size, const char *sr, const char *type, const char **vdi_r)
{
    const char *vm = row_string(p->vm, F_VM_name_label);
    const struct member fields[] = {
        member_of("name_label", value_string(arena_printf(p->c->arena, "%s %s", vm, device))),
        member_of("name_description", value_string("Created by template provisioner")),
        member_of("SR", value_string(sr)),
        member_of("virtual_size", value_int(size)),
        member_of("type", value_string(type)),
        member_of("sharable", value_bool(false)),
        member_of("read_only", value_bool(false)),
    };
    TRY(api_create(p->c, M_VDI_create, fields, ARRAY_LEN(fields), vdi_r));
    value_list_add(p->c->arena, &p->vdis, value_string(*vdi_r));
    return NULL;
}

static struct error *provision_disk(struct provision *p, const char *element, const char *end)
{
    struct arena *a = p->c->arena;
    const char *size_text = attribute(a, element, end, "size"), *device = attribute(a, element, end, "device");
    const char *bootable = attribute(a, element, end, "bootable"), *type = attribute(a, element, end, "type"), *sr, *vdi, *vbd;
    int64_t size;
    if (size_text == NULL || device == NULL || !text_to_int(size_text, &size) || size <= 0)
        return err_invalid_value(a, "other_config:disks", arena_strndup(a, element, (size_t)(end - element)));
    if (type == NULL || !one_of(type, (const char *const[]){ "system", "user", "ephemeral", NULL }))
        type = "user";
    TRY(disk_sr(p->c, attribute(a, element, end, "sr"), &sr));
    TRY(make_disk(p, device, size, sr, type, &vdi));
    const struct member fields[] = {
        member_of("VM", value_string(p->vm->ref)),
        member_of("VDI", value_string(vdi)),
        member_of("userdevice", value_string(device)),
        member_of("bootable", value_bool(bootable != NULL && strcmp(bootable, "true") == 0)),
        member_of("mode", value_string("RW")),
        member_of("type", value_string("Disk")),
        member_of("unpluggable", value_bool(strcmp(type, "system") != 0)),
    };
    TRY(api_create(p->c, M_VBD_create, fields, ARRAY_LEN(fields), &vbd));
    value_list_add(a, &p->vbds, value_string(vbd));
    return NULL;
}

static struct error *provision_disks(struct provision *p)
{
    const char *disks = row_map(p->vm, F_VM_other_config, "disks", "");
    for (const char *at = strstr(disks, "<disk"); at != NULL; at = strstr(at + 1, "<disk")) {
        const char *end = strchr(at, '>');
        if (end == NULL || !isspace((unsigned char)at[5]))
            break;
        TRY(provision_disk(p, at, end));
    }
    return NULL;
}

static void undo(struct provision *p)
{
    struct api_call calm = internal_call_cleanup(p->c);
    for (unsigned i = 0; i < p->vbds.n; i++) {
        struct api_VBD_destroy_args args = { .self = p->vbds.items[i].s };
        struct value ignored;
        struct error *e = api_run(&calm, M_VBD_destroy, &args, &ignored);
        if (e != NULL)
            log_warn("the device %s of a failed provisioning stays: %s", args.self, error_text(calm.arena, e));
    }
    for (unsigned i = 0; i < p->vdis.n; i++)
        api_discard_vdi(p->c, p->vdis.items[i].s, "the disk of a failed provisioning");
}

static struct error *end_template(struct api_call *c, const char *vm_ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    const char *metrics = row_string(vm, F_VM_metrics);
    TRY(txn_map_remove(txn, CLASS_VM, vm_ref, F_VM_other_config, "disks"));
    TRY(txn_set_bool(txn, CLASS_VM, vm_ref, F_VM_is_a_template, false));
    if (txn_get(txn, &model_classes[CLASS_VM_metrics], metrics) != NULL)
        TRY(txn_set(txn, CLASS_VM_metrics, metrics, F_VM_metrics_install_time, value_datetime(clock_wall(c->call.clock))));
    return txn_commit(txn, NULL);
}

/* <provision><disk device="0" size="…" sr="uuid" bootable="true" type="system"/>…</provision> in other_config:disks.
 * All disks are made, or none stays. */
struct error *api_VM_provision(struct api_call *c, const struct api_VM_provision_args *a, struct value *result_r)
{
    struct provision p = { .c = c };
    TRY(db_need(c->db, c->arena, CLASS_VM, a->vm, &p.vm));
    struct error *e = provision_disks(&p);
    if (e != NULL) {
        undo(&p);
        return e;
    }
    return end_template(c, a->vm);
}
