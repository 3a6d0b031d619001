/* qcow2 through qemu-storage-daemon: an NBD client block over its socket (storage/tapd/qcow2_daemon.h). When the
 * daemon dies it is started again; requests wait for that and those unanswered are sent again (they may have been
 * done: doing them twice does no harm). After GIVE_UP_US of failing they get -EIO. The file's backing chain is
 * qemu's business; 'own_only' extents show what the whole chain holds, which is more than was asked for. */
#include <errno.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/child.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "storage/tapd/nbd_client.h"
#include "storage/tapd/qcow2_daemon.h"

LOG_MODULE(qcow2);

#define AGAIN_US 1000000     /* between two tries of starting it again */
#define GIVE_UP_US 60000000
#define SILENCE_US 86400000000 /* a slow medium is slow; the end of the process is what tells */
#define RESIZE_MS 60000

struct qcow2 {
    struct block block; /* block.below: the NBD client */
    struct qcow2_daemon *daemon;
    char *path;
    bool uring;
    bool opening;             /* nothing is brought back yet */
    bool reconnecting;
    int64_t failing_since_us; /* 0: it works */
    int64_t started_us;
    struct loop_timer again;
};

static struct qcow2 *qcow2_of(struct block *b) { return CONTAINER_OF(b, struct qcow2, block); }

static int64_t now_us(const struct qcow2 *q) { return clock_us(loop_clock(q->block.loop)); }

/* --- bringing it back ----------------------------------------------------------------------------------- */

static void try_later(struct qcow2 *q)
{
    if (now_us(q) - q->failing_since_us >= GIVE_UP_US) {
        log_err("%s: qemu-storage-daemon cannot be had again: requests fail", q->path);
        nbd_abandon(q->block.below, -EIO);
        return;
    }
    loop_timer_set(q->block.loop, &q->again, now_us(q) + AGAIN_US);
}

static void reconnected(void *ctx, int result)
{
    struct qcow2 *q = ctx;

    q->reconnecting = false;
    if (result == 0) {
        log_info("%s: served again after %lld ms", q->path, (long long)((now_us(q) - q->failing_since_us) / 1000));
        q->failing_since_us = 0;
    } else {
        try_later(q);
    }
}

/* Both have to be gone: the daemon, and the client's connection. */
static void bring_back(struct qcow2 *q)
{
    int r = 0;

    if (q->opening || q->reconnecting || !nbd_is_lost(q->block.below))
        return;
    if (q->failing_since_us == 0)
        q->failing_since_us = now_us(q);
    if (!qcow2_daemon_runs(q->daemon)) {
        if (now_us(q) - q->started_us < AGAIN_US) {
            try_later(q);
            return;
        }
        q->started_us = now_us(q);
        r = qcow2_daemon_start(q->daemon, q->uring);
    }
    if (r < 0) {
        try_later(q);
        return;
    }
    q->reconnecting = true;
    nbd_reconnect(q->block.below, reconnected, q);
}

static void again_fired(struct loop_timer *timer) { bring_back(CONTAINER_OF(timer, struct qcow2, again)); }
static void daemon_ended(void *ctx) { bring_back(ctx); }

static void connection_lost(void *ctx, int reason)
{
    struct qcow2 *q = ctx;
    /* a daemon that lives but does not serve us is of no use, and one that is dying is waited for here */
    if (qcow2_daemon_runs(q->daemon) && !q->opening)
        qcow2_daemon_stop(q->daemon);
    bring_back(q);
}

/* --- the block ------------------------------------------------------------------------------------------- */

/* below is NULL when it could not be opened again after growing. */
static void qcow2_submit(struct block *b, struct block_request *r)
{
    if (b->below == NULL)
        block_finish(r, -EIO);
    else
        block_submit(b->below, r);
}

static int qcow2_extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    return b->below == NULL ? -EIO : block_extents(b->below, offset, length, own_only, fn, ctx);
}

static int qcow2_close(struct block *b)
{
    struct qcow2 *q = qcow2_of(b);
    int r = 0;

    q->opening = true; /* nothing is brought back any more */
    loop_timer_clear(b->loop, &q->again);
    if (b->below != NULL)
        r = block_close(b->below);
    if (q->daemon != NULL) {
        int stopped = qcow2_daemon_stop(q->daemon);
        r = r < 0 ? r : stopped;
        qcow2_daemon_free(q->daemon);
    }
    xfree(q->path);
    xfree(q);
    return r;
}

static struct error *start_and_connect(struct arena *a, struct qcow2 *q)
{
    struct nbd_options options = { .connections = 1, .silence_us = SILENCE_US, .keep = true, .lost = connection_lost, .ctx = q };
    struct block_open o = { .loop = q->block.loop, .format = "nbd", .path = qcow2_daemon_uri(q->daemon), .read_only = q->block.read_only };
    struct error *e = NULL;

    q->opening = true;
    for (int tries = 0; tries < 2; tries++) {
        int r = qcow2_daemon_start(q->daemon, q->uring);
        if (r < 0)
            return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s: qcow2 needs setpriv and qemu-storage-daemon: %s", q->path, strerror(-r)));
        q->started_us = now_us(q);
        e = nbd_open_with(a, &o, &options, &q->block.below);
        if (e == NULL)
            break;
        if (qcow2_daemon_runs(q->daemon))
            qcow2_daemon_stop(q->daemon);
        e = err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s: qemu-storage-daemon: %s", q->path, qcow2_daemon_said(q->daemon, a)));
        if (!q->uring)
            return e;
        q->uring = false; /* not every qemu has it, not every kernel lets it */
    }
    q->opening = false;
    q->block.size = q->block.below->size;
    q->block.thin = q->block.below->thin;
    return NULL;
}

/* The daemon has the image open and does not let it grow: it makes room for qemu-img. */
static int qcow2_resized(struct block *b, int64_t size)
{
    struct qcow2 *q = qcow2_of(b);
    AUTO_ARENA a = arena_new();
    const char *argv[] = { "qemu-img", "resize", "-q", "-f", "qcow2", q->path, arena_printf(a, "%lld", (long long)size), NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    struct error *e;
    char *said = NULL;
    int status = 0, r;

    if (size == b->size)
        return 0;
    if (size < b->size)
        return -EINVAL;
    q->opening = true;
    block_close(b->below);
    b->below = NULL;
    qcow2_daemon_stop(q->daemon);
    spec.argv = argv;
    r = child_run(a, &spec, RESIZE_MS, 1000, &status, &said);
    if (r == 0 && status != 0)
        r = -EIO;
    if (r < 0)
        log_err("%s: qemu-img resize: %s", q->path, said != NULL ? said : strerror(-r));
    e = start_and_connect(a, q);
    if (e != NULL)
        log_err("%s", error_text(a, e));
    return r < 0 ? r : e != NULL ? -EIO : 0;
}

static const struct block_ops qcow2_ops = {
    .name = "qcow2",
    .submit = qcow2_submit,
    .extents = qcow2_extents,
    .close = qcow2_close,
    .resized = qcow2_resized,
};

struct error *qcow2_open(struct arena *a, const struct block_open *o, struct block **block_r)
{
    struct qcow2 *q = xcalloc(1, sizeof *q);
    struct error *e;

    q->block = (struct block) { .ops = &qcow2_ops, .loop = o->loop, .read_only = o->read_only };
    q->path = xstrdup(o->path);
    q->uring = !o->cached;
    q->again.fired = again_fired;
    e = qcow2_daemon_new(a, o, daemon_ended, q, &q->daemon);
    if (e == NULL)
        e = start_and_connect(a, q);
    if (e != NULL) {
        qcow2_close(&q->block);
        return e;
    }
    *block_r = &q->block;
    return NULL;
}
