#include "xenops/vm_spec.h"

#include <string.h>

#define DISKS_MAX 256u
#define NICS_MAX 256u

static const char *const kind_names[] = { "hvm", "pv", "pvh" };

/* --- out --- */

static void add_string(struct arena *a, struct value_dict *d, const char *name, const char *s)
{
    value_dict_add(a, d, name, value_string(s != NULL ? s : ""));
}
static void add_int(struct arena *a, struct value_dict *d, const char *name, int64_t i) { value_dict_add(a, d, name, value_int(i)); }

static struct value disk_value(struct arena *a, const struct disk_spec *disk)
{
    struct value_dict d = { 0 };

    add_string(a, &d, "device", disk->device);
    add_string(a, &d, "vdi_uuid", disk->vdi_uuid);
    add_string(a, &d, "path", disk->path);
    add_int(a, &d, "size", disk->size);
    value_dict_add(a, &d, "read_only", value_bool(disk->read_only));
    value_dict_add(a, &d, "cdrom", value_bool(disk->cdrom));
    return value_dict_value(&d);
}

static struct value nic_value(struct arena *a, const struct nic_spec *nic)
{
    struct value_dict d = { 0 };

    add_string(a, &d, "device", nic->device);
    add_string(a, &d, "mac", nic->mac);
    add_string(a, &d, "bridge", nic->bridge);
    add_int(a, &d, "mtu", nic->mtu);
    return value_dict_value(&d);
}

static struct value map_or_empty(const struct value *v) { return v->kind == VALUE_MAP ? *v : value_map(NULL, 0); }

struct value vm_spec_to_value(struct arena *a, const struct vm_spec *s)
{
    struct value_list disks = { 0 }, nics = { 0 };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < s->n_disks; i++)
        value_list_add(a, &disks, disk_value(a, &s->disks[i]));
    for (unsigned i = 0; i < s->n_nics; i++)
        value_list_add(a, &nics, nic_value(a, &s->nics[i]));
    add_string(a, &d, "uuid", s->uuid);
    add_string(a, &d, "name", s->name);
    add_string(a, &d, "kind", kind_names[s->kind]);
    add_int(a, &d, "memory_static_max", s->memory_static_max);
    add_int(a, &d, "memory_dynamic_max", s->memory_dynamic_max);
    add_int(a, &d, "memory_dynamic_min", s->memory_dynamic_min);
    add_int(a, &d, "vcpus_max", s->vcpus_max);
    add_int(a, &d, "vcpus", s->vcpus);
    add_string(a, &d, "kernel", s->kernel);
    add_string(a, &d, "ramdisk", s->ramdisk);
    add_string(a, &d, "cmdline", s->cmdline);
    value_dict_add(a, &d, "platform", map_or_empty(&s->platform));
    value_dict_add(a, &d, "xenstore_data", map_or_empty(&s->xenstore_data));
    value_dict_add(a, &d, "disks", value_list_value(&disks));
    value_dict_add(a, &d, "nics", value_list_value(&nics));
    add_string(a, &d, "on_poweroff", s->on_poweroff);
    add_string(a, &d, "on_reboot", s->on_reboot);
    add_string(a, &d, "on_crash", s->on_crash);
    return value_dict_value(&d);
}

/* --- in --- */

static struct error *missing(struct arena *a, const char *name, const char *what)
{
    return err_internal(a, "VM specification: %s is not %s", name, what);
}

static struct error *get_string(struct arena *a, const struct value *v, const char *name, const char **r)
{
    const struct value *m = value_get(v, name);

    if (m == NULL || m->kind != VALUE_STRING)
        return missing(a, name, "a string");
    *r = arena_strndup(a, m->s, m->len);
    return NULL;
}

/* Also a decimal string: that is how an int looks after XML-RPC. */
static struct error *get_int(struct arena *a, const struct value *v, const char *name, int64_t min, int64_t max, int64_t *r)
{
    const struct value *m = value_get(v, name);

    if (m == NULL || (m->kind != VALUE_INT && m->kind != VALUE_INT32 && m->kind != VALUE_STRING))
        return missing(a, name, "an integer");
    *r = value_get_int(v, name, INT64_MIN);
    if (*r < min || *r > max)
        return missing(a, name, "in its range");
    return NULL;
}

static struct error *get_bool(struct arena *a, const struct value *v, const char *name, bool *r)
{
    const struct value *m = value_get(v, name);

    if (m == NULL || m->kind != VALUE_BOOL)
        return missing(a, name, "a boolean");
    *r = m->i != 0;
    return NULL;
}

static struct error *get_strings(struct arena *a, const struct value *v, const char *name, struct value *r)
{
    const struct value *m = value_get(v, name);

    if (m == NULL || m->kind != VALUE_MAP)
        return missing(a, name, "a map");
    for (uint32_t i = 0; i < m->len; i++)
        if (m->members[i].value.kind != VALUE_STRING)
            return missing(a, name, "a map of strings");
    *r = value_dup(a, m);
    return NULL;
}

static struct error *get_list(struct arena *a, const struct value *v, const char *name, unsigned max, const struct value **r)
{
    *r = value_get(v, name);
    if (*r == NULL || (*r)->kind != VALUE_SET || (*r)->len > max)
        return missing(a, name, "a list of reasonable length");
    return NULL;
}

static struct error *get_disk(struct arena *a, const struct value *v, struct disk_spec *d)
{
    TRY(get_string(a, v, "device", &d->device));
    TRY(get_string(a, v, "vdi_uuid", &d->vdi_uuid));
    TRY(get_string(a, v, "path", &d->path));
    TRY(get_int(a, v, "size", 0, INT64_MAX, &d->size));
    TRY(get_bool(a, v, "read_only", &d->read_only));
    return get_bool(a, v, "cdrom", &d->cdrom);
}

static struct error *get_nic(struct arena *a, const struct value *v, struct nic_spec *n)
{
    TRY(get_string(a, v, "device", &n->device));
    TRY(get_string(a, v, "mac", &n->mac));
    TRY(get_string(a, v, "bridge", &n->bridge));
    return get_int(a, v, "mtu", 0, 1 << 20, &n->mtu);
}

static struct error *get_devices(struct arena *a, const struct value *v, struct vm_spec *s)
{
    const struct value *list;

    TRY(get_list(a, v, "disks", DISKS_MAX, &list));
    struct disk_spec *disks = arena_calloc(a, list->len + 1, sizeof(*disks));
    for (uint32_t i = 0; i < list->len; i++)
        TRY(get_disk(a, &list->items[i], &disks[i]));
    s->disks = disks;
    s->n_disks = list->len;
    TRY(get_list(a, v, "nics", NICS_MAX, &list));
    struct nic_spec *nics = arena_calloc(a, list->len + 1, sizeof(*nics));
    for (uint32_t i = 0; i < list->len; i++)
        TRY(get_nic(a, &list->items[i], &nics[i]));
    s->nics = nics;
    s->n_nics = list->len;
    return NULL;
}

static struct error *get_kind(struct arena *a, const struct value *v, enum vm_kind *r)
{
    const char *name;

    TRY(get_string(a, v, "kind", &name));
    for (unsigned i = 0; i < ARRAY_LEN(kind_names); i++)
        if (strcmp(name, kind_names[i]) == 0) {
            *r = (enum vm_kind)i;
            return NULL;
        }
    return missing(a, "kind", "hvm, pv or pvh");
}

struct error *vm_spec_from_value(struct arena *a, const struct value *v, struct vm_spec *s)
{
    const struct { const char *name; const char **to; } strings[] = {
        { "uuid", &s->uuid }, { "name", &s->name }, { "kernel", &s->kernel }, { "ramdisk", &s->ramdisk }, { "cmdline", &s->cmdline },
        { "on_poweroff", &s->on_poweroff }, { "on_reboot", &s->on_reboot }, { "on_crash", &s->on_crash },
    };
    int64_t vcpus_max, vcpus;

    *s = (struct vm_spec){ .n_disks = 0 };
    if (v->kind != VALUE_MAP)
        return missing(a, "it", "a map");
    for (unsigned i = 0; i < ARRAY_LEN(strings); i++)
        TRY(get_string(a, v, strings[i].name, strings[i].to));
    TRY(get_kind(a, v, &s->kind));
    TRY(get_int(a, v, "memory_static_max", 0, INT64_MAX, &s->memory_static_max));
    TRY(get_int(a, v, "memory_dynamic_max", 0, INT64_MAX, &s->memory_dynamic_max));
    TRY(get_int(a, v, "memory_dynamic_min", 0, INT64_MAX, &s->memory_dynamic_min));
    TRY(get_int(a, v, "vcpus_max", 0, 4096, &vcpus_max));
    TRY(get_int(a, v, "vcpus", 0, 4096, &vcpus));
    s->vcpus_max = (unsigned)vcpus_max;
    s->vcpus = (unsigned)vcpus;
    TRY(get_strings(a, v, "platform", &s->platform));
    TRY(get_strings(a, v, "xenstore_data", &s->xenstore_data));
    return get_devices(a, v, s);
}
