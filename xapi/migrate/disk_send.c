#include "xapi/migrate/disk_send.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/base/config.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/disk_mirror.h"
#include "xapi/migrate/move_watch.h"

LOG_MODULE(disk_send);

#define COPIES_AT_ONCE 3u
#define SILENCE_US 5000000 /* of another host: a slow medium takes its time to make things stable */
#define CONNECTIONS 2 /* of one disk to another host */

static const char *user_of(struct arena *a, const struct move *m) { return arena_printf(a, "send-%s", m->id); }

static bool same_host(const struct move *m) { return m->destination.peer == NULL && strcmp(m->from, m->destination.host) == 0; }

static struct disk_mirror mirror_of(const struct move *m, const struct move_disk *d)
{
    return (struct disk_mirror){ .host = m->from, .vdi = d->vdi, .sr = d->sr, .sr_uuid = d->sr_uuid, .location = d->location };
}

/* --- beginning and ending one ---------------------------------------------------------------------------------------- */
/* Within a host the target's tapd is reached by its own socket. */
static struct error *uri_of(struct api_call *c, const struct move *m, const struct move_disk *d, const char **uri_r)
{
    struct disk_mirror target = { .host = m->destination.host, .vdi = d->target, .sr = d->target_sr, .sr_uuid = d->target_sr_uuid, .location = d->target_location };
    const struct member args[] = { member_of("user", value_string(arena_printf(c->arena, "incoming-%s", m->id))), member_of("activate", value_bool(true)) };
    struct value where;

    *uri_r = d->uri;
    if (!same_host(m))
        return NULL;
    TRY(disk_mirror_verb(c, &target, "vdi.attach", args, ARRAY_LEN(args), &where));
    *uri_r = arena_strdup(c->arena, value_get_string(&where, "path", ""));
    return NULL;
}

static struct error *begin(struct api_call *c, const struct move *m, const struct move_disk *d, struct disk_mirror *mirror, int64_t bandwidth)
{
    bool copy = d->how == MOVE_DISK_COPY;
    const struct member attach[] = { member_of("user", value_string(user_of(c->arena, m))), member_of("activate", value_bool(true)),
                                     member_of("read_only", value_bool(copy)) };
    const char *uri;

    TRY(uri_of(c, m, d, &uri));
    TRY(disk_mirror_verb(c, mirror, "vdi.attach", attach, ARRAY_LEN(attach), NULL));
    const struct member start[] = {
        member_of("uri", value_string(uri)),
        member_of("mode", value_string(copy ? "copy" : "mirror")),
        member_of("bandwidth", value_int(bandwidth)),
        member_of("reconnect_us", value_int(config_int(c->xapi->config, "migration-reconnect-s") * 1000000)),
        member_of("silence_us", value_int(same_host(m) ? 0 : SILENCE_US)),
        member_of("streams", value_int(same_host(m) ? 1 : CONNECTIONS)),
    };
    struct error *e = disk_mirror_verb(c, mirror, "vdi.mirror_start", start, ARRAY_LEN(start), NULL);
    mirror->bandwidth = bandwidth;
    return error_is(e, "SR_BACKEND_FAILURE") ? disk_mirror_failed(c, mirror, error_text(c->arena, e)) : e;
}

static void end_one(struct api_call *c, const struct move *m, const struct move_disk *d)
{
    const struct disk_mirror mirror = mirror_of(m, d);
    const struct member args[] = { member_of("user", value_string(user_of(c->arena, m))) };
    struct error *e = disk_mirror_verb(c, &mirror, "vdi.mirror_abort", NULL, 0, NULL);

    if (e != NULL)
        log_info("migration %s: ending the mirror of %s: %s", m->id, d->location, error_text(c->arena, e));
    e = disk_mirror_verb(c, &mirror, "vdi.detach", args, ARRAY_LEN(args), NULL);
    if (e != NULL)
        log_warn("migration %s: letting go of %s: %s", m->id, d->location, error_text(c->arena, e));
}

/* --- what was measured ----------------------------------------------------------------------------------------------- */
static void tell_one(struct api_call *c, const struct move *m, const struct move_disk *d, const struct value *status)
{
    static const char *const keys[][2] = { { "mirror_sent", "bytes" }, { "mirror_proven", "proven" }, { "mirror_repaired", "repaired" },
                                           { "mirror_pause_us", "pause_us" } };
    struct value_dict facts = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        value_dict_add(c->arena, &facts, arena_printf(c->arena, "disk.%s.%s", d->uuid, keys[i][1]),
                       value_string(arena_printf(c->arena, "%lld", (long long)value_get_int(status, keys[i][0], 0))));
    struct value v = value_dict_value(&facts);
    move_facts(c, m, &v);
}

void disk_send_tell(struct api_call *c, const struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        struct disk_mirror mirror = mirror_of(m, &m->disks[i]);

        if (m->disks[i].how != MOVE_DISK_MIRROR)
            continue;
        struct error *e = disk_mirror_verb(c, &mirror, "vdi.mirror_status", NULL, 0, &mirror.status);
        if (e != NULL)
            log_info("migration %s: what %s measured is lost: %s", m->id, m->disks[i].location, error_text(c->arena, e));
        else
            tell_one(c, m, &m->disks[i], &mirror.status);
    }
}

/* --- several at once ---------------------------------------------------------------------------------------------------- */
struct lane { const struct move_disk *d; struct disk_mirror mirror; bool begun, there; };
struct sending {
    struct api_call *c, calm;
    struct move *m;
    struct lane *lanes;
    unsigned n, limit;     /* lanes; how many at once */
    const char *wanted;    /* the state they are to be in */
    bool ends;             /* which is the end of them */
    double from, to, told; /* progress */
};

static int by_size(const void *a, const void *b)
{
    const struct lane *x = a, *y = b;
    return x->d->size < y->d->size ? -1 : x->d->size > y->d->size;
}

static void choose(struct sending *s, enum move_disk_how how)
{
    s->lanes = arena_alloc(s->c->arena, (s->m->n_disks + 1) * sizeof *s->lanes);
    for (unsigned i = 0; i < s->m->n_disks; i++)
        if (s->m->disks[i].how == how)
            s->lanes[s->n++] = (struct lane){ .d = &s->m->disks[i], .mirror = mirror_of(s->m, &s->m->disks[i]) };
    qsort(s->lanes, s->n, sizeof *s->lanes, by_size);
}

static unsigned active(const struct sending *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->n; i++)
        n += s->lanes[i].begun && !(s->ends && s->lanes[i].there);
    return n;
}

/* Of each of n at once; 0: unlimited. */
static int64_t share_of(const struct sending *s, unsigned n)
{
    int64_t all = disk_mirror_wanted_bandwidth(s->c, s->m->options.bandwidth);
    return all == 0 ? 0 : n == 0 || all / n > 0 ? all / (n > 0 ? n : 1) : 1;
}

static struct error *begin_more(struct sending *s)
{
    unsigned n = active(s), more = 0;

    for (unsigned i = 0; i < s->n; i++)
        more += !s->lanes[i].begun;
    unsigned then = n + more < s->limit ? n + more : s->limit;
    for (unsigned i = 0; i < s->n && n < s->limit; i++) {
        if (s->lanes[i].begun)
            continue;
        s->lanes[i].begun = true; /* also one that fails half way is ended */
        TRY(begin(s->c, s->m, s->lanes[i].d, &s->lanes[i].mirror, share_of(s, then)));
        n++;
    }
    return NULL;
}

static struct error *look(struct sending *s, struct lane *l)
{
    TRY(disk_mirror_look(&s->calm, &l->mirror));
    const char *state = disk_mirror_state(&l->mirror);
    double now = (double)value_get_int(&l->mirror.status, "mirror_millionths", 0) / 1e6;

    l->mirror.progress = now > l->mirror.progress ? now : l->mirror.progress;
    if (strcmp(state, "failed") == 0 || strcmp(state, "none") == 0)
        return disk_mirror_cause(s->c, &l->mirror);
    l->there = strcmp(state, s->wanted) == 0;
    if (!l->there || !s->ends)
        return NULL;
    tell_one(s->c, s->m, l->d, &l->mirror.status);
    end_one(&s->calm, s->m, l->d);
    return NULL;
}

static void tell(struct sending *s)
{
    double all = 0, done = 0;
    int64_t eta = 0, left = 0;

    for (unsigned i = 0; i < s->n; i++) {
        const struct lane *l = &s->lanes[i];
        int64_t its = value_get_int(&l->mirror.status, "mirror_eta_ms", 0);

        all += (double)l->d->size + 1;
        done += ((double)l->d->size + 1) * (l->there ? 1 : l->mirror.progress);
        if (l->mirror.status.kind != VALUE_MAP || l->there)
            continue;
        if (its < 0)
            left += value_get_int(&l->mirror.status, "mirror_left", 0);
        eta = its < 0 || eta < 0 ? -1 : its > eta ? its : eta;
    }
    double now = all > 0 ? s->from + (s->to - s->from) * done / all : s->to;
    s->told = now > s->told ? now : s->told;
    call_progress(&s->c->call, s->told < s->to ? s->told : s->to);
    disk_mirror_tell(s->c, eta, left);
}

static struct error *turn(struct sending *s, bool *over_r)
{
    unsigned there = 0;

    TRY(begin_more(s));
    for (unsigned i = 0; i < s->n; i++) {
        if (s->lanes[i].begun && !(s->ends && s->lanes[i].there))
            TRY(look(s, &s->lanes[i]));
        there += s->lanes[i].there;
    }
    int64_t share = share_of(s, active(s));
    for (unsigned i = 0; i < s->n; i++)
        if (s->lanes[i].begun && !(s->ends && s->lanes[i].there) && s->lanes[i].mirror.lost == 0)
            disk_mirror_limit(s->c, &s->lanes[i].mirror, share);
    tell(s);
    *over_r = there == s->n;
    return NULL;
}

static struct error *run(struct sending *s, enum move_disk_how how)
{
    bool over = false;

    choose(s, how);
    s->told = s->from;
    while (s->n > 0 && !over) {
        TRY(turn(s, &over));
        if (!over)
            TRY(disk_mirror_rest(s->c));
    }
    call_progress(&s->c->call, s->to);
    return NULL;
}

struct error *disk_send_copy(struct api_call *c, struct move *m, double from, double to)
{
    struct sending s = { .c = c, .calm = internal_call_cleanup(c), .m = m, .limit = COPIES_AT_ONCE, .wanted = "done", .ends = true, .from = from, .to = to };
    return run(&s, MOVE_DISK_COPY);
}

struct error *disk_send_mirror(struct api_call *c, struct move *m, double from, double to)
{
    struct sending s = { .c = c, .calm = internal_call_cleanup(c), .m = m, .limit = UINT32_MAX, .wanted = "following", .from = from, .to = to };
    return run(&s, MOVE_DISK_MIRROR);
}

/* --- the end of it ------------------------------------------------------------------------------------------------------- */
struct error *disk_send_hand_over(struct api_call *c, struct move *m)
{
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct disk_mirror mirror = mirror_of(m, &m->disks[i]);

        if (m->disks[i].how != MOVE_DISK_MIRROR)
            continue;
        struct error *e = disk_mirror_verb(c, &mirror, "vdi.hand_over", NULL, 0, NULL);
        if (e != NULL)
            return error_is(e, "SR_BACKEND_FAILURE") ? disk_mirror_failed(c, &mirror, error_text(c->arena, e)) : e;
    }
    return NULL;
}

void disk_send_end(struct api_call *c, struct move *m)
{
    struct api_call calm = internal_call_cleanup(c);

    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].how != MOVE_DISK_STAYS)
            end_one(&calm, m, &m->disks[i]);
}

static bool is_there(const struct value_list *list, const struct move_disk *d)
{
    for (unsigned i = 0; i < list->n; i++)
        if (strcmp(value_get_string(&list->items[i], "sr", ""), d->sr_uuid) == 0 && strcmp(value_get_string(&list->items[i], "location", ""), d->location) == 0)
            return true;
    return false;
}

static void add_closing(struct arena *a, struct value_list *list, const char *sr, const char *location, bool hand_over)
{
    struct value_dict d = { 0 };

    value_dict_add(a, &d, "sr", value_string(sr));
    value_dict_add(a, &d, "location", value_string(location));
    value_dict_add(a, &d, "hand_over", value_bool(hand_over));
    value_list_add(a, list, value_dict_value(&d));
}

struct value disk_send_closing(struct api_call *c, const struct move *m)
{
    const struct row *vm = db_get(c->db, c->arena, &model_classes[CLASS_VM], m->vm);
    struct value written = vm != NULL ? vm_disks_written(c, vm) : value_set(NULL, 0);
    struct value_list list = { 0 };

    for (unsigned i = 0; i < m->n_disks; i++) /* also of one that is not plugged in just now */
        if (m->disks[i].how == MOVE_DISK_MIRROR)
            add_closing(c->arena, &list, m->disks[i].sr_uuid, m->disks[i].location, true);
    for (unsigned i = 0; i < written.len; i++) {
        const struct move_disk d = { .sr_uuid = value_get_string(&written.items[i], "sr", ""), .location = value_get_string(&written.items[i], "location", "") };

        if (!is_there(&list, &d))
            add_closing(c->arena, &list, d.sr_uuid, d.location, false);
    }
    return value_list_value(&list);
}
