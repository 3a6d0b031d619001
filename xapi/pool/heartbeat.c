#include "xapi/pool/heartbeat.h"

#include <stdio.h>

#include "gen/errors.h"
#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xapi/pool/agent_verbs.h"
#include "xapi/pool/host_record.h"
#include "xapi/pool/liveness.h"

LOG_MODULE(heartbeat);

#define SETTLE_MS 50   /* changes within this are one report */
#define RETRY_FIRST_MS 100 /* after a report that did not arrive; then twice as long, up to */
#define RETRY_MS 2000
#define REPORT_DEADLINE_MS 15000

struct heartbeat {
    struct xapi *xapi;
    struct cond wake;      /* with reports_lock, which guards what changes below */
    pthread_t thread;
    struct cancel *cancel; /* of a report under way */
    bool stopping, changed;
    bool accepted;         /* member: the coordinator answered our hello */
    char emergency[64];    /* member: code of the last refusal */
    struct liveness *liveness; /* coordinator */
};

/* One for all heartbeats of the process: it also guards xapi->heartbeat itself, because the backend's
 * threads may call before there is one and after it is gone. */
static struct lock reports_lock = { PTHREAD_MUTEX_INITIALIZER, LOCK_LEAF };

void heartbeat_domain_changed(void *ctx, const char *uuid)
{
    struct xapi *xapi = ctx;

    lock_take(&reports_lock);
    if (xapi->heartbeat != NULL) {
        xapi->heartbeat->changed = true;
        cond_signal(&xapi->heartbeat->wake);
    }
    lock_drop(&reports_lock);
}

/* --- reporting --------------------------------------------------------------------------------------------- */
static struct error *report_local(struct call *c, struct heartbeat *h)
{
    struct host_facts facts;
    struct value domains;

    TRY(xenops_facts(c, h->xapi->xenops, &facts));
    TRY(domains_value(c, h->xapi, &domains));
    liveness_heard(h->liveness, h->xapi->host_ref, &domains, facts.memory_total, facts.memory_free);
    return NULL;
}

static struct error *hello(struct call *c, struct heartbeat *h)
{
    struct value description, ignored;

    TRY(host_describe(c, h->xapi, &description));
    return agent_call_coordinator(c, h->xapi, "coordinator.hello", &description, &ignored);
}

static struct error *report_remote(struct call *c, struct heartbeat *h)
{
    struct value_dict args = { 0 };
    struct host_facts facts;
    struct value domains, value, ignored;

    TRY(xenops_facts(c, h->xapi->xenops, &facts));
    TRY(domains_value(c, h->xapi, &domains));
    value_dict_add(c->arena, &args, "host_ref", value_string(h->xapi->host_ref));
    value_dict_add(c->arena, &args, "time", value_int(clock_wall(h->xapi->clock)));
    value_dict_add(c->arena, &args, "domains", domains);
    value_dict_add(c->arena, &args, "memory_total", value_int(facts.memory_total));
    value_dict_add(c->arena, &args, "memory_free", value_int(facts.memory_free));
    value = value_dict_value(&args);
    return agent_call_coordinator(c, h->xapi, "coordinator.host_state", &value, &ignored);
}

static void accepted_set(struct heartbeat *h, bool accepted, const struct error *error)
{
    LOCK_SCOPE(&reports_lock);
    h->accepted = accepted;
    if (error != NULL)
        snprintf(h->emergency, sizeof(h->emergency), "%s", error->code);
}

static bool accepted_get(struct heartbeat *h)
{
    LOCK_SCOPE(&reports_lock);
    return h->accepted;
}

/* True when the report arrived. */
static bool report(struct heartbeat *h)
{
    AUTO_ARENA arena = arena_new();
    struct call c = {
        .arena = arena,
        .clock = h->xapi->clock,
        .cancel = h->cancel,
        .id = "heartbeat",
        .deadline_ms = h->xapi->is_coordinator ? 0 : clock_ms(h->xapi->clock) + REPORT_DEADLINE_MS,
    };
    struct error *error = NULL;

    if (h->xapi->is_coordinator)
        error = report_local(&c, h);
    else {
        if (!accepted_get(h)) {
            c.deadline_ms = 0; /* the coordinator attaches our SRs meanwhile */
            error = hello(&c, h);
            accepted_set(h, error == NULL, error);
            if (error == NULL)
                log_info("the coordinator %s has accepted this host", h->xapi->coordinator_address);
        }
        if (error == NULL)
            error = report_remote(&c, h);
        if (error_is(error, "HOST_UNKNOWN_TO_MASTER"))
            accepted_set(h, false, error);
    }
    if (error != NULL)
        log_warn_rl("report: %s", error_text(arena, error));
    return error == NULL;
}

/* --- the thread ------------------------------------------------------------------------------------------------ */
/* Waits for the next reason to report, at most ms; false: stop. *changed_r: a domain changed. */
static bool wait_for_reason(struct heartbeat *h, int64_t ms, bool *changed_r)
{
    int64_t until = clock_ms(h->xapi->clock) + ms, left;

    LOCK_SCOPE(&reports_lock);
    while (!h->stopping && !h->changed && (left = until - clock_ms(h->xapi->clock)) > 0)
        (void)cond_wait_ms(&h->wake, &reports_lock, left);
    until = clock_ms(h->xapi->clock) + SETTLE_MS;
    while (!h->stopping && h->changed && (left = until - clock_ms(h->xapi->clock)) > 0)
        (void)cond_wait_ms(&h->wake, &reports_lock, left);
    *changed_r = h->changed;
    h->changed = false;
    return !h->stopping;
}

static void *heartbeat_main(void *arg)
{
    struct heartbeat *h = arg;
    int64_t interval = config_int(h->xapi->config, "host-heartbeat-interval-ms");
    int64_t dead = config_int(h->xapi->config, "host-assumed-dead-interval-ms");
    int64_t retry_max = interval < RETRY_MS ? interval : RETRY_MS, retry = RETRY_FIRST_MS, tick = dead / 4 < interval ? dead / 4 : interval;
    bool arrived = false, changed = false;
    int64_t reported_ms = 0;

    do {
        int64_t now = clock_ms(h->xapi->clock);

        if (changed || !arrived || now - reported_ms >= interval) {
            arrived = report(h);
            reported_ms = now;
            retry = arrived ? RETRY_FIRST_MS : 2 * retry < retry_max ? 2 * retry : retry_max;
        }
        if (h->liveness != NULL)
            liveness_tick(h->liveness, dead);
    } while (wait_for_reason(h, !arrived ? retry : h->liveness != NULL ? tick : interval, &changed));
    return NULL;
}

struct error *heartbeat_start(struct arena *arena, struct xapi *xapi)
{
    struct heartbeat *h = xcalloc(1, sizeof(*h));

    h->xapi = xapi;
    cond_init(&h->wake);
    h->cancel = cancel_new();
    snprintf(h->emergency, sizeof(h->emergency), "HOST_STILL_BOOTING");
    if (xapi->is_coordinator)
        h->liveness = liveness_new(xapi);
    lock_take(&reports_lock);
    xapi->heartbeat = h;
    lock_drop(&reports_lock);
    h->thread = thread_start("heartbeat", heartbeat_main, h);
    return NULL;
}

void heartbeat_stop(struct xapi *xapi)
{
    struct heartbeat *h = xapi->heartbeat;

    if (h == NULL)
        return;
    lock_take(&reports_lock);
    xapi->heartbeat = NULL;
    lock_drop(&reports_lock);
    lock_take(&reports_lock);
    h->stopping = true;
    cancel_raise(h->cancel);
    cond_broadcast(&h->wake);
    lock_drop(&reports_lock);
    pthread_join(h->thread, NULL);
    liveness_free(h->liveness);
    cancel_unref(h->cancel);
    cond_release(&h->wake);
    xfree(h);
}

bool heartbeat_in_emergency(struct xapi *xapi)
{
    return !xapi->is_coordinator && xapi->heartbeat != NULL && !accepted_get(xapi->heartbeat);
}

const char *heartbeat_emergency_error(struct xapi *xapi, struct arena *arena)
{
    if (xapi->heartbeat == NULL)
        return "HOST_STILL_BOOTING";
    LOCK_SCOPE(&reports_lock);
    return arena_strdup(arena, xapi->heartbeat->emergency);
}

void heartbeat_heard(struct xapi *xapi, const char *host_ref, const struct value *domains, int64_t memory_total, int64_t memory_free)
{
    if (xapi->heartbeat != NULL && xapi->heartbeat->liveness != NULL)
        liveness_heard(xapi->heartbeat->liveness, host_ref, domains, memory_total, memory_free);
}

void heartbeat_hello(struct xapi *xapi, const char *host_ref)
{
    if (xapi->heartbeat != NULL && xapi->heartbeat->liveness != NULL)
        liveness_up(xapi->heartbeat->liveness, host_ref);
}

void heartbeat_shutting_down(struct xapi *xapi, const char *host_ref)
{
    if (xapi->heartbeat != NULL && xapi->heartbeat->liveness != NULL)
        liveness_down(xapi->heartbeat->liveness, host_ref);
}

void heartbeat_forget(struct xapi *xapi, const char *host_ref)
{
    if (xapi->heartbeat != NULL && xapi->heartbeat->liveness != NULL)
        liveness_forget(xapi->heartbeat->liveness, host_ref);
}
