/* The connections to the destination, and what is heard on them. */
#include <errno.h>
#include <string.h>

#include "xapi/migrate/sender.h"
#include "xenops/stream/confirm.h"

struct error *sender_contact_failed(struct sender *s, const char *what, int r)
{
    struct error *e = error_make(s->c->arena, __FILE__, __LINE__, "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED", 0);
    e->cause = arena_printf(s->c->arena, "%s: %s", what, strerror(-r));
    return e;
}

struct error *sender_transport_failed(struct sender *s, const char *what, int r)
{
    if (r == -ECANCELED || call_cancelled(s->c))
        return error_make(s->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    return sender_contact_failed(s, what, r);
}

int sender_hear(struct sender *s, struct byte_stream *stream, int stop_fd, int timeout_ms, struct error **peer_r)
{
    int r;

    do
        r = handshake_receive(s->c->arena, stream, stop_fd, timeout_ms, peer_r);
    while (r == 0 && *peer_r != NULL && error_is(*peer_r, HANDSHAKE_ALIVE));
    return r;
}

struct error *sender_expect(struct sender *s, struct byte_stream *stream, const char *what, int timeout_ms, bool watch)
{
    struct error *peer = NULL;
    int stop_fd = watch && s->c->cancel != NULL ? cancel_fd(s->c->cancel) : -1;
    int r = sender_hear(s, stream, stop_fd, timeout_ms, &peer);

    if (r == 0)
        return peer;
    return watch ? sender_transport_failed(s, what, r) : sender_contact_failed(s, what, r);
}

/* --- opening ------------------------------------------------------------------------------------------ */
/* What this host shows: the target's own credential, else the pool's secret, which never leaves the pool. */
static const char *credential(const struct sender *s)
{
    return s->target.cookie != NULL ? s->target.cookie : arena_printf(s->c->arena, "pool_secret=%s", s->m->xapi->pool_secret);
}

static struct error *open_put(struct sender *s, const char *kind, const char *cookies, struct byte_stream **stream_r)
{
    struct arena *a = s->c->arena;
    const char *path = arena_printf(a, "/services/xenops/migrate/%s/%s", kind, s->destination_temp);
    const char *headers = arena_printf(a, "Cookie: %s; migration_id=%s; final_id=%s; %s\r\n", credential(s), s->id, s->final_uuid, cookies);
    int r = http_client_raw(s->c, s->m->xapi->client, &s->target, "PUT", path, headers, stream_r);

    return r == 0 ? NULL : sender_transport_failed(s, "connecting to the destination", r);
}

struct error *sender_open_vm(struct sender *s)
{
    const char *cookies = arena_printf(s->c->arena, "memory_limit=%lld; two_phase=1%s%s", (long long)value_get_int(s->spec, "memory_static_max", 0),
                                       s->offer.alive ? "; alive=1" : "", s->offer.report ? "; report=1" : "");

    TRY(open_put(s, "vm", cookies, &s->vm));
    migrations_stream(s->m, &s->worker.vm, s->vm);
    return NULL;
}

void sender_close_vm(struct sender *s)
{
    migrations_stream(s->m, &s->worker.vm, NULL);
    bytes_close(s->vm);
    s->vm = NULL;
}

/* One of them carries the image as it is; several of them, or a compressed one, carry blocks (fan.h). */
static bool fanned(const struct sender *s) { return s->n_streams > 1 || s->compress != FAN_OFF; }

static struct error *open_one(struct sender *s, unsigned i)
{
    const char *cookies = arena_printf(s->c->arena, "stream=%u; streams=%u%s%s", i, s->n_streams, fanned(s) ? "; fan=1" : "",
                                       s->offer.confirm ? "; confirm=1" : "");

    TRY(open_put(s, "mem", cookies, &s->raw[i]));
    migrations_stream(s->m, &s->worker.mem[i], s->raw[i]);
    TRY(sender_expect(s, s->raw[i], "waiting for the destination's memory stream", HANDSHAKE_MS, true));
    if (s->offer.confirm)
        s->confirmed[i] = confirm_out_new(s->raw[i]);
    return NULL;
}

struct error *sender_open_memory(struct sender *s)
{
    struct byte_stream *carriers[FAN_MAX] = { NULL };

    for (unsigned i = 0; i < s->n_streams; i++) {
        TRY(open_one(s, i));
        carriers[i] = s->confirmed[i] != NULL ? s->confirmed[i] : s->raw[i];
    }
    s->mem = carriers[0];
    if (!fanned(s))
        return NULL;
    s->fan = fan_out_new(carriers, s->n_streams, s->compress, s->c->clock);
    s->mem = s->fan;
    return NULL;
}

void sender_close_memory(struct sender *s)
{
    for (unsigned i = 0; i < FAN_MAX; i++)
        if (s->raw[i] != NULL)
            s->wire_bytes += s->raw[i]->bytes_out;
    bytes_close(s->fan);
    s->fan = s->mem = NULL;
    for (unsigned i = 0; i < FAN_MAX; i++) {
        migrations_stream(s->m, &s->worker.mem[i], NULL);
        bytes_close(s->confirmed[i]);
        bytes_close(s->raw[i]);
        s->raw[i] = s->confirmed[i] = NULL;
    }
}
