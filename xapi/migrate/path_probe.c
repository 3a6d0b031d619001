#include "xapi/migrate/path_probe.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "gen/errors.h"
#include "rpc/base/memory.h"
#include "xapi/migrate/path_watch.h"
#include "xapi/migrate/wire.h"

#define CONNECT_MS 5000  /* connecting and TLS */
#define ANSWER_MS 10000  /* for the handshake: it may have to ask its coordinator */
#define PROBE_MS 2000    /* for finding out why something failed */
#define STALL_MS 5000    /* without a byte on its way */
#define SAMPLE_US 100000
#define CHUNK (64u << 10)
#define AHEAD 16         /* chunks asked for before the first has come */
#define ECHOES 5

struct path {
    struct call *c;
    struct xapi *xapi;
    struct http_target target;
    struct byte_stream *stream;
    struct path_watch *watch;
    int64_t rtt_us;
};

const char *path_test_name(enum path_test test)
{
    static const char *const names[] = { "connect", "TLS", "credentials", "receiver", "way back", "sample", "disks" };
    return names[test];
}

int64_t path_wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t); /* lint: struct clock counts whole seconds of wall time */
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

void path_put64(uint8_t *p, uint64_t n)
{
    for (int i = 7; i >= 0; i--, n >>= 8)
        p[i] = (uint8_t)n;
}

uint64_t path_get64(const uint8_t *p)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < 8; i++)
        n = n << 8 | p[i];
    return n;
}

/* --- what went wrong ------------------------------------------------------------------------------------------- */
PRINTF(3, 4) static struct error *unreachable(struct call *c, const struct http_target *t, const char *fmt, ...)
{
    AUTO_TEXT why = TEXT_INIT;
    va_list args;
    va_start(args, fmt);
    text_vprintf(&why, fmt, args);
    va_end(args);
    struct error *e = err_vm_migrate_contact_remote_service_failed(c->arena);
    e->cause = arena_printf(c->arena, "%s port %d: %s", t->address, t->port, why.bytes);
    return e;
}

static struct error *cancelled(struct call *c)
{
    return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
}

static bool wants_to_stop(const struct call *c)
{
    return c->cancel != NULL && cancel_raised(c->cancel);
}

/* A call of the same kind that ends soon. */
static struct call within(struct call *c, int64_t ms)
{
    struct call sub = *c;
    int64_t until = clock_ms(c->clock) + ms;
    if (sub.deadline_ms == 0 || until < sub.deadline_ms)
        sub.deadline_ms = until;
    return sub;
}

/* Does a line of plain text get any answer at all (a TLS server closes or alerts)? *connected_r: it could be sent. */
static bool answers_small(struct call *c, struct xapi *xapi, const struct http_target *t, bool *connected_r)
{
    struct http_target plain = *t;
    struct call sub = within(c, PROBE_MS);
    struct byte_stream *stream;
    plain.tls = false;
    plain.fingerprint = NULL;
    *connected_r = http_client_raw(&sub, xapi->client, &plain, "GET", "/services/xenops", "Connection: close\r\n", &stream) == 0;
    if (!*connected_r)
        return false;
    int r = bytes_wait(stream, c->cancel != NULL ? cancel_fd(c->cancel) : -1, PROBE_MS);
    bytes_close(stream);
    return r > 0;
}

static struct error *timed_out(struct call *c, struct xapi *xapi, const struct http_target *t, enum path_test *failed_r)
{
    bool connected;
    bool answers = answers_small(c, xapi, t, &connected);
    *failed_r = connected ? PATH_TLS : PATH_CONNECT;
    if (!connected)
        return unreachable(c, t, "nothing answers: the host is down, the address is wrong, or a firewall drops what is sent there");
    if (answers)
        return unreachable(c, t, "small packets are answered, but a TLS handshake is not: the path probably loses full-size packets (check the "
                                 "MTU of every link and switch on it)");
    return unreachable(c, t, "connections open, but nothing is ever answered: the toolstack there hangs, or something in between holds the "
                             "data back");
}

static struct error *not_open(struct call *c, struct xapi *xapi, const struct http_target *t, int r, enum path_test *failed_r)
{
    *failed_r = PATH_CONNECT;
    if (r == -ECANCELED || wants_to_stop(c))
        return cancelled(c);
    if (r == -ETIMEDOUT)
        return timed_out(c, xapi, t, failed_r);
    if (r == -ECONNREFUSED)
        return unreachable(c, t, "nobody listens: start the toolstack there, or correct the port");
    if (r == -EHOSTUNREACH || r == -ENETUNREACH || r == -EADDRNOTAVAIL)
        return unreachable(c, t, "no way there (%s): check addresses, routes and the network's cable", strerror(-r));
    *failed_r = PATH_TLS;
    if (r == -EKEYREJECTED)
        return unreachable(c, t, "another certificate than the one on record (%s): the host was reinstalled or another one answers; check the "
                                 "address, or let the host join the pool again", t->fingerprint != NULL ? t->fingerprint : "none");
    if (r == -EPROTO)
        return unreachable(c, t, "what answers does not speak TLS: check the port");
    return unreachable(c, t, "the connection breaks at once (%s): something in between refuses it, or the toolstack there is ending", strerror(-r));
}

/* The peer said no, or did not say anything. */
static struct error *not_let_in(struct call *c, const struct http_target *t, int r, struct error *peer, enum path_test *failed_r)
{
    *failed_r = PATH_RECEIVER;
    if (r == -ECANCELED || wants_to_stop(c))
        return cancelled(c);
    if (r == -ETIMEDOUT)
        return unreachable(c, t, "connections open, but no answer comes within %d s: the toolstack there hangs", ANSWER_MS / 1000);
    if (r != 0)
        return unreachable(c, t, "it does not take migrations like ours (%s): an older toolstack, or one that is ending", strerror(-r));
    bool credentials = strncmp(peer->code, "SESSION_", 8) == 0 || strncmp(peer->code, "RBAC_", 5) == 0;
    *failed_r = credentials ? PATH_CREDENTIALS : PATH_RECEIVER;
    peer->cause = credentials ? arena_printf(c->arena, "%s port %d does not accept who we say we are: the migration is not known there (any more), its "
                                                       "session has ended, or the two hosts are not of one pool", t->address, t->port)
                              : arena_printf(c->arena, "%s port %d takes no migrations now", t->address, t->port);
    return peer;
}

/* --- opening ------------------------------------------------------------------------------------------------------- */
static struct error *enter(struct call *c, struct byte_stream *stream, const struct http_target *t, enum path_test *failed_r)
{
    struct error *peer = NULL;
    int r = handshake_receive(c->arena, stream, c->cancel != NULL ? cancel_fd(c->cancel) : -1, ANSWER_MS, &peer);
    return r == 0 && peer == NULL ? NULL : not_let_in(c, t, r, peer, failed_r);
}

struct error *path_open(struct call *c, struct xapi *xapi, const struct http_target *t, int64_t bytes, struct path **path_r, enum path_test *failed_r)
{
    const char *route = arena_printf(c->arena, PATH_SAMPLE_ROUTE "%lld", (long long)bytes);
    const char *cookie = t->cookie != NULL ? t->cookie : arena_printf(c->arena, "pool_secret=%s", xapi->pool_secret);
    struct call sub = within(c, CONNECT_MS);
    struct byte_stream *stream;
    int r = http_client_raw(&sub, xapi->client, t, "PUT", route, arena_printf(c->arena, "Cookie: %s\r\n", cookie), &stream);
    if (r != 0)
        return not_open(c, xapi, t, r, failed_r);
    struct error *e = enter(c, stream, t, failed_r);
    if (e != NULL) {
        bytes_close(stream);
        return e;
    }
    struct path *p = xcalloc(1, sizeof *p);
    *p = (struct path){ .c = c, .xapi = xapi, .target = *t, .stream = stream, .watch = path_watch_start(c, stream, STALL_MS, 0) };
    *path_r = p;
    return NULL;
}

void path_close(struct path *p)
{
    if (p == NULL)
        return;
    (void)path_watch_stop(p->watch);
    bytes_close(p->stream);
    xfree(p);
}

/* --- asking ---------------------------------------------------------------------------------------------------------- */
static int ask(struct path *p, char letter, uint64_t n, const void *bytes, size_t len)
{
    uint8_t head[PATH_REQUEST] = { (uint8_t)letter };
    path_put64(head + 1, n);
    struct iovec v[] = { { head, sizeof head }, { (void *)(uintptr_t)bytes, len } };
    return bytes_writev(p->stream, v, len > 0 ? 2 : 1);
}

static int exchange(struct path *p, uint64_t nonce, int64_t *wall_r)
{
    uint8_t answer[PATH_ANSWER];
    int r = ask(p, 'E', nonce, NULL, 0);
    if (r == 0)
        r = bytes_read_all(p->stream, answer, sizeof answer);
    if (r == 0 && path_get64(answer) != nonce)
        r = -EPROTO;
    *wall_r = r == 0 ? (int64_t)path_get64(answer + 8) : 0;
    return r;
}

struct error *path_echo(struct path *p, struct path_facts *f)
{
    f->rtt_us = INT64_MAX;
    for (unsigned i = 0; i < ECHOES; i++) {
        int64_t wall, began = clock_us(p->c->clock), began_wall = path_wall_us();
        int r = exchange(p, i, &wall);
        if (r != 0)
            return wants_to_stop(p->c) ? cancelled(p->c) : unreachable(p->c, &p->target, "the connection broke while the host was asked for its time (%s)", strerror(-r));
        int64_t took = clock_us(p->c->clock) - began;
        if (took >= f->rtt_us)
            continue;
        f->rtt_us = took;
        f->clock_offset_us = wall - (began_wall + took / 2);
    }
    p->rtt_us = f->rtt_us;
    return NULL;
}

/* --- the sample ------------------------------------------------------------------------------------------------------- */
static int64_t rate(const struct path *p, int64_t bytes, int64_t us)
{
    us -= p->rtt_us;
    return bytes * 1000000 / (us > 0 ? us : 1);
}

/* As much as goes in the time, then an echo that comes when all of it has arrived. */
static int sample_there(struct path *p, const uint8_t *chunk, struct path_facts *f)
{
    int64_t began = clock_us(p->c->clock), sent = 0, wall;
    int r = 0;
    while (r == 0 && sent < PATH_SAMPLE_MAX && clock_us(p->c->clock) - began < SAMPLE_US) {
        r = ask(p, 'U', CHUNK, chunk, CHUNK);
        sent += CHUNK;
    }
    if (r == 0)
        r = exchange(p, (uint64_t)sent, &wall);
    f->there = rate(p, sent, clock_us(p->c->clock) - began);
    return r;
}

static int sample_back(struct path *p, uint8_t *chunk, struct path_facts *f)
{
    int64_t began = clock_us(p->c->clock), asked = 0, had = 0;
    int r = 0;
    while (r == 0 && asked < AHEAD * CHUNK) {
        r = ask(p, 'D', CHUNK, NULL, 0);
        asked += CHUNK;
    }
    while (r == 0 && had < asked) {
        r = bytes_read_all(p->stream, chunk, CHUNK);
        had += CHUNK;
        if (r == 0 && asked < PATH_SAMPLE_MAX && clock_us(p->c->clock) - began < SAMPLE_US) {
            r = ask(p, 'D', CHUNK, NULL, 0);
            asked += CHUNK;
        }
    }
    f->back = rate(p, had, clock_us(p->c->clock) - began);
    return r;
}

static void kernel_facts(const struct path *p, struct path_facts *f)
{
    struct tcp_info info = { 0 };
    socklen_t size = sizeof info;
    if (getsockopt(p->stream->ops->fd(p->stream), IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return;
    f->mtu = info.tcpi_pmtu;
    f->mss = info.tcpi_snd_mss;
}

/* Small packets over a new connection: do they still come through? */
static bool small_ones_pass(struct path *p)
{
    struct path *fresh = NULL;
    struct path_facts f = { 0 };
    enum path_test ignored;
    bool pass = path_open(p->c, p->xapi, &p->target, 0, &fresh, &ignored) == NULL && path_echo(fresh, &f) == NULL;
    path_close(fresh);
    return pass;
}

static struct error *sample_failed(struct path *p, int r, const char *direction, const struct path_facts *f)
{
    enum path_verdict verdict = path_watch_stop(p->watch);
    p->watch = NULL;
    if (verdict == PATH_CANCELLED || wants_to_stop(p->c))
        return cancelled(p->c);
    if (verdict != PATH_STALLED)
        return unreachable(p->c, &p->target, "the connection broke under load on the way %s (%s)", direction, strerror(-r));
    if (small_ones_pass(p))
        return unreachable(p->c, &p->target, "small packets get through, full-size ones do not on the way %s: the MTU is set larger (%u bytes here, segments "
                                             "of %u) than a link or switch in between lets through, and it does not say so", direction, f->mtu, f->mss);
    return unreachable(p->c, &p->target, "the path died under load on the way %s: nothing gets through any more, small packets neither", direction);
}

struct error *path_sample(struct path *p, struct path_facts *f)
{
    uint8_t *chunk = xcalloc(1, CHUNK);
    for (size_t at = 0; at < CHUNK; at += 256) /* what comes at once is enough: it need only resist compression */
        (void)!getrandom(chunk + at, 256, GRND_NONBLOCK);
    kernel_facts(p, f);
    const char *direction = "there";
    int r = sample_there(p, chunk, f);
    if (r == 0) {
        direction = "back";
        r = sample_back(p, chunk, f);
    }
    xfree(chunk);
    if (r != 0)
        return sample_failed(p, r, direction, f);
    kernel_facts(p, f);
    return NULL;
}
