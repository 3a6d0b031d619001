/* What became of a migration, for the coordinator that asked for it and lost the answer.
 *
 * Verb migrate.outcome { migration_id } at the source -> state: "committed" (DONE), "aborted" (RESUMED), or "pending" (it is
 * still at work, or being recovered). An id that is unknown is "aborted" for good: a migrate.send of it that comes later is
 * refused, so the answer stays true.
 * Verb migrate.settled { migration_id } on either host: nobody will ask again, so what has finished is forgotten. Idempotent.
 * Without it the records stay for 30 days. */
#include <string.h>

#include "xapi/migrate/migrations.h"

static struct error *outcome_of(struct call *c, struct migrations *m, const char *id, const char **word_r)
{
    enum journal_state state;

    if (!journal_state(m->journal, id, JOURNAL_SOURCE, &state)) {
        TRY(journal_write(c->arena, m->journal, id, JOURNAL_SOURCE, JOURNAL_RESUMED, NULL));
        state = JOURNAL_RESUMED;
    }
    *word_r = state == JOURNAL_DONE ? "committed" : state == JOURNAL_RESUMED ? "aborted" : "pending";
    return NULL;
}

struct error *migrate_verb_outcome(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct migrations *m = xapi->migrations;
    const char *id = value_get_string(args, "migration_id", ""), *word = "pending";
    struct migration_claim claim;
    struct error *e = NULL;

    if (migrations_claim(m, &claim, id)) {
        e = outcome_of(c, m, id, &word);
        migrations_unclaim(m, &claim);
    }
    struct value_dict d = { 0 };
    value_dict_add(c->arena, &d, "state", value_string(word));
    *result_r = value_dict_value(&d);
    return e;
}

/* An old copy that could not be destroyed goes first: only the record knows of it. */
static struct error *settle_source(struct call *c, struct migrations *m, const char *id)
{
    struct journal_entry *entries;
    unsigned n;

    TRY(journal_list(c->arena, m->journal, &entries, &n));
    for (unsigned i = 0; i < n; i++)
        if (entries[i].side == JOURNAL_SOURCE && strcmp(entries[i].migration_id, id) == 0 && entries[i].state == JOURNAL_DONE &&
            value_get(&entries[i].facts, "destroyed") == NULL)
            TRY(migration_destroy_old(c, m, id, value_get_string(&entries[i].facts, "temp", "")));
    journal_forget(m->journal, id, JOURNAL_SOURCE);
    return NULL;
}

struct error *migrate_verb_settled(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct migrations *m = xapi->migrations;
    const char *id = value_get_string(args, "migration_id", "");
    struct migration_claim claim;

    *result_r = value_map(NULL, 0);
    if (!migrations_claim(m, &claim, id))
        return err_internal(c->arena, "migration %s is still under way here", id);
    struct error *e = settle_source(c, m, id);
    migrations_unclaim(m, &claim);
    if (e == NULL)
        journal_forget(m->journal, id, JOURNAL_DESTINATION);
    return e;
}
