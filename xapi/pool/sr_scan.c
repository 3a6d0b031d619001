/* Scanning an SR: its rows become what its medium holds. */
#include <stdlib.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/operations.h"
#include "xapi/pool/sr_rows.h"
#include "xapi/pool/storage_errors.h"
#include "xapi/pool/vdi_make.h"
#include "xapi/pool/vdi_rows.h"

/* What the scan found, sorted by location: an SR may hold thousands. */
struct found { const char *location; const struct value *stat; bool known; };
struct found_list { struct found *items; unsigned n; };

static int by_location(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return strcmp(x->location, y->location);
}

static struct found_list found_sorted(struct arena *arena, const struct value *stats)
{
    struct found_list list = { arena_calloc(arena, stats->len + 1u, sizeof(struct found)), stats->len };

    for (unsigned i = 0; i < stats->len; i++)
        list.items[i] = (struct found) { .location = value_get_string(&stats->items[i], "location", ""), .stat = &stats->items[i] };
    qsort(list.items, list.n, sizeof(struct found), by_location);
    return list;
}

static struct found *found_at(const struct found_list *list, const char *location)
{
    const struct found key = { .location = location };
    return bsearch(&key, list->items, list->n, sizeof(struct found), by_location);
}

/* A disk that a VM's configuration names is not forgotten for a moment of an unmounted file system. */
static struct error *row_gone(struct txn *txn, const struct row *sr, const struct row *vdi)
{
    bool iso = strcmp(row_string(sr, F_SR_content_type), "iso") == 0;
    const struct value *current = row_value(vdi, F_VDI_current_operations);

    if (current->len > 0 || vdi_is_provisional(vdi)) /* it is being made, or removed */
        return NULL;
    if (row_value(vdi, F_VDI_VBDs)->len == 0 && (iso || strcmp(row_string(vdi, F_VDI_type), "suspend") != 0))
        return vdi_row_destroy(txn, vdi);
    return txn_set_bool(txn, CLASS_VDI, vdi->ref, F_VDI_missing, true);
}

/* Rows that are there: each follows what was found of it, or is gone. */
static struct error *known_follow(struct api_call *c, struct txn *txn, const char *sr_ref, const struct found_list *list)
{
    const struct row *sr;
    const struct value *vdis;

    TRY(txn_need(txn, CLASS_SR, sr_ref, &sr));
    vdis = row_value(sr, F_SR_VDIs);
    for (unsigned i = 0; i < vdis->len; i++) {
        const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdis->items[i].s);
        struct found *found = vdi == NULL ? NULL : found_at(list, row_string(vdi, F_VDI_location));

        if (found != NULL) {
            found->known = true;
            TRY(vdi_row_follow(c, txn, vdi->ref, found->stat));
        } else if (vdi != NULL)
            TRY(row_gone(txn, sr, vdi));
    }
    return NULL;
}

static struct error *rows_follow(struct api_call *c, const char *sr_ref, const struct value *stats)
{
    struct found_list list = found_sorted(c->arena, stats);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *sr;
    const char *ref;
    bool more = false;

    TRY(known_follow(c, txn, sr_ref, &list));
    for (unsigned i = 0; i < list.n; i++) {
        if (list.items[i].known)
            continue;
        TRY(txn_need(txn, CLASS_SR, sr_ref, &sr));
        TRY(vdi_row_found(c, txn, sr, list.items[i].stat, &ref));
        more = true;
    }
    if (more) /* now each finds its parent */
        TRY(known_follow(c, txn, sr_ref, &list));
    TRY(txn_map_remove(txn, CLASS_SR, sr_ref, F_SR_other_config, "dirty"));
    return txn_commit(txn, NULL);
}

struct error *sr_rescan(struct api_call *c, const char *sr_ref)
{
    const struct row *sr;
    const char *host;
    struct value_dict args = { 0 };
    struct value value, stats;

    TRY(sr_host(c, sr_ref, &host));
    TRY(db_need(c->db, c->arena, CLASS_SR, sr_ref, &sr));
    value_dict_add(c->arena, &args, "uuid", value_string(row_string(sr, F_SR_uuid)));
    value = value_dict_value(&args);
    TRY(storage_error(c, agent_call(c, host, "sr.scan", &value, &stats), sr_ref, NULL));
    if (stats.kind == VALUE_SET)
        TRY(rows_follow(c, sr_ref, &stats));
    return sr_sizes_refresh(c, sr_ref);
}
