/* The verbs of control_protocol.h, but those of the mirror. */
#include <errno.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "storage/tapd/tap.h"

LOG_MODULE(tap);

/* --- activate, resume: from held to served --------------------------------------------------------- */

static void open_gate(struct tap *t)
{
    if (t->source != NULL && !gate_is_open(t->gate))
        gate_open(t->gate);
}

/* The spec becomes what is open now; then the guest goes on. On failure nothing is open and the old spec stands. */
static struct error *serve(struct tap *t, struct arena *a, const char *format, const char *path, const char *cbt)
{
    struct spec old = t->spec;

    if (t->source == NULL)
        TRY(tap_open(t, a, format, path, cbt));
    spec_copy(&t->spec, &old);
    spec_set_string(&t->spec.format, format);
    spec_set_string(&t->spec.path, path);
    spec_set_string(&t->spec.cbt, cbt);
    t->spec.size = t->gate->size;
    t->spec.state = SPEC_ACTIVE;
    struct error *e = tap_save(t, a, false);
    if (e != NULL) {
        spec_release(&t->spec);
        t->spec = old;
        tap_close(t);
        return e;
    }
    spec_release(&old);
    tap_mirror_again(t, a);
    open_gate(t);
    return NULL;
}

static struct error *serve_spec(struct tap *t, struct arena *a)
{
    return gate_is_open(t->gate) ? NULL : serve(t, a, t->spec.format, t->spec.path, t->spec.cbt);
}

static void answer_state(struct tap *t, const struct error *e)
{
    if (e != NULL)
        tap_answer(t, e, NULL);
    else
        tap_answer_state(t);
}

static void activate(struct tap *t, int result) { answer_state(t, serve_spec(t, t->call->arena)); }

static void verb_activate(struct tap *t, struct control_call *call) { tap_mirror_take_back(t, activate); }

/* From inside: what the spec asks for, at the start and while that does not work. */
static void verb_start(struct tap *t, struct control_call *call)
{
    if (t->spec.state == SPEC_ACTIVE && t->source == NULL) {
        const struct error *e = serve_spec(t, call->arena);
        if (e != NULL) {
            log_err("%s: cannot be served: %s", t->spec.key, error_text(call->arena, e));
            tap_fail_later(t);
        }
    }
    tap_answer(t, NULL, NULL);
}

/* --- pause, deactivate, quit: from served to held -------------------------------------------------- */

static void paused(struct tap *t, int result)
{
    enum spec_state before = t->spec.state;
    struct error *e = result < 0 ? tap_error(t->call->arena, "flushing before the pause", result) : NULL;

    t->spec.state = SPEC_PAUSED;
    if (e == NULL)
        e = tap_save(t, t->call->arena, false);
    if (e != NULL) {
        t->spec.state = before;
        if (before == SPEC_ACTIVE)
            open_gate(t);
    }
    answer_state(t, e);
}

static void verb_pause(struct tap *t, struct control_call *call)
{
    if (t->spec.state == SPEC_ACTIVE && tap_is_away(t))
        answer_state(t, tap_error(call->arena, TAP_AWAY, 0));
    else if (t->spec.state == SPEC_ACTIVE)
        tap_hold(t, true, paused);
    else
        tap_answer_state(t);
}

static struct error *let_go(struct tap *t, struct arena *a, int flushed)
{
    int rc = tap_close(t);

    t->spec.state = SPEC_INACTIVE;
    struct error *saved = tap_save(t, a, false);
    if (flushed < 0)
        return tap_error(a, "flushing before closing", flushed);
    return rc < 0 ? tap_error(a, "closing", rc) : saved;
}

static void end_process(struct tap *t) { loop_stop(t->loop); }

static void deactivated(struct tap *t, int result)
{
    bool quitting = strcmp(t->call->verb, "quit") == 0;

    answer_state(t, let_go(t, t->call->arena, result));
    if (quitting)
        end_process(t);
}

static void mirror_left(struct tap *t, int result)
{
    if (t->past.state == MIRROR_NONE)
        tap_mirror_past(t, MIRROR_FAILED, "the disk was deactivated");
    tap_hold(t, true, deactivated);
}

static void verb_deactivate(struct tap *t, struct control_call *call)
{
    if (tap_is_away(t)) {
        answer_state(t, tap_error(call->arena, TAP_AWAY, 0));
        return;
    }
    loop_timer_clear(t->loop, &t->again);
    if (t->mirror != NULL)
        tap_mirror_leave(t, mirror_left);
    else
        tap_hold(t, true, deactivated);
}

static void shut_down(struct tap *t, int result)
{
    if (result < 0)
        log_err("%s: flushing at the end: %s", t->spec.path, strerror(-result));
    tap_answer(t, NULL, NULL);
    end_process(t);
}

/* SIGTERM: the spec stays as it is. */
static void verb_shutdown(struct tap *t, struct control_call *call) { tap_hold(t, true, shut_down); }

/* --- resume on another chain ----------------------------------------------------------------------- */

static struct error *move_spec(struct tap *t, struct control_call *call)
{
    const struct value *v = &call->arguments;

    spec_set_string(&t->spec.format, value_get_string(v, "format", t->spec.format));
    spec_set_string(&t->spec.path, value_get_string(v, "path", t->spec.path));
    spec_set_string(&t->spec.cbt, value_get_string(v, "cbt", t->spec.cbt));
    return tap_save(t, call->arena, false);
}

static void reopen(struct tap *t, int result)
{
    struct control_call *call = t->call;
    const struct value *v = &call->arguments;
    struct error *e = result < 0 ? tap_error(call->arena, "flushing before the change", result) : NULL;
    bool read_only = t->spec.read_only;

    if (e == NULL) {
        int rc = tap_close(t);
        if (rc < 0)
            log_err("%s: closing: %s", t->spec.path, strerror(-rc)); /* it was flushed: the new one counts */
        t->spec.read_only = argument_bool(v, "read_only", t->spec.read_only);
        e = serve(t, call->arena, value_get_string(v, "format", t->spec.format), value_get_string(v, "path", t->spec.path),
                  value_get_string(v, "cbt", t->spec.cbt));
    } else if (t->spec.state == SPEC_ACTIVE) {
        open_gate(t);
    }
    if (e != NULL)
        t->spec.read_only = read_only;
    if (e != NULL && t->source == NULL && t->spec.state == SPEC_ACTIVE)
        t->spec.state = SPEC_PAUSED; /* a resume without a chain opens the old one */
    answer_state(t, e);
}

static void verb_resume(struct tap *t, struct control_call *call)
{
    const struct value *v = &call->arguments;
    bool other = value_get(v, "path") != NULL || value_get(v, "cbt") != NULL || value_get(v, "format") != NULL || value_get(v, "read_only") != NULL;

    if (other && tap_has_mirror(t))
        tap_answer(t, tap_error(call->arena, "no other chain while there is a mirror", 0), NULL);
    else if (t->spec.state == SPEC_INACTIVE)
        answer_state(t, other ? move_spec(t, call) : NULL);
    else if (other && tap_is_away(t))
        answer_state(t, tap_error(call->arena, TAP_AWAY, 0));
    else if (other)
        tap_hold(t, true, reopen);
    else
        verb_activate(t, call);
}

/* --- smaller ones ---------------------------------------------------------------------------------- */

static struct error *resize(struct tap *t, struct control_call *call)
{
    int64_t size = argument_int(&call->arguments, "size", INT64_MIN);

    if (size < t->gate->size || (size & 511) != 0)
        return tap_error(call->arena, "resize: the size is malformed or smaller", 0);
    if (tap_has_mirror(t))
        return tap_error(call->arena, "no resizing while there is a mirror", 0);
    int rc = t->source != NULL ? block_resized(t->gate, size) : 0;
    if (rc < 0)
        return tap_error(call->arena, "resize", rc);
    t->gate->size = t->spec.size = size;
    return tap_save(t, call->arena, false);
}

static void verb_resize(struct tap *t, struct control_call *call) { answer_state(t, resize(t, call)); }

static struct error *throttle(struct tap *t, struct control_call *call)
{
    int64_t bytes = argument_int(&call->arguments, "bytes", 0), operations = argument_int(&call->arguments, "operations", 0);

    if (bytes < 0 || operations < 0)
        return tap_error(call->arena, "throttle: malformed", 0);
    t->spec.throttle_bytes = bytes;
    t->spec.throttle_operations = operations;
    tap_throttle(t);
    return tap_save(t, call->arena, false);
}

static void verb_throttle(struct tap *t, struct control_call *call) { tap_answer(t, throttle(t, call), NULL); }

static void verb_users(struct tap *t, struct control_call *call)
{
    spec_set_string(&t->spec.users, value_get_string(&call->arguments, "users", ""));
    spec_set_string(&t->spec.key, value_get_string(&call->arguments, "key", t->spec.key));
    tap_answer(t, tap_save(t, call->arena, false), NULL);
}

/* The certificate where TLS is asked for; *bad_r when it is missing. */
static const char *certificate_of(const struct value *v, bool *bad_r)
{
    const char *path = value_get_string(v, "certificate", "");
    bool tls = argument_bool(v, "tls", false);

    *bad_r = tls && path[0] == '\0';
    return tls ? path : NULL;
}

static void verb_adopt(struct tap *t, struct control_call *call)
{
    bool bad;
    const char *certificate = certificate_of(&call->arguments, &bad);
    struct error *e = NULL;

    if (bad || call->fd < 0 || t->spec.sealed) {
        e = tap_error(call->arena, bad ? "adopt: tls without a certificate" : t->spec.sealed ? "adopt: cut off" : "adopt: no descriptor came along", 0);
    } else {
        int rc = nbd_server_adopt(t->server, fd_steal(&call->fd), argument_bool(&call->arguments, "read_only", false), certificate);
        if (rc < 0)
            e = tap_error(call->arena, "adopt", rc);
    }
    tap_answer(t, e, NULL);
}

static void verb_listen(struct tap *t, struct control_call *call)
{
    const struct value *v = &call->arguments;
    int64_t port = argument_int(v, "port", 0);
    unsigned got = 0;
    bool bad;
    const char *certificate = certificate_of(v, &bad);
    int rc = -EINVAL;

    if (!bad && port >= 0 && port <= 65535)
        rc = nbd_server_listen_tcp(t->server, value_get_string(v, "address", ""), (unsigned)port, certificate, argument_bool(v, "read_only", false), &got);
    const struct member members[] = { member_of("port", value_int(got)) };
    struct value result = value_map(members, 1);
    tap_answer(t, rc < 0 ? tap_error(call->arena, "listen", rc) : NULL, &result);
}

static void verb_unlisten(struct tap *t, struct control_call *call)
{
    nbd_server_unlisten_tcp(t->server);
    tap_answer(t, NULL, NULL);
}

/* Drained: nothing of those that were dropped is below. */
static void cut_drained(struct tap *t, int result)
{
    if (t->was_open)
        gate_open(t->gate);
    tap_answer(t, NULL, NULL);
}

static void verb_cut(struct tap *t, struct control_call *call)
{
    t->spec.sealed = true;
    struct error *e = tap_save(t, call->arena, false);

    nbd_server_cut(t->server);
    t->was_open = gate_is_open(t->gate);
    if (e == NULL && t->was_open && tap_is_away(t))
        e = tap_error(call->arena, TAP_AWAY, 0);
    if (e != NULL || !t->was_open)
        tap_answer(t, e, NULL);
    else
        tap_hold(t, false, cut_drained);
}

static void verb_fault_arm(struct tap *t, struct control_call *call)
{
    const char *spec = value_get_string(&call->arguments, "spec", "");
    const char *why = NULL;
    AUTO_TEXT list = TEXT_INIT;

    if (t->allow_faults)
        fault_list(&list);
    const struct member was = member_of("was", value_string(arena_strdup(call->arena, list.len > 0 ? list.bytes : "")));
    struct value result = value_map(&was, 1);
    if (!t->allow_faults)
        why = "faults are not allowed here";
    else if (spec[0] == '\0')
        fault_disarm(NULL);
    else if (!fault_arm(spec))
        why = "fault-arm: malformed";
    control_answer(call, why != NULL ? tap_error(call->arena, why, 0) : NULL, why == NULL ? &result : NULL);
}

/* --- the table ------------------------------------------------------------------------------------- */

static const struct verb {
    const char *name;
    tap_verb_fn *run;
    bool at_once;  /* beside whatever runs; answers by control_answer */
    bool internal; /* not for clients */
} verbs[] = {
    { .name = "status", .run = verb_status, .at_once = true },
    { .name = "fault-arm", .run = verb_fault_arm, .at_once = true },
    { .name = "activate", .run = verb_activate },
    { .name = "deactivate", .run = verb_deactivate },
    { .name = "pause", .run = verb_pause },
    { .name = "resume", .run = verb_resume },
    { .name = "resize", .run = verb_resize },
    { .name = "throttle", .run = verb_throttle },
    { .name = "users", .run = verb_users },
    { .name = "adopt", .run = verb_adopt },
    { .name = "listen", .run = verb_listen },
    { .name = "unlisten", .run = verb_unlisten },
    { .name = "cut", .run = verb_cut },
    { .name = "mirror-start", .run = verb_mirror_start },
    { .name = "mirror-set", .run = verb_mirror_set },
    { .name = "mirror-switch", .run = verb_mirror_switch },
    { .name = "mirror-hand-over", .run = verb_mirror_hand_over },
    { .name = "mirror-abort", .run = verb_mirror_abort },
    { .name = "mirror-end", .run = verb_mirror_end },
    { .name = "quit", .run = verb_deactivate },
    { .name = "start", .run = verb_start, .internal = true },
    { .name = "shutdown", .run = verb_shutdown, .internal = true },
};

static const struct verb *verb_of(const struct control_call *call)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verbs[i].name, call->verb) == 0 && (call->conn == NULL || !verbs[i].internal))
            return &verbs[i];
    return NULL;
}

bool tap_runs_at_once(const struct control_call *call)
{
    const struct verb *v = verb_of(call);

    return v != NULL && v->at_once;
}

void tap_run(struct tap *t, struct control_call *call)
{
    const struct verb *v = verb_of(call);

    if (v != NULL)
        v->run(t, call);
    else
        tap_answer(t, tap_error(call->arena, arena_printf(call->arena, "unknown verb: %s", call->verb), 0), NULL);
}
