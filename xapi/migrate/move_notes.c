#include "xapi/migrate/move_notes.h"

#include <stdio.h>
#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/move_watch.h"
#include "xapi/migrate/queue.h"

LOG_MODULE(move_notes);

#define CLOCKS_MAX 4096 /* then the oldest is forgotten: nobody said that it had ended */

/* --- text ------------------------------------------------------------------------------------------------------------- */
const char *move_note_text(struct arena *a, const struct value *v)
{
    if (v == NULL)
        return NULL;
    switch ((enum value_kind)v->kind) {
    case VALUE_STRING:
        return v->s;
    case VALUE_INT: case VALUE_INT32: case VALUE_DATETIME:
        return arena_printf(a, "%lld", (long long)v->i);
    case VALUE_BOOL:
        return v->i != 0 ? "true" : "false";
    case VALUE_FLOAT:
        return arena_printf(a, "%.6g", v->f);
    case VALUE_VOID: case VALUE_SET: case VALUE_MAP: case VALUE_RECORD: case VALUE_NIL:
        break;
    }
    return NULL;
}

/* --- the task ---------------------------------------------------------------------------------------------------------- */
static struct error *write(struct api_call *c, const struct value *notes)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *task = txn_get(txn, &model_classes[CLASS_task], c->task);
    bool changed = false;

    if (task == NULL)
        return NULL;
    for (uint32_t i = 0; i < notes->len; i++) {
        const char *key = arena_printf(c->arena, "migrate:%s", notes->members[i].name), *text = notes->members[i].value.s;
        if (strcmp(row_map(task, F_task_other_config, key, ""), text) == 0)
            continue;
        TRY(txn_map_put(txn, CLASS_task, c->task, F_task_other_config, key, value_string(text)));
        changed = true;
    }
    return changed ? txn_commit(txn, NULL) : NULL;
}

void move_notes_write(struct api_call *c, const struct value *notes)
{
    struct error *e = c->task != NULL ? write(c, notes) : NULL;
    if (e != NULL && !error_is(e, "HANDLE_INVALID"))
        log_warn_rl("notes on a task: %s", error_text(c->arena, e));
}

/* --- phases ------------------------------------------------------------------------------------------------------------- */
struct move_clock { struct move_clock *next; char id[UUID_LEN + 1], phase[32]; int64_t began_ms, phase_ms; };
struct move_clocks { struct lock lock; struct move_clock *first; unsigned n; }; /* class LEAF; newest first */

struct move_clocks *move_clocks_new(void)
{
    struct move_clocks *k = xcalloc(1, sizeof(*k));
    lock_init(&k->lock, LOCK_LEAF);
    return k;
}

static void remove_at(struct move_clocks *k, struct move_clock **at)
{
    struct move_clock *gone = *at;
    *at = gone->next;
    xfree(gone);
    k->n--;
}

void move_clocks_free(struct move_clocks *k)
{
    if (k == NULL)
        return;
    while (k->first != NULL)
        remove_at(k, &k->first);
    lock_release(&k->lock);
    xfree(k);
}

static struct move_clock **clock_find(struct move_clocks *k, const char *id)
{
    struct move_clock **p = &k->first;
    while (*p != NULL && strcmp((*p)->id, id) != 0)
        p = &(*p)->next;
    return p;
}

static void clock_add(struct move_clocks *k, const char *id, int64_t now_ms)
{
    struct move_clock *fresh = xcalloc(1, sizeof(*fresh));
    snprintf(fresh->id, sizeof(fresh->id), "%s", id);
    fresh->began_ms = fresh->phase_ms = now_ms;
    fresh->next = k->first;
    k->first = fresh;
    if (++k->n > CLOCKS_MAX) {
        struct move_clock **p = &k->first;
        while ((*p)->next != NULL)
            p = &(*p)->next;
        remove_at(k, p);
    }
}

struct phase_times move_clocks_phase(struct move_clocks *k, const char *id, const char *phase, int64_t now_ms)
{
    struct phase_times t = { 0 };
    LOCK_SCOPE(&k->lock);
    if (*clock_find(k, id) == NULL)
        clock_add(k, id, now_ms);
    struct move_clock **at = clock_find(k, id), *clock = *at;
    t.at_ms = now_ms - clock->began_ms;
    t.last_ms = now_ms - clock->phase_ms;
    memcpy(t.last, clock->phase, sizeof(t.last));
    if (phase == NULL) {
        remove_at(k, at);
        return t;
    }
    snprintf(clock->phase, sizeof(clock->phase), "%s", phase);
    clock->phase_ms = now_ms;
    return t;
}

/* --- for move.c ------------------------------------------------------------------------------------------------------------ */
static void add_ms(struct arena *a, struct value_dict *facts, const char *phase, const char *what, int64_t ms)
{
    value_dict_set(a, facts, arena_printf(a, "phase.%s%s", phase, what), value_string(arena_printf(a, "%lld", (long long)ms)));
}

static void into_ledger(struct api_call *c, const char *id, const struct value *facts)
{
    struct error *e = ledger_add_facts(c->arena, c->xapi->ledger, id, LEDGER_OUT, facts);
    if (e != NULL)
        log_warn("migration %s: what was measured is not in the ledger: %s", id, error_text(c->arena, e));
}

void move_phase(struct api_call *c, const struct move *m, const char *phase)
{
    struct move_clocks *clocks = queue_clocks(c->xapi);
    struct value_dict facts = { 0 };

    if (phase != NULL) {
        struct member note[] = { member_of("phase", value_string(phase)) };
        struct value notes = value_map(note, 1);
        move_notes_write(c, &notes);
    }
    if (clocks == NULL)
        return;
    struct phase_times t = move_clocks_phase(clocks, m->id, phase, clock_ms(c->call.clock));
    if (t.last[0] != '\0')
        add_ms(c->arena, &facts, t.last, "_ms", t.last_ms);
    if (phase != NULL)
        add_ms(c->arena, &facts, phase, "_at_ms", t.at_ms);
    struct value v = value_dict_value(&facts);
    into_ledger(c, m->id, &v);
}

void move_facts(struct api_call *c, const struct move *m, const struct value *facts)
{
    struct value_dict texts = { 0 };

    if (facts == NULL || facts->kind != VALUE_MAP)
        return;
    for (uint32_t i = 0; i < facts->len; i++) {
        const char *text = move_note_text(c->arena, &facts->members[i].value);
        if (text != NULL)
            value_dict_add(c->arena, &texts, facts->members[i].name, value_string(text));
    }
    struct value v = value_dict_value(&texts);
    move_notes_write(c, &v);
    into_ledger(c, m->id, &v);
}
