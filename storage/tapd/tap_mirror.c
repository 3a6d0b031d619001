/* The verbs of the mirror, and what of it the spec keeps.
 *
 * In the spec: mirror= names the target while the mirror is under way; mirror_options= is a message (in the form of
 * control_protocol.h) whose verb is the mode, or, once it is over and mirror= is empty, the state it ended in. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/tapd/control_protocol.h"
#include "storage/tapd/tap.h"

LOG_MODULE(tap);

static const char *const mode_names[] = { [MIRROR_FOLLOW] = "mirror", [MIRROR_COPY] = "copy", [MIRROR_POINT] = "point", [MIRROR_MERGE] = "merge" };
static const char *const state_names[] = {
    [MIRROR_NONE] = "none", [MIRROR_COPYING] = "copying", [MIRROR_FOLLOWING] = "following", [MIRROR_SWITCHING] = "switching",
    [MIRROR_SWITCHED] = "switched", [MIRROR_DONE] = "done", [MIRROR_FAILED] = "failed",
};

const char *mirror_state_name(enum mirror_state state) { return state_names[state]; }
const char *tap_mirror_mode(const struct tap *t) { return mode_names[t->mirror_options.layer.mode]; }

static bool is_over(enum mirror_state s) { return s == MIRROR_SWITCHED || s == MIRROR_DONE || s == MIRROR_FAILED; }

/* --- options as words ------------------------------------------------------------------------------ */

static bool options_take(const char *mode, const struct value *v, struct tap_mirror_options *o)
{
    int64_t bandwidth = argument_int(v, "bandwidth", 0), budget = argument_int(v, "budget_ms", 0), silence = argument_int(v, "silence_ms", 0),
            streams = argument_int(v, "streams", 0), reconnect = argument_int(v, "reconnect_ms", 0);
    unsigned i = 0;

    while (i < ARRAY_LEN(mode_names) && strcmp(mode_names[i], mode) != 0)
        i++;
    *o = (struct tap_mirror_options){ 0 };
    if (i == ARRAY_LEN(mode_names) || bandwidth < 0 || budget < 0 || budget > 3600000 || silence < 0 || silence > 3600000 || streams < 0 || streams > 64 ||
        reconnect < 0 || reconnect > 86400000)
        return false;
    o->layer = (struct mirror_options){ .mode = (enum mirror_mode)i, .bandwidth = bandwidth, .budget_us = budget * 1000, .silence_us = silence * 1000 };
    o->layer.reconnect_us = reconnect * 1000;
    o->layer.proof = argument_bool(v, "proof", true);
    o->streams = (unsigned)streams;
    return true;
}

static void options_keep(struct tap *t)
{
    const struct mirror_options *o = &t->mirror_options.layer;
    const struct member members[] = {
        member_of("bandwidth", value_int(o->bandwidth)),          member_of("budget_ms", value_int((o->budget_us + 999) / 1000)),
        member_of("silence_ms", value_int((o->silence_us + 999) / 1000)), member_of("proof", value_bool(o->proof)),
        member_of("streams", value_int(t->mirror_options.streams)), member_of("reconnect_ms", value_int(o->reconnect_us / 1000)),
    };
    struct value v = value_map(members, ARRAY_LEN(members));
    AUTO_TEXT text = TEXT_INIT;

    control_message_write(&text, mode_names[o->mode], &v);
    spec_set_string(&t->spec.mirror_options, text.bytes);
}

void tap_mirror_past(struct tap *t, enum mirror_state state, const char *why)
{
    bool handed = state == MIRROR_DONE && (tap_mirror_holds(t) || t->past.handed);
    const struct member members[] = { member_of("text", value_string(why)), member_of("handed", value_bool(handed)) };
    struct value v = value_map(members, ARRAY_LEN(members));
    AUTO_TEXT text = TEXT_INIT;

    t->past.state = state;
    t->past.handed = handed;
    if (state == MIRROR_NONE)
        t->past.last = (struct mirror_status){ 0 };
    snprintf(t->past.text, sizeof(t->past.text), "%s", why);
    spec_set_string(&t->spec.mirror, "");
    if (state != MIRROR_NONE)
        control_message_write(&text, state_names[state], &v);
    spec_set_string(&t->spec.mirror_options, text.len > 0 ? text.bytes : "");
}

void tap_mirror_load(struct tap *t)
{
    AUTO_ARENA a = arena_new();
    const char *options = t->spec.mirror_options, *verb;
    struct value v;

    if (t->spec.mirror[0] != '\0' || !control_message_parse(a, options, strlen(options), &verb, &v))
        return;
    for (unsigned i = 0; i < ARRAY_LEN(state_names); i++)
        if (is_over((enum mirror_state)i) && strcmp(state_names[i], verb) == 0) {
            t->past.state = (enum mirror_state)i;
            t->past.handed = argument_bool(&v, "handed", false);
            snprintf(t->past.text, sizeof(t->past.text), "%s", value_get_string(&v, "text", ""));
        }
}

bool tap_mirror_holds(const struct tap *t) { return t->mirror != NULL && mirror_hands_over(t->mirror); }

bool tap_has_mirror(const struct tap *t) { return t->mirror != NULL || t->past.state != MIRROR_NONE || t->spec.mirror[0] != '\0'; }

void tap_mirror_get(const struct tap *t, struct mirror_status *m)
{
    *m = t->past.last;
    m->state = t->past.state;
    if (t->mirror != NULL)
        mirror_get(t->mirror, m);
    else if (t->past.state != MIRROR_NONE)
        snprintf(m->error, sizeof(m->error), "%s", t->past.text);
    else if (t->spec.mirror[0] != '\0')
        m->state = MIRROR_COPYING; /* it goes on with the disk */
}

/* --- starting -------------------------------------------------------------------------------------- */

static void save_or_log(struct tap *t)
{
    int rc = spec_write(t->spec_path, &t->spec, false);

    if (rc < 0)
        log_err("%s: %s", t->spec_path, strerror(-rc));
}

static void changed(void *ctx)
{
    struct tap *t = ctx;
    struct mirror_status m;

    if (t->mirror == NULL)
        return;
    mirror_get(t->mirror, &m);
    log_info("%s: the mirror is %s %s", t->spec.key, state_names[m.state], m.error);
    if (m.state == MIRROR_FAILED || m.state == MIRROR_DONE) { /* a restart shall not begin it again */
        tap_mirror_past(t, m.state, m.error);
        save_or_log(t);
    }
    if (t->handing && !tap_mirror_holds(t)) {
        t->handing = false;
        if (m.state != MIRROR_DONE && t->after == NULL && t->spec.state == SPEC_ACTIVE)
            gate_open(t->gate); /* it did not come to it: the guest goes on here */
    }
}

/* Puts the layer in, over a closed and drained gate; takes t->target. */
static void insert(struct tap *t)
{
    struct tap_mirror_options *o = &t->mirror_options;

    o->layer.map_path = t->map_path;
    t->mirror_arena = arena_new();
    t->switched = t->handing = false;
    t->past.state = MIRROR_NONE;
    t->past.handed = false;
    if (t->allow_faults && !nbd_is(t->target))
        t->target = fault_layer(t->target, true);
    t->mirror = mirror_layer(t->mirror_arena, t->source, t->target, &o->layer, changed, t);
    t->target = NULL;
    tap_link(t);
}

/* later: one by NBD that need not be there yet; the mirror begins with connecting it again. */
static struct error *open_target(struct tap *t, struct arena *a, const char *format, const char *path, bool later)
{
    const struct nbd_options nbd = { .connections = t->mirror_options.streams, .later_size = later ? t->source->size : 0 };

    TRY(tap_open_image(t, a, format, path, &nbd, &t->target));
    if (t->target->size >= t->source->size && !t->target->read_only)
        return NULL;
    bool small = t->target->size < t->source->size;
    block_close(t->target);
    t->target = NULL;
    return tap_error(a, arena_printf(a, "%s: the target is %s", nbd_uri_shown(a, path), small ? "too small" : "read-only"), 0);
}

static void started(struct tap *t, int result)
{
    insert(t);
    if (t->was_open)
        gate_open(t->gate);
    tap_answer(t, NULL, NULL);
}

static struct error *prepare(struct tap *t, struct control_call *call)
{
    const struct value *v = &call->arguments;
    struct arena *a = call->arena;
    const char *format = value_get_string(v, "format", ""), *path = value_get_string(v, "path", "");

    if (t->source == NULL || tap_is_away(t))
        return tap_error(a, t->source == NULL ? "mirror-start: the disk is not open" : TAP_AWAY, 0);
    if (tap_has_mirror(t))
        return tap_error(a, "mirror-start: there is a mirror already", 0);
    if (path[0] == '\0' || !options_take(value_get_string(v, "mode", "mirror"), v, &t->mirror_options))
        return tap_error(a, "mirror-start: malformed", 0);
    if (unlink(t->map_path) < 0 && errno != ENOENT)
        return tap_error(a, t->map_path, -errno);
    TRY(open_target(t, a, format, path, false));
    spec_set_string(&t->spec.mirror, arena_printf(a, "%s:%s", format, path));
    options_keep(t);
    struct error *e = tap_save(t, a, false);
    if (e != NULL) {
        tap_mirror_past(t, MIRROR_NONE, "");
        block_close(t->target);
        t->target = NULL;
    }
    return e;
}

void verb_mirror_start(struct tap *t, struct control_call *call)
{
    const struct error *e = prepare(t, call);

    if (e != NULL) {
        tap_answer(t, e, NULL);
        return;
    }
    t->was_open = gate_is_open(t->gate);
    tap_hold(t, false, started); /* a write that began before the layer was there would escape it */
}

static const struct error *start_again(struct tap *t, struct arena *a)
{
    const char *target = t->spec.mirror, *options = t->spec.mirror_options, *colon = strchr(target, ':'), *mode;
    struct value v;

    if (colon == NULL || !control_message_parse(a, options, strlen(options), &mode, &v) || !options_take(mode, &v, &t->mirror_options))
        return tap_error(a, "the spec's mirror is malformed", 0);
    return open_target(t, a, arena_strndup(a, target, (size_t)(colon - target)), arena_strdup(a, colon + 1), true);
}

void tap_mirror_again(struct tap *t, struct arena *a)
{
    if (t->spec.mirror[0] == '\0' || t->mirror != NULL)
        return;
    const struct error *e = start_again(t, a);
    if (e == NULL) {
        log_info("%s: the mirror goes on", t->spec.key);
        insert(t);
        return;
    }
    log_err("%s: the mirror cannot go on: %s", t->spec.key, error_text(a, e));
    tap_mirror_past(t, MIRROR_FAILED, e->n_params > 0 ? e->params[e->n_params - 1] : e->code);
    save_or_log(t);
}

/* --- leaving --------------------------------------------------------------------------------------- */

/* After a switch the old image, and the log of its changes, are not ours any more. */
static void take_target(struct tap *t, struct block *target)
{
    tap_take_chain(t, target);
    if (t->cbt == NULL || t->spec.cbt[0] != '\0')
        return;
    t->cbt->below = NULL;
    nbd_server_dirty(t->server, NULL);
    int rc = block_close(t->cbt);
    if (rc < 0)
        log_err("%s: closing the log of changed blocks: %s", t->spec.key, strerror(-rc));
    t->cbt = NULL;
}

static void left(struct tap *t)
{
    struct mirror_status m;
    struct block *layer = t->mirror, *rest;
    tap_after_fn *after = t->after;

    mirror_get(layer, &m);
    rest = mirror_take(layer);
    t->mirror = NULL;
    block_close(layer);
    arena_free(t->mirror_arena);
    if (t->switched)
        take_target(t, rest);
    else
        CHECK(rest == t->source);
    tap_link(t);
    unlink(t->map_path);
    if (is_over(m.state)) {
        tap_mirror_past(t, m.state, m.error);
        t->past.last = m;
    }
    t->after = NULL;
    after(t, 0);
}

static void one_ready(void *ctx)
{
    struct tap *t = ctx;

    if (--t->leaving == 0)
        left(t);
}

void tap_mirror_leave(struct tap *t, tap_after_fn *after)
{
    CHECK(t->after == NULL && t->mirror != NULL);
    t->after = after;
    t->leaving = 2;
    t->handing = false;
    mirror_hand_back(t->mirror);
    gate_close(t->gate, one_ready, t);
    mirror_stop(t->mirror, one_ready, t);
}

static void forget(struct tap *t, bool aborting)
{
    struct arena *a = t->call->arena;

    if (aborting && t->past.state == MIRROR_SWITCHED) {
        tap_answer(t, tap_error(a, "mirror-abort: it has switched", 0), NULL);
        return;
    }
    tap_mirror_past(t, MIRROR_NONE, "");
    unlink(t->map_path);
    tap_answer(t, tap_save(t, a, false), NULL);
}

static void left_for_good(struct tap *t, int result)
{
    if (t->was_open)
        gate_open(t->gate);
    forget(t, strcmp(t->call->verb, "mirror-abort") == 0);
}

static void leave_or_forget(struct tap *t)
{
    t->was_open = gate_is_open(t->gate) || tap_mirror_holds(t);
    if (t->mirror != NULL)
        tap_mirror_leave(t, left_for_good);
    else
        forget(t, strcmp(t->call->verb, "mirror-abort") == 0);
}

void verb_mirror_end(struct tap *t, struct control_call *call)
{
    struct mirror_status m;

    tap_mirror_get(t, &m);
    if (m.state != MIRROR_NONE && !is_over(m.state))
        tap_answer(t, tap_error(call->arena, "mirror-end: it is under way", 0), NULL);
    else if (tap_is_away(t))
        tap_answer(t, tap_error(call->arena, TAP_AWAY, 0), NULL);
    else
        leave_or_forget(t);
}

void verb_mirror_abort(struct tap *t, struct control_call *call)
{
    if (t->switched || t->past.state == MIRROR_SWITCHED)
        tap_answer(t, tap_error(call->arena, "mirror-abort: it has switched", 0), NULL);
    else
        leave_or_forget(t);
}

/* --- switching ---------------------------------------------------------------------------- */

/* The switch itself: the spec names the target, durably. */
static int commit(void *ctx)
{
    struct tap *t = ctx;
    struct spec old = t->spec;
    const char *colon = strchr(old.mirror, ':');

    CHECK(colon != NULL);
    spec_copy(&t->spec, &old);
    xfree(t->spec.format);
    t->spec.format = xstrndup(old.mirror, (size_t)(colon - old.mirror));
    spec_set_string(&t->spec.path, colon + 1);
    if (t->mirror_options.layer.mode != MIRROR_MERGE)
        spec_set_string(&t->spec.cbt, "");
    spec_set_string(&t->spec.mirror, "");
    spec_set_string(&t->spec.mirror_options, state_names[MIRROR_SWITCHED]);
    int rc = spec_write(t->spec_path, &t->spec, true);
    if (rc < 0) {
        spec_release(&t->spec);
        t->spec = old;
        return rc;
    }
    spec_release(&old);
    t->switched = true;
    return 0;
}

void verb_mirror_switch(struct tap *t, struct control_call *call)
{
    enum mirror_mode mode = t->mirror_options.layer.mode;
    struct mirror_status m;
    const char *why = NULL;

    tap_mirror_get(t, &m);
    if (m.state != MIRROR_SWITCHED && (t->mirror == NULL || is_over(m.state)))
        why = arena_printf(call->arena, "mirror-switch: the mirror is %s %s", state_names[m.state], m.error);
    else if (m.state != MIRROR_SWITCHED && mode != MIRROR_FOLLOW && mode != MIRROR_MERGE)
        why = "mirror-switch: this one only copies";
    else if (m.state != MIRROR_SWITCHED)
        mirror_switch(t->mirror, commit, t);
    tap_answer(t, why != NULL ? tap_error(call->arena, why, 0) : NULL, NULL);
}

/* --- handing over ---------------------------------------------------------------------------------- */

/* Durably done, and nobody is served here any more. */
static int commit_hand_over(void *ctx)
{
    struct tap *t = ctx;
    struct spec old = t->spec;

    spec_copy(&t->spec, &old);
    t->spec.state = SPEC_PAUSED;
    tap_mirror_past(t, MIRROR_DONE, "");
    int rc = spec_write(t->spec_path, &t->spec, true);
    if (rc < 0) {
        spec_release(&t->spec);
        t->spec = old;
        t->past.state = MIRROR_NONE;
        t->past.handed = false;
        return rc;
    }
    spec_release(&old);
    return 0;
}

static void hand_over(struct tap *t, int result)
{
    struct error *e = result < 0 ? tap_error(t->call->arena, "flushing before the hand-over", result) : NULL;
    struct mirror_status m;

    tap_mirror_get(t, &m);
    if (e == NULL && is_over(m.state))
        e = tap_error(t->call->arena, arena_printf(t->call->arena, "mirror-hand-over: the mirror is %s %s", state_names[m.state], m.error), 0);
    if (e == NULL) {
        t->handing = true;
        mirror_hand_over(t->mirror, commit_hand_over, t);
    } else {
        gate_open(t->gate);
    }
    tap_answer(t, e, NULL);
}

void verb_mirror_hand_over(struct tap *t, struct control_call *call)
{
    struct mirror_status m;
    const char *why = NULL;

    tap_mirror_get(t, &m);
    if ((m.state == MIRROR_DONE && t->past.handed) || tap_mirror_holds(t)) {
        tap_answer(t, NULL, NULL); /* a repeated call */
        return;
    }
    if (t->mirror == NULL || is_over(m.state))
        why = arena_printf(call->arena, "mirror-hand-over: the mirror is %s %s", state_names[m.state], m.error);
    else if (t->mirror_options.layer.mode != MIRROR_FOLLOW)
        why = "mirror-hand-over: this one only copies";
    else if (t->spec.state != SPEC_ACTIVE || tap_is_away(t))
        why = tap_is_away(t) ? TAP_AWAY : "mirror-hand-over: the disk is not active";
    if (why != NULL)
        tap_answer(t, tap_error(call->arena, why, 0), NULL);
    else
        tap_hold(t, true, hand_over);
}

static void forgotten(struct tap *t, int result)
{
    tap_after_fn *after = t->then;

    t->then = NULL;
    tap_mirror_past(t, MIRROR_NONE, "");
    unlink(t->map_path);
    after(t, 0);
}

void tap_mirror_take_back(struct tap *t, tap_after_fn *after)
{
    bool done = t->past.state == MIRROR_DONE && t->past.handed;

    if (!done && t->mirror != NULL)
        mirror_hand_back(t->mirror);
    t->handing = false;
    t->then = after;
    if (done && t->mirror != NULL)
        tap_mirror_leave(t, forgotten);
    else if (done)
        forgotten(t, 0);
    else
        after(t, 0);
}

/* --- setting ---------------------------------------------------------------------------------------- */

void verb_mirror_set(struct tap *t, struct control_call *call)
{
    int64_t bandwidth = argument_int(&call->arguments, "bandwidth", -1), budget = argument_int(&call->arguments, "budget_ms", -1);
    struct mirror_options *o = &t->mirror_options.layer;

    if (t->mirror == NULL || bandwidth < -1 || budget < -1 || budget > 3600000) {
        tap_answer(t, tap_error(call->arena, t->mirror == NULL ? "mirror-set: there is no mirror" : "mirror-set: malformed", 0), NULL);
        return;
    }
    mirror_set(t->mirror, bandwidth, budget < 0 ? -1 : budget * 1000);
    o->bandwidth = bandwidth >= 0 ? bandwidth : o->bandwidth;
    o->budget_us = budget >= 0 ? budget * 1000 : o->budget_us;
    if (t->spec.mirror[0] != '\0')
        options_keep(t);
    tap_answer(t, tap_save(t, call->arena, false), NULL);
}
