/* A VDI in use moves to another one: the mirror in its tapd, the switch, and what is recorded of it.
 *
 * The tapd's directory says where a mirror leads before it starts (tap_lead). The switch is the tapd's (its spec
 * names the target from then on); only after it the tapd gets the target's key. A crash in between is found out by
 * comparing the two, so that asking, switching and aborting again give the same answer. */
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/sr_copy.h"

LOG_MODULE(mirror);

static struct error *run_target(struct call *c, struct sr *sr, struct verb *v)
{
    TRY(sr->driver->vdi_attach(c, sr, v->location, false, v->where));
    return sr->driver->vdi_activate == NULL ? NULL : sr->driver->vdi_activate(c, sr, v->location);
}

static bool split_key(struct arena *a, const char *key, const char **sr_r, const char **location_r)
{
    const char *slash = strchr(key, '/');

    if (slash == NULL)
        return false;
    *sr_r = arena_strndup(a, key, (size_t)(slash - key));
    *location_r = slash + 1;
    return true;
}

static void target_release(struct call *c, struct storage *s, const char *to)
{
    struct call calm = storage_calm(c);
    const char *sr, *location;
    struct error *error;

    if (to == NULL || !split_key(c->arena, to, &sr, &location))
        return;
    struct turn turn = { .sr = sr, .location = location };
    error = turn_begin(&calm, s, &turn);
    if (error == NULL) {
        error = vdi_let_go(&calm, s, sr, location);
        turn_end(s, &turn);
    }
    if (error != NULL)
        log_warn("letting go of %s: %s", to, error_text(c->arena, error));
}

/* --- what stands --------------------------------------------------------------------------------------------- */
/* Where the VDI's data is served: under its own key, or under the one it was switched to. */
enum standing { STANDS_NOWHERE, STANDS_HERE, STANDS_SWITCHED /* still under the old key */, STANDS_MOVED };
struct mirror { const char *key, *to, *path; struct value status; enum standing standing; };

static struct error *mirror_look(struct call *c, struct storage *s, const char *sr, const char *location, struct mirror *m)
{
    *m = (struct mirror) { .key = vdi_key(c->arena, sr, location) };
    if (s->taps == NULL)
        return NULL;
    if (!tap_exists(s->taps, m->key)) {
        m->to = tap_successor(s->taps, c->arena, m->key);
        m->standing = m->to != NULL ? STANDS_MOVED : STANDS_NOWHERE;
        if (m->to != NULL)
            m->status = tap_last_mirror(s->taps, c->arena, m->to);
        return NULL;
    }
    TRY(tap_call(c, s->taps, m->key, "status", NULL, -1, &m->status));
    m->standing = STANDS_HERE;
    if (tap_leads_to(s->taps, c->arena, m->key, &m->to, &m->path) &&
        (strcmp(value_get_string(&m->status, "mirror", ""), "switched") == 0 || strcmp(value_get_string(&m->status, "path", ""), nbd_uri_shown(c->arena, m->path)) == 0))
        m->standing = STANDS_SWITCHED;
    return NULL;
}

static const char *mirror_state(const struct mirror *m) { return value_get_string(&m->status, "mirror", "none"); }

/* --- start ----------------------------------------------------------------------------------------------------- */
static struct error *target_of(struct call *c, struct storage *s, const struct vdi_mirror_spec *spec, struct vdi_where *where, const char **key_r)
{
    struct verb verb = { .name = "vdi_activate", .run = run_target, .location = spec->to, .where = where };

    if (spec->to == NULL || spec->to[0] == '\0') {
        *where = (struct vdi_where) { .format = "nbd", .path = spec->uri };
        *key_r = "";
        return NULL;
    }
    *key_r = vdi_key(c->arena, spec->to_sr, spec->to);
    if (tap_exists(s->taps, *key_r) || direct_any(s, spec->to_sr, spec->to))
        return storage_failed(c, "the target %s is in use", *key_r);
    *where = (struct vdi_where) { .format = "raw" };
    return verb_run(c, s, spec->to_sr, &verb);
}

static struct error *start_in_tap(struct call *c, struct storage *s, const char *key, const struct vdi_mirror_spec *spec, const struct vdi_where *to)
{
    struct value_dict d = { 0 };
    struct value args;

    value_dict_add(c->arena, &d, "format", value_string(to->format));
    value_dict_add(c->arena, &d, "path", value_string(to->path));
    value_dict_add(c->arena, &d, "mode", value_string(spec->mode != NULL && spec->mode[0] != '\0' ? spec->mode : "mirror"));
    value_dict_add(c->arena, &d, "proof", value_int(1));
    if (spec->bandwidth > 0)
        value_dict_add(c->arena, &d, "bandwidth", value_int(spec->bandwidth));
    if (spec->budget_us > 0)
        value_dict_add(c->arena, &d, "budget_ms", value_int((spec->budget_us + 999) / 1000));
    if (spec->silence_us > 0)
        value_dict_add(c->arena, &d, "silence_ms", value_int((spec->silence_us + 999) / 1000));
    if (spec->reconnect_us > 0)
        value_dict_add(c->arena, &d, "reconnect_ms", value_int((spec->reconnect_us + 999) / 1000));
    if (spec->streams > 0)
        value_dict_add(c->arena, &d, "streams", value_int(spec->streams));
    args = value_dict_value(&d);
    return tap_call(c, s->taps, key, "mirror-start", &args, -1, NULL);
}

static bool leads_there(struct call *c, const struct mirror *m, const struct vdi_mirror_spec *spec)
{
    if (m->to == NULL)
        return false;
    if (spec->to == NULL || spec->to[0] == '\0')
        return m->to[0] == '\0' && spec->uri != NULL && strcmp(m->path, spec->uri) == 0;
    return strcmp(m->to, vdi_key(c->arena, spec->to_sr, spec->to)) == 0;
}

static struct error *start_in_turn(struct call *c, struct storage *s, const char *sr, const char *location, const struct vdi_mirror_spec *spec)
{
    struct mirror m;
    struct vdi_where where;
    const char *to;
    struct error *error;

    TRY(mirror_look(c, s, sr, location, &m));
    if (m.standing != STANDS_HERE || strcmp(value_get_string(&m.status, "state", ""), "active") != 0)
        return storage_failed(c, "%s is not in use: there is nothing to mirror", m.key);
    if (strcmp(mirror_state(&m), "none") != 0)
        return leads_there(c, &m, spec)
                   ? NULL /* a repeated call */
                   : storage_failed(c, "%s is being mirrored already", m.key);
    TRY(target_of(c, s, spec, &where, &to));
    error = tap_lead(c, s->taps, m.key, to, where.path);
    if (error == NULL)
        error = start_in_tap(c, s, m.key, spec, &where);
    if (error != NULL) {
        struct call calm = storage_calm(c);
        struct error *undo = tap_lead(&calm, s->taps, m.key, NULL, NULL);

        if (undo != NULL)
            log_warn("%s: %s", m.key, error_text(c->arena, undo));
        target_release(c, s, to);
    }
    return error;
}

struct error *vdi_mirror_start(struct call *c, struct storage *s, const char *sr, const char *location, const struct vdi_mirror_spec *spec)
{
    struct turn turn = { .sr = sr, .location = location };
    struct error *error;

    TRY(turn_begin(c, s, &turn));
    error = start_in_turn(c, s, sr, location, spec);
    turn_end(s, &turn);
    return error;
}

/* --- status, set -------------------------------------------------------------------------------------------------- */
struct error *vdi_mirror_status(struct call *c, struct storage *s, const char *sr, const char *location, struct value *status_r)
{
    struct value_dict d = { 0 };
    struct mirror m;

    TRY(mirror_look(c, s, sr, location, &m));
    for (uint32_t i = 0; m.standing != STANDS_NOWHERE && m.status.kind == VALUE_MAP && i < m.status.len; i++)
        if (strncmp(m.status.members[i].name, "mirror", strlen("mirror")) == 0)
            value_dict_add(c->arena, &d, m.status.members[i].name, m.status.members[i].value);
    if (m.standing == STANDS_SWITCHED || m.standing == STANDS_MOVED)
        value_dict_set(c->arena, &d, "mirror", value_string("switched"));
    else if (d.n == 0)
        value_dict_add(c->arena, &d, "mirror", value_string("none"));
    *status_r = value_dict_value(&d);
    return NULL;
}

struct error *vdi_mirror_set(struct call *c, struct storage *s, const char *sr, const char *location, int64_t bandwidth, int64_t budget_us)
{
    struct value_dict d = { 0 };
    struct value args;

    if (s->taps == NULL)
        return storage_failed(c, "no tapd serves %s", location);
    if (bandwidth >= 0)
        value_dict_add(c->arena, &d, "bandwidth", value_int(bandwidth));
    if (budget_us >= 0)
        value_dict_add(c->arena, &d, "budget_ms", value_int((budget_us + 999) / 1000));
    args = value_dict_value(&d);
    return tap_call(c, s->taps, vdi_key(c->arena, sr, location), "mirror-set", &args, -1, NULL);
}

/* --- switch --------------------------------------------------------------------------------------------------------- */
/* The tapd serves the target: it gets its key, and the old image is let go. Somebody who asked for the same may have
 * been first. */
static struct error *settle_in_turn(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct mirror m;
    struct error *error;

    TRY(mirror_look(c, s, sr, location, &m));
    if (m.standing == STANDS_MOVED)
        return NULL;
    if (m.standing != STANDS_SWITCHED)
        return storage_failed(c, "the mirror of %s has not switched", m.key);
    TRY(STORAGE_FAULT(c, "vdi.mirror.before-rekey"));
    if (m.to[0] != '\0')
        TRY(tap_rekey(c, s->taps, m.key, m.to));
    error = vdi_let_go(c, s, sr, location);
    if (error != NULL)
        log_warn("letting go of %s after its switch: %s", m.key, error_text(c->arena, error));
    log_info("%s is served by %s now", m.key, m.to[0] != '\0' ? m.to : nbd_uri_shown(c->arena, m.path));
    return NULL;
}

static struct error *settle(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct turn turn = { .sr = sr, .location = location };
    struct call calm = storage_calm(c);
    struct error *error;

    TRY(turn_begin(&calm, s, &turn));
    error = settle_in_turn(&calm, s, sr, location);
    turn_end(s, &turn);
    return error;
}

struct error *vdi_mirror_switch(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct mirror m;
    struct error *error;

    TRY(mirror_look(c, s, sr, location, &m));
    if (m.standing == STANDS_MOVED)
        return NULL;
    if (m.standing == STANDS_SWITCHED)
        return settle(c, s, sr, location);
    if (m.standing == STANDS_NOWHERE || m.to == NULL || strcmp(mirror_state(&m), "none") == 0)
        return storage_failed(c, "%s is not being mirrored", m.key);
    if (strcmp(mirror_state(&m), "failed") == 0)
        return mirror_failure(c, m.key, &m.status);
    TRY(tap_call(c, s->taps, m.key, "mirror-switch", NULL, -1, NULL));
    error = mirror_await(c, s, m.key, "switched");
    if (error != NULL && error_is(error, "TASK_CANCELLED"))
        return error; /* whoever asked aborts, or asks again */
    if (error != NULL) { /* lost only the answer? */
        struct call calm = storage_calm(c);

        TRY(mirror_look(&calm, s, sr, location, &m));
        if (m.standing != STANDS_SWITCHED && m.standing != STANDS_MOVED)
            return error;
    }
    return settle(c, s, sr, location);
}

struct error *vdi_mirror_abort(struct call *c, struct storage *s, const char *sr, const char *location)
{
    struct mirror m;

    TRY(mirror_look(c, s, sr, location, &m));
    if (m.standing == STANDS_SWITCHED || m.standing == STANDS_MOVED)
        return storage_failed(c, "the mirror of %s has switched already", m.key);
    if (m.standing == STANDS_NOWHERE)
        return NULL;
    const char *state = mirror_state(&m);
    if (strcmp(state, "none") != 0 && strcmp(state, "failed") != 0 && strcmp(state, "done") != 0) {
        struct error *error = tap_call(c, s->taps, m.key, "mirror-abort", NULL, -1, NULL);
        struct call calm = storage_calm(c);

        if (error != NULL) { /* it may have switched a moment before */
            TRY(mirror_look(&calm, s, sr, location, &m));
            if (m.standing == STANDS_SWITCHED)
                return storage_failed(c, "the mirror of %s has switched already", m.key);
            return error;
        }
    } else if (strcmp(state, "none") != 0)
        TRY(tap_call(c, s->taps, m.key, "mirror-end", NULL, -1, NULL));
    if (m.to != NULL) {
        TRY(tap_lead(c, s->taps, m.key, NULL, NULL));
        target_release(c, s, m.to);
    }
    return NULL;
}
