/* What the host and its guests tell about themselves. No guest is asked: it is read from shared memory. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/memory.h"
#include "xenops/sim/guest_text.h"
#include "xenops/sim/host.h"

#define READ_TRIES 1000

/* A copy of the published lines that nobody wrote into meanwhile; "" when that cannot be had. */
static const char *published(struct call *c, struct guest_control *k)
{
    char *copy = arena_alloc(c->arena, GUEST_PUBLISHED_SIZE + 1);

    for (unsigned i = 0; i < READ_TRIES; i++) {
        uint32_t before = atomic_load(&k->published_seq), len = atomic_load(&k->published_len);
        if (before % 2 != 0 || len > GUEST_PUBLISHED_SIZE)
            continue;
        memcpy(copy, guest_published(k), len);
        copy[len] = '\0';
        if (atomic_fetch_add(&k->published_seq, 0) == before) /* not a load: what was read above stays above */
            return copy;
    }
    return "";
}

static void add_number(struct call *c, struct value_dict *d, const char *name, uint64_t n)
{
    value_dict_add(c->arena, d, name, value_string(arena_printf(c->arena, "%llu", (unsigned long long)n)));
}

static void add_postcopy(struct call *c, struct value_dict *d, struct guest_control *k)
{
    static const char *const names[] = GUEST_POSTCOPY_NAMES;
    uint32_t state = atomic_load(&k->postcopy);

    if (state == GUEST_POSTCOPY_NONE || state >= ARRAY_LEN(names))
        return;
    value_dict_add(c->arena, d, "sim/postcopy", value_string(names[state]));
    add_number(c, d, "sim/postcopy_left", atomic_load(&k->postcopy_left));
    add_number(c, d, "sim/postcopy_stall_us", atomic_load(&k->postcopy_stall_us));
}

static struct value guest_data(struct call *c, struct guest_control *k)
{
    struct value_dict d = { 0 };
    const char *key, *value;

    const char *at = published(c, k);
    while (guest_text_next(c->arena, &at, &key, &value))
        value_dict_add(c->arena, &d, key, value_string(value));
    add_number(c, &d, "sim/pages", k->n_pages);
    add_number(c, &d, "sim/pages_written", atomic_load(&k->pages_written));
    add_number(c, &d, "sim/blocks_written", atomic_load(&k->blocks_written));
    add_number(c, &d, "sim/disk_errors", atomic_load(&k->disk_errors));
    add_number(c, &d, "sim/ticks", atomic_load(&k->ticks));
    add_number(c, &d, "sim/blackout_us", atomic_load(&k->blackout_us));
    add_number(c, &d, "sim/stood_us", atomic_load(&k->stood_us));
    value_dict_add(c->arena, &d, "sim/clock_step_us", value_string(arena_printf(c->arena, "%lld", (long long)atomic_load(&k->clock_step_us))));
    add_postcopy(c, &d, k);
    add_number(c, &d, "sim/verify_us", atomic_load(&k->verify_us));
    add_number(c, &d, "sim/pages_verified", atomic_load(&k->pages_verified));
    add_number(c, &d, "sim/blocks_verified", atomic_load(&k->blocks_verified));
    return value_dict_value(&d);
}

void sim_info_fill(struct call *c, const struct sim_domain *d, const char *uuid, struct domain_info *info)
{
    *info = (struct domain_info){
        .uuid = arena_strdup(c->arena, uuid),
        .domid = d->domid,
        .state = sim_domain_state(d),
        .end = (enum domain_end)atomic_load(&d->end),
        .vcpus = d->vcpus,
        .started_at = d->started_at,
        .guest = value_map(NULL, 0),
    };
    if (d->control == NULL)
        return;
    info->memory_actual = (int64_t)(atomic_load(&d->control->actual_pages) * GUEST_PAGE);
    info->memory_target = (int64_t)(atomic_load(&d->control->target_pages) * GUEST_PAGE);
    info->guest = guest_data(c, d->control);
}

_Static_assert((int)DOMAIN_END_KILLED == (int)GUEST_END_KILLED && (int)DOMAIN_END_POWEROFF == (int)GUEST_END_POWEROFF, "same words");

struct error *sim_list(struct call *c, void *host, struct domain_info **infos_r, unsigned *n_r)
{
    struct sim_host *h = host;
    unsigned n = 0, room = 0;

    lock_take(&h->lock);
    for (struct sim_domain *d = h->domains; d != NULL; d = d->next)
        room++;
    struct sim_domain **domains = arena_calloc(c->arena, room + 1, sizeof(*domains));
    const char **uuids = arena_calloc(c->arena, room + 1, sizeof(*uuids));
    for (struct sim_domain *d = h->domains; d != NULL; d = d->next)
        if (d->ready) {
            uuids[n] = arena_strdup(c->arena, d->uuid);
            domains[n++] = sim_domain_ref(d);
        }
    lock_drop(&h->lock);
    *infos_r = arena_calloc(c->arena, n + 1, sizeof(**infos_r));
    for (unsigned i = 0; i < n; i++) {
        sim_info_fill(c, domains[i], uuids[i], &(*infos_r)[i]);
        sim_domain_unref(domains[i]);
    }
    *n_r = n;
    return NULL;
}
