#include "xapi/migrate/migrations_command.h"

#include <string.h>

#include "gen/errors.h"
#include "rpc/base/call.h"
#include "rpc/wire/json.h"
#include "xapi/migrate/decide.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/migrate.h"

#define ACTIVE_MAX 10000

/* --- rows as values --------------------------------------------------------------------------------------------------- */
static struct value row_value_of(struct arena *a, const struct ledger_row *r)
{
    const struct { const char *name, *value; } texts[] = {
        { "id", r->id }, { "direction", r->side == LEDGER_IN ? "in" : "out" }, { "kind", r->kind }, { "stage", r->stage },
        { "outcome", r->outcome }, { "cause", r->cause }, { "recovery", r->recovery }, { "vm_uuid", r->vm_uuid }, { "vm_name", r->vm_name },
        { "user", r->user }, { "from_host", r->from_host }, { "from_name", r->from_name }, { "to_host", r->to_host }, { "to_name", r->to_name },
    };
    struct value_dict d = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(texts); i++)
        value_dict_add(a, &d, texts[i].name, value_string(texts[i].value));
    value_dict_add(a, &d, "began_ms", value_int(r->began_ms));
    value_dict_add(a, &d, "ended_ms", value_int(r->ended_ms));
    value_dict_add(a, &d, "facts", r->facts);
    return value_dict_value(&d);
}

static struct error *rows_value(struct arena *a, struct xapi *xapi, const struct ledger_query *q, struct value *list_r)
{
    struct value_list list = { 0 };
    struct ledger_row *rows;
    unsigned n;

    TRY(ledger_list(a, xapi->ledger, q, &rows, &n));
    for (unsigned i = 0; i < n; i++)
        value_list_add(a, &list, row_value_of(a, &rows[i]));
    *list_r = value_list_value(&list);
    return NULL;
}

/* --- the commands --------------------------------------------------------------------------------------------------------- */
/* Without what lets others talk with hosts about it. */
static struct value shown(struct arena *a, const struct value *entry)
{
    const struct value *facts = value_get(entry, "facts");
    struct value_dict d = { 0 }, kept = { 0 };

    for (uint32_t i = 0; facts != NULL && facts->kind == VALUE_MAP && i < facts->len; i++)
        if (strcmp(facts->members[i].name, "key") != 0 && strcmp(facts->members[i].name, "destination") != 0)
            value_dict_add(a, &kept, facts->members[i].name, facts->members[i].value);
    for (uint32_t i = 0; i < entry->len; i++)
        value_dict_add(a, &d, entry->members[i].name, entry->members[i].value);
    value_dict_set(a, &d, "facts", value_dict_value(&kept));
    return value_dict_value(&d);
}

static struct error *journal_value(struct call *c, struct xapi *xapi, struct value *list_r)
{
    struct value args = value_map(NULL, 0), all;
    struct value_list list = { 0 };

    TRY(migrate_verb_list(c, xapi, &args, &all));
    for (uint32_t i = 0; i < all.len; i++)
        value_list_add(c->arena, &list, shown(c->arena, &all.items[i]));
    *list_r = value_list_value(&list);
    return NULL;
}

static struct error *active(struct call *c, struct xapi *xapi, struct value *result_r)
{
    const struct ledger_query q = { .active = true, .limit = ACTIVE_MAX };
    struct value journal, rows;
    struct value_dict d = { 0 };

    TRY(journal_value(c, xapi, &journal));
    TRY(rows_value(c->arena, xapi, &q, &rows));
    value_dict_add(c->arena, &d, "journal", journal);
    value_dict_add(c->arena, &d, "ledger", rows);
    *result_r = value_dict_value(&d);
    return NULL;
}

static const char *word_or_any(const char *word)
{
    return strcmp(word, "-") == 0 ? NULL : word;
}

static struct error *history(struct call *c, struct xapi *xapi, char **words, struct value *result_r)
{
    uint64_t since = 0, limit = 0;

    if ((word_or_any(words[4]) != NULL && (!text_to_uint(words[4], &since) || since > UINT32_MAX)) ||
        (word_or_any(words[5]) != NULL && (!text_to_uint(words[5], &limit) || limit > INT32_MAX)))
        return err_internal(c->arena, "migrations history VM OUTCOME SINCE_S LIMIT");
    if (xapi->ledger == NULL)
        return err_internal(c->arena, "the history is with the coordinator, %s", xapi->coordinator_address);
    const struct ledger_query q = { .vm_uuid = word_or_any(words[2]), .outcome = word_or_any(words[3]), .since_ms = (int64_t)since * 1000,
                                    .limit = (unsigned)limit };
    return rows_value(c->arena, xapi, &q, result_r);
}

static struct error *show(struct call *c, struct xapi *xapi, const char *id, struct value *result_r)
{
    struct value journal;
    struct value_list rows = { 0 }, entries = { 0 };
    struct value_dict d = { 0 };

    for (int side = LEDGER_OUT; side <= LEDGER_IN; side++) {
        struct ledger_row row;
        bool found;
        TRY(ledger_get(c->arena, xapi->ledger, id, (enum ledger_side)side, &row, &found));
        if (found)
            value_list_add(c->arena, &rows, row_value_of(c->arena, &row));
    }
    TRY(journal_value(c, xapi, &journal));
    for (uint32_t i = 0; i < journal.len; i++)
        if (strcmp(value_get_string(&journal.items[i], "migration_id", ""), id) == 0)
            value_list_add(c->arena, &entries, journal.items[i]);
    if (rows.n + entries.n == 0)
        return err_internal(c->arena, "there is no migration %s here", id);
    value_dict_add(c->arena, &d, "rows", value_list_value(&rows));
    value_dict_add(c->arena, &d, "journal", value_list_value(&entries));
    *result_r = value_dict_value(&d);
    return NULL;
}

static struct error *decide(struct call *c, struct xapi *xapi, const char *id, const char *word, struct value *result_r)
{
    bool commit = strcmp(word, "commit") == 0;

    if (!commit && strcmp(word, "abort") != 0)
        return err_internal(c->arena, "migrations decide ID commit|abort");
    *result_r = value_map(NULL, 0);
    return decide_put(c->arena, xapi, id, commit);
}

static struct error *run(struct call *c, struct xapi *xapi, unsigned n, char **words, struct value *result_r)
{
    const char *what = n > 1 ? words[1] : "";

    if (n == 1)
        return journal_value(c, xapi, result_r);
    if (n == 2 && strcmp(what, "active") == 0)
        return active(c, xapi, result_r);
    if (n == 6 && strcmp(what, "history") == 0)
        return history(c, xapi, words, result_r);
    if (n == 3 && strcmp(what, "show") == 0)
        return show(c, xapi, words[2], result_r);
    if (n == 4 && strcmp(what, "decide") == 0)
        return decide(c, xapi, words[2], words[3], result_r);
    return err_internal(c->arena, "migrations [active | history VM OUTCOME SINCE_S LIMIT | show ID | decide ID commit|abort]");
}

bool migrations_command(struct xapi *xapi, unsigned n, char **words, struct text *t)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = xapi->clock, .id = "ctl" };
    struct value result = value_void();
    struct error *e = run(&c, xapi, n, words, &result);

    if (e != NULL) {
        text_add(t, e->n_params > 0 ? e->params[0] : e->code);
        return false;
    }
    json_write(t, &result);
    text_add_byte(t, '\n');
    return true;
}
