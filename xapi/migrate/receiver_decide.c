/* What becomes of an incoming migration: one outcome, durable before anyone hears of it. Verbs migrate.ask and migrate.abort
 * { migration_id } -> state: "COMMITTED" or "ABORTED". */
#include "xapi/migrate/receiver.h"

#include <string.h>

#include "rpc/base/log.h"

LOG_MODULE(receiver);

#define DECIDE_AGAIN_MS 500

struct error *incoming_refused(struct arena *a, const char *id)
{
    return err_internal(a, "migration %s was aborted here and stays so", id);
}

static void break_memory_locked(struct incoming *in)
{
    if (in->reading != NULL)
        bytes_abort(in->reading);
    for (unsigned i = 0; i < FAN_MAX; i++)
        if (in->mem[i] != NULL)
            bytes_abort(in->mem[i]);
}

/* COMMITTED could not be written. Should it be on the disk all the same, ABORTED must stand behind it before anyone hears that the
 * migration is over: until that can be written nobody is answered. */
static void abort_for_sure(struct arena *a, struct migrations *m, struct incoming *in)
{
    struct error *e;
    while ((e = incoming_note(a, m, in, JOURNAL_ABORTED)) != NULL) {
        log_warn_rl("migration %s cannot be decided: %s", in->id, error_text(a, e));
        if (!migrations_pause(m, DECIDE_AGAIN_MS))
            return;
    }
}

/* Returns the outcome. A journal that cannot be written decides nothing for COMMITTED: it turns into ABORTED, and the caller
 * destroys the domain. */
enum phase incoming_decide(struct arena *a, struct migrations *m, struct incoming *in, enum phase wish)
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

    struct error *e = incoming_note(a, m, in, wish == PHASE_COMMITTED ? JOURNAL_COMMITTED : JOURNAL_ABORTED);
    if (e != NULL) {
        log_err("migration %s: %s", in->id, error_text(a, e));
        if (wish == PHASE_COMMITTED)
            abort_for_sure(a, m, in);
        wish = PHASE_ABORTED;
    }
    lock_take(&m->lock);
    in->phase = wish;
    if (wish == PHASE_ABORTED)
        break_memory_locked(in);
    cond_broadcast(&m->changed);
    lock_drop(&m->lock);
    return wish;
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
    struct incoming *in = incoming_ref(m, id);
    if (in != NULL) {
        enum phase outcome = incoming_decide(c->arena, m, in, PHASE_ABORTED);
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
    struct incoming *in = incoming_find_locked(m, value_get_string(args, "migration_id", ""));
    if (in != NULL && in->phase == PHASE_ABORTED && !in->vm_connected)
        incoming_remove_locked(m, in); /* nobody else will */
    return e;
}
