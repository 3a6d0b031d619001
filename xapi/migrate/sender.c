/* The source's side of a move: a table of steps, each with its undo, run in order (wire.h says what goes
 * over the wire, journal.h what is made durable when).
 *
 * Agent verb "migrate.send". Arguments: migration_id, vm (uuid), spec (vm_spec as the destination must see
 * it), disks (disks.h), destination {address, port, tls, fingerprint}, live (bool), max_downtime_ms, bandwidth
 * (bytes/s).
 * Result: rounds, pages, bytes, blackout_us, duration_us. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "xapi/migrate/disks.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/wire.h"
#include "xapi/core/agent.h"

LOG_MODULE(sender);

#define HANDSHAKE_MS 60000    /* for the peer's answer where it has little to do */
#define RESTORE_MS 600000     /* for READY: the peer verifies and completes the image */
#define COMMIT_MS 10000       /* for COMMITTED before asking on a new connection */

struct sender {
    struct call *c;
    struct call steady; /* the same without deadline or cancel: for undo and from GO on */
    struct migrations *m;
    const char *id, *vm_uuid;
    char source_temp[UUID_LEN + 1], destination_temp[UUID_LEN + 1];
    const struct value *spec;
    struct value disks; /* a set */
    struct http_target target;
    struct save_policy policy;
    struct migration_worker worker;
    struct byte_stream *vm, *mem; /* also in 'worker' while open */
    struct save_result saved;
    int done_fd; /* readable once the image is sent: ends the watch for cancellation */
    int64_t began_us, running_us;
};

static struct error *contact_failed(struct sender *s, const char *what, int r)
{
    struct error *e = error_make(s->c->arena, __FILE__, __LINE__, "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED", 0);
    e->cause = arena_printf(s->c->arena, "%s: %s", what, strerror(-r));
    return e;
}

static struct error *transport_failed(struct sender *s, const char *what, int r)
{
    if (r == -ECANCELED || call_cancelled(s->c))
        return error_make(s->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    return contact_failed(s, what, r);
}

static struct error *note(struct sender *s, enum journal_state state)
{
    struct member facts[] = {
        member_of("vm", value_string(s->vm_uuid)),
        member_of("temp", value_string(s->source_temp)),
        member_of("destination", migration_target_value(s->c->arena, &s->target)),
        member_of("disks", s->disks),
    };
    struct value v = value_map(facts, ARRAY_LEN(facts));
    return journal_write(s->c->arena, s->m->journal, s->id, JOURNAL_SOURCE, state, &v);
}

/* --- step 1: the journal knows of it -------------------------------------------------------------- */
static struct error *step_journal(struct sender *s)
{
    return note(s, JOURNAL_PREPARED);
}

static void undo_journal(struct sender *s)
{
    struct error *e = note(s, JOURNAL_RESUMED);
    if (e != NULL)
        log_err("migration %s was rolled back, but: %s", s->id, error_text(s->c->arena, e));
    else
        journal_forget(s->m->journal, s->id, JOURNAL_SOURCE);
}

/* --- step 2: the destination gets the metadata ---------------------------------------------------- */
static struct error *step_prepare(struct sender *s)
{
    struct member args[] = {
        member_of("migration_id", value_string(s->id)),
        member_of("vm", value_string(s->vm_uuid)),
        member_of("temp", value_string(s->destination_temp)),
        member_of("spec", *s->spec),
        member_of("disks", s->disks),
    };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    return agent_call_at(s->c, s->m->xapi, &s->target, "migrate.prepare", &v, &ignored);
}

/* Best effort: a destination that cannot be told notices its broken connections. */
static void undo_prepare(struct sender *s)
{
    struct member args[] = { member_of("migration_id", value_string(s->id)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *e = agent_call_at(&s->steady, s->m->xapi, &s->target, "migrate.abort", &v, &ignored);
    if (e != NULL)
        log_warn("migration %s: the destination could not be told to abort: %s", s->id, error_text(s->c->arena, e));
}

/* --- step 3: the vm stream; the destination reserves memory ---------------------------------------- */
static struct error *open_stream(struct sender *s, const char *kind, struct byte_stream **stream_r)
{
    struct arena *a = s->c->arena;
    const char *path = arena_printf(a, "/services/xenops/migrate/%s/%s", kind, s->destination_temp);
    const char *headers = arena_printf(a, "Cookie: pool_secret=%s; migration_id=%s; final_id=%s; memory_limit=%lld; two_phase=1\r\n",
                                       s->m->xapi->pool_secret, s->id, s->vm_uuid,
                                       (long long)value_get_int(s->spec, "memory_static_max", 0));
    int r = http_client_raw(s->c, s->m->xapi->client, &s->target, "PUT", path, headers, stream_r);
    if (r != 0)
        return transport_failed(s, "connecting to the destination", r);
    migrations_stream(s->m, stream_r == &s->vm ? &s->worker.vm : &s->worker.mem, *stream_r);
    return NULL;
}

static void close_stream(struct sender *s, struct byte_stream **stream)
{
    migrations_stream(s->m, stream == &s->vm ? &s->worker.vm : &s->worker.mem, NULL);
    bytes_close(*stream);
    *stream = NULL;
}

static struct error *expect(struct sender *s, struct byte_stream *stream, const char *what, int timeout_ms)
{
    struct error *peer;
    int stop_fd = s->c->cancel != NULL ? cancel_fd(s->c->cancel) : -1;
    int r = handshake_receive(s->c->arena, stream, stop_fd, timeout_ms, &peer);
    return r == 0 ? peer : transport_failed(s, what, r);
}

static struct error *step_connect(struct sender *s)
{
    TRY(open_stream(s, "vm", &s->vm));
    return expect(s, s->vm, "waiting for the destination to reserve memory", HANDSHAKE_MS);
}

static void undo_connect(struct sender *s)
{
    close_stream(s, &s->vm);
}

/* --- step 4: the mem stream ------------------------------------------------------------------------ */
static struct error *step_memory(struct sender *s)
{
    TRY(open_stream(s, "mem", &s->mem));
    TRY(expect(s, s->mem, "waiting for the destination's memory stream", HANDSHAKE_MS));
    int r = handshake_send(s->vm, NULL);
    return r == 0 ? NULL : transport_failed(s, "synchronising before the memory", r);
}

static void undo_memory(struct sender *s)
{
    close_stream(s, &s->mem);
}

/* --- step 5: the image, live, until the guest is suspended and all of it is sent -------------------- */
static void on_progress(void *ctx, const struct save_progress *p)
{
    struct sender *s = ctx;
    call_progress(s->c, 0.02 + 0.93 * p->fraction);
}

static struct error *on_suspended(void *ctx, struct call *c)
{
    struct sender *s = ctx;
    TRY(note(s, JOURNAL_SUSPENDED));
    return migration_disks_close(c, s->m->xapi, &s->disks);
}

static void on_way_back(void *ctx, struct call *c)
{
    struct sender *s = ctx;
    migration_disks_reopen(c, s->m, s->id, &s->disks);
}

/* When the save fails because the stream broke, cancelling or the destination's own word tells why. */
static struct error *peer_word(struct sender *s, struct error *own)
{
    struct error *peer = NULL;
    if (call_cancelled(s->c)) /* it broke because abort_on_cancel broke it */
        return error_make(s->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (handshake_receive(s->c->arena, s->vm, -1, 1000, &peer) == 0 && peer != NULL)
        return peer;
    return own;
}

/* A write to a peer that does not read blocks for as long as it likes: cancelling breaks the stream. */
static void *abort_on_cancel(void *arg)
{
    struct sender *s = arg;
    struct pollfd fds[] = { { .fd = cancel_fd(s->c->cancel), .events = POLLIN }, { .fd = s->done_fd, .events = POLLIN } };
    while (poll(fds, ARRAY_LEN(fds), -1) < 0 && errno == EINTR)
        ;
    if (fds[1].revents == 0)
        bytes_abort(s->mem);
    return NULL;
}

static struct error *save_watched(struct sender *s, const struct save_callbacks *callbacks)
{
    AUTO_FD done_fd = s->c->cancel != NULL ? eventfd(0, EFD_CLOEXEC) : -1;
    pthread_t watcher = 0;
    s->done_fd = done_fd;
    if (done_fd >= 0)
        watcher = thread_start("migrate-cancel", abort_on_cancel, s);
    struct error *e = xenops_save(s->c, s->m->xapi->xenops, s->vm_uuid, s->mem, &s->policy, callbacks, &s->saved);
    if (done_fd >= 0) {
        (void)!eventfd_write(done_fd, 1);
        CHECK(pthread_join(watcher, NULL) == 0);
    }
    return e;
}

static struct error *step_stream(struct sender *s)
{
    TRY(note(s, JOURNAL_STREAMING));
    struct save_callbacks callbacks = { .ctx = s, .progress = on_progress, .after_suspend = on_suspended, .before_resume = on_way_back };
    struct error *e = save_watched(s, &callbacks);
    if (e != NULL)
        return peer_word(s, e);
    int r = bytes_finish(s->mem);
    if (r != 0) /* whether the image arrived, READY tells */
        log_warn("migration %s: ending the memory stream: %s", s->id, strerror(-r));
    return NULL;
}

/* xenops_save resumes the guest by itself when it fails; after it succeeded that is ours. */
static void undo_stream(struct sender *s)
{
    migration_disks_reopen(&s->steady, s->m, s->id, &s->disks);
    struct error *e = xenops_resume(&s->steady, s->m->xapi->xenops, s->vm_uuid);
    if (e != NULL)
        log_err("migration %s: the guest could not be resumed here: %s", s->id, error_text(s->c->arena, e));
}

/* --- step 6: READY: restored there, complete and paused --------------------------------------------- */
static struct error *step_ready(struct sender *s)
{
    call_progress(s->c, 0.96);
    struct error *peer;
    int r = handshake_receive(s->c->arena, s->vm, -1, RESTORE_MS, &peer);
    return r == 0 ? peer : contact_failed(s, "waiting for the destination to complete the image", r);
}

/* --- step 7: our copy gives up the VM's name (a move to the same host needs it) ---------------------- */
static struct error *step_rename(struct sender *s)
{
    return xenops_rename(&s->steady, s->m->xapi->xenops, s->vm_uuid, s->source_temp);
}

static void undo_rename(struct sender *s)
{
    struct error *e = xenops_rename(&s->steady, s->m->xapi->xenops, s->source_temp, s->vm_uuid);
    if (e != NULL)
        log_err("migration %s: the guest could not be renamed back: %s", s->id, error_text(s->c->arena, e));
}

/* --- step 8: GO, and its one answer ------------------------------------------------------------------ */
/* From GO-SENT on only the destination's word decides: on the stream, or asked for by migration id. */
static struct error *step_go(struct sender *s)
{
    TRY(note(s, JOURNAL_GO_SENT));
    struct error *peer = NULL;
    int r = fault_hit("migrate.source.lose-go") ? -EPIPE : handshake_send(s->vm, NULL);
    if (r == 0)
        r = handshake_receive(s->c->arena, s->vm, -1, COMMIT_MS, &peer);
    if (r == 0 && peer == NULL)
        return NULL;
    log_warn("migration %s: no clear answer to GO (%s); asking the destination", s->id, r != 0 ? strerror(-r) : peer->code);
    bool committed = false;
    TRY(migration_resolve(&s->steady, s->m, s->id, &s->target, &committed));
    if (committed)
        return NULL;
    return peer != NULL ? peer : contact_failed(s, "the destination gave the migration up", r);
}

/* --- step 9 and 10: it runs there; our copy goes ------------------------------------------------------ */
static struct error *step_running(struct sender *s)
{
    struct error *peer = NULL;
    int r = handshake_receive(s->c->arena, s->vm, -1, HANDSHAKE_MS, &peer);
    if (r != 0 || peer != NULL)
        log_err("migration %s: committed, but the destination reports: %s", s->id, r != 0 ? strerror(-r) : error_text(s->c->arena, peer));
    s->running_us = clock_us(s->c->clock);
    return NULL;
}

static struct error *step_finish(struct sender *s)
{
    struct error *e = note(s, JOURNAL_DONE);
    if (e != NULL)
        log_err("migration %s is done, but: %s", s->id, error_text(s->c->arena, e));
    struct error *d = xenops_destroy(&s->steady, s->m->xapi->xenops, s->source_temp);
    if (d != NULL)
        log_err("migration %s: the old copy could not be destroyed: %s", s->id, error_text(s->c->arena, d));
    else if (e == NULL)
        journal_forget(s->m->journal, s->id, JOURNAL_SOURCE);
    return NULL;
}

/* In the order they run. Up to and including 'go' a failure undoes what was done, last first; 'go' itself
 * fails only on the destination's durable ABORTED; what follows it cannot fail. */
static const struct step {
    const char *name;
    struct error *(*run)(struct sender *);
    void (*undo)(struct sender *);
} steps[] = {
    { "journal", step_journal, undo_journal }, { "prepare", step_prepare, undo_prepare },
    { "connect", step_connect, undo_connect }, { "memory", step_memory, undo_memory },
    { "stream", step_stream, undo_stream },    { "ready", step_ready, NULL },
    { "rename", step_rename, undo_rename },    { "go", step_go, NULL },
    { "running", step_running, NULL },         { "finish", step_finish, NULL },
};

/* A failed connect or memory step has half a connection to close: its undo runs too. */
static void undo_from(struct sender *s, unsigned failed)
{
    if (steps[failed].run == step_connect || steps[failed].run == step_memory)
        steps[failed].undo(s);
    while (failed-- > 0)
        if (steps[failed].undo != NULL)
            steps[failed].undo(s);
}

/* After the commit point there is no way back: a fault point there can only kill the process. */
static struct error *run_step(struct sender *s, const struct step *step, bool committed)
{
    if (fault_hit(arena_printf(s->c->arena, "migrate.source.%s", step->name)) && !committed)
        return err_internal(s->c->arena, "injected fault before step %s", step->name);
    return step->run(s);
}

static struct error *run_steps(struct sender *s)
{
    bool committed = false;
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
        struct error *e = run_step(s, &steps[i], committed);
        if (e == NULL && steps[i].run == step_go)
            committed = true;
        if (e == NULL)
            continue;
        log_warn("migration %s of %s failed at '%s' and is rolled back: %s", s->id, s->vm_uuid, steps[i].name, error_text(s->c->arena, e));
        if (s->m->stopping && steps[i].run == step_go)
            return e; /* the outcome is unknown: the journal says GO-SENT and recovery asks again */
        undo_from(s, i);
        return e;
    }
    return NULL;
}

static struct error *sender_init(struct sender *s, const struct value *args)
{
    struct arena *a = s->c->arena;
    s->id = value_get_string(args, "migration_id", NULL);
    s->vm_uuid = value_get_string(args, "vm", NULL);
    s->spec = value_get(args, "spec");
    if (s->id == NULL || s->vm_uuid == NULL || !uuid_valid(s->vm_uuid) || s->spec == NULL)
        return err_internal(a, "migrate.send needs migration_id, vm and spec");
    const struct value *disks = value_get(args, "disks");
    s->disks = disks != NULL && disks->kind == VALUE_SET ? *disks : value_set(NULL, 0);
    TRY(migration_target(a, args, &s->target));
    migration_temp_uuid(s->vm_uuid, JOURNAL_SOURCE, s->source_temp);
    migration_temp_uuid(s->vm_uuid, JOURNAL_DESTINATION, s->destination_temp);
    s->policy = (struct save_policy){
        .live = value_get_bool(args, "live", true),
        .max_downtime_ms = (unsigned)value_get_int(args, "max_downtime_ms", 0),
        .bandwidth = value_get_int(args, "bandwidth", 0),
        .localhost = value_get_bool(args, "localhost", false),
    };
    return NULL;
}

struct error *migrate_verb_send(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct sender s = { .c = c, .steady = *c, .m = xapi->migrations, .began_us = clock_us(c->clock) };
    s.steady.cancel = NULL;
    s.steady.deadline_ms = 0;
    TRY(sender_init(&s, args));
    if (!migrations_enter(s.m, &s.worker))
        return err_internal(c->arena, "this host's daemon is stopping");
    struct error *e = run_steps(&s);
    close_stream(&s, &s.mem);
    close_stream(&s, &s.vm);
    migrations_leave(s.m, &s.worker);
    TRY(e);
    int64_t now = clock_us(c->clock);
    struct value_dict d = { 0 };
    value_dict_add(c->arena, &d, "rounds", value_int(s.saved.rounds));
    value_dict_add(c->arena, &d, "pages", value_int(s.saved.pages_sent));
    value_dict_add(c->arena, &d, "bytes", value_int(s.saved.bytes_sent));
    value_dict_add(c->arena, &d, "blackout_us", value_int(s.running_us - s.saved.suspended_at_us));
    value_dict_add(c->arena, &d, "duration_us", value_int(now - s.began_us));
    *result_r = value_dict_value(&d);
    return NULL;
}
