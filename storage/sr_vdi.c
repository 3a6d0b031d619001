/* VDIs: making, removing and changing them. Data goes through sr_data.c. */
#include <string.h>

#include "gen/errors.h"
#include "storage/sr_table.h"

/* Verbs that may leave something to clear up. */
static struct error *maker_run(struct call *c, struct storage *s, const char *sr, struct verb *verb)
{
    verb->kind = TURN_MAKER;
    TRY(verb_run(c, s, sr, verb));
    cleaner_note(s, sr);
    return NULL;
}

static struct error *lacking(struct call *c, const struct sr *sr) { return err_sr_operation_not_supported(c->arena, sr->uuid); }

static struct error *run_create(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_create(c, sr, v->create, v->vdi);
}

struct error *vdi_create(struct call *c, struct storage *s, const char *sr, const struct vdi_create_spec *spec, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_create", .cap = SR_CAP_VDI_CREATE, .kind = TURN_MAKER, .run = run_create, .location = spec->uuid,
                         .create = spec, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_destroy(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_destroy(c, sr, v->location);
}

struct error *vdi_destroy(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct verb verb = { .name = "vdi_destroy", .cap = SR_CAP_VDI_DELETE, .run = run_destroy, .location = location };

    return maker_run(c, s, sr, &verb);
}

static struct error *run_resize(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_resize(c, sr, v->location, v->size, v->vdi);
}

struct error *vdi_resize(struct call *c, struct storage *s, const char *sr, const char *location, int64_t size, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_resize", .cap = SR_CAP_VDI_RESIZE, .kind = TURN_MAKER, .run = run_resize, .location = location,
                         .size = size, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_clone(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_clone(c, sr, v->location, v->uuid, v->vdi);
}

struct error *vdi_clone(struct call *c, struct storage *s, const char *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_clone", .cap = SR_CAP_VDI_CLONE, .run = run_clone, .location = location, .uuid = uuid, .vdi = vdi };

    return maker_run(c, s, sr, &verb);
}

static struct error *run_snapshot(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_snapshot(c, sr, v->location, v->uuid, v->vdi);
}

struct error *vdi_snapshot(struct call *c, struct storage *s, const char *sr, const char *location, const char *uuid, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_snapshot", .cap = SR_CAP_VDI_SNAPSHOT, .run = run_snapshot, .location = location, .uuid = uuid, .vdi = vdi };

    return maker_run(c, s, sr, &verb);
}

static struct error *run_revert(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_revert == NULL ? lacking(c, sr) : sr->driver->vdi_revert(c, sr, v->location, v->uuid, v->vdi);
}

struct error *vdi_revert(struct call *c, struct storage *s, const char *sr, const char *location, const char *snapshot, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_revert", .cap = SR_CAP_VDI_REVERT, .run = run_revert, .location = location, .uuid = snapshot, .vdi = vdi };

    return maker_run(c, s, sr, &verb);
}

static struct error *run_vdi_stat(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_stat(c, sr, v->location, v->vdi);
}

struct error *vdi_stat(struct call *c, struct storage *s, const char *sr, const char *location, struct vdi_stat *vdi)
{
    struct verb verb = { .name = "vdi_stat", .run = run_vdi_stat, .location = location, .vdi = vdi };

    return verb_run(c, s, sr, &verb);
}

/* --- changed blocks ------------------------------------------------------------------------------------------ */
static struct error *run_cbt(struct call *c, struct sr *sr, struct verb *v)
{
    vdi_fn *fn = v->flag ? sr->driver->vdi_enable_cbt : sr->driver->vdi_disable_cbt;

    return fn == NULL ? lacking(c, sr) : fn(c, sr, v->location);
}

struct error *vdi_cbt(struct call *c, struct storage *s, const char *sr, const char *location, bool on)
{
    struct verb verb = { .name = "vdi_cbt", .cap = SR_CAP_VDI_CONFIG_CBT, .kind = TURN_MAKER, .run = run_cbt, .location = location, .flag = on };

    return verb_run(c, s, sr, &verb);
}

static struct error *run_data_destroy(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_data_destroy == NULL ? lacking(c, sr) : sr->driver->vdi_data_destroy(c, sr, v->location);
}

struct error *vdi_data_destroy(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct verb verb = { .name = "vdi_data_destroy", .cap = SR_CAP_VDI_CONFIG_CBT, .run = run_data_destroy, .location = location };

    return maker_run(c, s, sr, &verb);
}

static struct error *run_changed(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_changed_blocks == NULL ? lacking(c, sr) : sr->driver->vdi_changed_blocks(c, sr, v->location, v->uuid, v->bitmap, v->len);
}

struct error *vdi_changed_blocks(struct call *c, struct storage *s, const char *sr, const char *from, const char *to, uint8_t **bitmap_r, size_t *len_r)
{
    struct verb verb = { .name = "vdi_changed_blocks", .cap = SR_CAP_VDI_CONFIG_CBT, .run = run_changed, .location = from, .uuid = to,
                         .bitmap = bitmap_r, .len = len_r };

    return verb_run(c, s, sr, &verb);
}
