#include "xapi/core/options_table.h"

#include "xapi/pool/pool_options.h"

#define TEXT(key, fallback, help) { key, CONFIG_STRING, fallback, help, 0, 0 }
#define NUMBER(key, fallback, min, max, help) { key, CONFIG_INT, fallback, help, min, max }
#define FLAG(key, fallback, help) { key, CONFIG_BOOL, fallback, help, 0, 0 }

const struct config_option xapi_options[] = {
    /* where and what */
    TEXT("dir", "/var/lib/xapi", "state directory: database, certificate, journals, simulator"),
    TEXT("hypervisor", "", "xen or sim; empty: xen where there is one"),
    TEXT("address", "127.0.0.1", "management address of this host; every port listens on it"),
    NUMBER("http-port", "80", -1, 65535, "plain HTTP; -1: none, 0: any free one"),
    NUMBER("https-port", "443", 0, 65535, "HTTPS; the same on all hosts of a pool; 0: any free one"),
    NUMBER("nbd-port", "10809", -1, 65535, "disks over NBD with TLS; the same on all hosts of a pool; -1: none"),
    TEXT("unix-socket", "/var/lib/xcp/xapi", "local root's socket; empty: none"),
    TEXT("tls-key", "rsa2048", "key of a new certificate: rsa2048 or p256"),
    TEXT("tapd-program", "", "the program that serves one disk; empty: tapd beside this one"),
    TEXT("log-file", "", "where the log goes; empty: standard error"),
    TEXT("log-level", "info", "err, warn, info or debug"),
    FLAG("allow-faults", "false", "xapi-ctl may arm fault points: test systems only"),

    /* who may come in */
    TEXT("users-file", "", "users and password hashes (xapi-ctl passwd); empty: PAM"),
    TEXT("pam-service", "xapi", "service name given to PAM"),
    NUMBER("auth-fail-delay-ms", "5000", 0, 60000, "how long a wrong password waits for its answer"),
    NUMBER("sessions-per-user", "5000", 1, 1000000, "then the one idle longest ends"),
    NUMBER("inactive_session_timeout", "86400", 1, 0x7fffffff, "seconds until an unused session ends"),

    /* how much at once */
    NUMBER("connections", "4096", 8, 1000000, "open connections"),
    NUMBER("connections-per-address", "0", 0, 1000000, "of them from one address; 0: no limit"),
    NUMBER("header-bytes", "16384", 512, 1048576, "longest request head"),
    NUMBER("request-bytes", "33554432", 1024, 1073741824, "longest buffered request body"),
    NUMBER("io-threads", "0", 0, 64, "threads of the front; 0: as many as cores, at most 4"),
    NUMBER("worker-threads", "64", 1, 1024, "blocking calls of clients at once"),
    NUMBER("peer-threads", "64", 1, 1024, "the same for hosts of the pool"),
    NUMBER("task-threads", "128", 1, 4096, "Async calls at once"),
    NUMBER("login-threads", "4", 1, 64, "passwords checked at once"),
    NUMBER("queued-calls", "2000", 1, 1000000, "calls waiting for each kind of thread; then TOO_MANY_PENDING_TASKS"),

    /* tasks, events, messages */
    NUMBER("tasks-limit", "200", 1, 1000000, "above it the oldest finished tasks go"),
    NUMBER("completed_task_timeout", "3900", 1, 0x7fffffff, "seconds a finished task stays"),
    NUMBER("pending_task_timeout", "86400", 1, 0x7fffffff, "seconds a task without progress stays"),
    NUMBER("event-from-delay-ms", "50", 0, 10000, "least time between two rounds of events"),
    NUMBER("event-next-queue-bytes", "10000000", 1000, 1000000000, "history kept for event.next"),
    NUMBER("messages-limit", "10000", 1, 1000000, "above it the oldest messages go"),

    /* migration and maintenance */
    FLAG("migration-https-only", "true", "memory, disks and what hosts say of them travel over TLS only; false: the pool secret too goes in the clear"),
    TEXT("migration-profile", "documented", "whose rules migrations keep: documented, xapi, orchestrate or virsh; pool.other_config overrides it"),
    NUMBER("sxm-max-vdis", "6", 1, 100000, "disks of a VM that may move at once where the profile has the rule \"disks\""),
    FLAG("relax-xsm-sr-check", "true", "an SR of the same uuid in another pool is the same SR: disks in it stay"),
    FLAG("migration-preflight", "true", "try the way to the destination and back before a migration"),
    NUMBER("migration-silence-s", "60", 1, 86400, "seconds without a byte moving after which a migration's stream is lost"),
    NUMBER("incoming-patience", "300", 1, 86400, "seconds a prepared migration waits here for its source"),
    NUMBER("migration-reconnect-s", "30", 1, 86400, "seconds a lost disk of a migration is connected again before it fails"),
    NUMBER("transfer-silence-s", "300", 1, 86400, "seconds an import or export whose client moves no byte is kept"),
    NUMBER("vdi-quarantine", "0", 0, 0x7fffffff, "seconds an old disk is kept after VDI.pool_migrate; 0: not at all"),
    NUMBER("storage-migrations-per-pool", "3", 0, 100000, "moves of disks at once, the others queue; 0: no limit; pool.other_config overrides it"),
    NUMBER("storage-migrations-per-host", "3", 0, 100000, "the same from one host"),
    NUMBER("evacuation-batch-size", "10", 1, 1000, "VMs that pool.migrate_vms moves at once"),
    NUMBER("incoming-abandoned-s", "86400", 10, 0x7fffffff, "seconds after which a migration from a pool that is not heard of is given up"),
    NUMBER("ledger-days", "400", 1, 36500, "days the history of migrations is kept"),
    NUMBER("wait_memory_target_timeout", "256", 1, 86400, "seconds to reach a memory target"),
    NUMBER("domain_shutdown_total_timeout", "1200", 1, 86400, "seconds until it has shut down"),

    POOL_OPTIONS,
    { 0 },
};
