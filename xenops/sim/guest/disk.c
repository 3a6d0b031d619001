/* The guest's disks: each writable one has a thread that writes self-checking blocks.
 *
 * The working set is spread over the disk in clusters of 64 blocks. A block looks like a page of
 * memory (guest_memory.h): number is its place on the disk, version the disk's sequence number. The
 * witness learns of a block only after its write was acknowledged. Where the disk is an NBD server's, the thread
 * waits in the middle of a write for as long as the server is away: the guest then does not come to rest. */
#include "xenops/sim/guest/guest.h"

#include <errno.h>
#include <stdio.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xenops/sim/guest/disk_blocks.h"

#define ELAPSED_MAX_US 100000
#define REST_MIN_MS 2
#define REST_MAX_MS 200

static void complain(struct disk *d, const char *what, int rc)
{
    if (atomic_fetch_add(&d->guest->control->disk_errors, 1) == 0)
        fprintf(stderr, "xapi-guest: disk %s: %s: %s\n", d->setting.device, what, strerror(-rc));
}

/* What the witness says of n blocks from the i-th on; by what they hold, or 0: anybody's guess. */
static void tell_witness(struct disk *d, uint64_t i, unsigned n, bool written)
{
    for (unsigned k = 0; d->witness != NULL && k < n; k++)
        atomic_store_explicit(&d->witness[i + k], written ? d->buffer[k].version : 0, memory_order_release);
}

static void flush_now_and_then(struct disk *d)
{
    unsigned every = d->guest->settings.disk_flush_every;

    if (!d->medium.flushes || every == 0 || ++d->unflushed < every)
        return;
    d->unflushed = 0;
    int rc = medium_flush(&d->medium);
    if (rc < 0 && rc != -ECANCELED)
        complain(d, "flush", rc);
}

/* One write: the i-th block and those beside it that one write holds. */
static void write_block(struct disk *d, uint64_t i)
{
    struct guest *g = d->guest;
    unsigned n = g->settings.disk_write_blocks;

    i -= i % n;
    n = d->n_blocks - i < n ? (unsigned)(d->n_blocks - i) : n;
    uint64_t block = disk_block_of(&d->setting, d->n_blocks, i);
    for (unsigned k = 0; k < n; k++)
        guest_page_fill(&d->buffer[k], disk_boot(g->boot, d->setting.device), block + k, (uint32_t)++d->seq, GUEST_CONTENT_RANDOM);
    int rc = medium_write(&d->medium, d->buffer, n * GUEST_PAGE, (int64_t)(block * GUEST_PAGE));
    if (rc == -ECANCELED)
        return; /* perhaps it is there, perhaps not: both agree with the witness */
    if (rc < 0)
        complain(d, "write", rc);
    tell_witness(d, i, n, rc == 0);
    if (rc == 0)
        atomic_fetch_add_explicit(&g->control->blocks_written, n, memory_order_relaxed);
    flush_now_and_then(d);
}

static void write_owed(struct disk *d)
{
    struct guest *g = d->guest;
    int64_t now = clock_us(g->clock), elapsed = d->last_us > 0 ? now - d->last_us : 0;

    d->last_us = now;
    if (!d->medium.open)
        return;
    if (elapsed > ELAPSED_MAX_US * 10)
        elapsed = ELAPSED_MAX_US * 10;
    d->owed += g->settings.disk_iops * (double)elapsed / 1e6;
    while (d->owed >= 1 && !gate_closing(&g->gate)) {
        d->owed -= 1;
        write_block(d, guest_random(&d->rng) % d->n_blocks);
    }
}

static void *disk_run(void *arg)
{
    struct disk *d = arg;
    struct guest *g = d->guest;
    int64_t rest = (int64_t)(1000 / g->settings.disk_iops);

    rest = rest < REST_MIN_MS ? REST_MIN_MS : rest > REST_MAX_MS ? REST_MAX_MS : rest;
    while (gate_enter(&g->gate, &d->stop)) {
        write_owed(d);
        gate_rest(&g->gate, rest);
    }
    return NULL;
}

static void disk_open(struct disk *d)
{
    if (d->setting.path[0] == '\0')
        return;
    int rc = medium_open(&d->medium, d->setting.writable, d->guest->settings.disk_direct);
    if (rc < 0) {
        atomic_fetch_add(&d->guest->control->disk_errors, 1);
        fprintf(stderr, "xapi-guest: disk %s: %s: %s\n", d->setting.device, d->setting.path, strerror(-rc));
    }
}

static struct disk *slot_of(struct guest *g, const char *device)
{
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        if (strcmp(g->disks[i].setting.device, device) == 0)
            return &g->disks[i];
    return NULL;
}

bool disk_add(struct guest *g, const struct disk_setting *setting, bool fresh)
{
    disk_remove(g, setting->device);
    struct disk *d = slot_of(g, "");
    if (d == NULL)
        return false;
    *d = (struct disk){ .guest = g, .setting = *setting, .rng = guest_mix(g->boot ^ disk_hash(setting->device)) };
    d->n_blocks = disk_n_blocks(setting, g->settings.disk_blocks);
    d->witness = setting->writable ? witness_disk(&g->witness, setting->device) : NULL;
    for (uint64_t i = 0; fresh && d->witness != NULL && i < WITNESS_BLOCKS; i++)
        atomic_store(&d->witness[i], 0);
    medium_init(&d->medium, setting->path);
    if (!medium_is_remote(&d->medium)) /* a server may not serve us yet: where the guest came from has the disk */
        disk_open(d);
    if (setting->writable && setting->path[0] != '\0' && g->settings.disk_iops > 0 && d->n_blocks > 0) {
        d->room = xcalloc(g->settings.disk_write_blocks + 1, GUEST_PAGE);
        d->buffer = guest_page_in(d->room);
        d->has_thread = true;
        d->thread = thread_start("disk", disk_run, d);
    }
    return true;
}

bool disk_remove(struct guest *g, const char *device)
{
    struct disk *d = device[0] != '\0' ? slot_of(g, device) : NULL;

    if (d == NULL)
        return false;
    atomic_store(&d->stop, true);
    gate_wake(&g->gate);
    if (d->has_thread)
        pthread_join(d->thread, NULL);
    medium_give_up(&d->medium, DISK_LAST_MS);
    medium_close(&d->medium, -1);
    medium_release(&d->medium);
    xfree(d->room);
    *d = (struct disk){ .medium = { .fd = -1, .timer_fd = -1, .stop_fd = -1 } };
    return true;
}

void disks_open(struct guest *g)
{
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        if (g->disks[i].setting.device[0] != '\0') {
            g->disks[i].last_us = 0;
            disk_open(&g->disks[i]);
        }
}

bool disks_close(struct guest *g, int watch)
{
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        if (g->disks[i].setting.device[0] != '\0' && !medium_close(&g->disks[i].medium, watch))
            return false;
    return true;
}

void disk_give_up(struct guest *g, const char *device)
{
    struct disk *d = device[0] != '\0' ? slot_of(g, device) : NULL;

    if (d != NULL)
        medium_give_up(&d->medium, DISK_LAST_MS);
}

void disks_give_up(struct guest *g)
{
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        medium_give_up(&g->disks[i].medium, DISK_LAST_MS);
}
