#include "xapi/pool/allowed_refresh.h"

#include <stdatomic.h>

#include "rpc/base/check.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/operations.h"

LOG_MODULE(allowed_refresh);

#define AT_ONCE 2000u /* so many objects do not delay a start noticeably */
#define BATCH 100u

static const unsigned classes[] = { CLASS_pool, CLASS_host, CLASS_SR, CLASS_VDI, CLASS_VM, CLASS_VBD, CLASS_VIF };

struct allowed_refresh { struct xapi *xapi; bool has_thread; pthread_t thread; atomic_bool stopping; };

static struct error *refresh_batch(struct api_call *c, struct row_list rows)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);

    for (unsigned i = 0; i < rows.n; i++)
        if (txn_get(txn, rows.rows[i]->class, rows.rows[i]->ref) != NULL)
            TRY(operations_update(c, txn, rows.rows[i]->class->id, rows.rows[i]->ref));
    return txn_commit(txn, NULL);
}

static bool refresh_class(struct allowed_refresh *r, unsigned class_id)
{
    AUTO_ARENA rows_arena = arena_new();
    struct row_list all = db_all(r->xapi->db, rows_arena, &model_classes[class_id]);

    for (unsigned from = 0; from < all.n; from += BATCH) {
        AUTO_ARENA arena = arena_new();
        struct row_list batch = { .rows = all.rows + from, .n = all.n - from < BATCH ? all.n - from : BATCH };
        struct api_call c;

        if (atomic_load(&r->stopping))
            return false;
        internal_call_init(&c, r->xapi, arena, "allowed operations");
        struct error *e = refresh_batch(&c, batch);
        if (e != NULL)
            log_warn("%s: %s", model_classes[class_id].name, error_text(arena, e));
    }
    return true;
}

static void *refresh_all(void *arg)
{
    struct allowed_refresh *r = arg;

    for (unsigned i = 0; i < ARRAY_LEN(classes); i++)
        if (!refresh_class(r, classes[i]))
            break;
    return NULL;
}

struct allowed_refresh *allowed_refresh_start(struct xapi *xapi)
{
    struct allowed_refresh *r = xcalloc(1, sizeof *r);
    unsigned n = 0;

    r->xapi = xapi;
    for (unsigned i = 0; i < ARRAY_LEN(classes); i++)
        n += db_count(xapi->db, &model_classes[classes[i]]);
    if (n > AT_ONCE) {
        log_info("%u objects: their allowed_operations follow while clients are served", n);
        r->thread = thread_start("allowed", refresh_all, r);
        r->has_thread = true;
    } else {
        refresh_all(r);
    }
    return r;
}

void allowed_refresh_stop(struct allowed_refresh *r)
{
    if (r == NULL)
        return;
    atomic_store(&r->stopping, true);
    if (r->has_thread)
        CHECK(pthread_join(r->thread, NULL) == 0);
    xfree(r);
}
