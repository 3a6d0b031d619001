/* The data of VDIs: attach, activate, deactivate, detach, and handing sockets to their tapds. */
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "storage/sr_table.h"

LOG_MODULE(sr);

/* --- attach -------------------------------------------------------------------------------------------- */
static struct error *run_attach(struct call *c, struct sr *sr, struct verb *v)
{
    TRY(sr->driver->vdi_attach(c, sr, v->location, v->flag, v->where));
    if (v->vdi != NULL)
        return sr->driver->vdi_stat(c, sr, v->location, v->vdi);
    return sr->driver->vdi_activate == NULL ? NULL : sr->driver->vdi_activate(c, sr, v->location);
}

static struct error *run_let_go(struct call *c, struct sr *sr, struct verb *v)
{
    if (sr->driver->vdi_deactivate != NULL)
        TRY(sr->driver->vdi_deactivate(c, sr, v->location));
    return sr->driver->vdi_detach == NULL ? NULL : sr->driver->vdi_detach(c, sr, v->location);
}

static bool in_use(struct call *c, struct storage *s, const char *sr, const char *location)
{
    const char *key = vdi_key(c->arena, sr, location);

    return direct_any(s, sr, location) || (s->taps != NULL && (tap_exists(s->taps, key) || tap_is_target(s->taps, key)));
}

struct error *vdi_let_go(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct verb verb = { .name = "vdi_detach", .run = run_let_go, .location = location };

    if (in_use(c, s, sr, location) || !sr_is_attached(s, sr))
        return NULL;
    return verb_in_turn(c, s, sr, &verb);
}

/* The driver's own words, for tapds and for users without one. */
static const char *tap_format(const char *format) { return strcmp(format, "iso") == 0 ? "raw" : format; }

static struct error *attach_direct(struct call *c, struct storage *s, const char *sr, const char *location, const struct vdi_use *use,
                                   struct vdi_where *where)
{
    struct verb verb = { .name = "vdi_attach", .run = run_attach, .location = location, .flag = use->read_only, .where = where };

    TRY(verb_in_turn(c, s, sr, &verb));
    direct_add(s, sr, location, use->user);
    return NULL;
}

static struct error *attach_tap(struct call *c, struct storage *s, const char *sr, const char *location, const struct vdi_use *use,
                                struct vdi_where *where)
{
    struct vdi_stat stat;
    struct verb verb = { .name = "vdi_attach", .run = run_attach, .location = location, .flag = use->read_only, .where = where, .vdi = &stat };
    struct tap_spec spec = { .key = vdi_key(c->arena, sr, location), .read_only = use->read_only };
    const char *uri;
    struct error *error;

    TRY(verb_in_turn(c, s, sr, &verb));
    spec.format = tap_format(where->format);
    spec.path = where->path;
    spec.cached = where->cached || use->cached;
    spec.size = (stat.virtual_size + 511) & ~(int64_t)511; /* an ISO may be of any size */
    spec.cbt = where->cbt != NULL ? where->cbt : "";
    error = STORAGE_FAULT(c, "tap.attach");
    if (error == NULL)
        error = tap_attach(c, s->taps, &spec, use->user, &uri);
    if (error != NULL) {
        struct call calm = storage_calm(c);
        struct error *undo = vdi_let_go(&calm, s, sr, location);

        if (undo != NULL)
            log_warn("letting go of %s: %s", spec.key, error_text(c->arena, undo));
        return error;
    }
    *where = (struct vdi_where) { .format = "nbd", .path = uri, .cached = spec.cached, .cbt = spec.cbt };
    return NULL;
}

struct error *vdi_attach(struct call *c, struct storage *s, const char *sr, const char *location, const struct vdi_use *use, struct vdi_where *where)
{
    struct turn turn = { .sr = sr, .location = location };
    struct error *error;

    TRY(turn_begin(c, s, &turn));
    *where = (struct vdi_where) { .format = "raw" };
    error = use->direct || s->taps == NULL ? attach_direct(c, s, sr, location, use, where) : attach_tap(c, s, sr, location, use, where);
    turn_end(s, &turn);
    return error;
}

/* --- activate and deactivate -------------------------------------------------------------------------------- */
static struct error *run_activate(struct call *c, struct sr *sr, struct verb *v)
{
    TRY(sr->driver->vdi_attach(c, sr, v->location, v->flag, v->where));
    return sr->driver->vdi_activate == NULL ? NULL : sr->driver->vdi_activate(c, sr, v->location);
}

/* Names the chain to an inactive tapd where it is not what it was attached with. */
static struct error *chain_tell(struct call *c, struct storage *s, const char *key, const struct value *status, const struct vdi_where *where)
{
    const struct member words[] = {
        member_of("format", value_string(tap_format(where->format))),
        member_of("path", value_string(where->path)),
        member_of("cbt", value_string(where->cbt != NULL ? where->cbt : "")),
    };
    struct value args = value_map(words, ARRAY_LEN(words));
    bool same = true;

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        same = same && strcmp(value_get_string(status, words[i].name, ""), words[i].value.s) == 0;
    return same ? NULL : tap_call(c, s->taps, key, "resume", &args, -1, NULL);
}

/* The chain may have changed since it was attached: the driver is asked again. While its SR is not attached (xapi
 * was started again a moment ago) the tapd's own spec is the best there is. */
static struct error *activate_in_turn(struct call *c, struct storage *s, const char *sr, const char *location, const char *key)
{
    struct vdi_where where = { .format = "raw" };
    struct verb verb = { .name = "vdi_activate", .run = run_activate, .location = location, .where = &where };
    struct value status;

    TRY(STORAGE_FAULT(c, "tap.activate"));
    TRY(tap_call(c, s->taps, key, "status", NULL, -1, &status));
    const char *state = value_get_string(&status, "state", "");
    if (strcmp(state, "active") == 0 && value_get_int(&status, "serving", 1) != 0)
        return NULL;
    verb.flag = value_get_int(&status, "read_only", 0) != 0;
    if (sr_is_attached(s, sr)) {
        TRY(verb_in_turn(c, s, sr, &verb));
        if (strcmp(state, "inactive") == 0)
            TRY(chain_tell(c, s, key, &status, &where));
    }
    return tap_call(c, s->taps, key, "activate", NULL, -1, NULL);
}

struct error *vdi_activate(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct turn turn = { .sr = sr, .location = location };
    const char *key = vdi_key(c->arena, sr, location);
    struct error *error = NULL;

    TRY(turn_begin(c, s, &turn));
    if (s->taps != NULL && tap_exists(s->taps, key))
        error = activate_in_turn(c, s, sr, location, key);
    else if (!sr_is_attached(s, sr))
        error = err_sr_not_attached(c->arena, sr);
    else if (!direct_any(s, sr, location))
        error = storage_failed(c, "%s is not attached", key);
    turn_end(s, &turn);
    return error;
}

static struct error *run_deactivate(struct call *c, struct sr *sr, struct verb *v)
{
    return sr->driver->vdi_deactivate == NULL ? NULL : sr->driver->vdi_deactivate(c, sr, v->location);
}

struct error *vdi_deactivate(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct verb verb = { .name = "vdi_deactivate", .run = run_deactivate, .location = location };
    struct turn turn = { .sr = sr, .location = location };
    const char *key = vdi_key(c->arena, sr, location);
    struct error *error = NULL;

    if (s->taps == NULL)
        return NULL;
    TRY(turn_begin(c, s, &turn));
    if (tap_exists(s->taps, key))
        error = tap_call(c, s->taps, key, "deactivate", NULL, -1, NULL);
    if (error == NULL && !direct_any(s, sr, location) && sr_is_attached(s, sr))
        error = verb_in_turn(c, s, sr, &verb);
    turn_end(s, &turn);
    return error;
}

/* --- detach --------------------------------------------------------------------------------------------------- */
struct error *vdi_detach(struct call *c, struct storage *s, const char *sr, const char *location, const char *user)
{
    struct turn turn = { .sr = sr, .location = location };
    struct error *error = NULL;

    TRY(turn_begin(c, s, &turn));
    if (!direct_remove(s, sr, location, user) && s->taps != NULL)
        error = tap_detach(c, s->taps, vdi_key(c->arena, sr, location), user);
    if (error == NULL)
        error = vdi_let_go(c, s, sr, location);
    turn_end(s, &turn);
    return error;
}

/* --- sockets, lists --------------------------------------------------------------------------------------------- */
struct error *vdi_adopt(struct call *c, struct storage *s, const char *sr, const char *location, int fd, bool read_only, const char *certificate)
{
    const struct member members[] = {
        member_of("read_only", value_int(read_only)),
        member_of("tls", value_int(certificate != NULL)),
        member_of("certificate", value_string(certificate != NULL ? certificate : "")),
    };
    struct value args = value_map(members, certificate != NULL ? 3 : 2);

    if (s->taps == NULL)
        return storage_failed(c, "no tapd serves %s", location);
    return tap_call(c, s->taps, vdi_key(c->arena, sr, location), "adopt", &args, fd, NULL);
}

struct value storage_taps(struct storage *s, struct arena *a)
{
    struct call c = { .arena = a, .clock = &clock_real, .id = "taps" };
    struct value list;

    if (s->taps == NULL)
        return value_set(NULL, 0);
    list = taps_list(s->taps, a);
    for (unsigned i = 0; i < list.len; i++)
        if (tap_call(&c, s->taps, value_get_string(&list.items[i], "key", ""), "status", NULL, -1, NULL) != NULL)
            log_debug("a tapd does not answer");
    return taps_list(s->taps, a);
}
