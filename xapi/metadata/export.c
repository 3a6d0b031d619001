/* Rows to ova.xml: first which (one consistent state of the database), then each as an object. */
#include <strings.h>

#include "rpc/base/datetime.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/xmlrpc.h"
#include "xapi/core/xapi.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/ova.h"
#include "xapi/metadata/vtpm_secret.h"

#define LOOKS_MAX 8 /* before writers are held off */

struct exporter {
    struct api_call *c;
    const struct metadata_export *in;
    const struct row **rows;
    unsigned n, cap;
    struct name_index by_ref;
};

/* --- which rows ------------------------------------------------------------------------------------------------ */
static const struct row *add(struct exporter *x, unsigned class_id, const char *ref)
{
    unsigned known;
    const struct row *row = ref_is_null(ref) || name_index_find(&x->by_ref, ref, &known) ? NULL : db_get(x->c->db, x->c->arena, &model_classes[class_id], ref);

    if (row == NULL)
        return NULL;
    if (x->n == x->cap) {
        const struct row **more = arena_calloc(x->c->arena, x->cap * 2u + 64, sizeof(*more));
        memcpy(more, x->rows != NULL ? (const void *)x->rows : (const void *)more, x->n * sizeof(*more));
        x->rows = more;
        x->cap = x->cap * 2 + 64;
    }
    name_index_add(&x->by_ref, row->ref, x->n);
    x->rows[x->n++] = row;
    return row;
}

static void add_vdi(struct exporter *x, const char *ref)
{
    const struct row *vdi = add(x, CLASS_VDI, ref);

    while (vdi != NULL) {
        add(x, CLASS_SR, row_string(vdi, F_VDI_SR));
        const char *parent = x->in->include_vhd_parents ? row_map(vdi, F_VDI_sm_config, "vhd-parent", NULL) : NULL;
        const struct row *row = parent != NULL ? db_by_uuid(x->c->db, x->c->arena, &model_classes[CLASS_VDI], parent) : NULL;
        vdi = row != NULL ? add(x, CLASS_VDI, row->ref) : NULL;
    }
}

static bool excluded(const struct exporter *x, const char *class_name)
{
    size_t len = strlen(class_name);

    for (const char *p = x->in->excluded; p != NULL && *p != '\0'; p += strspn(p, ", ")) {
        size_t n = strcspn(p, ", ");
        if (n == len && strncasecmp(p, class_name, len) == 0)
            return true;
        p += n;
    }
    return false;
}

static void add_device(struct exporter *x, unsigned class_id, const char *ref)
{
    const struct row *row = add(x, class_id, ref);

    if (row == NULL)
        return;
    if (class_id == CLASS_VIF)
        add(x, CLASS_network, row_string(row, F_VIF_network));
    else if (class_id == CLASS_VBD && !row_bool(row, F_VBD_empty))
        add_vdi(x, row_string(row, F_VBD_VDI));
    else if (class_id == CLASS_VGPU) {
        add(x, CLASS_VGPU_type, row_string(row, F_VGPU_type));
        add(x, CLASS_GPU_group, row_string(row, F_VGPU_GPU_group));
    }
}

static void add_vm(struct exporter *x, const char *ref)
{
    static const struct { unsigned class_id, field; } devices[] = {
        { CLASS_VIF, F_VM_VIFs }, { CLASS_VBD, F_VM_VBDs }, { CLASS_VGPU, F_VM_VGPUs }, { CLASS_VTPM, F_VM_VTPMs },
    };
    const struct row *vm = add(x, CLASS_VM, ref);

    if (vm == NULL)
        return;
    for (unsigned d = 0; d < ARRAY_LEN(devices); d++) {
        const struct value *refs = row_value(vm, devices[d].field);
        for (unsigned i = 0; i < refs->len && !excluded(x, model_classes[devices[d].class_id].name); i++)
            add_device(x, devices[d].class_id, refs->items[i].s);
    }
    if (x->in->preserve_power_state && strcmp(row_string(vm, F_VM_power_state), "Suspended") == 0)
        add_vdi(x, row_string(vm, F_VM_suspend_VDI));
    add(x, CLASS_SR, row_string(vm, F_VM_suspend_SR));
    add(x, CLASS_VM_guest_metrics, row_string(vm, F_VM_guest_metrics));
    add(x, CLASS_VM_metrics, row_string(vm, F_VM_metrics));
    add(x, CLASS_host, row_string(vm, F_VM_resident_on));
    add(x, CLASS_host, row_string(vm, F_VM_affinity));
    const struct value *snapshots = row_value(vm, F_VM_snapshots);
    for (unsigned i = 0; i < snapshots->len && x->in->snapshots; i++)
        add_vm(x, snapshots->items[i].s);
}

static struct error *collect(struct exporter *x)
{
    x->n = 0;
    name_index_init(&x->by_ref, x->c->arena);
    for (unsigned i = 0; i < x->in->n_vms; i++) {
        const struct row *vm;
        TRY(db_need(x->c->db, x->c->arena, CLASS_VM, x->in->vms[i], &vm));
        add_vm(x, vm->ref);
    }
    return NULL;
}

/* Again until nothing was published meanwhile; in a busy pool new commits wait for the last look. */
static struct error *collect_state(struct exporter *x)
{
    AUTO_TXN txn = NULL;

    for (unsigned looks = 0;; looks++) {
        uint64_t before = db_generation(x->c->db);
        TRY(collect(x));
        if (db_generation(x->c->db) == before)
            return NULL;
        if (looks == LOOKS_MAX)
            txn = txn_begin(x->c->db, x->c->arena); /* what is queued still comes, then it stands still */
    }
}

/* --- a row as an object ------------------------------------------------------------------------------------------- */
static const char *name_of(struct exporter *x, struct arena *a, const char *ref)
{
    unsigned i;
    return !ref_is_null(ref) && name_index_find(&x->by_ref, ref, &i) ? arena_printf(a, "Ref:%u", i) : NULL;
}

static bool is_ref(const struct type_info *t) { return t != NULL && t->kind == TYPE_REF; }

/* References become names; those of objects that do not come along become null or are left out. */
static struct value renamed(struct exporter *x, struct arena *a, const struct field_info *field, const struct value *v)
{
    struct value_list list = { 0 };
    struct value_dict d = { 0 };
    const char *name;

    if (field->type->kind == TYPE_REF) {
        name = name_of(x, a, v->s);
        return value_string(name != NULL ? name : REF_NULL);
    }
    if (field->type->kind == TYPE_SET && is_ref(field->type->item)) {
        for (unsigned i = 0; i < v->len; i++)
            if ((name = name_of(x, a, v->items[i].s)) != NULL)
                value_list_add(a, &list, value_string(name));
        return value_list_value(&list);
    }
    if (field->type->kind == TYPE_MAP && (is_ref(field->type->item) || is_ref(field->type->key)))
        return value_dict_value(&d);
    return *v;
}

static bool one_of_fields(unsigned field, const unsigned *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (list[i] == field)
            return true;
    return false;
}

/* Fields that say nothing elsewhere, or are nobody's business. */
static bool is_blank(const struct exporter *x, const struct row *row, unsigned field)
{
    static const unsigned host_shown[] = { F_host_uuid, F_host_name_label, F_host_name_description, F_host_hostname, F_host_address, F_host_enabled,
                                           F_host_API_version_major, F_host_API_version_minor, F_host_API_version_vendor };
    static const unsigned of_snapshots[] = { F_VM_is_a_snapshot, F_VM_snapshot_of, F_VM_snapshots, F_VM_snapshot_time, F_VM_transportable_snapshot_id,
                                             F_VM_parent, F_VM_children };
    const struct field_info *info = &row->class->fields[field];

    if ((info->flags & FIELD_SECRET) != 0 || strcmp(info->name, "allowed_operations") == 0 || strcmp(info->name, "current_operations") == 0)
        return true;
    if (row->class->id == CLASS_host)
        return !one_of_fields(field, host_shown, ARRAY_LEN(host_shown));
    if (strcmp(info->name, "currently_attached") == 0)
        return !x->in->preserve_power_state;
    if (row->class->id != CLASS_VM)
        return false;
    if (!x->in->preserve_power_state && (field == F_VM_power_state || field == F_VM_suspend_VDI))
        return true;
    return !x->in->snapshots && one_of_fields(field, of_snapshots, ARRAY_LEN(of_snapshots));
}

static int mapped_field(const struct row *row)
{
    switch (row->class->id) {
    case CLASS_VDI: return F_VDI_other_config;
    case CLASS_VIF: return F_VIF_other_config;
    case CLASS_VGPU: return F_VGPU_other_config;
    default: return -1;
    }
}

static struct value with_map(struct exporter *x, struct arena *a, const struct row *row, const struct value *other)
{
    const char *to = x->in->maps_to != NULL ? value_get_string(x->in->maps_to, row->ref, NULL) : NULL;
    struct value_dict d = { 0 };

    if (to == NULL)
        return *other;
    for (unsigned i = 0; i < other->len; i++)
        value_dict_add(a, &d, other->members[i].name, other->members[i].value);
    value_dict_set(a, &d, METADATA_MAPS_TO, value_string(to));
    return value_dict_value(&d);
}

static struct value record_of(struct exporter *x, struct arena *a, const struct row *row)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < row->class->n_fields; i++) {
        const struct field_info *info = &row->class->fields[i];
        if ((info->flags & FIELD_UNPUBLISHED) != 0)
            continue;
        struct value v = is_blank(x, row, i) ? info->fallback : *row_value(row, i);
        if ((int)i == mapped_field(row))
            v = with_map(x, a, row, &v);
        value_dict_add(a, &d, info->name, renamed(x, a, info, &v));
    }
    if (row->class->id == CLASS_VTPM)
        value_dict_add(a, &d, VTPM_CONTENT, value_string(vtpm_secret_read(x->c, row)));
    return value_dict_value(&d);
}

static void write_object(struct exporter *x, const struct row *row, struct text *xml)
{
    AUTO_ARENA a = arena_new();
    const struct member members[] = { member_of("class", value_string(row->class->name)), member_of("id", value_string(name_of(x, a, row->ref))),
                                      member_of("snapshot", record_of(x, a, row)) };
    struct value object = value_map(members, ARRAY_LEN(members));

    xmlrpc_write_value(xml, &object);
}

/* --- the whole ------------------------------------------------------------------------------------------------------ */
static struct value version_of(struct api_call *c)
{
    static const char *const keys[] = { "product_version", "product_brand", "build_number" };
    const struct row *host = c->xapi->host_uuid != NULL ? db_by_uuid(c->db, c->arena, &model_classes[CLASS_host], c->xapi->host_uuid) : NULL;
    char *date = arena_alloc(c->arena, DATETIME_LEN + 1);
    struct value_dict d = { 0 };

    datetime_format(clock_wall(c->call.clock), date);
    value_dict_add(c->arena, &d, "hostname", value_string(host != NULL ? row_string(host, F_host_hostname) : ""));
    value_dict_add(c->arena, &d, "date", value_string(date));
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        value_dict_add(c->arena, &d, keys[i], value_string(host != NULL ? row_map(host, F_host_software_version, keys[i], "") : ""));
    value_dict_add(c->arena, &d, "xapi_major", value_int(1));
    value_dict_add(c->arena, &d, "xapi_minor", value_int(20));
    value_dict_add(c->arena, &d, "export_vsn", value_int(OVA_EXPORT_VERSION));
    return value_dict_value(&d);
}

struct error *metadata_write(struct api_call *c, const struct metadata_export *in, struct text *tar)
{
    static const unsigned order[] = { CLASS_host, CLASS_VM, CLASS_VM_guest_metrics, CLASS_VM_metrics, CLASS_VBD, CLASS_VIF, CLASS_network, CLASS_VDI,
                                      CLASS_SR, CLASS_VGPU_type, CLASS_VGPU, CLASS_GPU_group, CLASS_VTPM };
    struct exporter x = { .c = c, .in = in };
    struct value version = version_of(c);
    AUTO_TEXT xml = TEXT_INIT;

    TRY(collect_state(&x));
    text_add(&xml, "<value><struct><member><name>version</name>");
    xmlrpc_write_value(&xml, &version);
    text_add(&xml, "</member><member><name>objects</name><value><array><data>");
    for (unsigned k = 0; k < ARRAY_LEN(order); k++)
        for (unsigned i = 0; i < x.n; i++)
            if (x.rows[i]->class->id == order[k])
                write_object(&x, x.rows[i], &xml);
    text_add(&xml, "</data></array></value></member></struct></value>");
    ova_tar_write(tar, xml.bytes, xml.len, clock_wall(c->call.clock));
    return NULL;
}
