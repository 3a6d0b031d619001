/* A VM's records out of a pool and into it again: everything that identifies it, its snapshots, the errors, and that a dry run
 * and a failure change nothing. */
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/uuid.h"
#include "rpc/wire/json.h"
#include "rpc/wire/xmlrpc.h"
#include "tests/lib/core_world.h"
#include "tests/lib/db_fixture.h"
#include "tests/lib/unit.h"
#include "xapi/core/internal_call.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/ova.h"
#include "xapi/metadata/vm_files.h"
#include "xapi/pool/vm_metadata.h"

#define MIB (1ll << 20)
#define GIB (1ll << 30)
#define SEED "11111111-2222-3333-4444-555555555555"

static struct core_world world;
#define W (&world)
#define A (W->arena)
#define DB (W->xapi.db)

static const char *sr, *iso_sr, *network, *vm, *disk, *iso, *snap, *checkpoint, *snap_disk, *image, *host;

/* --- a VM with all that a VM can have ------------------------------------------------------------------------------ */
static struct value pairs(const char *const *words, unsigned n)
{
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < n; i += 2)
        value_dict_add(A, &d, words[i], S(words[i + 1]));
    return value_dict_value(&d);
}
#define MAP(...) pairs((const char *const[]) { __VA_ARGS__ }, sizeof((const char *const[]) { __VA_ARGS__ }) / sizeof(char *))

static const char *make_sr(const char *name, const char *content)
{
    const struct field_value fields[] = { { F_SR_name_label, S(name) }, { F_SR_content_type, S(content) }, { F_SR_type, S("file") } };
    return core_row(W, CLASS_SR, fields, ARRAY_LEN(fields));
}

static const char *make_vdi(const char *name, const char *in, const char *location)
{
    const struct field_value fields[] = { { F_VDI_name_label, S(name) }, { F_VDI_SR, S(in) }, { F_VDI_location, S(location) }, { F_VDI_virtual_size, value_int(GIB) } };
    return core_row(W, CLASS_VDI, fields, ARRAY_LEN(fields));
}

static void make_vbd(const char *of, const char *vdi, const char *device, const char *type)
{
    const struct field_value fields[] = { { F_VBD_VM, S(of) },         { F_VBD_VDI, S(vdi) },   { F_VBD_userdevice, S(device) },
                                          { F_VBD_device, S("xvda") }, { F_VBD_type, S(type) }, { F_VBD_empty, value_bool(ref_is_null(vdi)) },
                                          { F_VBD_other_config, MAP("owner", "") }, { F_VBD_bootable, value_bool(true) } };
    core_row(W, CLASS_VBD, fields, ARRAY_LEN(fields));
}

static void make_vif(const char *of, const char *device, const char *mac)
{
    const struct field_value fields[] = { { F_VIF_VM, S(of) }, { F_VIF_network, S(network) }, { F_VIF_device, S(device) }, { F_VIF_MAC, S(mac) },
                                          { F_VIF_MTU, value_int(9000) }, { F_VIF_locking_mode, S("locked") },
                                          { F_VIF_currently_attached, value_bool(true) } };
    core_row(W, CLASS_VIF, fields, ARRAY_LEN(fields));
}

static const char *make_vm(const char *name, const char *state, const char *of)
{
    const struct value tag = S("gold");
    const struct field_value metrics[] = { { F_VM_metrics_install_time, value_datetime(1500000000) }, { F_VM_metrics_start_time, value_datetime(1600000000) } };
    const struct field_value fields[] = {
        { F_VM_name_label, S(name) },
        { F_VM_power_state, S(state) },
        { F_VM_domain_type, S("hvm") },
        { F_VM_user_version, value_int(7) },
        { F_VM_memory_static_min, value_int(MIB) },
        { F_VM_memory_dynamic_min, value_int(GIB) },
        { F_VM_memory_dynamic_max, value_int(GIB) },
        { F_VM_memory_static_max, value_int(2 * GIB) },
        { F_VM_VCPUs_max, value_int(4) },
        { F_VM_HVM_shadow_multiplier, value_float(1.25) },
        { F_VM_other_config, MAP("mac_seed", SEED, "note", "a <b> & \"c\"") },
        { F_VM_NVRAM, MAP("EFI-variables", "AAECAw==") },
        { F_VM_bios_strings, MAP("bios-vendor", "Xen") },
        { F_VM_platform, MAP("vga", "std") },
        { F_VM_blocked_operations, MAP("destroy", "no") },
        { F_VM_tags, value_set(&tag, 1) },
        { F_VM_ha_restart_priority, S("restart") },
        { F_VM_ha_always_run, value_bool(of == NULL) },
        { F_VM_generation_id, S("12:34") },
        { F_VM_is_a_snapshot, value_bool(of != NULL) },
        { F_VM_is_a_template, value_bool(of != NULL) },
        { F_VM_snapshot_of, S(of != NULL ? of : REF_NULL) },
        { F_VM_snapshot_time, value_datetime(of != NULL ? 1650000000 : 0) },
        { F_VM_last_boot_CPU_flags, MAP("vendor", "GenuineIntel", "features", "000000ff") },
        { F_VM_metrics, S(core_row(W, CLASS_VM_metrics, metrics, ARRAY_LEN(metrics))) },
        { F_VM_guest_metrics, S(core_row(W, CLASS_VM_guest_metrics, NULL, 0)) },
    };
    return core_row(W, CLASS_VM, fields, ARRAY_LEN(fields));
}

static void set(unsigned class_id, const char *ref, unsigned field, struct value v) { must(db_set(DB, A, class_id, ref, field, v)); }

static void make_host(void)
{
    const struct field_value metrics[] = { { F_host_metrics_live, value_bool(true) }, { F_host_metrics_memory_total, value_int(8 * GIB) } };
    const struct field_value fields[] = {
        { F_host_name_label, S("other") },
        { F_host_enabled, value_bool(true) },
        { F_host_metrics, S(core_row(W, CLASS_host_metrics, metrics, ARRAY_LEN(metrics))) },
        { F_host_cpu_info, MAP("vendor", "GenuineIntel", "features_hvm", "0000ffff", "features_pv", "0000ffff") },
    };
    host = core_row(W, CLASS_host, fields, ARRAY_LEN(fields));
}

static int arrange(void **state)
{
    core_world_init(W);
    const struct field_value net[] = { { F_network_name_label, S("lan") }, { F_network_bridge, S("xenbr7") } };
    const struct field_value secret[] = { { F_secret_value, S("dHBtIHN0YXRl") } };

    sr = make_sr("disks", "user");
    iso_sr = make_sr("images", "iso");
    network = core_row(W, CLASS_network, net, ARRAY_LEN(net));
    make_host();
    vm = make_vm("guest", "Halted", NULL);
    disk = make_vdi("disk", sr, "disk.vhd");
    iso = make_vdi("install", iso_sr, "install.iso");
    make_vbd(vm, disk, "0", "Disk");
    make_vbd(vm, iso, "3", "CD");
    make_vif(vm, "0", "02:11:22:33:44:55");
    const struct field_value vtpm[] = { { F_VTPM_VM, S(vm) }, { F_VTPM_is_unique, value_bool(true) },
                                        { F_VTPM_contents, S(core_row(W, CLASS_secret, secret, ARRAY_LEN(secret))) } };
    core_row(W, CLASS_VTPM, vtpm, ARRAY_LEN(vtpm));
    snap = make_vm("before", "Halted", vm);
    snap_disk = make_vdi("disk then", sr, "then.vhd");
    make_vbd(snap, snap_disk, "0", "Disk");
    make_vif(snap, "0", "02:11:22:33:44:55");
    checkpoint = make_vm("asleep", "Suspended", vm);
    image = make_vdi("memory", sr, "memory.vhd");
    set(CLASS_VM, checkpoint, F_VM_suspend_VDI, S(image));
    set(CLASS_VM, checkpoint, F_VM_parent, S(snap));
    set(CLASS_VM, vm, F_VM_parent, S(checkpoint));
    set(CLASS_VM, snap, F_VM_snapshot_metadata, S(vm_metadata_write(A, db_get(DB, A, &model_classes[CLASS_VM], vm))));
    return 0;
}

static int clear(void **state)
{
    fault_disarm(NULL);
    core_world_release(W);
    return 0;
}

/* --- aids --------------------------------------------------------------------------------------------------------------- */
static struct api_call *call(void)
{
    struct api_call *c = arena_alloc(A, sizeof(*c));
    internal_call_init(c, &W->xapi, A, "test");
    return c;
}

static const struct row *row(unsigned class_id, const char *ref)
{
    const struct row *r;
    must(db_need(DB, A, class_id, ref, &r));
    return r;
}
#define VM_ROW(ref) row(CLASS_VM, ref)

struct tar { const char *bytes; size_t len; };

static struct tar export_as(const struct metadata_export *how)
{
    AUTO_TEXT t = TEXT_INIT;

    must(metadata_write(call(), how, &t));
    return (struct tar) { arena_memdup(A, t.bytes, t.len), t.len };
}

static struct tar export_all(void)
{
    return export_as(&(struct metadata_export) { .vms = &vm, .n_vms = 1, .snapshots = true, .preserve_power_state = true });
}

static struct error *try_import(struct tar t, struct metadata_import how, const char *const **vms, unsigned *n)
{
    return metadata_read(call(), &how, t.bytes, t.len, vms, n);
}

static const char *import(struct tar t, struct metadata_import how, unsigned expected)
{
    const char *const *vms;
    unsigned n;

    must(try_import(t, how, &vms, &n));
    assert_int_equal(n, expected);
    return n > 0 ? vms[0] : NULL;
}

static void fails(struct tar t, struct metadata_import how, const char *code, unsigned n_params, const char *first)
{
    uint64_t before = db_generation(DB);
    const char *const *vms;
    unsigned n;
    struct error *e = try_import(t, how, &vms, &n);

    assert_non_null(e);
    assert_string_equal(e->code, code);
    assert_int_equal(e->n_params, n_params);
    if (first != NULL)
        assert_string_equal(e->params[0], first);
    assert_int_equal(db_generation(DB), before);
}

static void gone(const char *ref)
{
    must(metadata_remove(call(), ref));
    assert_null(db_get(DB, A, &model_classes[CLASS_VM], ref));
}

static unsigned count(unsigned class_id) { return db_all(DB, A, &model_classes[class_id]).n; }

/* The file with every occurrence of a text in ova.xml replaced. */
static struct tar edited(struct tar t, const char *from, const char *to)
{
    const char *xml, *at;
    size_t len;
    AUTO_TEXT new_xml = TEXT_INIT;
    AUTO_TEXT tar = TEXT_INIT;
    bool found = false;

    must(ova_tar_xml(A, t.bytes, t.len, &xml, &len));
    xml = arena_strndup(A, xml, len);
    for (; (at = strstr(xml, from)) != NULL; xml = at + strlen(from), found = true) {
        text_add_len(&new_xml, xml, (size_t)(at - xml));
        text_add(&new_xml, to);
    }
    assert_true(found);
    text_add(&new_xml, xml);
    ova_tar_write(&tar, new_xml.bytes, new_xml.len, 0);
    return (struct tar) { arena_memdup(A, tar.bytes, tar.len), tar.len };
}

static void same_but(const struct row *a, const struct row *b, const unsigned *but, unsigned n)
{
    for (unsigned i = 0; i < a->class->n_fields; i++) {
        bool skip = false;
        for (unsigned k = 0; k < n; k++)
            skip |= but[k] == i;
        if (!skip && !value_equal(row_value(a, i), row_value(b, i)))
            fail_msg("%s.%s differs", a->class->name, a->class->fields[i].name);
    }
}

static const struct row *only(unsigned class_id, const char *vm_ref, unsigned field)
{
    const struct value *refs = row_value(VM_ROW(vm_ref), field);
    assert_int_equal(refs->len, 1);
    return row(class_id, refs->items[0].s);
}

static const struct row *vbd_at(const char *vm_ref, const char *device)
{
    const struct value *refs = row_value(VM_ROW(vm_ref), F_VM_VBDs);

    for (unsigned i = 0; i < refs->len; i++)
        if (strcmp(row_string(row(CLASS_VBD, refs->items[i].s), F_VBD_userdevice), device) == 0)
            return row(CLASS_VBD, refs->items[i].s);
    return NULL;
}

static const unsigned vm_links[] = { F_VM_metrics, F_VM_guest_metrics, F_VM_VBDs, F_VM_VIFs, F_VM_VTPMs, F_VM_snapshots, F_VM_snapshot_of, F_VM_parent,
                                     F_VM_children, F_VM_allowed_operations, F_VM_memory_overhead, F_VM_snapshot_metadata };

/* --- the same again ------------------------------------------------------------------------------------------------------ */
static void restored_is_the_same(void **state)
{
    const struct row *old = VM_ROW(vm), *old_vif = only(CLASS_VIF, vm, F_VM_VIFs), *old_vbd = vbd_at(vm, "0"), *old_metrics = row(CLASS_VM_metrics, row_string(old, F_VM_metrics));
    static const unsigned vbd_links[] = { F_VBD_uuid, F_VBD_VM, F_VBD_allowed_operations }, vif_links[] = { F_VIF_uuid, F_VIF_VM, F_VIF_allowed_operations, F_VIF_currently_attached };
    struct tar t = export_all();

    gone(vm);
    assert_int_equal(count(CLASS_VM), 0);
    assert_int_equal(count(CLASS_VBD) + count(CLASS_VIF) + count(CLASS_VTPM) + count(CLASS_secret) + count(CLASS_VM_metrics) + count(CLASS_VM_guest_metrics), 0);
    assert_int_equal(count(CLASS_VDI), 4);
    const char *new_vm = import(t, (struct metadata_import) { .restore = true, .snapshots = true }, 3);

    same_but(old, VM_ROW(new_vm), vm_links, ARRAY_LEN(vm_links));
    same_but(old_vif, only(CLASS_VIF, new_vm, F_VM_VIFs), vif_links, ARRAY_LEN(vif_links));
    assert_false(row_bool(only(CLASS_VIF, new_vm, F_VM_VIFs), F_VIF_currently_attached));
    same_but(old_vbd, vbd_at(new_vm, "0"), vbd_links, ARRAY_LEN(vbd_links));
    assert_string_equal(row_string(vbd_at(new_vm, "3"), F_VBD_VDI), iso);
    same_but(old_metrics, row(CLASS_VM_metrics, row_string(VM_ROW(new_vm), F_VM_metrics)), (unsigned[]) { F_VM_metrics_uuid }, 1);
    const struct row *vtpm = only(CLASS_VTPM, new_vm, F_VM_VTPMs);
    assert_true(row_bool(vtpm, F_VTPM_is_unique));
    assert_string_equal(row_string(row(CLASS_secret, row_string(vtpm, F_VTPM_contents)), F_secret_value), "dHBtIHN0YXRl");
}

static const char *by_name(const char *name)
{
    struct row_list l = db_by_name(DB, A, &model_classes[CLASS_VM], name);
    assert_int_equal(l.n, 1);
    return l.rows[0]->ref;
}

static void snapshots_are_linked_again(void **state)
{
    const struct row *old = VM_ROW(snap), *old_checkpoint = VM_ROW(checkpoint);
    struct tar t = export_all();

    gone(vm);
    const char *new_vm = import(t, (struct metadata_import) { .restore = true, .snapshots = true }, 3);
    const char *new_snap = by_name("before"), *new_checkpoint = by_name("asleep");
    same_but(old, VM_ROW(new_snap), vm_links, ARRAY_LEN(vm_links));
    same_but(old_checkpoint, VM_ROW(new_checkpoint), vm_links, ARRAY_LEN(vm_links));
    assert_string_equal(row_string(VM_ROW(new_snap), F_VM_snapshot_of), new_vm);
    assert_string_equal(row_string(VM_ROW(new_checkpoint), F_VM_parent), new_snap);
    assert_string_equal(row_string(VM_ROW(new_vm), F_VM_parent), new_checkpoint);
    assert_int_equal(row_value(VM_ROW(new_vm), F_VM_snapshots)->len, 2);
    assert_string_equal(row_string(VM_ROW(new_checkpoint), F_VM_suspend_VDI), image);
    assert_string_equal(vm_metadata_read(A, row_string(VM_ROW(new_snap), F_VM_snapshot_metadata)).uuid, row_string(VM_ROW(new_vm), F_VM_uuid));
    gone(new_vm);
    import(t, (struct metadata_import) { .restore = true }, 1); /* without them */
}

static void a_copy_is_another(void **state)
{
    const char *copy = import(export_all(), (struct metadata_import) { .snapshots = true }, 3);
    const struct row *r = VM_ROW(copy), *vif = only(CLASS_VIF, copy, F_VM_VIFs);

    assert_string_not_equal(row_string(r, F_VM_uuid), row_string(VM_ROW(vm), F_VM_uuid));
    assert_string_not_equal(row_map(r, F_VM_other_config, "mac_seed", SEED), SEED);
    assert_string_equal(row_map(r, F_VM_other_config, "note", ""), "a <b> & \"c\"");
    assert_string_not_equal(row_string(r, F_VM_generation_id), "12:34");
    assert_string_not_equal(row_string(vif, F_VIF_MAC), "02:11:22:33:44:55");
    assert_true(row_bool(vif, F_VIF_MAC_autogenerated));
    assert_string_equal(row_string(VM_ROW(import(export_as(&(struct metadata_export) { .vms = &vm, .n_vms = 1, .excluded = "vif,VTPM" }),
                                                 (struct metadata_import) { .snapshots = true }, 1)), F_VM_power_state), "Halted");
    assert_int_equal(count(CLASS_VTPM), 2);
    assert_int_equal(count(CLASS_VIF), 4);
}

/* --- a migration ------------------------------------------------------------------------------------------------------------ */
static struct value all_maps(const char *to_disk, const char *to_network)
{
    struct value_dict d = { 0 };
    const char *const disks[] = { disk, snap_disk, image };

    for (unsigned i = 0; i < ARRAY_LEN(disks); i++)
        value_dict_add(A, &d, disks[i], S(to_disk));
    struct row_list vifs = db_all(DB, A, &model_classes[CLASS_VIF]);
    for (unsigned i = 0; i < vifs.n; i++)
        value_dict_add(A, &d, vifs.rows[i]->ref, S(to_network));
    return value_dict_value(&d);
}

static struct tar export_moving(const struct value *maps)
{
    return export_as(&(struct metadata_export) { .vms = &vm, .n_vms = 1, .snapshots = true, .preserve_power_state = true, .maps_to = maps });
}

static void what_comes_is_halted_and_marked(void **state)
{
    const char *there = make_vdi("there", sr, "there.vhd"), *net = core_row(W, CLASS_network, NULL, 0);
    struct value maps = all_maps(there, net);
    struct metadata_import how = { .restore = true, .live = true, .check_cpu = true, .snapshots = true, .host = host, .incoming = "move-1" };

    set(CLASS_VM, vm, F_VM_power_state, S("Running"));
    struct tar t = export_moving(&maps);
    gone(vm);
    const char *come = import(t, how, 3);
    const struct row *r = VM_ROW(come);
    assert_string_equal(row_string(r, F_VM_power_state), "Halted");
    assert_string_equal(row_map(r, F_VM_other_config, METADATA_INCOMING, ""), "move-1");
    assert_string_equal(row_map(r, F_VM_other_config, METADATA_INCOMING_HA, ""), "true");
    assert_false(row_bool(r, F_VM_ha_always_run));
    assert_string_equal(row_string(r, F_VM_ha_restart_priority), "restart");
    assert_string_equal(row_string(r, F_VM_affinity), host);
    assert_string_equal(row_string(vbd_at(come, "0"), F_VBD_VDI), there);
    assert_null(row_map(vbd_at(come, "0"), F_VBD_other_config, METADATA_MAPS_TO, NULL));
    const struct row *vif = only(CLASS_VIF, come, F_VM_VIFs);
    assert_string_equal(row_string(vif, F_VIF_network), net);
    assert_true(row_bool(vif, F_VIF_currently_attached));
    assert_null(row_map(vif, F_VIF_other_config, METADATA_MAPS_TO, NULL));
    assert_string_equal(row_string(VM_ROW(by_name("asleep")), F_VM_power_state), "Suspended");
    const char *again = import(t, how, 3); /* asked again: the same VM, once */
    assert_int_equal(count(CLASS_VM), 3);
    assert_string_equal(row_string(VM_ROW(again), F_VM_uuid), row_string(r, F_VM_uuid));
    how.restore = false;
    how.incoming = "move-2"; /* a copy, twice tried */
    import(t, how, 3);
    import(t, how, 3);
    assert_int_equal(count(CLASS_VM), 6);
}

static void the_host_must_do(void **state)
{
    struct metadata_import how = { .live = true, .check_cpu = true, .snapshots = true, .host = host };
    const struct row *old = row(CLASS_host, host);

    set(CLASS_VM, vm, F_VM_power_state, S("Running"));
    struct tar t = export_all();
    set(CLASS_VM, vm, F_VM_power_state, S("Halted"));
    set(CLASS_host, host, F_host_cpu_info, MAP("vendor", "AuthenticAMD", "features_hvm", "0000ffff", "features_pv", "0"));
    fails(t, how, "VM_INCOMPATIBLE_WITH_THIS_HOST", 3, REF_NULL);
    how.check_cpu = false;
    import(t, how, 3);
    set(CLASS_host_metrics, row_string(old, F_host_metrics), F_host_metrics_memory_total, value_int(GIB));
    fails(t, how, "HOST_NOT_ENOUGH_FREE_MEMORY", 2, NULL);
    how.live = false;
    import(t, how, 3);
}

/* --- errors ------------------------------------------------------------------------------------------------------------------- */
static void an_existing_vm_gives_way_or_not(void **state)
{
    struct metadata_import how = { .restore = true, .snapshots = true };
    const char *blob = core_ok(W, "VM.create_new_blob", 4, S(vm), S("picture"), S("image/png"), value_bool(false)).s;
    struct tar t = export_all();

    fails(t, how, "VM_TO_IMPORT_IS_NOT_NEWER_VERSION", 3, vm);
    set(CLASS_VM, vm, F_VM_power_state, S("Running"));
    fails(t, how, "VM_BAD_POWER_STATE", 3, vm);
    set(CLASS_VM, vm, F_VM_power_state, S("Halted"));
    set(CLASS_VM, vm, F_VM_version, value_int(4));
    t = export_all();
    set(CLASS_VM, vm, F_VM_version, value_int(3));
    const char *newer = import(t, how, 3);
    assert_int_equal(row_int(VM_ROW(newer), F_VM_version), 4);
    assert_int_equal(count(CLASS_VM), 3);
    assert_string_equal(row_map(VM_ROW(newer), F_VM_blobs, "picture", ""), blob);
    how.force = true;
    import(t, how, 3);
    assert_int_equal(count(CLASS_VM), 3);
    how.snapshots = false; /* those that stay keep their VM */
    newer = import(t, how, 1);
    assert_int_equal(row_value(VM_ROW(newer), F_VM_snapshots)->len, 2);
}

static void a_seed_belongs_to_one(void **state)
{
    struct tar t = export_all();

    gone(vm);
    make_vm("twin", "Halted", NULL);
    fails(t, (struct metadata_import) { .restore = true, .snapshots = true }, "DUPLICATE_MAC_SEED", 1, SEED);
    import(t, (struct metadata_import) { .snapshots = true }, 3);
}

static void missing_parts(void **state)
{
    struct metadata_import how = { .restore = true, .snapshots = true };
    const char *known = row_string(row(CLASS_VDI, disk), F_VDI_uuid);
    struct tar t = export_all();

    gone(vm);
    must(db_delete(DB, A, CLASS_VDI, iso));
    must(db_delete(DB, A, CLASS_VDI, disk));
    fails(t, how, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT", 1, NULL);
    how.dry_run = true;
    import(t, how, 0);
    how.dry_run = false;
    const struct member map[] = { member_of(known, S(make_vdi("another", sr, "another.vhd"))) };
    struct value vdi_map = value_map(map, 1);
    how.vdi_map = &vdi_map;
    const char *mapped = import(t, how, 3);
    assert_string_equal(row_string(vbd_at(mapped, "0"), F_VBD_VDI), vdi_map.members[0].value.s);
    assert_true(row_bool(vbd_at(mapped, "3"), F_VBD_empty));
    gone(mapped);
    how.vdi_map = NULL;
    must(db_delete(DB, A, CLASS_network, network));
    how.force = true;
    const char *forced = import(t, how, 3);
    assert_int_equal(row_value(VM_ROW(forced), F_VM_VBDs)->len, 1);
    assert_int_equal(row_value(VM_ROW(forced), F_VM_VIFs)->len, 0);
    gone(forced);
    const char *found = make_vdi("at the same place", sr, "disk.vhd");
    how.force = false;
    fails(t, how, "VM_REQUIRES_NETWORK", 2, NULL);
    const struct field_value net[] = { { F_network_name_label, S("elsewhere") }, { F_network_bridge, S("xenbr7") } };
    core_row(W, CLASS_network, net, ARRAY_LEN(net));
    assert_string_equal(row_string(vbd_at(import(t, how, 3), "0"), F_VBD_VDI), found);
}

static void what_was_promised_must_be_there(void **state)
{
    struct value maps = all_maps("OpaqueRef:12345678-0000-0000-0000-000000000000", network);
    struct metadata_import how = { .force = true, .snapshots = true };
    struct tar t = export_moving(&maps);

    fails(t, how, "IMPORT_ERROR_FAILED_TO_FIND_OBJECT", 1, NULL);
    how.dry_run = true;
    import(t, how, 0);
    maps = all_maps(disk, "OpaqueRef:12345678-0000-0000-0000-000000000000");
    fails(export_moving(&maps), how, "VM_REQUIRES_NETWORK", 2, NULL);
}

static void nothing_of_a_dry_run_stays(void **state)
{
    uint64_t before = db_generation(DB);

    import(export_all(), (struct metadata_import) { .snapshots = true, .dry_run = true }, 0);
    assert_int_equal(db_generation(DB), before);
    assert_true(fault_arm("metadata.import.rows=error"));
    fails(export_all(), (struct metadata_import) { .snapshots = true }, "INTERNAL_ERROR", 1, NULL);
    fault_disarm(NULL);
    assert_int_equal(count(CLASS_VM), 3);
}

static void old_and_new_files(void **state)
{
    struct metadata_import how = { .snapshots = true };
    struct tar t = export_all();
    char zeros[1024] = "";

    import(edited(t, "<name>export_vsn</name><value>2<", "<name>export_vsn</name><value>0<"), how, 3);
    import(edited(t, "<name>NVRAM</name>", "<name>never_heard_of</name>"), how, 3);
    import(edited(t, "<name>class</name><value>network<", "<name>class</name><value>PVS_site<"), (struct metadata_import) { .force = true, .snapshots = true }, 3);
    import(edited(t, "<name>power_state</name><value>Halted<", "<name>power_state</name><value>Dreaming<"), how, 3);
    fails(edited(t, "<name>export_vsn</name><value>2<", "<name>export_vsn</name><value>3<"), how, "IMPORT_INCOMPATIBLE_VERSION", 0, NULL);
    fails(edited(t, "<name>VCPUs_max</name><value>4<", "<name>VCPUs_max</name><value>9223372036854775807<"), how, "IMPORT_ERROR", 1, NULL);
    fails(edited(t, "<double>1.25</double>", "<double>1e300</double>"), how, "IMPORT_ERROR", 1, NULL);
    fails(edited(t, "<name>objects</name>", "<name>subjects</name>"), how, "IMPORT_ERROR", 1, NULL);
    fails(edited(t, "<name>id</name>", "<name>no</name>"), how, "IMPORT_ERROR", 1, NULL);
    fails((struct tar) { t.bytes, t.len / 2 }, how, "IMPORT_ERROR_PREMATURE_EOF", 0, NULL);
    fails((struct tar) { zeros, sizeof(zeros) }, how, "IMPORT_ERROR_PREMATURE_EOF", 0, NULL);
    fails((struct tar) { zeros, 100 }, how, "IMPORT_ERROR_PREMATURE_EOF", 0, NULL);
    memset(zeros, 'x', sizeof(zeros));
    fails((struct tar) { zeros, sizeof(zeros) }, how, "IMPORT_ERROR", 1, NULL);
}

static void templates_of_the_product_stay(void **state)
{
    set(CLASS_VM, vm, F_VM_is_a_template, value_bool(true));
    set(CLASS_VM, vm, F_VM_is_default_template, value_bool(true));
    fails(export_as(&(struct metadata_export) { .vms = &vm, .n_vms = 1 }), (struct metadata_import) { .snapshots = true }, "IMPORT_ERROR", 1, NULL);
    import(export_as(&(struct metadata_export) { .vms = &vm, .n_vms = 1 }), (struct metadata_import) { .snapshots = true, .force = true }, 0);
}

/* --- blobs, modules, files ------------------------------------------------------------------------------------------------------ */
static void blobs_and_modules(void **state)
{
    const char *blob = core_ok(W, "blob.create", 2, S("text/plain"), value_bool(true)).s, *bytes;
    size_t len;
    bool found;

    core_is_string(core_ok(W, "blob.get_mime_type", 1, S(blob)), "text/plain");
    must(vm_file_write(call(), VM_FILE_BLOB, blob, "hello", 5));
    must(vm_file_read(call(), VM_FILE_BLOB, blob, &bytes, &len, &found));
    assert_true(found && len == 5 && memcmp(bytes, "hello", 5) == 0);
    core_ok(W, "blob.destroy", 1, S(blob));
    must(vm_file_read(call(), VM_FILE_BLOB, blob, &bytes, &len, &found));
    assert_false(found);
    assert_non_null(vm_file_write(call(), VM_FILE_RRD, "../../etc/passwd", "x", 1));
    core_ok(W, "VM.create_new_blob", 4, S(vm), S("a"), S(""), value_bool(false));
    core_fails(W, "MAP_DUPLICATE_KEY", "VM.create_new_blob", 4, S(vm), S("a"), S(""), value_bool(false));
}

static void one_module_each(void **state)
{
    const char *plain = core_vm(W, "plain"), *module = core_ok(W, "VTPM.create", 2, S(plain), value_bool(false)).s;

    core_fails(W, "VTPM_MAX_AMOUNT_REACHED", "VTPM.create", 2, S(plain), value_bool(false));
    assert_int_equal(count(CLASS_secret), 2);
    core_ok(W, "VTPM.destroy", 1, S(module));
    assert_int_equal(count(CLASS_secret), 1);
    set(CLASS_VM, plain, F_VM_power_state, S("Running"));
    core_fails(W, "VM_BAD_POWER_STATE", "VTPM.create", 2, S(plain), value_bool(false));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, arrange, clear)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(restored_is_the_same), TEST(snapshots_are_linked_again), TEST(a_copy_is_another), TEST(what_comes_is_halted_and_marked), TEST(the_host_must_do),
        TEST(an_existing_vm_gives_way_or_not), TEST(a_seed_belongs_to_one), TEST(missing_parts), TEST(what_was_promised_must_be_there),
        TEST(nothing_of_a_dry_run_stays), TEST(old_and_new_files), TEST(templates_of_the_product_stay), TEST(blobs_and_modules), TEST(one_module_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
