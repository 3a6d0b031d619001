#include "xapi/core/vm_metrics.h"

#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"

struct error *vm_metrics_ensure(struct api_call *c, struct txn *txn, const char *vm_ref, const char **metrics_ref_r)
{
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    *metrics_ref_r = arena_strdup(c->arena, row_string(vm, F_VM_metrics));
    if (txn_get(txn, &model_classes[CLASS_VM_metrics], *metrics_ref_r) != NULL)
        return NULL;
    const struct field_value fields[] = {
        { F_VM_metrics_install_time, value_datetime(clock_wall(c->call.clock)) },
        { F_VM_metrics_VCPUs_number, *row_value(vm, F_VM_VCPUs_at_startup) },
    };
    TRY(txn_create(txn, CLASS_VM_metrics, NULL, NULL, fields, ARRAY_LEN(fields), metrics_ref_r));
    return txn_set_string(txn, CLASS_VM, vm_ref, F_VM_metrics, *metrics_ref_r);
}

static bool platform_true(const struct row *vm, const char *key)
{
    const char *v = row_map(vm, F_VM_platform, key, "false");
    return strcmp(v, "true") == 0 || strcmp(v, "1") == 0;
}

struct error *vm_metrics_started(struct api_call *c, struct txn *txn, const char *vm_ref, int64_t started_at)
{
    const char *metrics;
    TRY(vm_metrics_ensure(c, txn, vm_ref, &metrics));
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    const char *type = vm_domain_type(vm);
    TRY(txn_set(txn, CLASS_VM_metrics, metrics, F_VM_metrics_start_time, value_datetime(started_at)));
    TRY(txn_set_string(txn, CLASS_VM_metrics, metrics, F_VM_metrics_current_domain_type, type));
    TRY(txn_set_bool(txn, CLASS_VM_metrics, metrics, F_VM_metrics_hvm, strcmp(type, "hvm") == 0));
    TRY(txn_set_bool(txn, CLASS_VM_metrics, metrics, F_VM_metrics_nomigrate, platform_true(vm, "nomigrate")));
    TRY(txn_set_bool(txn, CLASS_VM_metrics, metrics, F_VM_metrics_nested_virt, platform_true(vm, "nested-virt")));
    return txn_set(txn, CLASS_VM_metrics, metrics, F_VM_metrics_VCPUs_number, *row_value(vm, F_VM_VCPUs_at_startup));
}

/* --- what the guest published, sorted into the fields clients read ------------------------------------------ */
struct published { struct value_dict os, drivers, networks, other; };

static const char *after(const char *s, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(s, prefix, len) == 0 ? s + len : NULL;
}

/* Keys that have another name for clients. */
static const char *client_key(const char *key)
{
    static const char *const names[][2] = {
        { "attr/PVAddons/MajorVersion", "major" }, { "attr/PVAddons/MinorVersion", "minor" },
        { "attr/PVAddons/MicroVersion", "micro" }, { "attr/PVAddons/BuildVersion", "build" },
        { "data/cant_suspend_reason", "data-cant-suspend-reason" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(key, names[i][0]) == 0)
            return names[i][1];
    return NULL;
}

static void sort_published(struct arena *a, const struct value *guest, struct published *p)
{
    for (unsigned i = 0; i < guest->len; i++) {
        const char *key = guest->members[i].name, *name = client_key(key), *rest;
        struct value v = guest->members[i].value;
        if ((rest = after(key, "attr/os/")) != NULL)
            value_dict_add(a, &p->os, rest, v);
        else if ((rest = after(key, "attr/PVAddons/")) != NULL && name != NULL)
            value_dict_add(a, &p->drivers, name, v);
        else if ((rest = after(key, "attr/vif/")) != NULL)
            value_dict_add(a, &p->networks, rest, v);
        else if ((rest = after(key, "control/")) != NULL)
            value_dict_add(a, &p->other, rest, v);
        else
            value_dict_add(a, &p->other, name != NULL ? name : key, v);
    }
}

/* Is every entry of one map that is not a mere counter ("sim/…") in the other too? */
static bool claims_within(const struct value *a, const struct value *b)
{
    for (unsigned i = 0; i < a->len; i++) {
        const struct value *other = value_get(b, a->members[i].name);
        if (after(a->members[i].name, "sim/") == NULL && (other == NULL || !value_equal(&a->members[i].value, other)))
            return false;
    }
    return true;
}

static struct error *guest_metrics_ensure(struct txn *txn, const struct row *vm, const char **ref_r)
{
    *ref_r = row_string(vm, F_VM_guest_metrics);
    if (txn_get(txn, &model_classes[CLASS_VM_guest_metrics], *ref_r) != NULL)
        return NULL;
    TRY(txn_create(txn, CLASS_VM_guest_metrics, NULL, NULL, NULL, 0, ref_r));
    return txn_set_string(txn, CLASS_VM, vm->ref, F_VM_guest_metrics, *ref_r);
}

static struct error *write_published(struct txn *txn, const char *ref, const struct published *p)
{
    TRY(txn_set(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_os_version, value_dict_value(&p->os)));
    TRY(txn_set(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_PV_drivers_version, value_dict_value(&p->drivers)));
    TRY(txn_set(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_networks, value_dict_value(&p->networks)));
    TRY(txn_set(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_other, value_dict_value(&p->other)));
    TRY(txn_set_bool(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_live, true));
    TRY(txn_set_bool(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_PV_drivers_detected, p->drivers.n > 0));
    return txn_set_bool(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_PV_drivers_up_to_date, p->drivers.n > 0);
}

static struct error *report_guest(struct api_call *c, struct txn *txn, const struct row *vm, const struct value *guest)
{
    const char *ref;
    TRY(guest_metrics_ensure(txn, vm, &ref));
    struct published p = { .os = { 0 } };
    sort_published(c->arena, guest, &p);
    const struct row *row;
    TRY(txn_need(txn, CLASS_VM_guest_metrics, ref, &row));
    struct value other = value_dict_value(&p.other), drivers = value_dict_value(&p.drivers);
    const struct value *before = row_value(row, F_VM_guest_metrics_other);
    bool same = claims_within(before, &other) && claims_within(&other, before) && value_equal(row_value(row, F_VM_guest_metrics_PV_drivers_version), &drivers);
    TRY(write_published(txn, ref, &p));
    if (same)
        return NULL;
    TRY(txn_set(txn, CLASS_VM_guest_metrics, ref, F_VM_guest_metrics_last_updated, value_datetime(clock_wall(c->call.clock))));
    return operations_update_around(c, txn, CLASS_VM, vm->ref);
}

struct error *vm_metrics_report(struct api_call *c, struct txn *txn, const char *vm_ref, const struct value *domain)
{
    const char *metrics;
    TRY(vm_metrics_ensure(c, txn, vm_ref, &metrics));
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    TRY(txn_set_int(txn, CLASS_VM_metrics, metrics, F_VM_metrics_memory_actual, value_get_int(domain, "memory_actual", 0)));
    const struct value *guest = value_get(domain, "guest");
    if (guest == NULL || guest->kind != VALUE_MAP || guest->len == 0)
        return NULL;
    return report_guest(c, txn, vm, guest);
}

/* --- consoles ------------------------------------------------------------------------------------------------- */
static const char *console_location(struct api_call *c, const struct row *host, const char *console_ref)
{
    const char *port = c->xapi->https_port == 443 ? "" : arena_printf(c->arena, ":%d", c->xapi->https_port);
    return arena_printf(c->arena, "https://%s%s/console?ref=%s", row_string(host, F_host_address), port, console_ref);
}

struct error *vm_consoles_make(struct api_call *c, struct txn *txn, const char *vm_ref, const char *host_ref)
{
    const struct row *vm, *host;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    TRY(txn_need(txn, CLASS_host, host_ref, &host));
    const struct value *consoles = row_value(vm, F_VM_consoles);
    if (consoles->len > 0) /* it moved: the same console, elsewhere */
        return txn_set_string(txn, CLASS_console, consoles->items[0].s, F_console_location, console_location(c, host, consoles->items[0].s));
    char ref[REF_LEN + 1];
    ref_new(ref);
    const struct field_value fields[] = {
        { F_console_protocol, value_string("rfb") },
        { F_console_location, value_string(console_location(c, host, ref)) },
        { F_console_VM, value_string(vm_ref) },
    };
    const char *made;
    return txn_create(txn, CLASS_console, ref, NULL, fields, ARRAY_LEN(fields), &made);
}

struct error *vm_consoles_remove(struct txn *txn, const char *vm_ref)
{
    for (;;) {
        const struct row *vm;
        TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
        const struct value *consoles = row_value(vm, F_VM_consoles);
        if (consoles->len == 0)
            return NULL;
        TRY(txn_delete(txn, CLASS_console, consoles->items[0].s));
    }
}
