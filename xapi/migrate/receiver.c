/* The destination's side of a move (wire.h): agent verbs migrate.prepare, .ask and .abort, and the PUTs.
 *
 * One 'struct incoming' a migration. Its phase is guarded by the MIGRATE lock; nobody waits for the disk
 * under it: who decides takes the phase DECIDING, writes the journal unlocked, then publishes the outcome.
 *
 *   PREPARED -> RESTORING -> READY -> COMMITTED | ABORTED, through DECIDING while the journal is written
 *
 * READY, GO and ask/abort race for DECIDING; whoever loses waits for the outcome. ABORTED is for ever. */
#include <errno.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "xapi/core/session.h"
#include "xapi/migrate/disks.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/wire.h"

LOG_MODULE(receiver);

#define MEM_CONNECT_MS 60000
#define OPEN_MS 20000      /* for the disks, before the source hears that the guest does not run yet */
#define OPEN_AGAIN_MS 500

enum phase { PHASE_PREPARED, PHASE_RESTORING, PHASE_READY, PHASE_DECIDING, PHASE_COMMITTED, PHASE_ABORTED };

struct incoming {
    struct incoming *next;
    unsigned refs;       /* the list's, and one for each thread that works on it */
    char *id, *vm_uuid, *temp;
    struct arena *arena; /* owns spec */
    struct vm_spec spec;
    struct value *spec_value;
    struct value disks;  /* a set, in 'arena' (disks.h) */
    enum phase phase;
    bool vm_connected, mem_connected, image_done;
    struct error *image_error; /* in 'arena' */
    struct byte_stream *vm, *mem; /* for waking the threads that read them; borrowed from those threads */
};

/* --- the table --------------------------------------------------------------------------------------- */
static void incoming_unref_locked(struct incoming *in)
{
    if (--in->refs > 0)
        return;
    arena_free(in->arena);
    xfree(in->id);
    xfree(in->vm_uuid);
    xfree(in->temp);
    xfree(in);
}

static void incoming_unref(struct migrations *m, struct incoming *in)
{
    LOCK_SCOPE(&m->lock);
    incoming_unref_locked(in);
}

static struct incoming *find_locked(struct migrations *m, const char *id)
{
    for (struct incoming *in = m->incoming; in != NULL; in = in->next)
        if (strcmp(in->id, id) == 0)
            return in;
    return NULL;
}

static void remove_locked(struct migrations *m, struct incoming *gone)
{
    for (struct incoming **p = &m->incoming; *p != NULL; p = &(*p)->next)
        if (*p == gone) {
            *p = gone->next;
            incoming_unref_locked(gone);
            return;
        }
}

void incoming_free_all(struct migrations *m)
{
    LOCK_SCOPE(&m->lock);
    while (m->incoming != NULL)
        remove_locked(m, m->incoming);
}

static struct error *note(struct arena *a, struct migrations *m, const struct incoming *in, enum journal_state state)
{
    struct member facts[] = { member_of("vm", value_string(in->vm_uuid)), member_of("temp", value_string(in->temp)),
                              member_of("disks", in->disks) };
    struct value v = value_map(facts, ARRAY_LEN(facts));
    return journal_write(a, m->journal, in->id, JOURNAL_DESTINATION, state, &v);
}

/* --- deciding: exactly one of COMMITTED and ABORTED, durable before anyone hears of it ------------------ */
/* Returns the outcome. A journal that cannot be written decides nothing for COMMITTED (it turns into
 * ABORTED in memory, and the caller destroys the domain), since what is not durable was never said. */
static enum phase decide(struct arena *a, struct migrations *m, struct incoming *in, enum phase wish)
{
    lock_take(&m->lock);
    while (in->phase == PHASE_DECIDING)
        cond_wait(&m->changed, &m->lock);
    if (in->phase == PHASE_COMMITTED || in->phase == PHASE_ABORTED) {
        enum phase outcome = in->phase;
        lock_drop(&m->lock);
        return outcome;
    }
    if (wish == PHASE_COMMITTED && in->phase != PHASE_READY)
        wish = PHASE_ABORTED;
    in->phase = PHASE_DECIDING;
    lock_drop(&m->lock);

    struct error *e = note(a, m, in, wish == PHASE_COMMITTED ? JOURNAL_COMMITTED : JOURNAL_ABORTED);
    if (e != NULL) {
        log_err("migration %s: %s", in->id, error_text(a, e));
        wish = PHASE_ABORTED;
    }
    lock_take(&m->lock);
    in->phase = wish;
    if (wish == PHASE_ABORTED && in->mem != NULL)
        bytes_abort(in->mem);
    cond_broadcast(&m->changed);
    lock_drop(&m->lock);
    return wish;
}

/* --- verbs --------------------------------------------------------------------------------------------- */
static struct incoming *incoming_new(struct arena *a, const char *id, const char *vm, const char *temp)
{
    struct incoming *in = xcalloc(1, sizeof *in);
    in->refs = 1;
    in->id = xstrdup(id);
    in->vm_uuid = xstrdup(vm);
    in->temp = xstrdup(temp);
    in->arena = a;
    return in;
}

static struct error *refused(struct arena *a, const char *id)
{
    return err_internal(a, "migration %s was aborted here and stays so", id);
}

struct error *migrate_verb_prepare(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct migrations *m = xapi->migrations;
    const char *id = value_get_string(args, "migration_id", NULL), *vm = value_get_string(args, "vm", NULL);
    const char *temp = value_get_string(args, "temp", NULL);
    const struct value *spec = value_get(args, "spec");
    if (id == NULL || vm == NULL || temp == NULL || spec == NULL || !uuid_valid(id) || !uuid_valid(vm) || !uuid_valid(temp))
        return err_internal(c->arena, "migrate.prepare needs migration_id, vm, temp and spec");
    enum journal_state past;
    if (journal_state(m->journal, id, JOURNAL_DESTINATION, &past)) /* an id is good for one migration */
        return err_internal(c->arena, "migration %s is known here already: %s", id, journal_state_name(past));
    struct arena *a = arena_new();
    struct incoming *in = incoming_new(a, id, vm, temp);
    const struct value *disks = value_get(args, "disks");
    in->disks = disks != NULL && disks->kind == VALUE_SET ? value_dup(a, disks) : value_set(NULL, 0);
    struct value *copy = arena_alloc(a, sizeof *copy);
    *copy = value_dup(a, spec);
    struct error *e = vm_spec_from_value(a, copy, &in->spec);
    if (e == NULL)
        e = note(c->arena, m, in, JOURNAL_PREPARED);
    else
        e = error_dup(c->arena, e);
    lock_take(&m->lock);
    if (e == NULL && find_locked(m, id) != NULL)
        e = err_internal(c->arena, "migration %s is already under way here", id);
    if (e == NULL) {
        in->next = m->incoming;
        m->incoming = in;
    } else {
        incoming_unref_locked(in);
    }
    lock_drop(&m->lock);
    *result_r = value_map(NULL, 0);
    return e;
}

/* The source asks on a new connection, so the old one is dead, whether its end was noticed here or not. */
static void wake_conversation(struct migrations *m, struct incoming *in)
{
    LOCK_SCOPE(&m->lock);
    if (in->vm != NULL)
        bytes_abort(in->vm);
}

static struct value state_answer(struct arena *a, enum phase outcome)
{
    struct value_dict d = { 0 };
    value_dict_add(a, &d, "state", value_string(outcome == PHASE_COMMITTED ? "COMMITTED" : "ABORTED"));
    return value_dict_value(&d);
}

/* What became of it, for good: an undecided one is aborted here and now, an unknown one as well, so that
 * the source may resume its guest and a late GO finds a tombstone. */
struct error *migrate_verb_ask(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct migrations *m = xapi->migrations;
    const char *id = value_get_string(args, "migration_id", "");
    lock_take(&m->lock);
    struct incoming *in = find_locked(m, id);
    if (in != NULL)
        in->refs++;
    lock_drop(&m->lock);
    if (in != NULL) {
        enum phase outcome = decide(c->arena, m, in, PHASE_ABORTED);
        if (outcome == PHASE_ABORTED)
            wake_conversation(m, in);
        incoming_unref(m, in);
        *result_r = state_answer(c->arena, outcome);
        return NULL;
    }
    enum journal_state state;
    bool known = journal_state(m->journal, id, JOURNAL_DESTINATION, &state);
    if (known && (state == JOURNAL_COMMITTED || state == JOURNAL_RUNNING)) {
        *result_r = state_answer(c->arena, PHASE_COMMITTED);
        return NULL;
    }
    if (!known || state != JOURNAL_ABORTED)
        TRY(journal_write(c->arena, m->journal, id, JOURNAL_DESTINATION, JOURNAL_ABORTED, NULL));
    *result_r = state_answer(c->arena, PHASE_ABORTED);
    return NULL;
}

struct error *migrate_verb_abort(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct error *e = migrate_verb_ask(c, xapi, args, result_r);
    struct migrations *m = xapi->migrations;
    LOCK_SCOPE(&m->lock);
    struct incoming *in = find_locked(m, value_get_string(args, "migration_id", ""));
    if (in != NULL && in->phase == PHASE_ABORTED && !in->vm_connected)
        remove_locked(m, in); /* nobody else will */
    return e;
}

/* --- the mem stream ---------------------------------------------------------------------------------------- */
static bool attach_mem(struct migrations *m, struct incoming *in, struct byte_stream *stream)
{
    LOCK_SCOPE(&m->lock);
    if (in->phase != PHASE_RESTORING || in->mem_connected)
        return false;
    in->mem_connected = true;
    in->mem = stream;
    cond_broadcast(&m->changed);
    return true;
}

static void receive_mem(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *stream)
{
    if (!attach_mem(m, in, stream)) {
        int ignored = handshake_send(stream, err_internal(c->arena, "no migration waits for this memory stream"));
        log_warn("migration %s: an unexpected memory stream was refused (%d)", in->id, ignored);
        return;
    }
    struct error *e = NULL;
    int r = handshake_send(stream, NULL);
    if (r != 0)
        e = err_internal(c->arena, "the memory stream broke at its start: %s", strerror(-r));
    else
        e = xenops_restore(c, m->xapi->xenops, in->temp, &in->spec, stream);
    LOCK_SCOPE(&m->lock);
    in->image_error = error_dup(in->arena, e);
    in->image_done = true;
    in->mem = NULL;
    cond_broadcast(&m->changed);
}

/* --- the vm stream: the whole conversation ------------------------------------------------------------------ */
static struct error *wait_image(struct arena *a, struct migrations *m, struct incoming *in)
{
    LOCK_SCOPE(&m->lock);
    while (!in->image_done && in->phase == PHASE_RESTORING && !m->stopping)
        cond_wait_ms(&m->changed, &m->lock, 1000);
    if (!in->image_done || in->phase != PHASE_RESTORING)
        return err_internal(a, "migration %s was given up while its image was received", in->id);
    return error_dup(a, in->image_error);
}

/* READY is written under DECIDING like the outcomes, so that no record ever follows an ABORTED. */
static struct error *become_ready(struct arena *a, struct migrations *m, struct incoming *in)
{
    lock_take(&m->lock);
    bool ours = in->phase == PHASE_RESTORING;
    if (ours)
        in->phase = PHASE_DECIDING;
    lock_drop(&m->lock);
    if (!ours)
        return err_internal(a, "migration %s was given up before it was ready", in->id);
    struct error *e = note(a, m, in, JOURNAL_READY);
    lock_take(&m->lock);
    in->phase = e == NULL ? PHASE_READY : PHASE_RESTORING;
    cond_broadcast(&m->changed);
    lock_drop(&m->lock);
    return e;
}

/* The first vm stream of a migration that waits for one; any other is a mistake. */
static bool attach_vm(struct migrations *m, struct incoming *in, struct byte_stream *stream)
{
    LOCK_SCOPE(&m->lock);
    if (in->phase != PHASE_PREPARED || in->vm_connected)
        return false;
    in->vm_connected = true;
    in->phase = PHASE_RESTORING;
    in->vm = stream;
    return true;
}

static struct error *reserve(struct call *c, struct migrations *m, struct incoming *in)
{
    struct domain_info info;
    return xenops_create(c, m->xapi->xenops, &in->spec, in->temp, &info);
}

/* Transport failures become errors: the source is gone or misbehaves. */
static struct error *hear(struct call *c, struct byte_stream *vm, int timeout_ms, const char *what)
{
    struct error *peer;
    int r = handshake_receive(c->arena, vm, -1, timeout_ms, &peer);
    if (r != 0)
        return err_internal(c->arena, "%s: %s", what, strerror(-r));
    return peer;
}

static struct error *say(struct call *c, struct byte_stream *vm, const char *what)
{
    int r = handshake_send(vm, NULL);
    return r == 0 ? NULL : err_internal(c->arena, "%s: %s", what, strerror(-r));
}

/* Up to READY; whatever fails here aborts. */
static struct error *receive_until_ready(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *vm)
{
    TRY(reserve(c, m, in));
    TRY(say(c, vm, "telling the source that memory is reserved"));
    TRY(hear(c, vm, MEM_CONNECT_MS, "waiting for the source to open its memory stream"));
    TRY(wait_image(c->arena, m, in));
    TRY(become_ready(c->arena, m, in));
    if (fault_hit("migrate.destination.ready"))
        return err_internal(c->arena, "injected fault before READY");
    return say(c, vm, "telling the source that the image is complete");
}

/* Under its own name, its disks open, running. The source gave up its own before GO, so that they can be opened now. */
static struct error *run_here(struct call *c, struct migrations *m, struct incoming *in)
{
    struct domain_info info;
    if (xenops_find(c, m->xapi->xenops, in->vm_uuid, &info) != NULL)
        TRY(xenops_rename(c, m->xapi->xenops, in->temp, in->vm_uuid));
    TRY(migration_disks_open(c, m->xapi, &in->disks));
    return xenops_unpause(c, m->xapi->xenops, in->vm_uuid);
}

/* Somebody destroyed it meanwhile. */
static bool gone(struct call *c, struct migrations *m, const struct incoming *in)
{
    struct domain_info info;
    return xenops_find(c, m->xapi->xenops, in->vm_uuid, &info) != NULL && xenops_find(c, m->xapi->xenops, in->temp, &info) != NULL;
}

/* Again and again until it runs, is gone, the time is over (-1: never) or the daemon stops: then recovery goes on
 * with it. The guest stays paused meanwhile: it lives nowhere else. */
static struct error *run_until(struct call *c, struct migrations *m, struct incoming *in, int64_t ms)
{
    int64_t until = clock_ms(c->clock) + ms;
    struct error *e;
    while ((e = run_here(c, m, in)) != NULL && !gone(c, m, in) && (ms < 0 || clock_ms(c->clock) < until)) {
        log_warn_rl("migration %s: committed, but the guest does not run here yet: %s", in->id, error_text(c->arena, e));
        if (!migrations_pause(m, OPEN_AGAIN_MS))
            break;
    }
    return e;
}

/* COMMITTED is durable: from here the guest lives on this host, whatever the stream does. */
static void run_committed(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *vm)
{
    int r = fault_hit("migrate.destination.lose-committed") ? -EPIPE : handshake_send(vm, NULL);
    if (r != 0)
        log_warn("migration %s: the source did not hear COMMITTED (%s); it will ask", in->id, strerror(-r));
    struct error *e = run_until(c, m, in, OPEN_MS);
    if (e != NULL)
        log_err("migration %s: committed, but the guest stays paused here: %s", in->id, error_text(c->arena, e));
    if (handshake_send(vm, e) != 0)
        log_debug("migration %s: the source did not hear that the guest runs", in->id);
    if (e != NULL && !gone(c, m, in))
        e = run_until(c, m, in, -1);
    struct error *j = e == NULL || gone(c, m, in) ? note(c->arena, m, in, JOURNAL_RUNNING) : NULL;
    if (j != NULL)
        log_err("migration %s: %s", in->id, error_text(c->arena, j));
}

static void receive_vm(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *vm)
{
    if (!attach_vm(m, in, vm)) {
        int ignored = handshake_send(vm, err_internal(c->arena, "migration %s is not waiting for its source", in->id));
        log_warn("migration %s: an unexpected vm stream was refused (%d)", in->id, ignored);
        return;
    }
    struct error *e = receive_until_ready(c, m, in, vm);
    if (e == NULL)
        e = hear(c, vm, -1, "waiting for GO");
    enum phase outcome = decide(c->arena, m, in, e == NULL ? PHASE_COMMITTED : PHASE_ABORTED);
    if (outcome == PHASE_COMMITTED) {
        run_committed(c, m, in, vm);
    } else {
        if (e == NULL)
            e = refused(c->arena, in->id);
        log_warn("migration %s of %s to this host is given up: %s", in->id, in->vm_uuid, error_text(c->arena, e));
        lock_take(&m->lock);
        while (in->mem_connected && !in->image_done)
            cond_wait(&m->changed, &m->lock);
        lock_drop(&m->lock);
        struct error *d = xenops_destroy(c, m->xapi->xenops, in->temp);
        if (d != NULL)
            log_err("migration %s: the unfinished copy could not be destroyed: %s", in->id, error_text(c->arena, d));
        if (handshake_send(vm, e) != 0)
            log_debug("migration %s: the source did not hear why", in->id);
    }
    LOCK_SCOPE(&m->lock);
    in->vm = NULL;
    remove_locked(m, in);
}

/* --- HTTP ------------------------------------------------------------------------------------------------------ */
struct put { struct xapi *xapi; struct incoming *in; bool mem; struct migration_worker worker; };

static void put_run(struct http_exchange *x, struct byte_stream *stream, void *ctx)
{
    struct put *put = ctx;
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = put->xapi->clock, .id = arena_printf(a, "M:%.8s", put->in->id) };
    struct call *outer = call_enter(&c);
    migrations_stream(put->xapi->migrations, &put->worker.vm, stream);
    if (put->mem)
        receive_mem(&c, put->xapi->migrations, put->in, stream);
    else
        receive_vm(&c, put->xapi->migrations, put->in, stream);
    call_enter(outer);
    migrations_stream(put->xapi->migrations, &put->worker.vm, NULL);
    bytes_close(stream);
    incoming_unref(put->xapi->migrations, put->in);
    migrations_leave(put->xapi->migrations, &put->worker);
    xfree(put);
}

static void refuse_put(struct http_exchange *x, int status)
{
    struct text body = TEXT_INIT;
    http_reply(x, status, "text/plain", NULL, &body);
}

void migrate_http_put(struct http_exchange *x, void *ctx)
{
    struct xapi *xapi = ctx;
    const struct http_request *req = http_request(x);
    struct arena *a = http_arena(x);
    const char *secret = http_cookie(a, req, "pool_secret"), *id = http_cookie(a, req, "migration_id");
    static const char vm_path[] = "/services/xenops/migrate/vm/", mem_path[] = "/services/xenops/migrate/mem/";
    bool mem = strncmp(req->path, mem_path, sizeof mem_path - 1) == 0;
    if (!mem && strncmp(req->path, vm_path, sizeof vm_path - 1) != 0) {
        refuse_put(x, 404);
        return;
    }
    if (secret == NULL || !secret_equal(secret, xapi->pool_secret)) {
        refuse_put(x, 401);
        return;
    }
    struct put *put = xcalloc(1, sizeof *put);
    *put = (struct put){ .xapi = xapi, .mem = mem };
    if (id != NULL && migrations_enter(xapi->migrations, &put->worker)) {
        lock_take(&xapi->migrations->lock);
        put->in = find_locked(xapi->migrations, id);
        if (put->in != NULL)
            put->in->refs++;
        lock_drop(&xapi->migrations->lock);
        if (put->in != NULL) {
            http_takeover(x, put_run, put);
            return;
        }
        migrations_leave(xapi->migrations, &put->worker);
    }
    xfree(put);
    refuse_put(x, 404);
}
