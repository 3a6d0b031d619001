/* What this guest is and how it behaves: the file "settings" of its directory (../guest_text.h).
 *
 * Written by the backend (xenops/sim/settings_file.c). Unknown keys are skipped; "platform.<key>" are
 * VM.platform's sim-* keys. */
#ifndef XENOPS_SIM_GUEST_SETTINGS_H
#define XENOPS_SIM_GUEST_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "xenops/sim/guest_memory.h"
#include "xenops/sim/guest_protocol.h"

struct disk_setting {
    char device[GUEST_DEVICE_LEN];
    bool writable;
    int64_t size;
    const char *path; /* "": an empty drive */
};

#define GUEST_NICS 16u

struct settings {
    const char *uuid, *name;
    const char *witness; /* path; "" for none */
    uint64_t n_pages, target_pages;
    unsigned vcpus;
    struct disk_setting disks[GUEST_DISKS];
    unsigned n_disks;
    struct { const char *device, *mac; } nics[GUEST_NICS];
    unsigned n_nics;
    /* From VM.platform; a flag is "true" or "1". */
    double dirty_pages_s;         /* sim-dirty-mib-s: stores, MiB/s; 2 by default */
    uint64_t working_set_pages;   /* sim-working-set-mib: where it stores; a quarter of memory */
    uint64_t fill_pages;          /* sim-fill-mib: filled at boot; half of memory */
    bool mixed_content;           /* sim-content=random: dense; else every 4th page half zero, every 4th like text */
    double disk_iops;             /* sim-disk-iops: writes a second of each disk; 0: it leaves its disks alone */
    uint64_t disk_blocks;         /* sim-disk-working-set-mib: 4; at most 64 */
    bool disk_direct;             /* sim-disk-direct: O_DIRECT */
    unsigned disk_flush_every;    /* sim-disk-flush-every: writes between flushes, where the disk is an NBD server's; 64; 0: never */
    unsigned disk_write_blocks;   /* sim-disk-write-kib: bytes of a write, 4 to 256 in powers of two; 4 */
    bool no_suspend_ack;          /* sim-no-suspend-ack */
    bool suspend_hangs;           /* sim-suspend-hangs: acknowledges, then never suspends */
    bool no_shutdown_ack;         /* sim-no-shutdown-ack */
    bool no_tools;                /* sim-no-tools: publishes no features, drivers, addresses */
    bool no_balloon;              /* sim-no-balloon: keeps what it has */
    bool witness_reset;           /* sim-witness-reset: a restored image is meant to be old (revert) */
    const char *cant_suspend_reason; /* sim-cant-suspend-reason: published; suspension is not acknowledged */
    int64_t crash_after_ms, shutdown_after_ms, reboot_after_ms; /* sim-…-after-ms of running time; 0: never */
};

/* False, with a line on stderr, when the file is missing or makes no sense. */
bool settings_read(struct arena *, const char *path, struct settings *);
/* One "disk.<device>" value: "rw|ro <size> <path>". */
bool settings_disk(struct arena *, const char *device, const char *value, struct disk_setting *);

#endif
