#include "storage/tapd/nbd_client.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/tapd/nbd_client_private.h"

static struct nbd_client *client_of(struct block *b) { return CONTAINER_OF(b, struct nbd_client, block); }
static const struct nbd_client *client_of_const(const struct block *b) { return CONTAINER_OF(b, const struct nbd_client, block); }

/* --- slots ------------------------------------------------------------------------------------------ */

struct nbd_slot *nbd_client_slot(struct nbd_client *c)
{
    struct nbd_slot *slot = c->free_slots;
    if (slot != NULL)
        c->free_slots = slot->next;
    return slot;
}

static struct nbd_connection *least_loaded(struct nbd_client *c)
{
    struct nbd_connection *best = &c->connections[0];
    for (unsigned i = 1; i < c->n_connections; i++)
        if (c->connections[i].load < best->load)
            best = &c->connections[i];
    return best;
}

void nbd_client_start(struct nbd_client *c, struct nbd_slot *slot, unsigned type, unsigned flags, int64_t offset, uint32_t length)
{
    uint64_t index = (uint64_t)(slot - c->slots);

    slot->serial++;
    slot->order = c->order++;
    slot->length = length;
    slot->error = 0;
    slot->covered = 0;
    slot->partial = slot->sent = false;
    slot->wire = (struct nbd_request) {
        .magic = htobe32(NBD_MAGIC_REQUEST),
        .flags = htobe16((uint16_t)flags),
        .type = htobe16((uint16_t)type),
        .cookie = htobe64((uint64_t)slot->serial << 32 | index),
        .offset = htobe64((uint64_t)offset),
        .length = htobe32(length),
    };
    c->in_flight++;
    nbd_connection_queue(least_loaded(c), slot);
}

static void leave_connection(struct nbd_slot *slot)
{
    struct nbd_connection *n = slot->connection;
    if (n->phase == NBD_READY) {
        n->in_flight--;
        n->load -= slot->length;
        n->bulk -= slot->bulk;
    }
    slot->connection = NULL;
}

void nbd_client_restart(struct nbd_client *c, struct nbd_slot *slot, unsigned type)
{
    uint64_t order = slot->order;
    leave_connection(slot);
    c->in_flight--;
    nbd_client_start(c, slot, type, 0, 0, 0);
    slot->order = order;
}

static void call_owner(struct nbd_client *c, struct block_request *r, int result)
{
    nbd_client_enter(c);
    block_finish(r, result);
    nbd_client_leave(c);
}

void nbd_client_report(struct nbd_client *c, struct block_request *r, int result)
{
    if (c->hold_reports == 0) {
        call_owner(c, r, result);
        return;
    }
    r->result = result;
    r->next = NULL;
    *c->reports_end = r;
    c->reports_end = &r->next;
    loop_later(c->block.loop, &c->report_later);
}

static void report_hash(struct nbd_client *c, struct nbd_hash *hash, int result)
{
    hash->result = result;
    if (c->hold_reports > 0) {
        hash->next = c->hash_reports;
        c->hash_reports = hash;
        loop_later(c->block.loop, &c->report_later);
        return;
    }
    nbd_client_enter(c);
    hash->done(hash);
    nbd_client_leave(c);
}

void nbd_client_done(struct nbd_client *c, struct nbd_slot *slot, int result)
{
    struct block_request *r = slot->r;
    struct nbd_hash *hash = slot->hash;
    struct nbd_status *status = slot->status;

    slot->r = NULL;
    slot->hash = NULL;
    slot->status = NULL;
    leave_connection(slot);
    c->in_flight--;
    if (slot != &c->slots[NBD_SLOTS]) {
        slot->next = c->free_slots;
        c->free_slots = slot;
    }
    if (c->up && c->waiting != NULL)
        nbd_client_pump(c);
    if (r != NULL) {
        nbd_client_report(c, r, result);
    } else if (hash != NULL) {
        report_hash(c, hash, result);
    } else if (status != NULL) {
        status->result = result;
        status->done = true;
    }
}

static void run_reports(struct loop_idle *idle)
{
    struct nbd_client *c = CONTAINER_OF(idle, struct nbd_client, report_later);

    nbd_client_enter(c);
    while (c->reports != NULL) {
        struct block_request *r = c->reports;
        c->reports = r->next;
        if (c->reports == NULL)
            c->reports_end = &c->reports;
        block_finish(r, r->result);
    }
    while (c->hash_reports != NULL) {
        struct nbd_hash *hash = c->hash_reports;
        c->hash_reports = hash->next;
        hash->done(hash);
    }
    if (c->lost_unreported) {
        c->lost_unreported = false;
        if (c->options.lost != NULL)
            c->options.lost(c->options.ctx, c->lost_reason);
    }
    nbd_client_leave(c);
}

/* --- requests --------------------------------------------------------------------------------------- */

static unsigned fua_flag(const struct nbd_client *c, const struct block_request *r)
{
    return (r->flags & BLOCK_FUA) != 0 && (c->server.flags & NBD_TFLAG_SEND_FUA) != 0 ? NBD_CMD_FLAG_FUA : 0;
}

/* What there is nothing to do for, or which the server cannot be asked: true when it is finished. */
static bool finished_without(struct nbd_client *c, struct block_request *r)
{
    bool can_zero = (c->server.flags & NBD_TFLAG_SEND_WRITE_ZEROES) != 0;
    int result = 0;

    switch (r->op) {
    case BLOCK_DISCARD:
        if ((c->server.flags & NBD_TFLAG_SEND_TRIM) != 0)
            return false;
        break;
    case BLOCK_FLUSH:
        if ((c->server.flags & NBD_TFLAG_SEND_FLUSH) != 0)
            return false;
        break;
    case BLOCK_ZERO:
        if (can_zero || r->length <= BLOCK_REQUEST_MAX)
            return false;
        result = -EINVAL;
        break;
    case BLOCK_READ:
    case BLOCK_WRITE:
        if (r->length <= BLOCK_REQUEST_MAX && (r->length | r->offset) % c->server.block_min == 0)
            return false;
        result = -EINVAL;
        break;
    }
    nbd_client_report(c, r, result);
    return true;
}

static void start_request(struct nbd_client *c, struct nbd_slot *slot, struct block_request *r)
{
    slot->r = r;
    switch (r->op) {
    case BLOCK_READ:
        nbd_client_start(c, slot, NBD_CMD_READ, 0, r->offset, r->length);
        break;
    case BLOCK_WRITE:
        nbd_client_start(c, slot, NBD_CMD_WRITE, fua_flag(c, r), r->offset, r->length);
        break;
    case BLOCK_ZERO:
        if ((c->server.flags & NBD_TFLAG_SEND_WRITE_ZEROES) != 0)
            nbd_client_start(c, slot, NBD_CMD_WRITE_ZEROES,
                             fua_flag(c, r) | ((r->flags & BLOCK_NO_HOLE) != 0 ? NBD_CMD_FLAG_NO_HOLE : 0), r->offset, r->length);
        else
            nbd_client_start(c, slot, NBD_CMD_WRITE, fua_flag(c, r), r->offset, r->length);
        break;
    case BLOCK_DISCARD:
        nbd_client_start(c, slot, NBD_CMD_TRIM, 0, r->offset, r->length);
        break;
    case BLOCK_FLUSH:
        nbd_client_start(c, slot, NBD_CMD_FLUSH, 0, 0, 0);
        break;
    }
}

void nbd_client_pump(struct nbd_client *c)
{
    while (c->up && c->waiting != NULL) {
        struct block_request *r = c->waiting;
        if (c->free_slots == NULL)
            return;
        c->waiting = r->next;
        if (c->waiting == NULL)
            c->waiting_end = &c->waiting;
        if (!finished_without(c, r)) /* the server may be another one than when it came */
            start_request(c, nbd_client_slot(c), r);
    }
}

static void client_submit(struct block *b, struct block_request *r)
{
    struct nbd_client *c = client_of(b);
    struct nbd_slot *slot;

    if (!c->up && !c->options.keep) {
        nbd_client_report(c, r, c->lost_reason);
        return;
    }
    if (c->up && finished_without(c, r))
        return;
    if (r->op != BLOCK_READ && r->op != BLOCK_FLUSH)
        nbd_client_extents_forget(c, r->offset, r->length);
    slot = c->up && c->waiting == NULL ? nbd_client_slot(c) : NULL;
    if (slot != NULL) {
        start_request(c, slot, r);
        return;
    }
    r->next = NULL;
    *c->waiting_end = r;
    c->waiting_end = &r->next;
}

bool nbd_can_hash(const struct block *b) { return client_of_const(b)->can_hash; }

void nbd_hash(struct block *b, struct nbd_hash *hash)
{
    struct nbd_client *c = client_of(b);
    struct nbd_slot *slot;

    if (!c->up || !c->can_hash || hash->length == 0 || hash->length > NBD_HASH_MAX) {
        report_hash(c, hash, !c->up ? c->lost_reason : !c->can_hash ? -EOPNOTSUPP : -EINVAL);
        return;
    }
    slot = nbd_client_slot(c);
    if (slot == NULL) { /* as many as that are not asked for beside all the guest's requests */
        report_hash(c, hash, -EAGAIN);
        return;
    }
    slot->hash = hash;
    nbd_client_start(c, slot, NBD_CMD_XAPI_HASH, 0, hash->offset, hash->length);
}

/* --- the block -------------------------------------------------------------------------------------- */

bool nbd_is(const struct block *b) { return b != NULL && b->ops == &nbd_client_ops; }
bool nbd_is_lost(const struct block *b) { return !client_of_const(b)->up; }

void nbd_watch(struct block *b, int64_t silence_us, void (*lost)(void *ctx, int reason), void *ctx)
{
    struct nbd_client *c = client_of(b);
    if (silence_us > 0)
        c->options.silence_us = silence_us;
    c->options.lost = lost;
    c->options.ctx = ctx;
    loop_timer_clear(b->loop, &c->silence);
    if (c->up && c->in_flight > 0)
        nbd_client_silence(c);
}

void nbd_keep(struct block *b, int64_t retry_us)
{
    struct nbd_client *c = client_of(b);

    c->options.keep = true;
    c->options.retry_us = retry_us;
    if (c->up)
        return;
    nbd_client_connect_cancel(c);
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++)
        nbd_connection_down(&c->connections[i]);
    nbd_client_again(c);
}

void nbd_traffic(const struct block *b, uint64_t *sent_r, uint64_t *received_r)
{
    *sent_r = client_of_const(b)->sent;
    *received_r = client_of_const(b)->received;
}

void nbd_reconnect(struct block *b, void (*done)(void *ctx, int result), void *ctx)
{
    struct nbd_client *c = client_of(b);
    CHECK(!c->connecting);
    nbd_client_connect(c, done, ctx);
}

void nbd_abandon(struct block *b, int reason)
{
    struct nbd_client *c = client_of(b);

    CHECK(!c->up && !c->connecting);
    c->options.keep = false;
    c->lost_reason = reason;
    c->hold_reports++;
    while (c->waiting != NULL) {
        struct block_request *r = c->waiting;
        c->waiting = r->next;
        nbd_client_report(c, r, reason);
    }
    c->waiting_end = &c->waiting;
    c->hold_reports--;
}

void nbd_client_enter(struct nbd_client *c) { c->calling++; }

bool nbd_client_leave(struct nbd_client *c)
{
    bool gone = c->close_wanted;
    if (--c->calling == 0 && gone)
        nbd_client_free(c);
    return gone;
}

static void say_goodbye(struct nbd_connection *n)
{
    struct nbd_request bye = { .magic = htobe32(NBD_MAGIC_REQUEST), .type = htobe16(NBD_CMD_DISC) };
    struct iovec iov = { &bye, sizeof bye };

    if (n->phase == NBD_READY && n->queue == NULL && nbd_wire_writev(&n->wire, &iov, 1) > 0 && nbd_wire_flush(&n->wire) != 0)
        return; /* best effort */
}

static int client_close(struct block *b)
{
    struct nbd_client *c = client_of(b);

    CHECK(c->in_flight == 0 && c->waiting == NULL);
    nbd_client_connect_cancel(c);
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++) {
        say_goodbye(&c->connections[i]);
        nbd_connection_down(&c->connections[i]);
    }
    c->up = false;
    c->lost_unreported = false;
    loop_timer_clear(b->loop, &c->silence);
    loop_timer_clear(b->loop, &c->again);
    loop_not_later(b->loop, &c->send_later);
    loop_not_later(b->loop, &c->report_later);
    if (c->calling > 0)
        c->close_wanted = true;
    else
        nbd_client_free(c);
    return 0;
}

void nbd_client_free(struct nbd_client *c)
{
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++) {
        xfree(c->connections[i].shake);
        xfree(c->connections[i].front);
    }
    disk_tls_unref(c->tls);
    fd_close(&c->preset_fd);
    xfree(c->slots);
    xfree(c->zeros);
    xfree(c->extents);
    arena_free(c->arena);
    xfree(c);
}

const struct block_ops nbd_client_ops = {
    .name = "nbd",
    .submit = client_submit,
    .extents = nbd_client_extents,
    .close = client_close,
};

/* --- opening ---------------------------------------------------------------------------------------- */

static void run_send(struct loop_idle *idle)
{
    nbd_client_send_all(CONTAINER_OF(idle, struct nbd_client, send_later));
}

static struct nbd_client *client_new(struct loop *loop, const struct nbd_options *options, bool read_only)
{
    struct nbd_client *c = xcalloc(1, sizeof *c);

    c->block = (struct block) { .ops = &nbd_client_ops, .loop = loop, .read_only = read_only };
    c->options = *options;
    if (c->options.silence_us <= 0)
        c->options.silence_us = NBD_SILENCE_US;
    if (c->options.connections == 0)
        c->options.connections = 1;
    if (c->options.connections > NBD_CONNECTIONS_MAX)
        c->options.connections = NBD_CONNECTIONS_MAX;
    c->arena = arena_new();
    c->preset_fd = -1;
    c->lost_reason = -ENOTCONN;
    c->slots = xcalloc(NBD_SLOTS + 1, sizeof *c->slots);
    for (unsigned i = NBD_SLOTS; i-- > 0;) {
        c->slots[i].next = c->free_slots;
        c->free_slots = &c->slots[i];
    }
    c->waiting_end = &c->waiting;
    c->reports_end = &c->reports;
    c->extents = xcalloc(NBD_EXTENTS, sizeof *c->extents);
    c->send_later.run = run_send;
    c->report_later.run = run_reports;
    c->silence.fired = nbd_client_silence_fired;
    for (unsigned i = 0; i < NBD_CONNECTIONS_MAX; i++) {
        c->connections[i].client = c;
        c->connections[i].wire.fd = -1;
        c->connections[i].queue_end = &c->connections[i].queue;
    }
    return c;
}

struct opening { bool ended; int result; };

static void open_ended(void *ctx, int result)
{
    struct opening *o = ctx;
    o->ended = true;
    o->result = result;
}

/* Turns the loop until the connections stand. The client is freed on failure. */
static struct error *finish_open(struct arena *a, struct nbd_client *c, const char *what, struct block **block_r)
{
    struct opening o = { 0 };

    nbd_client_connect(c, open_ended, &o);
    while (!o.ended)
        loop_turn(c->block.loop, -1);
    if (o.result != 0) {
        char *text = arena_printf(a, "%s: %s: %s", what, c->connect_text, strerror(-o.result));
        nbd_client_free(c);
        return err_sr_backend_failure(a, "tapd", "", text);
    }
    *block_r = &c->block;
    return NULL;
}

struct error *nbd_open_with(struct arena *a, const struct block_open *open, const struct nbd_options *options, struct block **block_r)
{
    struct nbd_client *c = client_new(open->loop, options, open->read_only);
    const char *why = NULL;
    int r = 0;

    if (!nbd_uri_parse(c->arena, open->path, &c->uri)) {
        why = "no NBD address";
    } else {
        if (c->uri.tls || c->uri.tls_first)
            r = disk_tls_client(&c->tls);
        if (r == 0)
            r = nbd_client_resolve(c);
        if (c->uri.put != NULL && c->uri.host != NULL)
            c->request = nbd_front_request(c->arena, &c->uri);
        if (open->dir != NULL)
            nbd_client_session(c, open->dir);
        if (r != 0)
            why = r == -ENOENT ? "unknown host" : strerror(-r);
    }
    if (why != NULL) {
        nbd_client_free(c);
        return err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s: %s", nbd_uri_shown(a, open->path), why));
    }
    if (options->later_size > 0) {
        c->block.size = options->later_size;
        *block_r = &c->block;
        return NULL;
    }
    return finish_open(a, c, nbd_uri_shown(a, open->path), block_r);
}

struct error *nbd_open(struct arena *a, const struct block_open *open, struct block **block_r)
{
    static const struct nbd_options options;
    return nbd_open_with(a, open, &options, block_r);
}

struct error *nbd_open_fd(struct arena *a, struct loop *loop, int fd, const struct nbd_options *options, bool read_only, struct block **block_r)
{
    struct nbd_client *c = client_new(loop, options, read_only);
    c->preset_fd = fd;
    c->uri.name = "";
    c->options.connections = 1;
    return finish_open(a, c, "socket", block_r);
}
