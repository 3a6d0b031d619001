/* The source's side of a move: a table of steps, each with its undo, run in order (wire.h says what goes
 * over the wire, journal.h what is made durable when).
 *
 * Agent verb "migrate.send". Arguments:
 *   migration_id, vm (uuid), spec (vm_spec as the destination must see it)
 *   destination {address, port, tls, fingerprint, cookie}; key: what a peer without the pool's secret is shown
 *   final              uuid of the VM there (vm)
 *   disks              closed here when the guest stands (disks.h)
 *   destination_disks  opened there once it has committed (disks)
 *   vifs               announced there (announce.h)
 *   live, localhost, paused (stays paused there), hold (goes on with pre-copy until migrate.control says hold = false)
 *   max_downtime_ms, bandwidth (bytes/s), timeout_s with on_timeout ("continue", "abort", "suspend", "postcopy"),
 *   postcopy ("never", "allowed", "after:<s>"), fallback_non_live, auto_converge
 *   streams (1..16; 0: chosen), compress ("off", "on", "auto")
 * Result: rounds, pages, zero_pages, bytes (of the image), wire_bytes, blackout_us, duration_us, suspended_at_us (mono),
 *   streams, compress, predicted_blackout_us, predicted_total_us (-1: never), dirty_rate, link_rate, throttle,
 *   will_not_converge, postcopy, pages_left, postcopy_bytes, postcopy_error, paused, network_blackout_us and frames (where the
 *   destination announced), domid, phase.<step>_us for every step that ran.
 * Errors beside those of the steps: SAVE_NO_CONVERGENCE, SAVE_TIMEOUT, SAVE_YIELDED (xenops/backend.h) as they are. */
#include "xapi/migrate/sender.h"

#include "rpc/base/fault.h"
#include "rpc/base/log.h"

LOG_MODULE(sender);

/* In the order they run. Up to and including 'go' a failure undoes what was done, last first; 'go' itself
 * fails only on the destination's durable ABORTED; what follows it cannot fail. */
static const struct step {
    const char *name;
    sender_step_fn *run;
    sender_undo_fn *undo;
} steps[] = {
    { "journal", sender_step_journal, sender_undo_journal }, { "prepare", sender_step_prepare, sender_undo_prepare },
    { "connect", sender_step_connect, sender_undo_connect }, { "memory", sender_step_memory, sender_undo_memory },
    { "stream", sender_step_stream, sender_undo_stream },    { "ready", sender_step_ready, NULL },
    { "rename", sender_step_rename, sender_undo_rename },    { "go", sender_step_go, NULL },
    { "running", sender_step_running, NULL },                { "pages", sender_step_pages, NULL },
    { "finish", sender_step_finish, NULL },
};
_Static_assert(ARRAY_LEN(steps) <= SENDER_STEPS_MAX, "steps");

unsigned sender_step_count(void) { return ARRAY_LEN(steps); }
const char *sender_step_name_at(unsigned i) { return steps[i].name; }
const char *sender_step_name(const struct sender *s) { return steps[atomic_load(&s->step)].name; }

/* A failed connect or memory step has half a connection to close: its undo runs too. */
static void undo_from(struct sender *s, unsigned failed)
{
    if (steps[failed].run == sender_step_connect || steps[failed].run == sender_step_memory)
        steps[failed].undo(s);
    while (failed-- > 0)
        if (steps[failed].undo != NULL)
            steps[failed].undo(s);
}

/* After the commit point there is no way back: a fault point there can only kill the process. */
static struct error *run_step(struct sender *s, unsigned i, bool committed)
{
    int64_t began = clock_us(s->c->clock);

    atomic_store(&s->step, i);
    if (fault_hit(arena_printf(s->c->arena, "migrate.source.%s", steps[i].name)) && !committed)
        return err_internal(s->c->arena, "injected fault before step %s", steps[i].name);
    struct error *e = steps[i].run(s);
    s->step_us[i] = clock_us(s->c->clock) - began;
    return e;
}

static struct error *run_steps(struct sender *s)
{
    bool committed = false;
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        struct error *e = run_step(s, i, committed);
        if (e == NULL && steps[i].run == sender_step_go)
            committed = true;
        if (e == NULL)
            continue;
        log_warn("migration %s of %s failed at '%s' and is rolled back: %s", s->id, s->vm_uuid, steps[i].name, error_text(s->c->arena, e));
        if (s->m->stopping && steps[i].run == sender_step_go)
            return e; /* the outcome is unknown: the journal says GO-SENT and recovery asks again */
        undo_from(s, i);
        return e;
    }
    return NULL;
}

static void tell(const struct sender *s)
{
    const struct save_result *r = &s->saved;

    log_info("migration %s of %s: %u rounds, %lld pages, %llu bytes on %u connections (compress %s), blackout %lld us (predicted %lld), "
             "%lld us in all (predicted %lld)%s",
             s->id, s->vm_uuid, r->rounds, (long long)r->pages_sent, (unsigned long long)s->wire_bytes, s->n_streams,
             fan_compress_name(s->compress), (long long)(s->running_us - r->suspended_at_us), (long long)r->predicted_blackout_us,
             (long long)(clock_us(s->c->clock) - s->began_us), (long long)r->predicted_total_us, r->postcopy ? ", post-copy" : "");
}

struct error *migrate_verb_send(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct sender s = { .c = c, .steady = *c, .m = xapi->migrations, .began_us = clock_us(c->clock), .control = SAVE_CONTROL_INIT };

    s.steady.cancel = NULL;
    s.steady.deadline_ms = 0;
    TRY(sender_init(&s, args));
    TRY(sender_enter(&s));
    struct error *e = run_steps(&s);
    sender_close_memory(&s);
    sender_close_vm(&s);
    sender_leave(&s);
    TRY(e);
    tell(&s);
    *result_r = sender_result(&s);
    return NULL;
}
