/* Saving a guest: the pre-copy of xenops/stream over its shared memory. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "xenops/sim/host.h"
#include "xenops/state_text.h"
#include "xenops/stream/precopy.h"

LOG_MODULE(sim);

struct saving {
    struct sim_host *host;
    struct sim_domain *domain;
};

static void track(void *ctx, bool on)
{
    const struct saving *s = ctx;

    atomic_store(&s->domain->control->tracking, on);
}

static void throttle(void *ctx, unsigned percent)
{
    const struct saving *s = ctx;

    atomic_store(&s->domain->control->throttle, percent);
}

/* Whatever came of a suspension that failed half way: the guest runs on. */
static struct error *resume(void *ctx, struct call *c)
{
    const struct saving *s = ctx;
    struct call go_on = *c;

    go_on.cancel = NULL;
    go_on.deadline_ms = 0;
    if (atomic_load(&s->domain->end) != GUEST_END_NONE)
        return NULL; /* nobody is left to run on */
    return sim_guest_call(&go_on, s->domain, GUEST_VERB_RESUME, 0, NULL, 0, "suspended");
}

static struct error *suspend_error(struct call *c, const struct saving *s, int rc, bool acknowledged)
{
    if (rc == -ECANCELED)
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (rc == -ETIMEDOUT && !acknowledged)
        return error_make(c->arena, __FILE__, __LINE__, "VM_FAILED_SUSPEND_ACKNOWLEDGMENT", 0);
    if (rc == -ETIMEDOUT)
        return error_make(c->arena, __FILE__, __LINE__, "VM_SUSPEND_TIMEOUT", 1,
                          arena_printf(c->arena, "%lld", (long long)(s->host->options.suspend_ms / 1000)));
    return err_internal(c->arena, "guest %d does not answer: %s", s->domain->domid, strerror(-rc));
}

static struct error *suspend(void *ctx, struct call *c, const void **context_r, size_t *len_r)
{
    const struct saving *s = ctx;
    const struct sim_options *o = &s->host->options;
    struct guest_answered a = { .answer = GUEST_ANSWER_FAILED };
    bool acknowledged = false;
    AUTO_FD fd = sim_guest_connect(s->domain);
    int rc = fd < 0 ? fd : sim_guest_send(fd, GUEST_VERB_SUSPEND, 0, NULL, 0);

    if (rc == 0)
        rc = sim_guest_receive(c, fd, clock_ms(c->clock) + o->suspend_ack_ms, &a);
    if (rc == 0 && a.answer == GUEST_ANSWER_STATE)
        return sim_bad_state(c, "running", (const char *)a.payload);
    if (rc == 0) {
        acknowledged = true;
        rc = sim_guest_receive(c, fd, clock_ms(c->clock) + o->suspend_ms, &a);
    }
    if (rc == 0 && a.answer == GUEST_ANSWER_OK) {
        *context_r = a.payload;
        *len_r = a.len;
        return NULL;
    }
    struct error *e = suspend_error(c, s, rc < 0 ? rc : -EPROTO, acknowledged);
    bool asked = fd >= 0;
    fd_close(&fd); /* a guest that still waits for a disk sees it, and runs on */
    if (asked && resume(ctx, c) != NULL)
        log_debug("guest %d could not be told to run on", s->domain->domid);
    return e;
}

/* The Xenops record: enough to see whose image this is. */
static void state_of(struct call *c, const struct sim_domain *d, struct text *t)
{
    struct value spec;
    const char *why;

    if (!state_text_read(c->arena, d->spec, strlen(d->spec), &spec, &why))
        spec = value_map(NULL, 0);
    const struct member members[] = {
        member_of("format", value_string("xapi-sim-1")),
        member_of("uuid", value_string(value_get_string(&spec, "uuid", ""))),
        member_of("pages", value_int((int64_t)d->n_pages)),
        member_of("vcpus", value_int(d->vcpus)),
        member_of("memory_actual", value_int((int64_t)(atomic_load(&d->control->actual_pages) * GUEST_PAGE))),
        member_of("vm", spec),
    };
    struct value v = value_map(members, ARRAY_LEN(members));
    state_text_add(t, &v);
}

static struct error *save(struct call *c, struct saving *s, const void *memory, struct byte_stream *stream, const struct save_policy *policy,
                          const struct save_callbacks *callbacks, struct save_result *r)
{
    const char *fault = fault_word("demo");
    struct sim_domain *d = s->domain;
    AUTO_TEXT state = TEXT_INIT;
    const struct precopy_source source = {
        .ctx = s,
        .memory = memory,
        .n_pages = d->n_pages,
        .memory_fd = d->ram_fd,
        .dirty = guest_bitmap(d->control),
        .stale_page = fault != NULL && strcmp(fault, "stale-page") == 0,
        .track = track,
        .throttle = throttle,
        .suspend = suspend,
        .resume = resume,
    };

    state_of(c, d, &state);
    TRY(precopy_save(c, &source, state.bytes, state.len, stream, policy, callbacks, r));
    if (r->postcopy) {
        atomic_store(&d->control->postcopy_left, (uint64_t)r->pages_left);
        atomic_store(&d->control->postcopy, GUEST_POSTCOPY_OFFERED);
    }
    return NULL;
}

struct error *sim_save(struct call *c, void *host, const char *uuid, struct byte_stream *stream, const struct save_policy *policy,
                       const struct save_callbacks *callbacks, struct save_result *r)
{
    struct sim_host *h = host;
    struct sim_busy busy;
    AUTO_DOMAIN *d = NULL;

    *r = (struct save_result){ .rounds = 0 };
    TRY(sim_domain_find_alive(c, h, uuid, &d));
    if (sim_domain_state(d) != DOMAIN_RUNNING)
        return sim_bad_state(c, "running", sim_domain_state(d) == DOMAIN_SUSPENDED ? "suspended" : "paused");
    TRY(sim_postcopy_refuse(c, d, "running"));
    sim_memory_unmap(d);
    void *memory = mmap(NULL, d->n_pages * GUEST_PAGE, PROT_READ, MAP_SHARED, d->ram_fd, 0);
    if (memory == MAP_FAILED)
        return err_internal(c->arena, "guest %d: its memory cannot be mapped: %s", d->domid, strerror(errno));
    struct saving s = { .host = h, .domain = d };
    struct error *e = sim_busy_begin(c, h, d, stream, false, &busy);
    if (e == NULL) {
        uint32_t slowed = atomic_load(&d->control->throttle); /* by somebody else, who may want it so */
        e = sim_busy_end(c, &busy, save(&busy.call, &s, memory, stream, policy, callbacks, r));
        atomic_store(&d->control->throttle, slowed);
    }
    atomic_store(&d->memory, memory); /* taking it down takes its time: not while the guest stands */
    if (e != NULL)
        sim_memory_unmap(d);
    return e;
}
