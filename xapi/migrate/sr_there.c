#include "xapi/migrate/sr_there.h"

#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/pool/sr_rows.h"

/* --- this pool ----------------------------------------------------------------------------------------------------- */
static void local_pbds(struct api_call *c, const char *host, const struct row *sr, struct sr_there *s)
{
    const struct value *pbds = row_value(sr, F_SR_PBDs);

    for (unsigned i = 0; i < pbds->len; i++) {
        const struct row *pbd = db_get(c->db, c->arena, &model_classes[CLASS_PBD], pbds->items[i].s);
        if (pbd == NULL || strcmp(row_string(pbd, F_PBD_host), host) != 0)
            continue;
        s->pbd = pbd->ref;
        s->attached = row_bool(pbd, F_PBD_currently_attached);
    }
}

static const struct value *local_features(const struct row_list *drivers, const char *type)
{
    for (unsigned i = 0; i < drivers->n; i++)
        if (strcmp(row_string(drivers->rows[i], F_SM_type), type) == 0)
            return row_value(drivers->rows[i], F_SM_features);
    return NULL;
}

static struct error *read_local(struct api_call *c, const struct move *m, struct srs_there *t)
{
    struct row_list srs = db_all(c->db, c->arena, &model_classes[CLASS_SR]), drivers = db_all(c->db, c->arena, &model_classes[CLASS_SM]),
                    pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    const struct row *host;

    TRY(db_need(c->db, c->arena, CLASS_host, m->destination.host, &host));
    t->srs = arena_calloc(c->arena, srs.n + 1, sizeof *t->srs);
    for (unsigned i = 0; i < srs.n; i++) {
        const struct row *sr = srs.rows[i];
        struct sr_there *s = &t->srs[t->n++];
        *s = (struct sr_there){
            .ref = sr->ref,
            .uuid = row_string(sr, F_SR_uuid),
            .name = row_string(sr, F_SR_name_label),
            .type = row_string(sr, F_SR_type),
            .physical_size = row_int(sr, F_SR_physical_size),
            .physical_utilisation = row_int(sr, F_SR_physical_utilisation),
            .features = local_features(&drivers, row_string(sr, F_SR_type)),
        };
        local_pbds(c, host->ref, sr, s);
    }
    t->default_sr = pools.n > 0 ? row_string(pools.rows[0], F_pool_default_SR) : REF_NULL;
    t->pool_suspend_sr = pools.n > 0 ? row_string(pools.rows[0], F_pool_suspend_image_SR) : REF_NULL;
    t->host_suspend_sr = row_string(host, F_host_suspend_image_sr);
    return NULL;
}

/* --- another pool -------------------------------------------------------------------------------------------------- */
static void remote_pbds(const struct value *pbds, const char *host, struct sr_there *s)
{
    for (unsigned i = 0; i < pbds->len; i++) {
        const struct value *pbd = &pbds->members[i].value;
        if (strcmp(value_get_string(pbd, "SR", ""), s->ref) != 0 || strcmp(value_get_string(pbd, "host", ""), host) != 0)
            continue;
        s->pbd = pbds->members[i].name;
        s->attached = value_get_bool(pbd, "currently_attached", false);
    }
}

static void remote_driver(const struct value *drivers, struct sr_there *s)
{
    for (unsigned i = 0; i < drivers->len; i++) {
        const struct value *sm = &drivers->members[i].value, *formats = value_get(sm, "supported_image_formats");
        if (strcmp(value_get_string(sm, "type", ""), s->type) != 0)
            continue;
        s->features = value_get(sm, "features");
        s->formats = formats != NULL && formats->kind == VALUE_SET && formats->len > 0 ? formats : NULL;
        return;
    }
}

static struct error *read_remote(struct api_call *c, const struct move *m, struct srs_there *t)
{
    struct peer_pool *p = m->destination.peer;
    const struct value *srs, *pbds, *drivers, *pools, *hosts;

    TRY(peer_pool_records(c, p, "SR", &srs));
    TRY(peer_pool_records(c, p, "PBD", &pbds));
    TRY(peer_pool_records(c, p, "SM", &drivers));
    TRY(peer_pool_records(c, p, "pool", &pools));
    TRY(peer_pool_records(c, p, "host", &hosts));
    t->srs = arena_calloc(c->arena, srs->len + 1, sizeof *t->srs);
    for (unsigned i = 0; i < srs->len; i++) {
        const struct value *sr = &srs->members[i].value;
        struct sr_there *s = &t->srs[t->n++];
        *s = (struct sr_there){
            .ref = srs->members[i].name,
            .uuid = value_get_string(sr, "uuid", ""),
            .name = value_get_string(sr, "name_label", ""),
            .type = value_get_string(sr, "type", ""),
            .physical_size = value_get_int(sr, "physical_size", 0),
            .physical_utilisation = value_get_int(sr, "physical_utilisation", 0),
        };
        remote_pbds(pbds, m->destination.host, s);
        remote_driver(drivers, s);
    }
    const struct value *pool = pools->len > 0 ? &pools->members[0].value : NULL;
    t->default_sr = value_get_string(pool, "default_SR", REF_NULL);
    t->pool_suspend_sr = value_get_string(pool, "suspend_image_SR", REF_NULL);
    t->host_suspend_sr = value_get_string(value_get(hosts, m->destination.host), "suspend_image_sr", REF_NULL);
    return NULL;
}

struct error *srs_there_read(struct api_call *c, const struct move *m, struct srs_there *t)
{
    *t = (struct srs_there){ 0 };
    return m->destination.peer != NULL ? read_remote(c, m, t) : read_local(c, m, t);
}

static struct error *plug(struct api_call *c, const struct move *m, const struct sr_there *s)
{
    struct value param = value_string(s->pbd), ignored;

    return m->destination.peer != NULL ? peer_pool_call(c, m->destination.peer, "PBD.plug", &param, 1, &ignored) : pbd_plug(c, s->pbd, false);
}

static bool is_wanted(const struct move *m, const struct sr_there *s)
{
    for (unsigned i = 0; i < m->n_disks; i++)
        if (m->disks[i].target_sr != NULL && strcmp(m->disks[i].target_sr, s->ref) == 0)
            return true;
    return false;
}

struct error *srs_there_plug(struct api_call *c, const struct move *m)
{
    struct srs_there there;

    TRY(srs_there_read(c, m, &there));
    for (unsigned i = 0; i < there.n; i++)
        if (!there.srs[i].attached && there.srs[i].pbd != NULL && is_wanted(m, &there.srs[i]))
            TRY(plug(c, m, &there.srs[i]));
    return NULL;
}

/* --- asking -------------------------------------------------------------------------------------------------------- */
const struct sr_there *sr_there_by_ref(const struct srs_there *t, const char *ref)
{
    for (unsigned i = 0; i < t->n; i++)
        if (strcmp(t->srs[i].ref, ref) == 0)
            return &t->srs[i];
    return NULL;
}

const struct sr_there *sr_there_by_uuid(const struct srs_there *t, const char *uuid)
{
    for (unsigned i = 0; i < t->n; i++)
        if (strcmp(t->srs[i].uuid, uuid) == 0)
            return &t->srs[i];
    return NULL;
}

const struct sr_there *sr_there_like(const struct srs_there *t, const char *name, const char *type)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->srs[i].attached && strcmp(t->srs[i].name, name) == 0 && strcmp(t->srs[i].type, type) == 0)
            return &t->srs[i];
    return NULL;
}

bool sr_there_can(const struct sr_there *s, const char *feature)
{
    return s->features != NULL && value_get(s->features, feature) != NULL;
}

bool sr_there_takes(const struct sr_there *s, const char *format)
{
    static const char *const known[] = { "raw", "vhd", "qcow2" };

    if (s->formats != NULL)
        return value_set_has(s->formats, format);
    if (strcmp(s->type, "lvm") == 0)
        return strcmp(format, "raw") == 0;
    for (unsigned i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(format, known[i]) == 0)
            return true;
    return false;
}
