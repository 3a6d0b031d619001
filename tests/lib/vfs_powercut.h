/* An SQLite VFS that can lose power: what was not synced may be gone, whole or in part.
 *
 * It works on real files through the default VFS, and remembers for every file what is durable (as of
 * its last sync) and each write since. Power can be set to fail at the nth operation that matters
 * (write, truncate, sync, delete): from then on every operation fails, and powercut_settle() leaves the
 * files as a disk could have them. One at a time in a process. */
#ifndef TESTS_LIB_VFS_POWERCUT_H
#define TESTS_LIB_VFS_POWERCUT_H

#include <stdbool.h>
#include <stdint.h>

#define POWERCUT_VFS "powercut"

enum powercut_loss {
    POWERCUT_LOSE_ALL,    /* every write since the last sync is gone */
    POWERCUT_LOSE_SOME,   /* each write is kept, gone, or torn between sectors, at random */
    POWERCUT_LOSE_NONE,   /* all writes arrived: as after kill -9 */
};

void powercut_install(void);             /* registers the VFS; idempotent */
void powercut_arm(unsigned long at);     /* fails at that operation, counted from 1; 0: never */
bool powercut_happened(void);
unsigned long powercut_operations(void); /* since powercut_arm */
/* After all connections are closed: writes to the files what the disk would hold; power is back. */
void powercut_settle(enum powercut_loss, uint64_t seed);
/* Fails the next n syncs with an I/O error, without losing power. */
void powercut_fail_syncs(unsigned n);

#endif
