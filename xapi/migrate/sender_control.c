/* The migrations that leave this host: what they are at, and what can be changed while they run.
 *
 * Verb migrate.status { migration_id } at the source -> phase (a step, or "switch" while the guest stands), round, rounds,
 * pages_sent, pages_total, pages_dirty, bytes, wire_bytes, dirty_rate (pages/s), link_rate (bytes/s), fraction, eta_ms
 * (-1: not known), predicted_blackout_us, predicted_total_us (-1), will_not_converge, throttle, streams, compress, hold,
 * paused, postcopy.
 * Verb migrate.control { migration_id, … } with any of bandwidth (bytes/s), max_downtime_ms, finish, paused, yield, hold,
 * postcopy. At the destination only 'paused' has a meaning. Unknown: INTERNAL_ERROR "no such migration". */
#include <string.h>

#include "xapi/migrate/receiver.h"
#include "xapi/migrate/sender.h"

struct error *sender_enter(struct sender *s)
{
    struct migrations *m = s->m;

    if (!migrations_claim(m, &s->claim, s->id))
        return err_internal(s->c->arena, "migration %s is already under way here", s->id);
    if (!migrations_enter(m, &s->worker)) {
        migrations_unclaim(m, &s->claim);
        return err_internal(s->c->arena, "this host's daemon is stopping");
    }
    lock_init(&s->lock, LOCK_LEAF);
    s->progress = (struct save_progress){ .predicted_blackout_us = -1, .predicted_total_us = -1 };
    LOCK_SCOPE(&m->lock);
    s->next = m->outgoing;
    m->outgoing = s;
    return NULL;
}

void sender_leave(struct sender *s)
{
    struct migrations *m = s->m;

    lock_take(&m->lock);
    for (struct sender **p = &m->outgoing; *p != NULL; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    lock_drop(&m->lock);
    migrations_unclaim(m, &s->claim);
    migrations_leave(m, &s->worker);
    lock_release(&s->lock);
}

static struct sender *find_locked(struct migrations *m, const char *id)
{
    for (struct sender *s = m->outgoing; s != NULL; s = s->next)
        if (strcmp(s->id, id) == 0)
            return s;
    return NULL;
}

static struct error *no_such(struct call *c)
{
    return err_internal(c->arena, "no such migration");
}

/* --- status ----------------------------------------------------------------------------------------------- */
struct picture { struct save_progress p; const char *phase, *compress; unsigned streams; int64_t elapsed_us; bool hold, paused; };

static bool picture_take(struct migrations *m, const char *id, int64_t now_us, struct picture *picture_r)
{
    LOCK_SCOPE(&m->lock);
    struct sender *s = find_locked(m, id);

    if (s == NULL)
        return false;
    lock_take(&s->lock);
    picture_r->p = s->progress;
    picture_r->streams = s->n_streams;
    picture_r->compress = fan_compress_name(s->compress);
    lock_drop(&s->lock);
    picture_r->phase = picture_r->p.suspended && strcmp(sender_step_name(s), "stream") == 0 ? "switch" : sender_step_name(s);
    picture_r->elapsed_us = now_us - s->began_us;
    picture_r->hold = atomic_load(&s->control.hold);
    picture_r->paused = atomic_load(&s->paused);
    return true;
}

/* By the prediction where there is one, else by what is done. */
static int64_t eta_ms(const struct picture *p)
{
    int64_t left = -1;

    if (p->p.predicted_total_us >= 0)
        left = (p->p.predicted_total_us - p->elapsed_us) / 1000;
    else if (p->p.fraction > 0.01)
        left = (int64_t)((double)p->elapsed_us * (1 - p->p.fraction) / p->p.fraction / 1000);
    else
        return -1;
    return left < 0 ? 0 : left;
}

struct error *migrate_verb_status(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct picture at;
    struct value_dict d = { 0 };
    struct arena *a = c->arena;

    if (!picture_take(xapi->migrations, value_get_string(args, "migration_id", ""), clock_us(c->clock), &at))
        return no_such(c);
    value_dict_add(a, &d, "phase", value_string(at.phase));
    value_dict_add(a, &d, "round", value_int(at.p.round));
    value_dict_add(a, &d, "rounds", value_int(at.p.round));
    value_dict_add(a, &d, "pages_sent", value_int(at.p.pages_sent));
    value_dict_add(a, &d, "pages_total", value_int(at.p.pages_total));
    value_dict_add(a, &d, "pages_dirty", value_int(at.p.pages_dirty));
    value_dict_add(a, &d, "bytes", value_int(at.p.bytes_sent));
    value_dict_add(a, &d, "dirty_rate", value_float(at.p.dirty_rate));
    value_dict_add(a, &d, "link_rate", value_float(at.p.link_rate));
    value_dict_add(a, &d, "fraction", value_float(at.p.fraction));
    value_dict_add(a, &d, "eta_ms", value_int(eta_ms(&at)));
    value_dict_add(a, &d, "predicted_blackout_us", value_int(at.p.predicted_blackout_us));
    value_dict_add(a, &d, "predicted_total_us", value_int(at.p.predicted_total_us));
    value_dict_add(a, &d, "will_not_converge", value_bool(at.p.will_not_converge));
    value_dict_add(a, &d, "throttle", value_int(at.p.throttle));
    value_dict_add(a, &d, "streams", value_int(at.streams));
    value_dict_add(a, &d, "compress", value_string(at.compress));
    value_dict_add(a, &d, "hold", value_bool(at.hold));
    value_dict_add(a, &d, "paused", value_bool(at.paused));
    value_dict_add(a, &d, "postcopy", value_bool(at.p.postcopy));
    *result_r = value_dict_value(&d);
    return NULL;
}

/* --- control ------------------------------------------------------------------------------------------------ */
static void set_flag(const struct value *args, const char *name, atomic_bool *flag)
{
    if (value_get(args, name) != NULL)
        atomic_store(flag, value_get_bool(args, name, false));
}

static void set_number(const struct value *args, const char *name, _Atomic int64_t *number)
{
    int64_t n = value_get_int(args, name, -1);

    if (value_get(args, name) != NULL && n >= -1)
        atomic_store(number, n);
}

static bool control_sender(struct migrations *m, const char *id, const struct value *args)
{
    LOCK_SCOPE(&m->lock);
    struct sender *s = find_locked(m, id);

    if (s == NULL)
        return false;
    set_number(args, "bandwidth", &s->control.bandwidth);
    set_number(args, "max_downtime_ms", &s->control.max_downtime_ms);
    set_flag(args, "finish", &s->control.finish);
    set_flag(args, "yield", &s->control.yield);
    set_flag(args, "hold", &s->control.hold);
    set_flag(args, "postcopy", &s->control.postcopy);
    set_flag(args, "paused", &s->paused);
    return true;
}

struct error *migrate_verb_control(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    const char *id = value_get_string(args, "migration_id", "");
    bool here = control_sender(xapi->migrations, id, args);

    if (value_get(args, "paused") != NULL)
        here = incoming_set_paused(xapi->migrations, id, value_get_bool(args, "paused", false)) || here;
    *result_r = value_map(NULL, 0);
    return here ? NULL : no_such(c);
}

/* --- the result of migrate.send -------------------------------------------------------------------------------- */
static void add_saved(struct arena *a, struct value_dict *d, const struct sender *s)
{
    const struct save_result *r = &s->saved;

    value_dict_add(a, d, "rounds", value_int(r->rounds));
    value_dict_add(a, d, "pages", value_int(r->pages_sent));
    value_dict_add(a, d, "zero_pages", value_int(r->zero_pages));
    value_dict_add(a, d, "bytes", value_int(r->bytes_sent));
    value_dict_add(a, d, "predicted_blackout_us", value_int(r->predicted_blackout_us));
    value_dict_add(a, d, "predicted_total_us", value_int(r->predicted_total_us));
    value_dict_add(a, d, "dirty_rate", value_float(r->dirty_rate));
    value_dict_add(a, d, "link_rate", value_float(r->link_rate));
    value_dict_add(a, d, "throttle", value_int(r->throttle));
    value_dict_add(a, d, "will_not_converge", value_bool(r->will_not_converge));
    value_dict_add(a, d, "postcopy", value_bool(r->postcopy));
    value_dict_add(a, d, "pages_left", value_int(r->pages_left));
    value_dict_add(a, d, "suspended_at_us", value_int(r->suspended_at_us));
}

/* What the destination said of its part; its announcement counts from when it unpaused the guest. */
static void add_report(struct arena *a, struct value_dict *d, const struct sender *s)
{
    int64_t announced = value_get_int(&s->report, "announced_us", -1);

    value_dict_add(a, d, "frames", value_int(value_get_int(&s->report, "frames", 0)));
    value_dict_add(a, d, "network_blackout_us", value_int(announced >= 0 ? s->running_us - s->saved.suspended_at_us + announced : -1));
    value_dict_add(a, d, "domid", value_int(value_get_int(&s->report, "domid", -1)));
}

struct value sender_result(struct sender *s)
{
    struct arena *a = s->c->arena;
    struct value_dict d = { 0 };

    add_saved(a, &d, s);
    add_report(a, &d, s);
    value_dict_add(a, &d, "wire_bytes", value_int((int64_t)s->wire_bytes));
    value_dict_add(a, &d, "blackout_us", value_int(s->running_us - s->saved.suspended_at_us));
    value_dict_add(a, &d, "duration_us", value_int(clock_us(s->c->clock) - s->began_us));
    value_dict_add(a, &d, "streams", value_int(s->n_streams));
    value_dict_add(a, &d, "compress", value_string(fan_compress_name(s->compress)));
    value_dict_add(a, &d, "paused", value_bool(atomic_load(&s->paused)));
    value_dict_add(a, &d, "postcopy_bytes", value_int(s->postcopy_bytes));
    value_dict_add(a, &d, "postcopy_error", value_string(s->postcopy_error != NULL ? s->postcopy_error : ""));
    for (unsigned i = 0; i < sender_step_count(); i++)
        value_dict_add(a, &d, arena_printf(a, "phase.%s_us", sender_step_name_at(i)), value_int(s->step_us[i]));
    return value_dict_value(&d);
}
