/* How fast memory travels as a migration stream: bench_stream [MiB [pairs]]
 *
 * Dense random pages go through precopy_save into input_read, which fills a fresh memfd, as a
 * migration does. The peer is a bare copy of the same memory over the same kind of connection into a
 * fresh memfd, run right before. For information: the same against a peer that throws away what it
 * reads, which is what the connection can carry at best. Ratio = stream / bare, of MB/s; median and
 * worst of the pairs. The last line is "SHORT n": so many medians are below their target. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/base/work.h"
#include "rpc/http/tls_session.h"
#include "tests/bench/row.h"
#include "xenops/stream/input.h"
#include "xenops/stream/precopy.h"

#define HOT (256u << 10)
#define MIB (1u << 20)
#define TARGET 0.5

enum transport { TRANSPORT_UNIX, TRANSPORT_TCP, TRANSPORT_TLS, TRANSPORTS };
enum sink { SINK_HOT, SINK_FRESH, SINK_STREAM };
static const char *const peer_names[] = { "nothing kept", "fresh memory" };
static const char *const transport_names[] = { "socketpair", "TCP", "TLS" };

struct bench {
    uint8_t *memory;
    int memory_fd;
    size_t size;
    struct tls_context *server, *client;
};

/* One transfer: a source in a thread of its own, a sink in this one. */
struct transfer {
    const struct bench *bench;
    enum sink sink;
    struct byte_stream *out, *in;
};

static struct call call_of(struct arena *a) { return (struct call){ .arena = a, .clock = &clock_real, .id = "" }; }
static double now(void) { return (double)clock_us(&clock_real) / 1e6; }

static double cpu(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* --- connections --- */

static void tcp_pair(int ends[2])
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    CHECK(bind(listener, (struct sockaddr *)&address, len) == 0 && listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(ends[0], (struct sockaddr *)&address, len) == 0);
    ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(ends[1] >= 0);
    setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    close(listener);
}

static struct tls_session *handshake(struct tls_session *a, struct tls_session *b)
{
    short events;
    int ra = -EAGAIN, rb = -EAGAIN;

    while (ra == -EAGAIN || rb == -EAGAIN) {
        ra = ra != 0 ? tls_session_handshake(a, &events) : 0;
        rb = rb != 0 ? tls_session_handshake(b, &events) : 0;
    }
    CHECK(ra == 0 && rb == 0);
    return a;
}

static void connect_pair(const struct bench *b, enum transport transport, struct transfer *t)
{
    int ends[2];

    if (transport == TRANSPORT_UNIX)
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    else
        tcp_pair(ends);
    if (transport != TRANSPORT_TLS) {
        t->out = bytes_from_fd(ends[0]);
        t->in = bytes_from_fd(ends[1]);
        return;
    }
    CHECK(fd_set_nonblock(ends[0], true) == 0 && fd_set_nonblock(ends[1], true) == 0);
    struct tls_session *client = tls_session_new(b->client, ends[0], NULL), *server = tls_session_new(b->server, ends[1], NULL);
    handshake(client, server);
    tls_session_bulk(server);
    t->out = tls_stream_new(client, ends[0]);
    t->in = tls_stream_new(server, ends[1]);
}

/* --- sources and sinks --- */

static void track(void *ctx, bool on) {}
static struct error *suspend(void *ctx, struct call *c, const void **context_r, size_t *len_r)
{
    *context_r = "context";
    *len_r = 7;
    return NULL;
}
static struct error *resume(void *ctx, struct call *c) { return NULL; }

static void send_stream(const struct bench *b, struct byte_stream *out)
{
    AUTO_ARENA a = arena_new();
    struct call c = call_of(a);
    uint64_t n_pages = b->size / LIBXC_PAGE;
    _Atomic uint64_t *dirty = xcalloc(n_pages / 64 + 1, 8);
    const struct precopy_source source = { .memory = b->memory, .n_pages = n_pages, .memory_fd = b->memory_fd, .dirty = dirty,
                                           .track = track, .suspend = suspend, .resume = resume };
    const struct save_policy policy = { .live = true };
    struct save_result r;

    CHECK(precopy_save(&c, &source, "{}", 2, out, &policy, NULL, &r) == NULL);
    CHECK(r.pages_sent == (int64_t)n_pages);
    xfree((void *)dirty);
}

static void *send_it(void *arg)
{
    const struct transfer *t = arg;
    const struct bench *b = t->bench;

    if (t->sink == SINK_STREAM)
        send_stream(b, t->out);
    for (size_t at = 0; t->sink != SINK_STREAM && at < b->size; at += MIB)
        CHECK(bytes_write(t->out, b->memory + at, MIB) == 0);
    return NULL;
}

static void receive_stream(const struct bench *b, struct byte_stream *in, uint8_t *memory, int memory_fd)
{
    AUTO_ARENA a = arena_new();
    struct call c = call_of(a);
    const struct input_target target = { .memory = memory, .n_pages = b->size / LIBXC_PAGE, .memory_fd = memory_fd };
    struct input_result r;

    CHECK(input_read(&c, in, &target, &r) == NULL);
}

/* Seconds from the first byte to the last. */
static double run(const struct bench *b, enum transport transport, enum sink sink, double *cpu_r)
{
    struct transfer t = { .bench = b, .sink = sink };
    size_t room = sink == SINK_HOT ? HOT : b->size;
    int fd = memfd_create("sink", MFD_CLOEXEC);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)room) == 0);
    uint8_t *memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    if (sink == SINK_HOT)
        memset(memory, 1, room);
    connect_pair(b, transport, &t);
    double began = now(), spent = cpu();
    pthread_t source = thread_start("source", send_it, &t);
    if (sink == SINK_STREAM)
        receive_stream(b, t.in, memory, fd);
    for (size_t at = 0; sink != SINK_STREAM && at < b->size; at += HOT)
        CHECK(bytes_read_all(t.in, sink == SINK_HOT ? memory : memory + at, HOT) == 0);
    double took = now() - began;
    pthread_join(source, NULL);
    *cpu_r = cpu() - spent;
    CHECK(sink == SINK_HOT || memcmp(memory, b->memory, room) == 0);
    bytes_close(t.out);
    bytes_close(t.in);
    munmap(memory, room);
    close(fd);
    return took;
}

/* --- the table --- */

static bool row(const struct bench *b, enum transport transport, enum sink peer, int pairs, double target)
{
    AUTO_ARENA a = arena_new();
    double bare[ROW_PAIRS_MAX], stream[ROW_PAIRS_MAX], cpu_bare = 0, cpu_stream = 0, spent;
    double gib = (double)b->size / (1u << 30), mb = (double)b->size / 1e6;
    struct row r = row_of(arena_printf(a, "stream %s, bare: %s", transport_names[transport], peer_names[peer]), ">=", target);

    for (int runs = 1; r.n < pairs; runs++) {
        int i = r.n;
        row_pair_begin(&r);
        bare[i] = run(b, transport, peer, &spent);
        cpu_bare += (spent / gib - cpu_bare) / runs;
        stream[i] = run(b, transport, SINK_STREAM, &spent);
        cpu_stream += (spent / gib - cpu_stream) / runs;
        double ratio = bare[i] / stream[i];
        bare[i] = mb / bare[i];
        stream[i] = mb / stream[i];
        row_pair_end(&r, ratio);
    }
    qsort(bare, (size_t)pairs, sizeof(double), row_by_size);
    qsort(stream, (size_t)pairs, sizeof(double), row_by_size);
    printf("%.0f MB/s, bare %.0f MB/s; %.2f CPU s/GiB, bare %.2f\n", stream[pairs / 2], bare[pairs / 2], cpu_stream, cpu_bare);
    return row_end(&r);
}

static void contexts_make(struct bench *b)
{
    AUTO_ARENA a = arena_new();
    char dir[] = "/tmp/bench-stream-XXXXXX";

    CHECK(mkdtemp(dir) != NULL);
    const char *pem = arena_printf(a, "%s/pem", dir);
    CHECK(tls_make_certificate(a, pem, TLS_KEY_RSA2048, "bench", NULL, 0) == NULL);
    CHECK(tls_server_context(a, pem, &b->server) == NULL && tls_client_context(a, &b->client) == NULL);
    unlink(pem);
    rmdir(dir);
}

static void memory_make(struct bench *b)
{
    uint64_t x = 88172645463325252ull;

    b->memory_fd = memfd_create("guest", MFD_CLOEXEC);
    CHECK(b->memory_fd >= 0 && ftruncate(b->memory_fd, (off_t)b->size) == 0);
    b->memory = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_SHARED, b->memory_fd, 0);
    CHECK(b->memory != MAP_FAILED);
    for (size_t i = 0; i < b->size; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(b->memory + i, &x, 8);
    }
}

int main(int argc, char **argv)
{
    struct bench b = { .memory_fd = -1 };
    int64_t mib = 256, pairs = 11;
    int missed = 0;

    if ((argc > 1 && !text_to_int(argv[1], &mib)) || (argc > 2 && !text_to_int(argv[2], &pairs)) || mib < 1 || pairs < 1 || pairs > ROW_PAIRS_MAX)
        return 2;
    b.size = (size_t)mib * MIB;
    memory_make(&b);
    contexts_make(&b);
    printf("%lld MiB of random pages, %lld pairs\n", (long long)mib, (long long)pairs);
    for (enum transport t = TRANSPORT_UNIX; t < TRANSPORTS; t++) {
        missed += !row(&b, t, SINK_FRESH, (int)pairs, TARGET);
        (void)row(&b, t, SINK_HOT, (int)pairs, 0);
    }
    tls_context_free(b.server);
    tls_context_free(b.client);
    printf("SHORT %d\n", missed);
    return missed > 0;
}
