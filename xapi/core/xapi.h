/* The daemon as a whole: what main.c puts together and everybody may reach through api_call.xapi. */
#ifndef XAPI_CORE_XAPI_H
#define XAPI_CORE_XAPI_H

#include <stdatomic.h>

#include "db/db.h"
#include "rpc/base/config.h"
#include "rpc/http/client.h"
#include "rpc/http/server.h"
#include "xenops/xenops.h"

struct agent;
struct allowed_refresh;
struct migrations;
struct migration_queue;
struct ledger;
struct moves;
struct disk_sinks;
struct announcer;
struct credentials;
struct transfers;
struct nbd_front;
struct sr_watch;
struct storage;
struct taps;
struct heartbeat;
struct tasks;
struct sessions;
struct operations;
struct events;
struct timers;
struct front;
struct api_call;

struct xapi {
    const struct clock *clock;
    struct config *config;
    const char *dir;            /* state directory: pool.db, pool.conf, ptoken, xapi.pem, sim/, journal/ */
    bool is_coordinator;        /* fixed for the life of the process: a role change restarts it */
    const char *coordinator_address; /* of a member's coordinator */
    const char *host_uuid, *host_ref; /* this host; the ref is known once the pool is */
    const char *address;        /* this host's management address */
    int https_port, http_port;
    bool https_only;            /* at start the plain listener stays closed (host.set_https_only) */
    const char *pool_secret;
    struct db *db;
    struct http_server *http;
    struct front *front;        /* listeners and routes: xapi/core/front.h */
    struct http_client *client;
    struct tls_context *client_tls;
    const char *certificate_fingerprint;
    struct xenops *xenops;
    struct taps *taps;          /* the processes that serve disks: storage/tap.h */
    struct storage *storage;    /* attached SRs of this host: storage/sr.h */
    struct heartbeat *heartbeat; /* xapi/pool/heartbeat.h; under its own lock */
    struct agent *agent;        /* verbs of this host and calls to others: xapi/core/agent.h */
    struct migrations *migrations;
    struct ledger *ledger;       /* coordinator only: xapi/migrate/ledger.h */
    struct migration_queue *queue; /* coordinator only: xapi/migrate/queue.h */
    struct moves *moves;         /* xapi/migrate/move.h */
    struct disk_sinks *sinks;    /* xapi/migrate/disk_sink.h */
    struct announcer *announcer; /* xapi/migrate/announce.h */
    struct credentials *credentials; /* xapi/migrate/credentials.h */
    struct transfers *transfers; /* xapi/transfer/transfer.h */
    struct nbd_front *nbd;       /* xapi/transfer/nbd_front.h; NULL: none */
    struct allowed_refresh *allowed_refresh; /* coordinator only */
    struct sr_watch *sr_watch;               /* coordinator only: xapi/pool/sr_watch.h */
    struct tasks *tasks;
    struct sessions *sessions;
    struct operations *operations;
    struct events *events;
    struct timers *timers;          /* periodic work: xapi/core/timers.h */
    atomic_bool serving;            /* false while starting: clients hear HOST_STILL_BOOTING */
    struct work_pool *workers;      /* synchronous blocking handlers of clients */
    struct work_pool *peer_workers; /* the same for pool peers: their own quota */
    struct work_pool *task_workers; /* Async */
    struct work_pool *login_workers;/* PAM and crypt */
    /* Asks main to restart the process (exec) after 'ms': pool.join, eject, role changes. */
    void (*restart_soon)(struct xapi *, int ms);
    /* Where the coordinator of a member, or the agent of a host (on the coordinator), listens: set by
     * startup.c, so that core need not know the pool's files. */
    struct error *(*coordinator_target)(struct arena *, const struct xapi *, struct http_target *);
    struct error *(*host_target)(struct api_call *, const char *host_ref, struct http_target *);
    /* On a member that its coordinator has not accepted yet: the code of the error that says why; else NULL. */
    const char *(*emergency_error)(struct xapi *, struct arena *);
    /* On the coordinator: a host is back and its SRs are plugged: unfinished moves of disks are settled. May be NULL; returns at once. */
    void (*host_up)(struct xapi *, const char *host_ref);
    /* Opens or closes the listener on http_port at run time: host.set_https_only. NULL: cannot. */
    struct error *(*set_plain_http)(struct arena *, struct xapi *, bool open);
};

#endif
