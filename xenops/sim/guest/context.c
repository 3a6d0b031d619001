/* The vCPU state as it travels in HVM_CONTEXT. */
#include "xenops/sim/guest/guest.h"

#include <stdio.h>
#include <time.h>

#define CHECKED_WORDS (offsetof(struct guest_context, checksum) / 8)
_Static_assert(offsetof(struct guest_context, checksum) % 8 == 0, "whole words");

/* By how much the wall clock is ahead of the one that never jumps. */
static int64_t clock_offset_us(const struct guest *g)
{
    struct timespec now;

    timespec_get(&now, TIME_UTC); /* the guest's own clock, finer than struct clock tells it */
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 - clock_us(g->clock);
}

void context_save(struct guest *g, struct guest_context *c)
{
    memset(c, 0, sizeof(*c));
    c->magic = GUEST_CONTEXT_MAGIC;
    c->size = sizeof(*c);
    c->version = GUEST_CONTEXT_VERSION;
    snprintf(c->uuid, sizeof(c->uuid), "%s", g->settings.uuid);
    c->boot = g->boot;
    c->n_pages = g->settings.n_pages;
    c->actual_pages = atomic_load(&g->control->actual_pages);
    c->target_pages = atomic_load(&g->control->target_pages);
    c->n_vcpus = g->settings.vcpus;
    c->pages_written = atomic_load(&g->control->pages_written);
    c->blocks_written = atomic_load(&g->control->blocks_written);
    c->ticks = atomic_load(&g->control->ticks);
    c->ran_ms = g->ran_us / 1000;
    c->last_tick_us = g->last_tick_us;
    c->blackout_us = atomic_load(&g->control->blackout_us);
    c->clock_offset_us = clock_offset_us(g);
    for (unsigned i = 0; i < g->settings.vcpus; i++)
        c->vcpus[i] = g->vcpus[i].state;
    for (unsigned i = 0; i < GUEST_DISKS; i++) {
        memcpy(c->disks[i].device, g->disks[i].setting.device, GUEST_DEVICE_LEN);
        c->disks[i].seq = g->disks[i].seq;
    }
    c->checksum = guest_checksum(c, CHECKED_WORDS);
}

static const char *fault_of(const struct guest *g, const struct guest_context *c, size_t len)
{
    if (len != sizeof(*c) || c->magic != GUEST_CONTEXT_MAGIC || c->size != sizeof(*c) || c->version != GUEST_CONTEXT_VERSION)
        return "is not one of ours";
    if (c->checksum != guest_checksum(c, CHECKED_WORDS))
        return "is damaged";
    if (c->n_pages != g->settings.n_pages || c->actual_pages > c->n_pages || c->target_pages > c->n_pages)
        return "is of another amount of memory";
    if (c->n_vcpus != g->settings.vcpus)
        return "has another number of vCPUs";
    return NULL;
}

static void disk_seq_load(struct guest *g, const struct guest_context *c)
{
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        for (unsigned k = 0; k < GUEST_DISKS; k++)
            if (c->disks[k].device[0] != '\0' && strncmp(c->disks[k].device, g->disks[i].setting.device, GUEST_DEVICE_LEN) == 0)
                g->disks[i].seq = c->disks[k].seq;
}

/* The witness of this boot; the memory itself is taken as the truth where there is none, where it is
 * meant to be old (a revert to a checkpoint), or for a copy under another uuid. */
static bool witness_find(struct guest *g, const struct guest_context *c)
{
    const struct settings *s = &g->settings;
    bool found = false;

    if (!s->witness_reset && strncmp(c->uuid, s->uuid, sizeof(c->uuid)) == 0) {
        if (!witness_open(&g->witness, s->witness, s->uuid, g->boot, s->n_pages, &found))
            return false;
    }
    if (found)
        return true;
    if (!witness_create(&g->witness, s->witness, s->uuid, g->boot, s->n_pages))
        return false;
    g->adopt = faults_pending(g);
    if (!g->adopt)
        verify_adopt(g);
    return true;
}

bool context_load(struct guest *g, const void *bytes, size_t len, const char **why_r)
{
    struct guest_context c = { .magic = 0 };

    memcpy(&c, bytes, len < sizeof(c) ? len : sizeof(c));
    *why_r = fault_of(g, &c, len);
    if (*why_r != NULL)
        return false;
    g->boot = c.boot;
    g->ran_us = c.ran_ms * 1000;
    g->last_tick_us = c.last_tick_us;
    g->keep_tick = true;
    atomic_store(&g->control->actual_pages, c.actual_pages);
    atomic_store(&g->control->target_pages, c.target_pages);
    atomic_store(&g->control->pages_written, c.pages_written);
    atomic_store(&g->control->blocks_written, c.blocks_written);
    atomic_store(&g->control->ticks, c.ticks);
    atomic_store(&g->control->blackout_us, c.blackout_us);
    atomic_store(&g->control->clock_step_us, clock_offset_us(g) - c.clock_offset_us);
    for (unsigned i = 0; i < g->settings.vcpus; i++) {
        g->vcpus[i].state = c.vcpus[i];
        g->vcpus[i].last_us = 0;
        g->vcpus[i].owed = 0;
    }
    if (!witness_find(g, &c)) {
        *why_r = "does not go with the witness";
        return false;
    }
    for (unsigned i = 0; i < g->settings.n_disks; i++)
        disk_add(g, &g->settings.disks[i], false);
    disk_seq_load(g, &c);
    return true;
}
