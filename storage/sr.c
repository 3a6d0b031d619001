/* SRs: create, attach, stat, scan, probe, detach, destroy. (VDIs: sr_vdi.c, sr_data.c, sr_copy.c, sr_mirror.c.) */
#include "storage/sr.h"

#include <string.h>

#include "gen/errors.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "storage/sr_live.h"
#include "storage/sr_table.h"

static struct error *spec_check(struct call *c, const struct sr_spec *spec, const struct sr_driver **driver_r)
{
    const struct sr_driver *driver = sr_driver_find(spec->type);

    if (driver == NULL)
        return err_sr_unknown_driver(c->arena, spec->type);
    for (const struct config_key *k = driver->config; k->name != NULL; k++)
        if (k->required && value_get_string(&spec->device_config, k->name, "")[0] == '\0')
            return err_sr_backend_failure(c->arena, "90", "",
                                          arena_printf(c->arena, "device-config lacks '%s' (%s)", k->name, k->help));
    *driver_r = driver;
    return NULL;
}

/* create or destroy of an SR that is not attached. */
static struct error *sr_once(struct call *c, struct storage *s, const struct sr_spec *spec, int64_t size, bool create)
{
    struct turn turn = { .sr = spec->uuid, .location = "", .kind = TURN_MAKER };
    struct sr sr = { .uuid = spec->uuid, .device_config = spec->device_config, .shared = spec->shared };
    struct error *error;
    struct live live;

    TRY(spec_check(c, spec, &sr.driver));
    sr.state = arena_alloc(c->arena, sr.driver->state_size + 1);
    live_init(&live, s, spec->uuid, "");
    sr.live = &live.live;
    TRY(turn_begin(c, s, &turn));
    error = STORAGE_FAULT(c, create ? "sr.create" : "sr.destroy");
    if (error == NULL)
        error = create ? sr.driver->sr_create(c, &sr, size) : sr.driver->sr_destroy(c, &sr);
    live_release(&live);
    turn_end(s, &turn);
    return error;
}

struct error *sr_create(struct call *c, struct storage *s, const struct sr_spec *spec, int64_t size)
{
    return sr_once(c, s, spec, size, true);
}

struct error *sr_destroy(struct call *c, struct storage *s, const struct sr_spec *spec)
{
    TRY(sr_detach(c, s, spec->uuid));
    return sr_once(c, s, spec, 0, false);
}

static struct error *attach_in_turn(struct call *c, struct storage *s, const struct sr_spec *spec, const struct sr_driver *driver)
{
    struct attached *a = attached_new(spec, driver);
    struct error *error = STORAGE_FAULT(c, "sr.attach");
    struct live live;

    live_init(&live, s, spec->uuid, "");
    a->sr.live = &live.live;
    if (error == NULL)
        error = driver->sr_attach(c, &a->sr);
    a->sr.live = NULL; /* every later call gets its own */
    live_release(&live);
    if (error != NULL)
        attached_free(a);
    else
        attached_insert(s, a);
    return error;
}

struct error *sr_attach(struct call *c, struct storage *s, const struct sr_spec *spec)
{
    struct turn turn = { .sr = spec->uuid, .location = "", .kind = TURN_MAKER };
    const struct sr_driver *driver;
    struct error *error = NULL;
    bool fresh;

    TRY(spec_check(c, spec, &driver));
    TRY(turn_begin(c, s, &turn));
    fresh = !sr_is_attached(s, spec->uuid);
    if (fresh) {
        live_give_up(c, s, spec->uuid);
        error = attach_in_turn(c, s, spec, driver);
    }
    turn_end(s, &turn);
    if (error == NULL && fresh) {
        live_repair(c, s, spec->uuid);
        cleaner_note(s, spec->uuid);
    }
    return error;
}

static struct error *run_detach(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->sr_detach(c, sr);
}

struct error *sr_detach(struct call *c, struct storage *s, const char *uuid)
{
    struct turn turn = { .sr = uuid, .location = "", .kind = TURN_MAKER };
    struct verb verb = { .name = "detach", .run = run_detach, .location = "" };
    struct error *error = NULL;
    struct attached *a;

    TRY(turn_begin(c, s, &turn));
    a = attached_use(s, uuid);
    if (a != NULL) {
        const char *used = sr_tap(c->arena, s, uuid);

        cleaner_forget(s, uuid);
        error = used != NULL ? storage_failed(c, "%s is in use", used) : verb_in_turn(c, s, uuid, &verb);
        if (error == NULL)
            attached_remove(s, a);
        attached_leave(s, a);
    }
    turn_end(s, &turn);
    return error;
}

static struct error *run_stat(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->sr_stat(c, sr, v->stat);
}

struct error *sr_stat(struct call *c, struct storage *s, const char *uuid, struct sr_stat *stat)
{
    struct verb verb = { .name = "stat", .run = run_stat, .location = "", .stat = stat };

    return verb_run(c, s, uuid, &verb);
}

static struct error *run_scan(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->sr_scan(c, sr, v->vdis, v->n);
}

struct error *sr_scan(struct call *c, struct storage *s, const char *uuid, struct vdi_stat **vdis_r, unsigned *n_r)
{
    struct verb verb = { .name = "scan", .run = run_scan, .location = "", .vdis = vdis_r, .n = n_r };

    return verb_run(c, s, uuid, &verb);
}

struct error *sr_probe(struct call *c, const char *type, const struct value *device_config, struct value *srs_r)
{
    const struct sr_spec spec = { .uuid = "", .type = type, .device_config = *device_config };
    const struct sr_driver *driver;

    TRY(spec_check(c, &spec, &driver));
    if (driver->sr_probe == NULL)
        return err_sr_operation_not_supported(c->arena, type);
    return driver->sr_probe(c, device_config, srs_r);
}
