/* The steps of sender.c's table, and their undoing. */
#include <errno.h>
#include <string.h>

#include "rpc/base/fault.h"
#include "rpc/base/log.h"
#include "xapi/core/agent.h"
#include "xapi/migrate/sender.h"
#include "xenops/stream/confirm.h"
#include "xenops/stream/precopy.h"

LOG_MODULE(sender);

#define LAST_BYTES_MS 10000 /* for the destination to have read what it has said READY for */

struct error *sender_note(struct sender *s, enum journal_state state)
{
    struct member facts[] = {
        member_of("vm", value_string(s->vm_uuid)),
        member_of("temp", value_string(s->source_temp)),
        member_of("final", value_string(s->final_uuid)),
        member_of("key", value_string(s->key != NULL ? s->key : "")),
        member_of("destination", migration_target_value(s->c->arena, &s->target)),
        member_of("disks", s->disks),
    };
    struct value v = value_map(facts, ARRAY_LEN(facts));
    return journal_write(s->c->arena, s->m->journal, s->id, JOURNAL_SOURCE, state, &v);
}

/* --- journal: it knows of it ---------------------------------------------------------------------- */
struct error *sender_step_journal(struct sender *s)
{
    enum journal_state past;

    if (journal_state(s->m->journal, s->id, JOURNAL_SOURCE, &past)) /* an id is good for one migration */
        return err_internal(s->c->arena, "migration %s is known here already: %s", s->id, journal_state_name(past));
    return sender_note(s, JOURNAL_PREPARED);
}

/* RESUMED stays until migrate.settled: whoever asked for this move may have lost the answer. */
void sender_undo_journal(struct sender *s)
{
    struct error *e = sender_note(s, JOURNAL_RESUMED);
    if (e != NULL)
        log_err("migration %s was rolled back, but: %s", s->id, error_text(s->c->arena, e));
}

/* --- prepare: the destination gets the metadata ----------------------------------------------------- */
struct error *sender_step_prepare(struct sender *s)
{
    struct member args[] = {
        member_of("migration_id", value_string(s->id)),
        member_of("vm", value_string(s->final_uuid)),
        member_of("temp", value_string(s->destination_temp)),
        member_of("key", value_string(s->key != NULL ? s->key : "")),
        member_of("spec", *s->spec),
        member_of("disks", s->destination_disks),
        member_of("vifs", s->vifs),
        member_of("paused", value_bool(atomic_load(&s->paused))),
    };
    struct value v = value_map(args, ARRAY_LEN(args)), answer = value_void();

    TRY(agent_call_at(s->c, s->m->xapi, &s->target, "migrate.prepare", &v, &answer));
    sender_read_offer(s, &answer);
    return NULL;
}

/* Best effort: a destination that cannot be told notices its broken connections. */
void sender_undo_prepare(struct sender *s)
{
    struct member args[] = { member_of("migration_id", value_string(s->id)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    struct error *e = agent_call_at(&s->steady, s->m->xapi, &s->target, "migrate.abort", &v, &ignored);
    if (e != NULL)
        log_warn("migration %s: the destination could not be told to abort: %s", s->id, error_text(s->c->arena, e));
}

/* --- connect: the vm stream; the destination reserves memory ------------------------------------------ */
struct error *sender_step_connect(struct sender *s)
{
    TRY(sender_open_vm(s));
    return sender_expect(s, s->vm, "waiting for the destination to reserve memory", HANDSHAKE_MS, true);
}

void sender_undo_connect(struct sender *s)
{
    sender_close_vm(s);
}

/* --- memory: the mem streams --------------------------------------------------------------------------- */
struct error *sender_step_memory(struct sender *s)
{
    TRY(sender_open_memory(s));
    int r = handshake_send(s->vm, NULL);
    return r == 0 ? NULL : sender_transport_failed(s, "synchronising before the memory", r);
}

void sender_undo_memory(struct sender *s)
{
    sender_close_memory(s);
}

/* --- stream: the image, live, until the guest is suspended and all of it is sent ----------------------- */
struct error *sender_step_stream(struct sender *s)
{
    TRY(sender_note(s, JOURNAL_STREAMING));
    TRY(sender_save(s));
    for (unsigned i = s->saved.postcopy ? 1 : 0; i < s->n_streams; i++) {
        int r = bytes_finish(s->raw[i]);
        if (r != 0) /* whether the image arrived, READY tells */
            log_warn("migration %s: ending memory stream %u: %s", s->id, i, strerror(-r));
    }
    return NULL;
}

/* xenops_save resumes the guest by itself when it fails; after it succeeded that is ours. */
void sender_undo_stream(struct sender *s)
{
    migration_disks_reopen(&s->steady, s->m, s->id, &s->disks);
    struct error *e = xenops_resume(&s->steady, s->m->xapi->xenops, s->vm_uuid);
    if (e != NULL)
        log_err("migration %s: the guest could not be resumed here: %s", s->id, error_text(s->c->arena, e));
}

/* --- ready: restored there, complete and paused ---------------------------------------------------------- */
/* A destination that says that it is alive is given up when it stops saying so. */
struct error *sender_step_ready(struct sender *s)
{
    call_progress(s->c, 0.96);
    int timeout_ms = s->offer.alive && s->silence_ms < RESTORE_MS ? (int)s->silence_ms : RESTORE_MS;
    return sender_expect(s, s->vm, "waiting for the destination to complete the image", timeout_ms, false);
}

/* --- rename: our copy gives up the VM's name (a move to the same host needs it) ---------------------------- */
struct error *sender_step_rename(struct sender *s)
{
    return xenops_rename(&s->steady, s->m->xapi->xenops, s->vm_uuid, s->source_temp);
}

void sender_undo_rename(struct sender *s)
{
    struct error *e = xenops_rename(&s->steady, s->m->xapi->xenops, s->source_temp, s->vm_uuid);
    if (e != NULL)
        log_err("migration %s: the guest could not be renamed back: %s", s->id, error_text(s->c->arena, e));
}

/* --- go: GO, and its one answer ----------------------------------------------------------------------------- */
/* Plain success is GO; where there is more to say it is a message of that name (wire.h). */
static int send_go(struct sender *s)
{
    const char *words[2];
    unsigned n = 0;

    if (s->saved.postcopy)
        words[n++] = "postcopy";
    if (s->offer.alive)
        words[n++] = atomic_load(&s->paused) ? "paused" : "run";
    return handshake_send(s->vm, n > 0 ? error_from_strings(s->c->arena, HANDSHAKE_GO, n, words) : NULL);
}

/* From GO-SENT on only the destination's word decides: on the stream, or asked for by migration id. */
struct error *sender_step_go(struct sender *s)
{
    TRY(sender_note(s, JOURNAL_GO_SENT));
    struct error *peer = NULL;
    int r = fault_hit("migrate.source.lose-go") ? -EPIPE : send_go(s);
    if (r == 0)
        r = sender_hear(s, s->vm, -1, COMMIT_MS, &peer);
    if (r == 0 && peer == NULL)
        return NULL;
    log_warn("migration %s: no clear answer to GO (%s); asking the destination", s->id, r != 0 ? strerror(-r) : peer->code);
    bool committed = false;
    TRY(migration_resolve(&s->steady, s->m, s->id, &s->target, &committed));
    if (committed)
        return NULL;
    return peer != NULL ? peer : sender_contact_failed(s, "the destination gave the migration up", r);
}

/* --- running, pages, finish: it runs there; what is missing follows; our copy goes ---------------------------- */
/* What the blackout cost beside the last pages: the next decision when to stop knows it (precopy.h). */
static void learn_fixed(const struct sender *s)
{
    int64_t blackout = s->running_us - s->saved.suspended_at_us, pages = s->last_us[1] - s->last_us[0];

    if (s->policy.live && s->last_us[0] > 0)
        precopy_fixed_learn(s->progress.pages_total, blackout - pages);
}

struct error *sender_step_running(struct sender *s)
{
    struct error *peer = NULL;
    int r = sender_hear(s, s->vm, -1, HANDSHAKE_MS, &peer);

    s->running_us = clock_us(s->c->clock);
    if (r != 0 || peer != NULL) {
        log_err("migration %s: committed, but the destination reports: %s", s->id, r != 0 ? strerror(-r) : error_text(s->c->arena, peer));
        return NULL;
    }
    learn_fixed(s);
    if (s->offer.report && handshake_receive_value(s->c->arena, s->vm, HANDSHAKE_MS, &s->report) != 0)
        log_debug("migration %s: no report from the destination", s->id);
    return NULL;
}

/* What was told to have been read must be out of the way: from here the connection is the post-copy's. */
static struct error *send_pages(struct sender *s)
{
    if (s->fan != NULL)
        bytes_close(s->fan);
    s->fan = s->mem = NULL;
    int r = s->confirmed[0] != NULL ? confirm_wait(s->confirmed[0], 0, -1, LAST_BYTES_MS) : 0;
    if (r != 0)
        return sender_contact_failed(s, "before the pages that follow", r);
    TRY(xenops_postcopy_send(&s->steady, s->m->xapi->xenops, s->source_temp, s->raw[0], &s->postcopy_bytes));
    return sender_expect(s, s->vm, "waiting for the destination to have all of the memory", RESTORE_MS, false);
}

struct error *sender_step_pages(struct sender *s)
{
    if (!s->saved.postcopy)
        return NULL;
    struct error *e = send_pages(s);
    if (e == NULL)
        return NULL;
    s->postcopy_error = error_text(s->c->arena, e);
    log_err("migration %s: committed, but the rest of the memory did not arrive, and the guest there waits for it: %s", s->id, s->postcopy_error);
    return NULL;
}

struct error *sender_step_finish(struct sender *s)
{
    struct error *e = sender_note(s, JOURNAL_DONE);
    if (e != NULL)
        log_err("migration %s is done, but: %s", s->id, error_text(s->c->arena, e));
    struct error *d = migration_destroy_old(&s->steady, s->m, s->id, s->source_temp);
    if (d != NULL)
        log_err("migration %s: the old copy could not be destroyed: %s", s->id, error_text(s->c->arena, d));
    return NULL;
}
