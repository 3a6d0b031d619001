/* The verb "status". */
#include "rpc/nbd/nbd_uri.h"
#include "storage/tapd/tap.h"

struct words {
    struct arena *arena;
    struct value_dict dict;
};

static void number(struct words *w, const char *name, int64_t n) { value_dict_add(w->arena, &w->dict, name, value_int(n)); }
static void string(struct words *w, const char *name, const char *s) { value_dict_add(w->arena, &w->dict, name, value_string(s)); }

static void add_counts(struct words *w, const struct tap *t)
{
    struct block_stats s = { 0 };

    if (t->stats != NULL)
        stats_get(t->stats, &s);
    number(w, "reads", (int64_t)s.reads);
    number(w, "writes", (int64_t)s.writes);
    number(w, "flushes", (int64_t)s.flushes);
    number(w, "bytes_read", (int64_t)s.bytes_read);
    number(w, "bytes_written", (int64_t)s.bytes_written);
    number(w, "errors", (int64_t)s.errors);
}

static void add_mirror(struct words *w, const struct tap *t)
{
    struct mirror_status m;

    tap_mirror_get(t, &m);
    string(w, "mirror", mirror_state_name(m.state));
    if (m.state == MIRROR_NONE)
        return;
    string(w, "mirror_mode", tap_mirror_mode(t));
    number(w, "mirror_total", m.total);
    number(w, "mirror_copied", m.copied);
    number(w, "mirror_dirty", m.dirty);
    number(w, "mirror_unproven", m.unproven);
    number(w, "mirror_sent", m.sent);
    number(w, "mirror_rate", m.rate);
    number(w, "mirror_write_rate", m.write_rate);
    number(w, "mirror_eta_ms", m.eta_us < 0 ? -1 : (m.eta_us + 999) / 1000);
    number(w, "mirror_left", m.left);
    number(w, "mirror_millionths", (int64_t)(m.fraction * 1e6));
    number(w, "mirror_passes", m.passes);
    number(w, "mirror_repaired", m.repaired);
    number(w, "mirror_proven", m.proven);
    number(w, "mirror_pause_us", m.pause_us);
    string(w, "mirror_error", arena_strdup(w->arena, m.error));
    number(w, "mirror_lost_us", m.lost_us);
    number(w, "mirror_lost", m.lost);
    number(w, "mirror_handing", tap_mirror_holds(t));
    number(w, "mirror_handed", t->past.state == MIRROR_DONE && t->past.handed);
}

void verb_status(struct tap *t, struct control_call *call)
{
    struct words w = { .arena = call->arena };

    string(&w, "state", spec_state_name(t->spec.state));
    number(&w, "serving", gate_is_open(t->gate));
    number(&w, "size", t->gate->size);
    number(&w, "read_only", t->spec.read_only);
    string(&w, "key", t->spec.key);
    string(&w, "format", t->spec.format);
    string(&w, "path", nbd_uri_shown(call->arena, t->spec.path));
    string(&w, "cbt", t->spec.cbt);
    string(&w, "users", t->spec.users);
    number(&w, "clients", nbd_server_clients(t->server));
    number(&w, "in_flight", (int64_t)gate_in_flight(t->gate) + gate_held(t->gate));
    string(&w, "io", disk_io_name(t->io));
    add_counts(&w, t);
    add_mirror(&w, t);
    struct value v = value_dict_value(&w.dict);
    control_answer(call, NULL, &v);
}
