#include "xapi/pool/vm_metadata.h"

#include <string.h>

#include "rpc/base/datetime.h"
#include "rpc/wire/json.h"

/* What a revert does not bring back. */
static const unsigned kept[] = {
    F_VM_uuid, F_VM_allowed_operations, F_VM_current_operations, F_VM_suspend_VDI, F_VM_power_state, F_VM_parent, F_VM_metrics,
    F_VM_guest_metrics, F_VM_resident_on, F_VM_domid, F_VM_domarch, F_VM_protection_policy, F_VM_snapshot_schedule,
    F_VM_scheduled_to_be_resident_on, F_VM_tags, F_VM_affinity, F_VM_attached_PCIs, F_VM_blobs, F_VM_snapshot_metadata, F_VM_appliance,
    F_VM_ha_always_run,
};

const char *vm_metadata_write(struct arena *arena, const struct row *vm)
{
    struct value_dict d = { 0 };
    AUTO_TEXT text = TEXT_INIT;

    for (unsigned i = 0; i < vm->class->n_fields; i++)
        if (i != F_VM_snapshot_metadata && (vm->class->fields[i].flags & FIELD_INVERSE) == 0)
            value_dict_add(arena, &d, vm->class->fields[i].name, *row_value(vm, i));
    struct value map = value_dict_value(&d);
    json_write(&text, &map);
    return arena_strdup(arena, text.bytes);
}

static bool is_kept(unsigned field)
{
    for (unsigned i = 0; i < ARRAY_LEN(kept); i++)
        if (kept[i] == field)
            return true;
    return (model_classes[CLASS_VM].fields[field].flags & FIELD_INVERSE) != 0;
}

/* JSON knows fewer kinds than a field. */
static bool fits(struct value *v, const struct value *fallback)
{
    if (fallback->kind == VALUE_FLOAT && v->kind == VALUE_INT)
        *v = value_float((double)v->i);
    if (fallback->kind == VALUE_SET && v->kind == VALUE_SET)
        return true;
    return v->kind == fallback->kind;
}

struct vm_metadata vm_metadata_read(struct arena *arena, const char *text)
{
    const struct class_info *class = &model_classes[CLASS_VM];
    struct vm_metadata m = { .uuid = "" };
    const char *reason;
    struct value map;

    if (!json_parse(arena, text, strlen(text), &map, &reason) || map.kind != VALUE_MAP)
        return m;
    m.fields = arena_calloc(arena, class->n_fields, sizeof(*m.fields));
    m.uuid = value_get_string(&map, "uuid", "");
    for (unsigned i = 0; i < class->n_fields; i++) {
        const struct value *v = is_kept(i) ? NULL : value_get(&map, class->fields[i].name);
        struct value value = v != NULL ? *v : value_void();

        if (v != NULL && fits(&value, &class->fields[i].fallback)) /* datetimes stay: of a VM only its snapshot time is one */
            m.fields[m.n++] = (struct field_value) { i, value };
    }
    return m;
}
