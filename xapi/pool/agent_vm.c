/* Agent verbs on this host's domains. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "gen/errors.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "xapi/pool/agent_verbs.h"
#include "xenops/xenops.h"

LOG_MODULE(agent_vm);

struct error *agent_need(struct call *c, const struct value *args, const char *name, const char **value_r)
{
    *value_r = value_get_string(args, name, "");
    return (*value_r)[0] != '\0' ? NULL : err_internal(c->arena, "agent call without '%s'", name);
}

static const char *state_name(enum domain_state state)
{
    switch (state) {
    case DOMAIN_PAUSED:
        return "paused";
    case DOMAIN_RUNNING:
        return "running";
    case DOMAIN_SUSPENDED:
        return "suspended";
    case DOMAIN_ENDED:
        break;
    }
    return "ended";
}

static const char *end_name(enum domain_end end)
{
    switch (end) {
    case DOMAIN_END_POWEROFF:
        return "poweroff";
    case DOMAIN_END_REBOOT:
        return "reboot";
    case DOMAIN_END_CRASH:
        return "crash";
    case DOMAIN_END_KILLED:
        return "killed";
    case DOMAIN_END_NONE:
        break;
    }
    return "";
}

struct value domain_value(struct arena *arena, const struct domain_info *info)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "uuid", value_string(info->uuid));
    value_dict_add(arena, &d, "domid", value_int(info->domid));
    value_dict_add(arena, &d, "state", value_string(state_name(info->state)));
    value_dict_add(arena, &d, "end", value_string(info->state == DOMAIN_ENDED ? end_name(info->end) : ""));
    value_dict_add(arena, &d, "memory_actual", value_int(info->memory_actual));
    value_dict_add(arena, &d, "memory_target", value_int(info->memory_target));
    value_dict_add(arena, &d, "vcpus", value_int(info->vcpus));
    value_dict_add(arena, &d, "started_at", value_int(info->started_at));
    value_dict_add(arena, &d, "guest", info->guest.kind == VALUE_MAP ? info->guest : value_map(NULL, 0));
    return value_dict_value(&d);
}

struct error *domains_value(struct call *c, struct xapi *xapi, struct value *set_r)
{
    struct value_list list = { 0 };
    struct domain_info *infos;
    unsigned n;

    TRY(xenops_list(c, xapi->xenops, &infos, &n));
    for (unsigned i = 0; i < n; i++)
        value_list_add(c->arena, &list, domain_value(c->arena, &infos[i]));
    *set_r = value_list_value(&list);
    return NULL;
}

struct value disk_to_value(struct arena *arena, const struct disk_spec *disk)
{
    struct value_dict d = { 0 };

    value_dict_add(arena, &d, "device", value_string(disk->device));
    value_dict_add(arena, &d, "vdi_uuid", value_string(disk->vdi_uuid));
    value_dict_add(arena, &d, "path", value_string(disk->path));
    value_dict_add(arena, &d, "size", value_int(disk->size));
    value_dict_add(arena, &d, "read_only", value_bool(disk->read_only));
    value_dict_add(arena, &d, "cdrom", value_bool(disk->cdrom));
    return value_dict_value(&d);
}

void disk_from_value(struct arena *arena, const struct value *v, struct disk_spec *disk)
{
    *disk = (struct disk_spec) {
        .device = value_get_string(v, "device", ""),
        .vdi_uuid = value_get_string(v, "vdi_uuid", ""),
        .path = value_get_string(v, "path", ""),
        .size = value_get_int(v, "size", 0),
        .read_only = value_get_bool(v, "read_only", false),
        .cdrom = value_get_bool(v, "cdrom", false),
    };
}

static struct error *spec_of(struct call *c, const struct value *args, struct vm_spec *spec)
{
    const struct value *v = value_get(args, "spec");

    return v == NULL ? err_internal(c->arena, "agent call without 'spec'") : vm_spec_from_value(c->arena, v, spec);
}

/* Is there a domain of this uuid that has not ended? One that has is cleared away. */
static struct error *domain_alive(struct call *c, struct xapi *xapi, const char *uuid, struct domain_info *info, bool *alive_r)
{
    struct error *error = xenops_find(c, xapi->xenops, uuid, info);

    *alive_r = false;
    if (error != NULL)
        return error_is(error, "DOMAIN_NOT_FOUND") ? NULL : error;
    if (info->state == DOMAIN_ENDED)
        return xenops_destroy(c, xapi->xenops, uuid);
    *alive_r = true;
    return NULL;
}

struct error *agent_vm_start(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vm_spec spec;
    struct domain_info info;
    bool alive;

    TRY(spec_of(c, args, &spec));
    TRY(domain_alive(c, xapi, spec.uuid, &info, &alive));
    if (!alive)
        TRY(xenops_start(c, xapi->xenops, &spec, value_get_bool(args, "paused", false), &info));
    *result_r = domain_value(c->arena, &info);
    return NULL;
}

struct error *agent_vm_unpause(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct domain_info info;
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(xenops_find(c, xapi->xenops, uuid, &info));
    return info.state == DOMAIN_RUNNING ? NULL : xenops_unpause(c, xapi->xenops, uuid);
}

struct error *agent_vm_pause(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct domain_info info;
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(xenops_find(c, xapi->xenops, uuid, &info));
    return info.state == DOMAIN_PAUSED ? NULL : xenops_pause(c, xapi->xenops, uuid);
}

struct error *agent_vm_shutdown(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct domain_info info;
    const char *uuid;
    bool alive;

    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(domain_alive(c, xapi, uuid, &info, &alive));
    return alive ? xenops_shutdown(c, xapi->xenops, uuid, value_get_int(args, "timeout_ms", 1200000)) : NULL;
}

struct error *agent_vm_reboot(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vm_spec spec;
    struct domain_info info;

    TRY(spec_of(c, args, &spec));
    TRY(xenops_reboot(c, xapi->xenops, &spec, value_get_bool(args, "hard", false), value_get_int(args, "timeout_ms", 1200000), &info));
    *result_r = domain_value(c->arena, &info);
    return NULL;
}

struct error *agent_vm_destroy(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid;
    struct error *error;

    TRY(agent_need(c, args, "uuid", &uuid));
    error = xenops_destroy(c, xapi->xenops, uuid);
    return error_is(error, "DOMAIN_NOT_FOUND") ? NULL : error;
}

/* --- suspend images ----------------------------------------------------------------------------------- */
static struct error *image_open(struct call *c, const char *path, int flags, int *fd_r)
{
    *fd_r = open(path, flags | O_CLOEXEC);
    return *fd_r >= 0 ? NULL : err_sr_backend_failure(c->arena, "5", "", arena_printf(c->arena, "opening %s: %s", path, strerror(errno)));
}

static struct error *image_save(struct call *c, struct xapi *xapi, const char *uuid, const char *path)
{
    const struct save_policy policy = { .live = false, .localhost = true };
    const struct save_callbacks callbacks = { 0 };
    struct save_result saved;
    struct byte_stream *stream;
    struct error *error;
    AUTO_FD sync_fd = -1;
    int fd;

    TRY(image_open(c, path, O_WRONLY, &fd));
    sync_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    stream = bytes_from_fd(fd);
    error = xenops_save(c, xapi->xenops, uuid, stream, &policy, &callbacks, &saved);
    bytes_close(stream);
    if (error == NULL && (sync_fd < 0 || fsync(sync_fd) != 0)) {
        error = err_sr_backend_failure(c->arena, "5", "", arena_printf(c->arena, "fsync of %s: %s", path, strerror(errno)));
        struct error *resume = xenops_resume(c, xapi->xenops, uuid);
        if (resume != NULL)
            log_err("resuming %s: %s", uuid, error_text(c->arena, resume));
    }
    return error;
}

struct error *agent_vm_suspend(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid, *path;

    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(agent_need(c, args, "path", &path));
    TRY(image_save(c, xapi, uuid, path));
    return xenops_destroy(c, xapi->xenops, uuid);
}

/* The image becomes a paused domain, or nothing is left. */
static struct error *image_restore(struct call *c, struct xapi *xapi, const struct vm_spec *spec, const char *path, struct domain_info *info)
{
    struct byte_stream *stream;
    struct error *error;
    int fd;

    TRY(image_open(c, path, O_RDONLY, &fd));
    stream = bytes_from_fd(fd);
    error = xenops_create(c, xapi->xenops, spec, spec->uuid, info);
    if (error == NULL) {
        error = xenops_restore(c, xapi->xenops, spec->uuid, spec, stream);
        if (error != NULL) {
            struct error *undo = xenops_destroy(c, xapi->xenops, spec->uuid);
            if (undo != NULL)
                log_warn("clearing away %s: %s", spec->uuid, error_text(c->arena, undo));
        }
    }
    bytes_close(stream);
    return error;
}

struct error *agent_vm_resume(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct vm_spec spec;
    struct domain_info info;
    const char *path;
    bool alive;

    TRY(spec_of(c, args, &spec));
    TRY(agent_need(c, args, "path", &path));
    TRY(domain_alive(c, xapi, spec.uuid, &info, &alive));
    if (!alive) {
        TRY(image_restore(c, xapi, &spec, path, &info));
        if (!value_get_bool(args, "paused", false))
            TRY(xenops_unpause(c, xapi->xenops, spec.uuid));
        TRY(xenops_find(c, xapi->xenops, spec.uuid, &info));
    }
    *result_r = domain_value(c->arena, &info);
    return NULL;
}

/* --- the rest ------------------------------------------------------------------------------------------- */
struct error *agent_vm_balloon(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    return xenops_balloon(c, xapi->xenops, uuid, value_get_int(args, "target", 0));
}

static struct error *disk_verb(struct call *c, struct xapi *xapi, const struct value *args, bool plug)
{
    const struct value *v = value_get(args, "disk");
    struct disk_spec disk;
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    if (v == NULL)
        return err_internal(c->arena, "agent call without 'disk'");
    disk_from_value(c->arena, v, &disk);
    return plug ? xenops_disk_plug(c, xapi->xenops, uuid, &disk) : xenops_disk_unplug(c, xapi->xenops, uuid, &disk);
}

struct error *agent_vm_disk_plug(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    return disk_verb(c, xapi, args, true);
}

struct error *agent_vm_disk_unplug(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    return disk_verb(c, xapi, args, false);
}

struct error *agent_vm_list(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    return domains_value(c, xapi, result_r);
}

struct error *agent_vm_find(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct domain_info info;
    const char *uuid;

    TRY(agent_need(c, args, "uuid", &uuid));
    TRY(xenops_find(c, xapi->xenops, uuid, &info));
    *result_r = domain_value(c->arena, &info);
    return NULL;
}
