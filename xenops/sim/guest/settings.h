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
    /* platform */
    double dirty_pages_s;
    uint64_t working_set_pages, fill_pages;
    bool mixed_content; /* every fourth page half zero, every fourth like text */
    double disk_iops;
    uint64_t disk_blocks; /* working set of each disk */
    bool disk_direct;
    bool no_suspend_ack, suspend_hangs, no_shutdown_ack, no_tools, no_balloon, witness_reset;
    const char *cant_suspend_reason;
    int64_t crash_after_ms, shutdown_after_ms, reboot_after_ms; /* of running time; 0: never */
};

/* False, with a line on stderr, when the file is missing or makes no sense. */
bool settings_read(struct arena *, const char *path, struct settings *);
/* One "disk.<device>" value: "rw|ro <size> <path>". */
bool settings_disk(struct arena *, const char *device, const char *value, struct disk_setting *);

#endif
