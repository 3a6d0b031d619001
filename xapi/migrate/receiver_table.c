/* The migrations that come to this host. */
#include "xapi/migrate/receiver.h"

#include <string.h>

#include "rpc/base/log.h"

LOG_MODULE(receiver);

#define PATIENCE_LOOK_MS 1000

struct incoming *incoming_new(const char *id, const char *vm, const char *temp)
{
    struct incoming *in = xcalloc(1, sizeof *in);
    in->refs = 1;
    in->id = xstrdup(id);
    in->vm_uuid = xstrdup(vm);
    in->temp = xstrdup(temp);
    in->arena = arena_new();
    in->key = "";
    return in;
}

void incoming_unref_locked(struct incoming *in)
{
    if (--in->refs > 0)
        return;
    arena_free(in->arena);
    xfree(in->id);
    xfree(in->vm_uuid);
    xfree(in->temp);
    xfree(in);
}

void incoming_unref(struct migrations *m, struct incoming *in)
{
    LOCK_SCOPE(&m->lock);
    incoming_unref_locked(in);
}

struct incoming *incoming_find_locked(struct migrations *m, const char *id)
{
    for (struct incoming *in = m->incoming; in != NULL; in = in->next)
        if (strcmp(in->id, id) == 0)
            return in;
    return NULL;
}

struct incoming *incoming_ref(struct migrations *m, const char *id)
{
    LOCK_SCOPE(&m->lock);
    struct incoming *in = incoming_find_locked(m, id);
    if (in != NULL)
        in->refs++;
    return in;
}

void incoming_remove_locked(struct migrations *m, struct incoming *gone)
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
        incoming_remove_locked(m, m->incoming);
}

struct error *incoming_note(struct arena *a, struct migrations *m, struct incoming *in, enum journal_state state)
{
    lock_take(&m->lock);
    bool paused = in->paused;
    lock_drop(&m->lock);
    struct member facts[] = {
        member_of("vm", value_string(in->vm_uuid)), member_of("temp", value_string(in->temp)), member_of("key", value_string(in->key)),
        member_of("disks", in->disks), member_of("paused", value_string(paused ? "1" : "")),
    };
    struct value v = value_map(facts, ARRAY_LEN(facts));
    return journal_write(a, m->journal, in->id, JOURNAL_DESTINATION, state, &v);
}

bool incoming_set_paused(struct migrations *m, const char *id, bool paused)
{
    LOCK_SCOPE(&m->lock);
    struct incoming *in = incoming_find_locked(m, id);
    if (in == NULL || in->phase == PHASE_DECIDING || in->phase == PHASE_COMMITTED)
        return false;
    in->paused = paused;
    return true;
}

/* --- patience ----------------------------------------------------------------------------------------------- */
static struct incoming *forgotten(struct migrations *m, int64_t now, int64_t patience_ms)
{
    LOCK_SCOPE(&m->lock);
    for (struct incoming *in = m->incoming; in != NULL; in = in->next)
        if (in->phase == PHASE_PREPARED && !in->vm_connected && now - in->prepared_ms >= patience_ms) {
            in->refs++;
            return in;
        }
    return NULL;
}

static void give_up(struct migrations *m, struct incoming *in)
{
    AUTO_ARENA a = arena_new();
    log_warn("migration %s of %s to this host is given up: its source never came", in->id, in->vm_uuid);
    if (incoming_decide(a, m, in, PHASE_ABORTED) == PHASE_ABORTED) {
        lock_take(&m->lock);
        if (!in->vm_connected)
            incoming_remove_locked(m, in);
        lock_drop(&m->lock);
    }
    incoming_unref(m, in);
}

void *incoming_patience(void *migrations)
{
    struct migrations *m = migrations;
    int64_t patience_ms = config_int(m->xapi->config, "incoming-patience") * 1000;
    struct incoming *in;

    while (migrations_pause(m, PATIENCE_LOOK_MS))
        while ((in = forgotten(m, clock_ms(m->xapi->clock), patience_ms)) != NULL)
            give_up(m, in);
    migrations_thread_end(m);
    return NULL;
}
