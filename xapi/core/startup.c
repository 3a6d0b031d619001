#include "xapi/core/startup.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/work.h"
#include "rpc/http/tls.h"
#include "rpc/wire/xmlrpc.h"
#include "storage/sr.h"
#include "storage/tap.h"
#include "xapi/core/control_socket.h"
#include "xapi/core/event.h"
#include "xapi/core/front.h"
#include "xapi/core/housekeeping.h"
#include "xapi/core/identity.h"
#include "xapi/core/operations.h"
#include "xapi/core/session.h"
#include "xapi/core/tapd_command.h"
#include "xapi/core/task_table.h"
#include "xapi/core/timers.h"
#include "xapi/metadata/metadata.h"
#include "xapi/migrate/announce.h"
#include "xapi/migrate/credentials.h"
#include "xapi/migrate/disk_ledger.h"
#include "xapi/migrate/disk_move.h"
#include "xapi/migrate/disk_sink.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/metrics.h"
#include "xapi/migrate/migrate.h"
#include "xapi/migrate/migrations_command.h"
#include "xapi/migrate/queue.h"
#include "xapi/migrate/move.h"
#include "xapi/migrate/preflight.h"
#include "xapi/transfer/nbd_front.h"
#include "xapi/transfer/transfer.h"
#include "xapi/core/agent.h"
#include "xapi/pool/heartbeat.h"
#include "xapi/pool/membership.h"
#include "xapi/pool/startup.h"

LOG_MODULE(startup);

#define READY_FILE "xapi.ready"

struct stage {
    const char *name;
    struct error *(*start)(struct daemon_state *);
    void (*stop)(struct daemon_state *); /* also after a start that failed half-way; NULL: nothing to undo */
};

/* --- the directory, and who we are ------------------------------------------------------------------------ */

static const char *path_in(struct daemon_state *d, const char *name) { return arena_printf(d->arena, "%s/%s", d->xapi.dir, name); }

static struct error *directory_start(struct daemon_state *d)
{
    int rc = dir_create(d->xapi.dir, 0755);

    if (rc < 0)
        return err_internal(d->arena, "%s: %s", d->xapi.dir, strerror(-rc));
    unlink(path_in(d, READY_FILE));
    return NULL;
}

static struct error *identity_start(struct daemon_state *d)
{
    struct identity id;

    TRY(identity_load(d->arena, d->xapi.dir, &id));
    d->xapi.is_coordinator = id.is_coordinator;
    d->xapi.coordinator_address = id.coordinator_address;
    d->xapi.pool_secret = id.secret;
    d->xapi.host_uuid = id.host_uuid;
    log_info("host %s is %s%s", id.host_uuid, id.is_coordinator ? "coordinator" : "a member of ",
             id.is_coordinator ? "" : id.coordinator_address);
    return NULL;
}

static struct error *tls_start(struct daemon_state *d)
{
    const char *path = path_in(d, "xapi.pem"), *address = d->xapi.address, *pem;
    bool p256 = strcmp(config_string(d->xapi.config, "tls-key"), "p256") == 0;

    TRY(tls_make_certificate(d->arena, path, p256 ? TLS_KEY_P256 : TLS_KEY_RSA2048, address, &address, 1));
    TRY(tls_certificate_fingerprint(d->arena, path, &d->xapi.certificate_fingerprint, &pem));
    TRY(tls_client_context(d->arena, &d->xapi.client_tls));
    d->xapi.client = http_client_new();
    return NULL;
}

static void tls_stop(struct daemon_state *d)
{
    http_client_free(d->xapi.client);
    tls_context_free(d->xapi.client_tls);
    d->xapi.client = NULL;
    d->xapi.client_tls = NULL;
}

/* --- database and tables ------------------------------------------------------------------------------------- */

/* A member serves no database of its own: an empty one stands in. */
static struct error *database_start(struct daemon_state *d)
{
    const struct db_options options = {
        .path = d->xapi.is_coordinator ? path_in(d, "pool.db") : NULL,
        .clock = d->xapi.clock,
    };

    return db_open(d->arena, &options, &d->xapi.db);
}

static void database_stop(struct daemon_state *d)
{
    db_close(d->xapi.db);
    d->xapi.db = NULL;
}

static struct work_pool *pool_new(struct daemon_state *d, const char *name, const char *key)
{
    const struct config *config = d->xapi.config;

    return work_pool_new(name, (unsigned)config_int(config, key), (unsigned)config_int(config, "queued-calls"));
}

static struct error *workers_start(struct daemon_state *d)
{
    d->xapi.workers = pool_new(d, "worker", "worker-threads");
    d->xapi.peer_workers = pool_new(d, "peer", "peer-threads");
    d->xapi.task_workers = pool_new(d, "task", "task-threads");
    d->xapi.login_workers = pool_new(d, "login", "login-threads");
    d->xapi.timers = timers_new(d->xapi.clock);
    return NULL;
}

/* Waits for what they run. */
static void pools_free(struct daemon_state *d)
{
    struct work_pool **pools[] = { &d->xapi.login_workers, &d->xapi.workers, &d->xapi.peer_workers, &d->xapi.task_workers };

    for (unsigned i = 0; i < ARRAY_LEN(pools); i++) {
        work_pool_free(*pools[i]);
        *pools[i] = NULL;
    }
}

static void workers_stop(struct daemon_state *d)
{
    pools_free(d);
    timers_free(d->xapi.timers);
    d->xapi.timers = NULL;
}

static struct error *tables_start(struct daemon_state *d)
{
    d->xapi.sessions = sessions_new(&d->xapi);
    d->xapi.tasks = tasks_new(&d->xapi);
    d->xapi.operations = operations_new(&d->xapi);
    d->xapi.events = events_new(&d->xapi);
    d->xapi.credentials = credentials_new();
    return NULL;
}

static void tables_stop(struct daemon_state *d)
{
    credentials_free(d->xapi.credentials);
    d->xapi.credentials = NULL;
    events_free(d->xapi.events);
    operations_free(d->xapi.operations);
    tasks_free(d->xapi.tasks);
    sessions_free(d->xapi.sessions);
    d->xapi.events = NULL;
}

/* --- hands: hypervisor, storage, agent, pool ------------------------------------------------------------------- */

static const char *hypervisor_name(const struct daemon_state *d)
{
    const char *name = config_string(d->xapi.config, "hypervisor");

    if (*name != '\0')
        return name;
    return access("/dev/xen/privcmd", F_OK) == 0 ? "xen" : "sim";
}

static struct error *xenops_start_stage(struct daemon_state *d)
{
    const char *name = hypervisor_name(d), *dir = path_in(d, name);
    struct value options = options_sim(d->arena, d->options);
    int rc = dir_create(dir, 0755);

    if (rc < 0)
        return err_internal(d->arena, "%s: %s", dir, strerror(-rc));
    return xenops_open(d->arena, name, dir, &options, d->xapi.clock, heartbeat_domain_changed, &d->xapi, &d->xapi.xenops);
}

static void xenops_stop_stage(struct daemon_state *d)
{
    if (d->xapi.xenops != NULL)
        xenops_close(d->xapi.xenops);
    d->xapi.xenops = NULL;
}

/* Beside this program, or in a directory above it (tests stand deeper); else in PATH. */
static const char *tapd_program(struct daemon_state *d)
{
    const char *program = config_string(d->xapi.config, "tapd-program");
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (*program != '\0')
        return program;
    self[n > 0 ? n : 0] = '\0';
    for (char *slash = strrchr(self, '/'); slash != NULL && slash != self; slash = strrchr(self, '/')) {
        *slash = '\0';
        const char *path = arena_printf(d->arena, "%s/tapd", self);
        if (access(path, X_OK) == 0)
            return path;
    }
    return "tapd";
}

static struct error *storage_start(struct daemon_state *d)
{
    const struct taps_options options = {
        .dir = path_in(d, "tapd"),
        .program = tapd_program(d),
        .clock = d->xapi.clock,
        .allow_faults = config_bool(d->xapi.config, "allow-faults"),
    };

    sr_drivers_base(path_in(d, "sr-mount"));
    d->xapi.taps = taps_new(&options);
    d->xapi.storage = storage_new(d->xapi.taps);
    return NULL;
}

/* The tapds go on. */
static void storage_stop(struct daemon_state *d)
{
    storage_free(d->xapi.storage);
    taps_free(d->xapi.taps);
    d->xapi.storage = NULL;
    d->xapi.taps = NULL;
}

static const char *emergency_error(struct xapi *xapi, struct arena *a)
{
    return heartbeat_in_emergency(xapi) ? heartbeat_emergency_error(xapi, a) : NULL;
}

static struct error *agent_start(struct daemon_state *d)
{
    d->xapi.agent = agent_new(&d->xapi);
    return NULL;
}

static void agent_stop(struct daemon_state *d)
{
    agent_free(d->xapi.agent);
    d->xapi.agent = NULL;
}

static struct error *pool_start_stage(struct daemon_state *d) { return pool_start(d->arena, &d->xapi); }
static void pool_stop_stage(struct daemon_state *d) { pool_stop(&d->xapi); }

/* --- the outside ---------------------------------------------------------------------------------------------------- */

static struct error *front_start_stage(struct daemon_state *d)
{
    const struct http_route routes[] = {
        { "POST", "/services/agent", HTTP_BODY_BUFFER, agent_http, &d->xapi },
        { "POST", "/services/xenops", HTTP_BODY_BUFFER, credentials_http_xenops, &d->xapi },
        { "GET", "/services/xenops", HTTP_BODY_BUFFER, credentials_http_xenops, &d->xapi },
        { "PUT", "/services/xenops", HTTP_BODY_TAKEOVER, migrate_http_put, &d->xapi },
        { "PUT", "/services/xenops/migrate/sample/", HTTP_BODY_TAKEOVER, preflight_http_sample, &d->xapi },
        { "PUT", "/services/SM/", HTTP_BODY_TAKEOVER, disk_sink_http_put, &d->xapi },
        { "GET", "/metrics$", HTTP_BODY_BUFFER, metrics_http, &d->xapi },
        { "GET", "/export_raw_vdi", HTTP_BODY_TAKEOVER, transfer_http_export, &d->xapi },
        { "PUT", "/import_raw_vdi", HTTP_BODY_TAKEOVER, transfer_http_import, &d->xapi },
        { "GET", "/export_metadata", HTTP_BODY_TAKEOVER, metadata_http_export, &d->xapi },
        { "PUT", "/import_metadata", HTTP_BODY_TAKEOVER, metadata_http_import, &d->xapi },
        { "PUT", "/messages$", HTTP_BODY_TAKEOVER, metadata_http_messages, &d->xapi },
        { "PUT", "/rrd$", HTTP_BODY_TAKEOVER, metadata_http_rrd_put, &d->xapi },
        { "GET", "/vm_rrd$", HTTP_BODY_TAKEOVER, metadata_http_rrd_get, &d->xapi },
        { "PUT", "/blob$", HTTP_BODY_TAKEOVER, metadata_http_blob_put, &d->xapi },
        { "GET", "/blob$", HTTP_BODY_TAKEOVER, metadata_http_blob_get, &d->xapi },
        { 0 },
    };

    d->xapi.https_only = membership_https_only(d->arena, &d->xapi);
    return front_start(d->arena, &d->xapi, routes);
}


static void front_stop_stage(struct daemon_state *d) { front_stop(&d->xapi); }

static struct error *calls_start(struct daemon_state *d) { return NULL; }

static void queue_stop(struct daemon_state *d)
{
    migration_queue_free(d->xapi.queue);
    d->xapi.queue = NULL;
}

/* Before anything else goes: no new calls, those under way are cancelled and waited for. */
static void calls_stop(struct daemon_state *d)
{
    atomic_store(&d->xapi.serving, false);
    migration_queue_quiesce(d->xapi.queue);
    migrate_quiesce(&d->xapi);
    tasks_cancel_all(d->xapi.tasks);
    timers_stop(d->xapi.timers); /* late answers go out now */
    front_stop(&d->xapi);
    pools_free(d);
    queue_stop(d);
}

static struct error *transfers_start(struct daemon_state *d)
{
    struct call c = { .arena = d->arena, .clock = d->xapi.clock, .id = "transfers" };

    transfers_sweep(&c, &d->xapi);
    d->xapi.transfers = transfers_new();
    d->xapi.nbd = nbd_front_start(d->arena, &d->xapi);
    return NULL;
}

static void transfers_stop(struct daemon_state *d)
{
    nbd_front_stop(d->xapi.nbd);
    d->xapi.nbd = NULL;
    transfers_free(&d->xapi);
}

static struct error *ledger_start_stage(struct daemon_state *d)
{
    TRY(ledger_start(d->arena, &d->xapi));
    d->xapi.queue = d->xapi.is_coordinator ? migration_queue_new(&d->xapi) : NULL;
    return NULL;
}

static void ledger_stop_stage(struct daemon_state *d)
{
    queue_stop(d); /* after a start that failed */
    ledger_stop(&d->xapi);
}
/* Before hosts report: their VMs in mid-migration are marked. */
static struct error *moves_start_stage(struct daemon_state *d)
{
    moves_open(&d->xapi);
    return NULL;
}

static void moves_stop_stage(struct daemon_state *d) { moves_close(&d->xapi); }
static struct error *migrate_start_stage(struct daemon_state *d)
{
    announce_start(&d->xapi);
    return migrate_start(d->arena, &d->xapi);
}

static void migrate_stop_stage(struct daemon_state *d)
{
    migrate_stop(&d->xapi);
    announce_stop(&d->xapi);
}

static struct error *control_start(struct daemon_state *d)
{
    static const struct control_command commands[] = { { "migrations", 1, 6, migrations_command }, { "tapd", 2, 2, tapd_command }, { 0 } };

    return control_socket_start(d->arena, &d->xapi, commands, &d->control);
}


static void control_stop(struct daemon_state *d)
{
    control_socket_stop(d->control);
    d->control = NULL;
}

static struct error *ready_start(struct daemon_state *d)
{
    const char *path = path_in(d, READY_FILE);
    const char *text = arena_printf(d->arena, "pid=%d\nhttp=%d\nhttps=%d\n", (int)getpid(), d->xapi.http_port, d->xapi.https_port);

    housekeeping_start(&d->xapi);
    disk_moves_start(&d->xapi);
    migration_queue_start(&d->xapi);
    disk_ledger_start(&d->xapi);
    moves_start(&d->xapi);
    atomic_store(&d->xapi.serving, true);
    int rc = file_replace(path, text, strlen(text), 0644);
    if (rc < 0)
        return err_internal(d->arena, "%s: %s", path, strerror(-rc));
    log_info("serving on %s", d->xapi.address);
    return NULL;
}

static void ready_stop(struct daemon_state *d) { unlink(path_in(d, READY_FILE)); }

static const struct stage stages[] = {
    { "directory", directory_start, NULL },
    { "identity", identity_start, NULL },
    { "certificate", tls_start, tls_stop },
    { "database", database_start, database_stop },
    { "workers", workers_start, workers_stop },
    { "tables", tables_start, tables_stop },
    { "hypervisor", xenops_start_stage, xenops_stop_stage },
    { "storage", storage_start, storage_stop },
    { "ledger", ledger_start_stage, ledger_stop_stage },
    { "migrations", migrate_start_stage, migrate_stop_stage }, /* outlives whoever calls its verbs */
    { "agent", agent_start, agent_stop },
    { "moves", moves_start_stage, moves_stop_stage },
    { "pool", pool_start_stage, pool_stop_stage },
    { "transfers", transfers_start, transfers_stop },
    { "front", front_start_stage, front_stop_stage },
    { "control socket", control_start, control_stop },
    { "calls", calls_start, calls_stop },
    { "ready", ready_start, ready_stop },
};

/* --- the walk ---------------------------------------------------------------------------------------------------------- */

static void restart_soon(struct xapi *xapi, int ms)
{
    struct daemon_state *d = CONTAINER_OF(xapi, struct daemon_state, xapi);

    log_info("restarting in %d ms", ms);
    atomic_store(&d->restart_at_ms, clock_ms(xapi->clock) + ms);
    CHECK(eventfd_write(d->wake_fd, 1) == 0);
}

/* What was left unfinished with a host can go on. */
static void host_up(struct xapi *xapi, const char *host_ref)
{
    disk_moves_host_up(xapi, host_ref);
    moves_host_up(xapi, host_ref);
}

static void xapi_fill(struct daemon_state *d, struct options *options, const struct clock *clock)
{
    struct xapi *x = &d->xapi;

    d->options = options;
    x->clock = clock;
    x->config = options->config;
    x->dir = config_string(x->config, "dir");
    x->address = config_string(x->config, "address");
    x->http_port = (int)config_int(x->config, "http-port");
    x->https_port = (int)config_int(x->config, "https-port");
    x->restart_soon = restart_soon;
    x->coordinator_target = membership_coordinator;
    x->host_target = agent_target;
    x->emergency_error = emergency_error;
    x->host_up = host_up;
}

struct error *startup(struct daemon_state *d, struct options *options, const struct clock *clock)
{
    *d = (struct daemon_state){ .arena = arena_new() };
    d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(d->wake_fd >= 0);
    xapi_fill(d, options, clock);
    xmlrpc_setup((size_t)config_int(options->config, "request-bytes"));
    while (d->n_started < ARRAY_LEN(stages)) {
        const struct stage *s = &stages[d->n_started++];
        int64_t began = clock_ms(clock);
        struct error *e = s->start(d);
        if (e != NULL)
            return err_internal(d->arena, "%s: %s", s->name, error_text(d->arena, e));
        log_debug("%s: %lld ms", s->name, (long long)(clock_ms(clock) - began));
    }
    return NULL;
}

void shutdown_all(struct daemon_state *d)
{
    while (d->n_started > 0) {
        const struct stage *s = &stages[--d->n_started];
        log_debug("stopping: %s", s->name);
        if (s->stop != NULL)
            s->stop(d);
    }
    close(d->wake_fd);
    arena_free(d->arena);
}
