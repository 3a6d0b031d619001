/* The destination's side of a move (wire.h): agent verb migrate.prepare, and the conversation on the vm stream.
 *
 * Verb migrate.prepare. Arguments: migration_id, vm (uuid here, in the end), temp (uuid until then), spec, key, disks (opened
 * here once it has committed), vifs (announced here), paused (it stays so). Answer: what is offered beyond the plain protocol
 * (wire.h). A migration whose source does not come within incoming-patience seconds is given up. */
#include "xapi/migrate/receiver.h"

#include <errno.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/migrate/announce.h"
#include "xapi/migrate/wire.h"

LOG_MODULE(receiver);

#define MEM_CONNECT_MS 60000
#define OPEN_MS 20000      /* for the disks, before the source hears that the guest does not run yet */
#define OPEN_AGAIN_MS 500

/* --- prepare --------------------------------------------------------------------------------------------- */
static struct value offer(struct arena *a)
{
    static const char *const words[] = { "confirm", "alive", "report" };
    struct value_list extras = { 0 }, compress = { 0 };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        value_list_add(a, &extras, value_string(words[i]));
    value_list_add(a, &compress, value_string("zstd"));
    value_dict_add(a, &d, "streams", value_int(FAN_MAX));
    value_dict_add(a, &d, "compress", value_list_value(&compress));
    value_dict_add(a, &d, "extras", value_list_value(&extras));
    return value_dict_value(&d);
}

static struct value set_of(struct arena *a, const struct value *args, const char *name)
{
    const struct value *v = value_get(args, name);

    return v != NULL && v->kind == VALUE_SET ? value_dup(a, v) : value_set(NULL, 0);
}

static struct error *incoming_fill(struct call *c, struct incoming *in, const struct value *args, const struct value *spec)
{
    struct arena *a = in->arena;
    struct value *copy = arena_alloc(a, sizeof *copy);

    in->prepared_ms = clock_ms(c->clock);
    in->disks = set_of(a, args, "disks");
    in->vifs = set_of(a, args, "vifs");
    in->key = arena_strdup(a, value_get_string(args, "key", ""));
    in->paused = value_get_bool(args, "paused", false);
    *copy = value_dup(a, spec);
    return error_dup(c->arena, vm_spec_from_value(a, copy, &in->spec));
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
    struct incoming *in = incoming_new(id, vm, temp);
    struct error *e = incoming_fill(c, in, args, spec);
    if (e == NULL)
        e = incoming_note(c->arena, m, in, JOURNAL_PREPARED);
    lock_take(&m->lock);
    if (e == NULL && incoming_find_locked(m, id) != NULL)
        e = err_internal(c->arena, "migration %s is already under way here", id);
    if (e == NULL) {
        in->next = m->incoming;
        m->incoming = in;
    } else {
        incoming_unref_locked(in);
    }
    lock_drop(&m->lock);
    *result_r = offer(c->arena);
    return e;
}

/* --- up to READY --------------------------------------------------------------------------------------------- */
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
    struct error *e = incoming_note(a, m, in, JOURNAL_READY);
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
static struct error *receive_until_ready(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w,
                                         struct byte_stream *vm)
{
    TRY(reserve(c, m, in));
    TRY(say(c, vm, "telling the source that memory is reserved"));
    TRY(hear(c, vm, MEM_CONNECT_MS, "waiting for the source to open its memory stream"));
    TRY(receive_wait_image(c, m, in, w->alive ? vm : NULL));
    TRY(become_ready(c->arena, m, in));
    if (fault_hit("migrate.destination.ready"))
        return err_internal(c->arena, "injected fault before READY");
    return say(c, vm, "telling the source that the image is complete");
}

/* A source that goes silent between READY and GO is not waited for: it asks what became of it, and hears "aborted". */
static struct error *hear_go(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w, struct byte_stream *vm,
                             bool *postcopy_r)
{
    int timeout_ms = w->alive ? (int)(config_int(m->xapi->config, "migration-silence-s") * 1000) : -1;
    struct error *go = hear(c, vm, timeout_ms, "waiting for GO");

    if (!error_is(go, HANDSHAKE_GO))
        return go;
    for (unsigned i = 0; i < go->n_params; i++) {
        *postcopy_r = *postcopy_r || strcmp(go->params[i], "postcopy") == 0;
        if (strcmp(go->params[i], "paused") == 0 || strcmp(go->params[i], "run") == 0)
            (void)incoming_set_paused(m, in->id, go->params[i][0] == 'p');
    }
    return NULL;
}

/* --- committed --------------------------------------------------------------------------------------------------- */
/* Under its own name, its disks open, running. The source gave up its own before GO, so that they can be opened now. */
static struct error *run_here(struct call *c, struct migrations *m, struct incoming *in)
{
    struct domain_info info;
    if (xenops_find(c, m->xapi->xenops, in->vm_uuid, &info) != NULL)
        TRY(xenops_rename(c, m->xapi->xenops, in->temp, in->vm_uuid));
    TRY(migration_disks_open(c, m->xapi, &in->disks));
    return in->paused ? NULL : xenops_unpause(c, m->xapi->xenops, in->vm_uuid);
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

/* The network learns of it; then the source hears of that. */
static void announce(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w, struct byte_stream *vm)
{
    int64_t ran_us = clock_us(c->clock), at_us = 0;
    struct domain_info info = { .domid = -1 };
    struct value_dict d = { 0 };
    unsigned frames = 0;

    if (in->vifs.len > 0 && !in->paused)
        announce_vifs(c, m->xapi, &in->vifs, &frames, &at_us);
    if (!w->report)
        return;
    struct error *unknown = xenops_find(c, m->xapi->xenops, in->vm_uuid, &info);
    value_dict_add(c->arena, &d, "frames", value_int(frames));
    value_dict_add(c->arena, &d, "announced_us", value_int(frames > 0 ? at_us - ran_us : -1));
    value_dict_add(c->arena, &d, "domid", value_int(unknown == NULL ? info.domid : -1));
    struct value report = value_dict_value(&d);
    if (handshake_send_value(vm, &report) != 0)
        log_debug("migration %s: the source did not hear the report", in->id);
}

/* The pages that were left out follow on mem stream 0, while the guest runs. The source hears what came of it. */
static void receive_pages(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *vm)
{
    int64_t bytes = 0;

    lock_take(&m->lock);
    struct byte_stream *stream = in->mem[0]; /* open until we release it */
    lock_drop(&m->lock);
    struct error *e = stream != NULL ? xenops_postcopy_receive(c, m->xapi->xenops, in->vm_uuid, stream, &bytes)
                                     : err_internal(c->arena, "the memory stream is closed");
    if (e != NULL)
        log_err("migration %s: the guest runs here, but the rest of its memory did not come, and it waits for it: %s", in->id,
                error_text(c->arena, e));
    else
        log_info("migration %s: %lld bytes of memory followed the guest", in->id, (long long)bytes);
    if (handshake_send(vm, e) != 0)
        log_debug("migration %s: the source did not hear of it", in->id);
}

/* COMMITTED is durable: from here the guest lives on this host, whatever the stream does. */
static void run_committed(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w, struct byte_stream *vm,
                          bool postcopy)
{
    int r = fault_hit("migrate.destination.lose-committed") ? -EPIPE : handshake_send(vm, NULL);
    if (r != 0)
        log_warn("migration %s: the source did not hear COMMITTED (%s); it will ask", in->id, strerror(-r));
    struct error *e = run_until(c, m, in, OPEN_MS);
    if (e != NULL)
        log_err("migration %s: committed, but the guest stays paused here: %s", in->id, error_text(c->arena, e));
    if (handshake_send(vm, e) != 0)
        log_debug("migration %s: the source did not hear that the guest runs", in->id);
    if (e == NULL)
        announce(c, m, in, w, vm);
    if (e == NULL && postcopy)
        receive_pages(c, m, in, vm);
    if (e != NULL && !gone(c, m, in))
        e = run_until(c, m, in, -1);
    struct error *j = e == NULL || gone(c, m, in) ? incoming_note(c->arena, m, in, JOURNAL_RUNNING) : NULL;
    if (j != NULL)
        log_err("migration %s: %s", in->id, error_text(c->arena, j));
}

/* --- the conversation ------------------------------------------------------------------------------------------------ */
/* The threads of the mem streams end, and with them whatever works on the domain. */
static void release_memory(struct migrations *m, struct incoming *in)
{
    LOCK_SCOPE(&m->lock);
    while (in->mem[0] != NULL && !in->image_done)
        cond_wait(&m->changed, &m->lock);
    in->released = true;
    cond_broadcast(&m->changed);
    while (in->mem_threads > 0)
        cond_wait(&m->changed, &m->lock);
}

static void given_up(struct call *c, struct migrations *m, struct incoming *in, struct byte_stream *vm, struct error *e)
{
    log_warn("migration %s of %s to this host is given up: %s", in->id, in->vm_uuid, error_text(c->arena, e));
    release_memory(m, in);
    struct error *d = xenops_destroy(c, m->xapi->xenops, in->temp);
    if (d != NULL)
        log_err("migration %s: the unfinished copy could not be destroyed: %s", in->id, error_text(c->arena, d));
    if (handshake_send(vm, e) != 0)
        log_debug("migration %s: the source did not hear why", in->id);
}

void receive_vm(struct call *c, struct migrations *m, struct incoming *in, const struct put_words *w, struct byte_stream *vm)
{
    bool postcopy = false;

    if (!attach_vm(m, in, vm)) {
        int ignored = handshake_send(vm, err_internal(c->arena, "migration %s is not waiting for its source", in->id));
        log_warn("migration %s: an unexpected vm stream was refused (%d)", in->id, ignored);
        return;
    }
    struct error *e = receive_until_ready(c, m, in, w, vm);
    if (e == NULL)
        e = hear_go(c, m, in, w, vm, &postcopy);
    enum phase outcome = incoming_decide(c->arena, m, in, e == NULL ? PHASE_COMMITTED : PHASE_ABORTED);
    if (outcome == PHASE_COMMITTED)
        run_committed(c, m, in, w, vm, postcopy);
    else
        given_up(c, m, in, vm, e != NULL ? e : incoming_refused(c->arena, in->id));
    release_memory(m, in);
    LOCK_SCOPE(&m->lock);
    in->vm = NULL;
    incoming_remove_locked(m, in);
}
