/* What is below the gate: opening, linking, closing. */
#include <string.h>

#include "rpc/base/check.h"
#include "storage/tapd/cbt.h"
#include "storage/tapd/nbd_client.h"
#include "storage/tapd/tap.h"

#define RETRY_US 200000 /* a disk by NBD that was lost is connected again so often */

struct error *tap_open_image(struct tap *t, struct arena *a, const char *format, const char *path, const struct nbd_options *nbd, struct block **block_r)
{
    struct block_open o = {
        .loop = t->loop,
        .io = t->io,
        .format = format,
        .path = path,
        .cached = t->spec.cached,
        .dir = t->dir,
    };

    return strcmp(format, "nbd") == 0 ? nbd_open_with(a, &o, nbd, block_r) : block_open(a, &o, block_r);
}

/* The guest of a disk that is lost waits for it, however long that takes. */
void tap_take_chain(struct tap *t, struct block *chain)
{
    t->remote = nbd_is(chain) ? chain : NULL;
    if (t->remote != NULL)
        nbd_keep(chain, RETRY_US);
    t->source = t->allow_faults ? fault_layer(chain, false) : chain;
}

bool tap_is_away(const struct tap *t)
{
    struct mirror_status m;

    tap_mirror_get(t, &m);
    if (t->mirror != NULL && m.state == MIRROR_SWITCHED)
        return m.error[0] != '\0';
    return t->remote != NULL && nbd_is_lost(t->remote);
}

static struct error *open_chain(struct tap *t, struct arena *a, const char *format, const char *path)
{
    struct block_open o = {
        .loop = t->loop,
        .io = t->io,
        .format = format,
        .path = path,
        .read_only = t->spec.read_only,
        .cached = t->spec.cached,
        .dir = t->dir,
    };
    struct block *chain;

    TRY(block_open(a, &o, &chain));
    tap_take_chain(t, chain);
    return NULL;
}

struct error *tap_open(struct tap *t, struct arena *a, const char *format, const char *path, const char *cbt)
{
    struct error *e = NULL;

    CHECK(t->source == NULL && t->mirror == NULL);
    TRY(open_chain(t, a, format, path));
    if (cbt[0] != '\0' && !t->spec.read_only)
        e = cbt_layer(a, t->source, cbt, &t->cbt);
    if (e != NULL) { /* what was below is closed */
        t->cbt = t->source = t->remote = NULL;
        return e;
    }
    tap_link(t);
    return NULL;
}

static void put_on(struct block *upper, struct block *lower)
{
    upper->below = lower;
    upper->size = lower->size;
    upper->read_only = lower->read_only;
    upper->thin = lower->thin;
}

void tap_link(struct tap *t)
{
    struct block *top = t->mirror != NULL ? t->mirror : t->source;

    if (t->cbt != NULL) {
        put_on(t->cbt, top);
        top = t->cbt;
    }
    if (t->throttle == NULL) {
        t->throttle = throttle_layer(top);
        t->stats = stats_layer(t->throttle);
        tap_throttle(t);
    }
    put_on(t->throttle, top);
    put_on(t->stats, t->throttle);
    gate_set_below(t->gate, t->stats);
}

void tap_throttle(struct tap *t)
{
    if (t->throttle != NULL)
        throttle_set(t->throttle, t->spec.throttle_bytes, t->spec.throttle_operations);
}

int tap_close(struct tap *t)
{
    int rc = 0;

    CHECK(t->mirror == NULL);
    if (t->source != NULL)
        rc = block_close(t->cbt != NULL ? t->cbt : t->source);
    t->source = t->cbt = t->remote = NULL;
    nbd_server_dirty(t->server, NULL);
    if (t->throttle != NULL)
        t->throttle->below = NULL;
    gate_set_below(t->gate, NULL);
    return rc;
}
