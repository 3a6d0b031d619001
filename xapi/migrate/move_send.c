#include "xapi/migrate/move_send.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/announce.h"
#include "xapi/migrate/disk_send.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/move_note.h"
#include "xapi/migrate/move_source.h"
#include "xapi/migrate/move_watch.h"

LOG_MODULE(move);

#define ATTEMPTS 3
#define SETTLE_TRIES 240
#define SETTLE_PAUSE_MS 250

/* --- what is asked of the source host ------------------------------------------------------------------------------- */
static const char *compress_word(struct api_call *c, const struct move *m)
{
    bool here = m->destination.ops == &destination_local && strcmp(m->from, m->destination.host) == 0;
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    switch (m->options.compress) {
    case COMPRESS_ON:
        return "on";
    case COMPRESS_OFF:
        return "off";
    case COMPRESS_AUTO:
        return "auto";
    case COMPRESS_DEFAULT:
        break;
    }
    return !here && pools.n > 0 && row_bool(pools.rows[0], F_pool_migration_compression) ? "on" : "off";
}

static const char *postcopy_word(struct api_call *c, const struct move_options *o)
{
    switch (o->postcopy) {
    case POSTCOPY_NEVER:
        return "never";
    case POSTCOPY_ALLOWED:
        return "allowed";
    case POSTCOPY_AFTER:
        break;
    }
    return arena_printf(c->arena, "after:%lld", (long long)o->postcopy_after_s);
}

static void add_options(struct api_call *c, const struct move *m, struct value_dict *args)
{
    static const char *const on_timeout[] = { [TIMEOUT_CONTINUE] = "continue", [TIMEOUT_ABORT] = "abort", [TIMEOUT_SUSPEND] = "suspend",
                                              [TIMEOUT_POSTCOPY] = "postcopy" };
    const struct move_options *o = &m->options;
    value_dict_add(c->arena, args, "live", value_bool(o->live));
    value_dict_add(c->arena, args, "compress", value_string(compress_word(c, m)));
    value_dict_add(c->arena, args, "streams", value_int(o->streams));
    value_dict_add(c->arena, args, "bandwidth", value_int(o->bandwidth));
    value_dict_add(c->arena, args, "max_downtime_ms", value_int(o->max_downtime_ms));
    value_dict_add(c->arena, args, "timeout_s", value_int(o->timeout_s));
    value_dict_add(c->arena, args, "on_timeout", value_string(on_timeout[o->on_timeout]));
    value_dict_add(c->arena, args, "postcopy", value_string(postcopy_word(c, o)));
    value_dict_add(c->arena, args, "fallback_non_live", value_bool(o->fallback_non_live));
    value_dict_add(c->arena, args, "auto_converge", value_bool(o->auto_converge));
    value_dict_add(c->arena, args, "paused", value_bool(o->paused));
    value_dict_add(c->arena, args, "hold", value_bool(o->hold || o->window != NULL));
}

static struct value send_args(struct api_call *c, const struct move *m, const struct row *vm)
{
    bool here = m->destination.ops == &destination_local && strcmp(m->from, m->destination.host) == 0;
    struct value_dict args = { 0 };
    value_dict_add(c->arena, &args, "migration_id", value_string(m->attempt));
    value_dict_add(c->arena, &args, "key", value_string(m->key));
    value_dict_add(c->arena, &args, "vm", value_string(m->vm_uuid));
    value_dict_add(c->arena, &args, "final", value_string(m->final_uuid));
    value_dict_add(c->arena, &args, "spec", m->spec);
    value_dict_add(c->arena, &args, "disks", disk_send_closing(c, m));
    value_dict_add(c->arena, &args, "destination_disks", m->destination_disks);
    value_dict_add(c->arena, &args, "destination", migration_target_value(c->arena, &m->destination.target));
    value_dict_add(c->arena, &args, "vifs", announce_plan(c, vm));
    value_dict_add(c->arena, &args, "localhost", value_bool(here));
    add_options(c, m, &args);
    return value_dict_value(&args);
}

/* --- progress: the host's 0..1 is the rest of ours ------------------------------------------------------------------- */
struct scaled { void (*progress)(struct call *, double); void *ctx; double from; };

static void scaled_progress(struct call *call, double fraction)
{
    const struct scaled *s = call->progress_ctx;
    struct call outer = *call;
    outer.progress_ctx = s->ctx;
    if (s->progress != NULL)
        s->progress(&outer, s->from + (0.98 - s->from) * fraction);
}

static struct error *send_once(struct api_call *c, struct move *m, double from)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    m->attempt = uuid_make(c->arena);
    TRY(move_note_put(c, m, "send"));
    struct scaled scaled = { c->call.progress, c->call.progress_ctx, from };
    struct value args = send_args(c, m, vm);
    struct move_watch *watch = move_watch_start(c, m);
    c->call.progress = scaled_progress;
    c->call.progress_ctx = &scaled;
    struct error *e = agent_call(c, m->from, "migrate.send", &args, &m->result);
    c->call.progress = scaled.progress;
    c->call.progress_ctx = scaled.ctx;
    move_watch_stop(watch);
    return e;
}

/* --- a guest that ended meanwhile ------------------------------------------------------------------------------------ */
static bool guest_ended(const struct error *e)
{
    return error_is(e, SAVE_YIELDED) || error_is(e, "DOMAIN_NOT_FOUND") ||
           (error_is(e, "VM_BAD_POWER_STATE") && e->n_params >= 2 && strcmp(e->params[e->n_params - 1], "halted") == 0);
}

static bool somebody_else_acts(const struct row *vm)
{
    static const char *const ours[] = { "pool_migrate", "migrate_send", NULL };
    const struct value *current = row_value(vm, F_VM_current_operations);
    for (unsigned i = 0; i < current->len; i++) {
        bool is_ours = false;
        for (unsigned k = 0; ours[k] != NULL; k++)
            is_ours = is_ours || strcmp(current->members[i].value.s, ours[k]) == 0;
        if (!is_ours)
            return true;
    }
    return false;
}

/* Whoever shuts it down or reboots it finishes first; if it ended by itself, what its settings say is done here. */
static struct error *settle(struct api_call *c, const struct move *m, const char **state_r)
{
    const struct row *vm;
    for (unsigned tries = 0; tries < SETTLE_TRIES; tries++) {
        TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
        if (!somebody_else_acts(vm))
            break;
        if (call_cancelled(&c->call) || !migrations_pause(c->xapi->migrations, SETTLE_PAUSE_MS))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
    }
    TRY(vm_ended(c, m->vm, m->from));
    TRY(db_need(c->db, c->arena, CLASS_VM, m->vm, &vm));
    *state_r = row_string(vm, F_VM_power_state);
    return NULL;
}

/* --- goals that could not be kept --------------------------------------------------------------------------------------- */
static struct error *goals_error(struct api_call *c, const struct move *m, struct error *e)
{
    const char *text = error_is(e, SAVE_NO_CONVERGENCE) ? "the guest writes faster than its memory can be sent within max_downtime_ms"
                       : error_is(e, SAVE_TIMEOUT)      ? "timeout_s has passed"
                                                        : NULL;
    if (text == NULL)
        return e;
    const struct row *from = db_get(c->db, c->arena, &model_classes[CLASS_host], m->from);
    const char *full = e->cause != NULL ? arena_printf(c->arena, "%s: %s", text, e->cause) : text;
    return err_vm_migrate_failed(c->arena, m->vm_uuid, from != NULL ? row_string(from, F_host_uuid) : "", m->destination.host_uuid, full);
}

struct error *move_send(struct api_call *c, struct move *m, double from)
{
    struct api_call calm = internal_call_cleanup(c);
    struct error *e = NULL;
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        const char *state = "";
        e = send_once(c, m, from);
        if (e == NULL || !guest_ended(e))
            break;
        log_info("migration %s: the guest of VM %s ended in mid-migration", m->id, m->vm_uuid);
        move_source_forget(&calm, m);
        TRY(settle(c, m, &state));
        if (strcmp(state, "Running") == 0)
            continue; /* it rebooted */
        if (strcmp(state, "Halted") == 0 && strcmp(m->kind, "migrate_send") == 0)
            m->guest = MOVE_HALTED;
        break;
    }
    return e == NULL ? NULL : goals_error(c, m, vm_run_error(c, m->vm, e));
}
