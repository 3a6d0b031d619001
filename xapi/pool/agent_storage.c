/* Agent verbs on this host's storage: values in, storage/sr.h, values out. */
#include "rpc/base/error.h"
#include "rpc/base/log.h"
#include "storage/sr.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/base64.h"

LOG_MODULE(agent_storage);

#define CHANGED_BLOCK (64 << 10) /* storage/sr_driver.h */

static struct error *sr_of(struct call *c, const struct value *args, struct sr_spec *spec)
{
    const struct value *sr = value_get(args, "sr"), *config;

    if (sr == NULL)
        return err_internal(c->arena, "agent call without 'sr'");
    TRY(agent_need(c, sr, "uuid", &spec->uuid));
    TRY(agent_need(c, sr, "type", &spec->type));
    config = value_get(sr, "device_config");
    spec->device_config = config != NULL && config->kind == VALUE_MAP ? *config : value_map(NULL, 0);
    spec->shared = value_get_bool(sr, "shared", false);
    return NULL;
}

static struct value sizes_value(struct arena *arena, const struct sr_stat *stat)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "physical_size", value_int(stat->physical_size));
    value_dict_add(arena, &d, "physical_utilisation", value_int(stat->physical_utilisation));
    value_dict_add(arena, &d, "virtual_allocation", value_int(stat->virtual_allocation));
    return value_dict_value(&d);
}

static struct value stat_value(struct arena *arena, const struct vdi_stat *stat)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "location", value_string(stat->location));
    value_dict_add(arena, &d, "uuid", value_string(stat->uuid));
    value_dict_add(arena, &d, "name", value_string(stat->name));
    value_dict_add(arena, &d, "format", value_string(stat->format));
    value_dict_add(arena, &d, "virtual_size", value_int(stat->virtual_size));
    value_dict_add(arena, &d, "physical_utilisation", value_int(stat->physical_utilisation));
    value_dict_add(arena, &d, "read_only", value_bool(stat->read_only));
    value_dict_add(arena, &d, "is_a_snapshot", value_bool(stat->is_a_snapshot));
    value_dict_add(arena, &d, "parent", value_string(stat->parent));
    value_dict_add(arena, &d, "hidden", value_bool(stat->hidden));
    value_dict_add(arena, &d, "cbt_metadata", value_bool(stat->cbt_metadata));
    return value_dict_value(&d);
}

struct error *agent_sr_create(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct sr_spec spec;

    TRY(sr_of(c, args, &spec));
    return sr_create(c, xapi->storage, &spec, value_get_int(args, "size", 0));
}

struct error *agent_sr_destroy(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct sr_spec spec;

    TRY(sr_of(c, args, &spec));
    return sr_destroy(c, xapi->storage, &spec);
}

static struct error *sizes(struct call *c, struct xapi *xapi, const char *uuid, struct value *result_r)
{
    struct sr_stat stat;

    TRY(sr_stat(c, xapi->storage, uuid, &stat));
    *result_r = sizes_value(c->arena, &stat);
    return NULL;
}

struct error *agent_sr_attach(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct sr_spec spec;

    TRY(sr_of(c, args, &spec));
    TRY(sr_attach(c, xapi->storage, &spec));
    return sizes(c, xapi, spec.uuid, result_r);
}

struct error *agent_sr_detach(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    return sr_detach(c, xapi->storage, uuid);
}

struct error *agent_sr_stat(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    return sizes(c, xapi, uuid, result_r);
}

struct error *agent_sr_scan(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct value_list list = { 0 };
    struct vdi_stat *vdis;
    const char *uuid;
    unsigned n;

    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(sr_scan(c, xapi->storage, uuid, &vdis, &n));
    for (unsigned i = 0; i < n; i++)
        value_list_add(c->arena, &list, stat_value(c->arena, &vdis[i]));
    *result_r = value_list_value(&list);
    return NULL;
}

struct error *agent_sr_probe(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct value none = value_map(NULL, 0);
    const struct value *config = value_get(args, "device_config");
    const char *type;

    TRY(agent_need(c, args, "type", &type));
    return sr_probe(c, type, config != NULL && config->kind == VALUE_MAP ? config : &none, result_r);
}

struct error *agent_sr_clean(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    return sr_clean(c, xapi->storage, uuid);
}

/* --- VDIs ----------------------------------------------------------------------------------------------- */
static struct error *sr_and(struct call *c, const struct value *args, const char *name, const char **sr_r, const char **value_r)
{
    TRY(agent_need(c, args, "sr", sr_r));
    return agent_need(c, args, name, value_r);
}

struct error *agent_vdi_create(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_create_spec spec = { .virtual_size = value_get_int(args, "size", 0), .format = value_get_string(args, "format", "") };
    struct vdi_stat stat;
    const char *sr;

    TRY(sr_and(c, args, "uuid", &sr, &spec.uuid));
    TRY(vdi_create(c, xapi->storage, sr, &spec, &stat));
    *result_r = stat_value(c->arena, &stat);
    return NULL;
}

struct error *agent_vdi_destroy(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_destroy(c, xapi->storage, sr, location);
}

struct error *agent_vdi_resize(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_stat stat;
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(vdi_resize(c, xapi->storage, sr, location, value_get_int(args, "size", 0), &stat));
    *result_r = stat_value(c->arena, &stat);
    return NULL;
}

struct error *agent_vdi_stat(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_stat stat;
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(vdi_stat(c, xapi->storage, sr, location, &stat));
    *result_r = stat_value(c->arena, &stat);
    return NULL;
}

struct error *agent_vdi_clone(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_stat stat;
    const char *sr, *location, *uuid;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(vdi_clone(c, xapi->storage, sr, location, uuid, &stat));
    *result_r = stat_value(c->arena, &stat);
    return NULL;
}

struct error *agent_vdi_snapshot(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_stat stat;
    const char *sr, *location, *uuid;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(vdi_snapshot(c, xapi->storage, sr, location, uuid, &stat));
    *result_r = stat_value(c->arena, &stat);
    return NULL;
}

struct error *agent_vdi_revert(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_stat stat;
    const char *sr, *location, *snapshot;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(agent_need(c, args, "snapshot", &snapshot));
    TRY(vdi_revert(c, xapi->storage, sr, location, snapshot, &stat));
    *result_r = stat_value(c->arena, &stat);
    return NULL;
}

struct error *agent_vdi_copy(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location, *to_sr, *to;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(agent_need(c, args, "to_sr", &to_sr));
    TRY(agent_need(c, args, "to", &to));
    return vdi_copy(c, xapi->storage, sr, location, to_sr, to);
}

struct error *agent_vdi_cbt(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_cbt(c, xapi->storage, sr, location, value_get_bool(args, "on", false));
}

struct error *agent_vdi_data_destroy(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_data_destroy(c, xapi->storage, sr, location);
}

struct error *agent_vdi_changed_blocks(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct value_dict d = { 0 };
    const char *sr, *from, *to;
    uint8_t *bitmap = NULL;
    size_t len = 0;

    TRY(sr_and(c, args, "from", &sr, &from));
    TRY(agent_need(c, args, "to", &to));
    TRY(vdi_changed_blocks(c, xapi->storage, sr, from, to, &bitmap, &len));
    value_dict_add(c->arena, &d, "bitmap", value_string(base64_encode(c->arena, bitmap, len)));
    value_dict_add(c->arena, &d, "granularity", value_int(CHANGED_BLOCK));
    *result_r = value_dict_value(&d);
    return NULL;
}

/* --- their data --------------------------------------------------------------------------------------------- */
static struct value where_value(struct arena *arena, const struct vdi_where *where)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "format", value_string(where->format));
    value_dict_add(arena, &d, "path", value_string(where->path));
    return value_dict_value(&d);
}

struct error *agent_vdi_attach(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_use use = {
        .read_only = value_get_bool(args, "read_only", false),
        .direct = value_get_bool(args, "direct", false),
        .cached = value_get_bool(args, "cached", false),
    };
    struct vdi_where where;
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(agent_need(c, args, "user", &use.user));
    TRY(vdi_attach(c, xapi->storage, sr, location, &use, &where));
    *result_r = where_value(c->arena, &where);
    if (!value_get_bool(args, "activate", false))
        return NULL;
    struct error *error = vdi_activate(c, xapi->storage, sr, location);
    if (error != NULL) {
        struct call calm = *c;

        calm.cancel = NULL;
        calm.deadline_ms = 0;
        struct error *undo = vdi_detach(&calm, xapi->storage, sr, location, use.user);
        if (undo != NULL)
            log_warn("detaching %s: %s", location, error_text(c->arena, undo));
    }
    return error;
}

struct error *agent_vdi_detach(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location, *user;

    TRY(sr_and(c, args, "location", &sr, &location));
    TRY(agent_need(c, args, "user", &user));
    return vdi_detach(c, xapi->storage, sr, location, user);
}

struct error *agent_vdi_activate(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_activate(c, xapi->storage, sr, location);
}

struct error *agent_vdi_deactivate(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_deactivate(c, xapi->storage, sr, location);
}

/* --- mirrors ---------------------------------------------------------------------------------------------------- */
struct error *agent_vdi_mirror_start(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vdi_mirror_spec spec = {
        .to_sr = value_get_string(args, "to_sr", ""),
        .to = value_get_string(args, "to", ""),
        .uri = value_get_string(args, "uri", ""),
        .bandwidth = value_get_int(args, "bandwidth", 0),
        .budget_us = value_get_int(args, "budget_us", 0),
        .silence_us = value_get_int(args, "silence_us", 0),
        .mode = value_get_string(args, "mode", ""),
        .reconnect_us = value_get_int(args, "reconnect_us", 0),
        .streams = (int)value_get_int(args, "streams", 0),
    };
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    if ((spec.to[0] == '\0' || spec.to_sr[0] == '\0') && spec.uri[0] == '\0')
        return err_internal(c->arena, "vdi.mirror_start without a target");
    return vdi_mirror_start(c, xapi->storage, sr, location, &spec);
}

struct error *agent_vdi_mirror_status(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_mirror_status(c, xapi->storage, sr, location, result_r);
}

struct error *agent_vdi_mirror_set(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_mirror_set(c, xapi->storage, sr, location, value_get_int(args, "bandwidth", -1), value_get_int(args, "budget_us", -1));
}

struct error *agent_vdi_mirror_switch(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_mirror_switch(c, xapi->storage, sr, location);
}

struct error *agent_vdi_hand_over(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_mirror_hand_over(c, xapi->storage, sr, location);
}

struct error *agent_vdi_mirror_abort(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *sr, *location;

    TRY(sr_and(c, args, "location", &sr, &location));
    return vdi_mirror_abort(c, xapi->storage, sr, location);
}

struct error *agent_tap_list(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    *result_r = storage_taps(xapi->storage, c->arena);
    return NULL;
}
