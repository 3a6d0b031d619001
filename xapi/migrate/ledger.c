#include "xapi/migrate/ledger.h"

#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/wire/json.h"
#include "xapi/core/timers.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/ledger_store.h"
#include "xapi/migrate/ledger_totals.h"

LOG_MODULE(ledger);

#define HOUSEKEEPING_MS 3600000
#define DAY_MS 86400000ll
#define TOTALS_PAGE 1000u

struct ledger {
    struct lock lock; /* class LEDGER: the connection to the file is for one thread at a time, disk and all */
    struct ledger_store *store;
    bool summed;      /* totals hold */
    struct ledger_totals totals;
};

/* --- opening, closing, age ------------------------------------------------------------------------------------- */
struct error *ledger_open(struct arena *a, const char *path, struct ledger **ledger_r)
{
    struct ledger_store *store;

    TRY(ledger_store_open(a, path, &store));
    struct ledger *l = xcalloc(1, sizeof(*l));
    lock_init(&l->lock, LOCK_LEDGER);
    l->store = store;
    *ledger_r = l;
    return NULL;
}

void ledger_close(struct ledger *l)
{
    if (l == NULL)
        return;
    ledger_store_close(l->store);
    lock_release(&l->lock);
    xfree(l);
}

static void housekeeping(void *ctx)
{
    struct xapi *xapi = ctx;
    AUTO_ARENA a = arena_new();
    unsigned gone = 0;
    int64_t before = clock_wall(xapi->clock) * 1000 - config_int(xapi->config, "ledger-days") * DAY_MS;
    struct error *e = ledger_prune(a, xapi->ledger, before, &gone);

    if (e != NULL)
        log_warn("%s", error_text(a, e));
    else if (gone > 0)
        log_info("%u old migrations left the history", gone);
}

struct error *ledger_start(struct arena *a, struct xapi *xapi)
{
    if (!xapi->is_coordinator)
        return NULL;
    TRY(ledger_open(a, arena_printf(a, "%s/migrations.db", xapi->dir), &xapi->ledger));
    housekeeping(xapi);
    timers_every(xapi->timers, HOUSEKEEPING_MS, housekeeping, xapi);
    return NULL;
}

void ledger_stop(struct xapi *xapi)
{
    ledger_close(xapi->ledger);
    xapi->ledger = NULL;
}

struct error *ledger_prune(struct arena *a, struct ledger *l, int64_t before_ms, unsigned *gone_r)
{
    *gone_r = 0;
    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    return ledger_store_prune(a, l->store, before_ms, gone_r);
}

/* --- maps as text ------------------------------------------------------------------------------------------------ */
static const char *map_to_text(struct arena *a, const struct value *map)
{
    AUTO_TEXT t = TEXT_INIT;

    if (map == NULL || map->kind != VALUE_MAP)
        return "{}";
    json_write(&t, map);
    return arena_strdup(a, t.bytes);
}

static struct value map_of_text(struct arena *a, const char *text)
{
    struct value map;
    const char *reason;

    if (json_parse(a, text, strlen(text), &map, &reason) && map.kind == VALUE_MAP)
        return map;
    return value_map(NULL, 0);
}

static void complete(struct arena *a, struct ledger_record *r)
{
    r->row.note = map_of_text(a, r->note);
    r->row.facts = map_of_text(a, r->facts);
}

/* --- one row --------------------------------------------------------------------------------------------------------- */
static struct error *get(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, struct ledger_row *row, bool *found_r)
{
    struct ledger_record r;

    TRY(ledger_store_get(a, l->store, id, side, &r, found_r));
    if (!*found_r)
        return NULL;
    complete(a, &r);
    *row = r.row;
    return NULL;
}

/* Keeps the totals right across a write of one row: what it was before leaves them, what it is then comes in. */
typedef struct error *write_fn(struct arena *, struct ledger *, const void *what);
static struct error *count_row(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, int times)
{
    struct ledger_row row;
    bool found = false;

    if (!l->summed)
        return NULL;
    TRY(get(a, l, id, side, &row, &found));
    if (found && strcmp(row.stage, "done") == 0)
        ledger_totals_add(&l->totals, &row, times);
    return NULL;
}

static struct error *write_counted(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, write_fn *write, const void *what)
{
    TRY(count_row(a, l, id, side, -1));
    struct error *e = write(a, l, what);
    struct error *counted = count_row(a, l, id, side, 1);
    if (counted != NULL)
        l->summed = false; /* summed up again when asked */
    return e;
}

static struct error *write_record(struct arena *a, struct ledger *l, const void *what)
{
    return ledger_store_put(a, l->store, what);
}

struct error *ledger_put(struct arena *a, struct ledger *l, const struct ledger_row *row)
{
    const struct ledger_record r = { .row = *row, .note = map_to_text(a, &row->note), .facts = map_to_text(a, &row->facts) };

    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    return write_counted(a, l, row->id, row->side, write_record, &r);
}

struct error *ledger_get(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, struct ledger_row *row, bool *found_r)
{
    *found_r = false;
    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    return get(a, l, id, side, row, found_r);
}

struct error *ledger_by_key(struct arena *a, struct ledger *l, const char *key, struct ledger_row *row, bool *found_r)
{
    struct ledger_record r;

    *found_r = false;
    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    TRY(ledger_store_by_key(a, l->store, key, &r, found_r));
    if (!*found_r)
        return NULL;
    complete(a, &r);
    *row = r.row;
    return NULL;
}

struct error *ledger_rename(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, const char *new_id)
{
    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    return ledger_store_rename(a, l->store, id, side, new_id);
}

static struct value merged(struct arena *a, const struct value *old, const struct value *more)
{
    struct value_dict d = { 0 };

    for (uint32_t i = 0; i < old->len; i++)
        value_dict_add(a, &d, old->members[i].name, old->members[i].value);
    for (uint32_t i = 0; i < more->len; i++)
        value_dict_set(a, &d, more->members[i].name, more->members[i].value);
    return value_dict_value(&d);
}

struct fact_write { const char *id; enum ledger_side side; const struct value *facts; };
static struct error *write_facts(struct arena *a, struct ledger *l, const void *what)
{
    const struct fact_write *w = what;
    struct ledger_row row;
    bool found;

    TRY(get(a, l, w->id, w->side, &row, &found));
    if (!found)
        return NULL;
    struct value all = merged(a, &row.facts, w->facts);
    return ledger_store_facts(a, l->store, w->id, w->side, map_to_text(a, &all));
}

struct error *ledger_add_facts(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, const struct value *facts)
{
    const struct fact_write w = { id, side, facts };

    if (l == NULL || facts->kind != VALUE_MAP || facts->len == 0)
        return NULL;
    LOCK_SCOPE(&l->lock);
    return write_counted(a, l, id, side, write_facts, &w);
}

struct error *ledger_stage(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, const char *stage, const struct value *note)
{
    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    return ledger_store_stage(a, l->store, id, side, stage, note != NULL ? map_to_text(a, note) : NULL);
}

struct error *ledger_end(struct arena *a, struct ledger *l, const char *id, enum ledger_side side, const char *outcome, const char *cause,
                         const char *recovery, int64_t ended_ms)
{
    struct ledger_row row;
    bool found;

    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    TRY(get(a, l, id, side, &row, &found));
    if (!found || strcmp(row.stage, "done") == 0)
        return NULL;
    TRY(ledger_store_end(a, l->store, id, side, outcome, cause, recovery, ended_ms));
    if (count_row(a, l, id, side, 1) != NULL)
        l->summed = false;
    return NULL;
}

/* --- many rows --------------------------------------------------------------------------------------------------------- */
struct error *ledger_list(struct arena *a, struct ledger *l, const struct ledger_query *q, struct ledger_row **rows_r, unsigned *n_r)
{
    struct ledger_record *records;

    *rows_r = NULL;
    *n_r = 0;
    if (l == NULL)
        return NULL;
    {
        LOCK_SCOPE(&l->lock);
        TRY(ledger_store_list(a, l->store, q, &records, n_r));
    }
    *rows_r = arena_calloc(a, *n_r + 1u, sizeof(**rows_r));
    for (unsigned i = 0; i < *n_r; i++) {
        complete(a, &records[i]);
        (*rows_r)[i] = records[i].row;
    }
    return NULL;
}

/* Page by page, each with an arena of its own: there may be a hundred thousand. */
static struct error *sum_page(struct arena *errors, struct ledger *l, unsigned at, unsigned *n_r)
{
    AUTO_ARENA a = arena_new();
    const struct ledger_query q = { .limit = TOTALS_PAGE, .offset = at };
    struct ledger_record *records;

    struct error *e = ledger_store_list(a, l->store, &q, &records, n_r);
    if (e != NULL)
        return error_dup(errors, e);
    for (unsigned i = 0; i < *n_r; i++) {
        complete(a, &records[i]);
        if (strcmp(records[i].row.stage, "done") == 0)
            ledger_totals_add(&l->totals, &records[i].row, 1);
    }
    return NULL;
}

struct error *ledger_totals(struct arena *a, struct ledger *l, struct ledger_totals *totals_r)
{
    ledger_totals_init(totals_r);
    if (l == NULL)
        return NULL;
    LOCK_SCOPE(&l->lock);
    if (!l->summed) {
        ledger_totals_init(&l->totals);
        for (unsigned at = 0, n = TOTALS_PAGE; n == TOTALS_PAGE; at += n)
            TRY(sum_page(a, l, at, &n));
        l->summed = true;
    }
    *totals_r = l->totals;
    return NULL;
}
