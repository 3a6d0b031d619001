/* The guest's disks: each writable one has a thread that writes self-checking blocks.
 *
 * The working set is spread over the disk in clusters of 64 blocks. A block looks like a page of
 * memory (guest_memory.h): number is its place on the disk, version the disk's sequence number. The
 * witness learns of a block only after its write was acknowledged. */
#include "xenops/sim/guest/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xenops/sim/guest/disk_blocks.h"

#define ELAPSED_MAX_US 100000
#define REST_MIN_MS 2
#define REST_MAX_MS 200

static void write_block(struct disk *d, uint64_t i)
{
    struct guest *g = d->guest;
    uint64_t block = disk_block_of(&d->setting, d->n_blocks, i);

    guest_page_fill(d->buffer, disk_boot(g->boot, d->setting.device), block, (uint32_t)++d->seq, GUEST_CONTENT_RANDOM);
    int rc = fd_pwrite_all(d->fd, d->buffer, GUEST_PAGE, (int64_t)(block * GUEST_PAGE));
    if (rc < 0) {
        if (atomic_fetch_add(&g->control->disk_errors, 1) == 0)
            fprintf(stderr, "xapi-guest: disk %s: write: %s\n", d->setting.device, strerror(-rc));
        if (d->witness != NULL)
            atomic_store(&d->witness[i], 0); /* what stands there now is anybody's guess */
        return;
    }
    if (d->witness != NULL)
        atomic_store_explicit(&d->witness[i], (uint32_t)d->seq, memory_order_release);
    atomic_fetch_add_explicit(&g->control->blocks_written, 1, memory_order_relaxed);
}

static void write_owed(struct disk *d)
{
    struct guest *g = d->guest;
    int64_t now = clock_us(g->clock), elapsed = d->last_us > 0 ? now - d->last_us : 0;

    d->last_us = now;
    if (d->fd < 0)
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
    const struct settings *s = &d->guest->settings;

    if (d->fd >= 0 || d->setting.path[0] == '\0')
        return;
    d->fd = open(d->setting.path, (d->setting.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | (s->disk_direct ? O_DIRECT : 0));
    if (d->fd < 0) {
        atomic_fetch_add(&d->guest->control->disk_errors, 1);
        fprintf(stderr, "xapi-guest: disk %s: %s: %s\n", d->setting.device, d->setting.path, strerror(errno));
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
    *d = (struct disk){ .guest = g, .setting = *setting, .fd = -1, .rng = guest_mix(g->boot ^ disk_hash(setting->device)) };
    d->n_blocks = disk_n_blocks(setting, g->settings.disk_blocks);
    d->witness = setting->writable ? witness_disk(&g->witness, setting->device) : NULL;
    for (uint64_t i = 0; fresh && d->witness != NULL && i < WITNESS_BLOCKS; i++)
        atomic_store(&d->witness[i], 0);
    disk_open(d);
    if (setting->writable && setting->path[0] != '\0' && g->settings.disk_iops > 0 && d->n_blocks > 0) {
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
    fd_close(&d->fd);
    *d = (struct disk){ .fd = -1 };
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

void disks_close(struct guest *g)
{
    for (unsigned i = 0; i < GUEST_DISKS; i++)
        if (g->disks[i].setting.device[0] != '\0')
            fd_close(&g->disks[i].fd);
}
