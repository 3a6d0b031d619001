/* A guest's memory over a connection, each end a process of its own (bench_mem.py runs them and their peers).
 *
 *   bench_memory corpus memory=PATH mib=N                a guest's memory in a file, without holes
 *   bench_memory receive shape=S mib=N [streams=N] [tls=PEM] [check=PATH]
 *   bench_memory send shape=S memory=PATH port=N [streams=N] [compress=on|auto] [tls=1]
 *   bench_memory save memory=PATH file=PATH              the engine's stream, into a file
 *
 * Shapes: engine (precopy_save into input_read, as a migration does; over several connections or compressed by way of
 * fan.h), libxc (the stream as Xen's own sender and receiver
 * make it: batches of 1024 pages, none left out, each record read into a buffer of its own and copied from there) and
 * bare (the bytes as they are). 'receive' prints "port N" at once; both ends print "seconds cpu bytes" in the end, each of
 * its own process, from the connection on until the receiver has said that it has everything. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/http/tls_session.h"
#include "xenops/stream/fan.h"
#include "xenops/stream/input.h"
#include "xenops/stream/precopy.h"

#define MIB (1u << 20)
#define CHUNK (256u << 10)

struct words { int n; char **v; };

static const char *word(const struct words *w, const char *key, const char *fallback)
{
    size_t len = strlen(key);

    for (int i = 0; i < w->n; i++)
        if (strncmp(w->v[i], key, len) == 0 && w->v[i][len] == '=')
            return w->v[i] + len + 1;
    return fallback;
}

static int64_t number(const struct words *w, const char *key)
{
    int64_t n = 0;

    CHECK(text_to_int(word(w, key, "0"), &n));
    return n;
}

/* --- the corpus: half of the pages zero, a quarter like code and text, a quarter random --- */

static uint64_t rng = 88172645463325252ull;
static uint64_t next_random(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

static void page_random(uint8_t *page, size_t len)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t x = next_random();
        memcpy(page + i, &x, 8);
    }
}

/* Words of a small vocabulary, of skewed frequency, and a number now and then: zstd makes a third of it. */
static void page_text(uint8_t *page)
{
    static char vocabulary[512][12];
    size_t at = 0;

    for (unsigned i = 0; i < 512 && vocabulary[i][0] == '\0'; i++)
        for (unsigned n = 3 + (unsigned)(next_random() % 8), k = 0; k < n; k++)
            vocabulary[i][k] = (char)('a' + next_random() % 26);
    while (at < LIBXC_PAGE) {
        char token[24];
        uint64_t x = next_random();
        unsigned rank = (unsigned)(x % 512 * (x / 512 % 512) / 512);
        int n = x >> 60 == 0 ? snprintf(token, sizeof(token), "%u ", (unsigned)(x >> 20 & 0xffffff))
                             : snprintf(token, sizeof(token), "%s%c", vocabulary[rank], x >> 61 == 1 ? '\n' : ' ');
        size_t room = LIBXC_PAGE - at, len = (size_t)n < room ? (size_t)n : room;
        memcpy(page + at, token, len);
        at += len;
    }
}

/* 16 pages' worth of kinds: 8 zero, 3 text, 1 half zero, 4 random; in runs of 1 to 64 pages. */
static void page_make(uint8_t *page, unsigned kind)
{
    memset(page, 0, LIBXC_PAGE);
    if (kind >= 12)
        page_random(page, LIBXC_PAGE);
    else if (kind == 11)
        page_random(page, LIBXC_PAGE / 2);
    else if (kind >= 8)
        page_text(page);
}

static uint8_t *map(const char *path, size_t *size_r, int *fd_r, int prot)
{
    struct stat st;
    int fd = open(path, (prot & PROT_WRITE) != 0 ? O_RDWR | O_CLOEXEC : O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    *size_r = (size_t)st.st_size;
    uint8_t *memory = mmap(NULL, *size_r, prot, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    *fd_r = fd;
    return memory;
}

static int corpus(const struct words *w)
{
    const char *path = word(w, "memory", "corpus");
    size_t size, pages = (size_t)number(w, "mib") * MIB / LIBXC_PAGE;
    unsigned left[16], n = 0;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)(pages * LIBXC_PAGE)) == 0);
    close(fd);
    uint8_t *memory = map(path, &size, &fd, PROT_READ | PROT_WRITE);
    for (unsigned k = 0; k < 16; k++)
        left[k] = (unsigned)(pages / 16);
    for (size_t page = 0; page < pages; n++) {
        unsigned kind = (unsigned)(next_random() % 16), run = 1 + (unsigned)(next_random() % 64);
        for (; run > 0 && left[kind] > 0 && page < pages; run--, left[kind]--)
            page_make(memory + page++ * LIBXC_PAGE, kind);
        if (n > 100000000) /* what is left over of a size that 16 does not divide */
            break;
    }
    munmap(memory, size);
    close(fd);
    return 0;
}

/* --- sockets --- */

static void nodelay(int fd)
{
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int listen_local(int *port_r)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 16) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port_r = ntohs(address.sin_port);
    return fd;
}

static int connect_local(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    nodelay(fd);
    return fd;
}

static struct byte_stream *serve_tls(const char *pem, int fd)
{
    AUTO_ARENA a = arena_new();
    struct tls_context *context;
    short events;
    int r;

    CHECK(tls_server_context(a, pem, &context) == NULL && fd_set_nonblock(fd, true) == 0);
    struct tls_session *session = tls_session_new(context, fd, NULL);
    while ((r = tls_session_handshake(session, &events)) == -EAGAIN) {
        struct pollfd p = { .fd = fd, .events = events };
        CHECK(poll(&p, 1, 20000) == 1);
    }
    CHECK(r == 0);
    tls_session_bulk(session);
    tls_context_free(context);
    return tls_stream_new(session, fd);
}

static struct byte_stream *connect_tls(int fd)
{
    AUTO_ARENA a = arena_new();
    struct tls_context *context;
    int r = 0;

    CHECK(tls_client_context(a, &context) == NULL);
    struct byte_stream *stream = tls_connect(context, fd, NULL, NULL, &r);
    CHECK(stream != NULL && r == 0);
    tls_context_free(context);
    return stream;
}

/* --- what a transfer costs this process --- */

struct meter { double seconds, cpu; };

static double clock_of(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct meter meter_now(void)
{
    return (struct meter){ clock_of(CLOCK_MONOTONIC), clock_of(CLOCK_PROCESS_CPUTIME_ID) };
}

static void meter_print(const struct meter *began, uint64_t bytes)
{
    struct meter now = meter_now();

    printf("%.6f %.6f %llu\n", now.seconds - began->seconds, now.cpu - began->cpu, (unsigned long long)bytes);
    fflush(stdout);
}

/* --- the engine --- */

static struct call call_of(struct arena *a) { return (struct call){ .arena = a, .clock = &clock_real, .id = "" }; }

static void track(void *ctx, bool on) {}
static struct error *suspend(void *ctx, struct call *c, const void **context_r, size_t *len_r)
{
    *context_r = "context";
    *len_r = 7;
    return NULL;
}
static struct error *resume(void *ctx, struct call *c) { return NULL; }

static void check(struct arena *a, const struct error *e)
{
    if (e == NULL)
        return;
    fprintf(stderr, "bench_memory: %s\n", error_text(a, e));
    exit(1);
}

static void engine_send(struct byte_stream *out, const uint8_t *memory, size_t size, int memory_fd)
{
    AUTO_ARENA a = arena_new();
    struct call c = call_of(a);
    uint64_t n_pages = size / LIBXC_PAGE;
    _Atomic uint64_t *dirty = xcalloc(n_pages / 64 + 1, 8);
    const struct precopy_source source = { .memory = memory, .n_pages = n_pages, .memory_fd = memory_fd, .dirty = dirty,
                                           .track = track, .suspend = suspend, .resume = resume };
    const struct save_policy policy = { .live = false };
    struct save_result r;

    check(a, precopy_save(&c, &source, "{}", 2, out, &policy, NULL, &r));
    xfree((void *)dirty);
}

static void engine_receive(struct byte_stream *in, uint8_t *memory, size_t size, int memory_fd)
{
    AUTO_ARENA a = arena_new();
    struct call c = call_of(a);
    const struct input_target target = { .memory = memory, .n_pages = size / LIBXC_PAGE, .memory_fd = memory_fd };
    struct input_result r;

    check(a, input_read(&c, in, &target, &r));
}

/* --- the stream as Xen's own programs make it --- */

static void libxc_head(struct byte_stream *out)
{
    const struct libxc_image_head image = { .marker = UINT64_MAX, .id = htonl(LIBXC_ID), .version = htonl(LIBXC_VERSION) };
    const struct libxc_domain_head domain = { .type = LIBXC_TYPE_HVM, .page_shift = LIBXC_PAGE_SHIFT, .xen_major = 4, .xen_minor = 17 };
    const struct libxc_record_head head = { LIBXC_STATIC_DATA_END, 0 };

    CHECK(bytes_write(out, &image, sizeof(image)) == 0 && bytes_write(out, &domain, sizeof(domain)) == 0);
    CHECK(bytes_write(out, &head, sizeof(head)) == 0);
}

static void libxc_send(struct byte_stream *out, const uint8_t *memory, size_t size, int memory_fd)
{
    static uint64_t pfns[LIBXC_BATCH];
    const struct libxc_record_head end = { LIBXC_END, 0 };

    libxc_head(out);
    for (uint64_t pfn = 0; pfn < size / LIBXC_PAGE; pfn += LIBXC_BATCH) {
        for (unsigned i = 0; i < LIBXC_BATCH; i++)
            pfns[i] = pfn + i;
        struct libxc_page_head pages = { LIBXC_BATCH, 0 };
        struct libxc_record_head head = { LIBXC_PAGE_DATA, (uint32_t)(sizeof(pages) + sizeof(pfns) + LIBXC_BATCH * LIBXC_PAGE) };
        struct iovec v[] = { { &head, sizeof(head) }, { &pages, sizeof(pages) }, { pfns, sizeof(pfns) },
                             { (void *)(uintptr_t)(memory + pfn * LIBXC_PAGE), (size_t)LIBXC_BATCH * LIBXC_PAGE } };
        CHECK(bytes_writev(out, v, ARRAY_LEN(v)) == 0);
    }
    CHECK(bytes_write(out, &end, sizeof(end)) == 0);
}

static void libxc_record(struct byte_stream *in, uint32_t length, uint8_t *memory, size_t size)
{
    uint8_t *body = xrealloc(NULL, length);
    const struct libxc_page_head *head = (const struct libxc_page_head *)(void *)body;
    const uint64_t *pfns = (const uint64_t *)(void *)(body + sizeof(*head));

    CHECK(bytes_read_all(in, body, length) == 0);
    CHECK(length == sizeof(*head) + (size_t)head->count * (8 + LIBXC_PAGE));
    const uint8_t *pages = body + sizeof(*head) + (size_t)head->count * 8;
    for (uint32_t i = 0; i < head->count; i++) {
        CHECK(pfns[i] < size / LIBXC_PAGE);
        memcpy(memory + pfns[i] * LIBXC_PAGE, pages + (size_t)i * LIBXC_PAGE, LIBXC_PAGE);
    }
    xfree(body);
}

static void libxc_receive(struct byte_stream *in, uint8_t *memory, size_t size, int memory_fd)
{
    uint8_t heads[sizeof(struct libxc_image_head) + sizeof(struct libxc_domain_head)];
    struct libxc_record_head head;

    CHECK(bytes_read_all(in, heads, sizeof(heads)) == 0);
    do {
        CHECK(bytes_read_all(in, &head, sizeof(head)) == 0);
        if (head.type == LIBXC_PAGE_DATA)
            libxc_record(in, head.length, memory, size);
    } while (head.type != LIBXC_END);
}

/* --- nothing but the bytes --- */

static void bare_send(struct byte_stream *out, const uint8_t *memory, size_t size, int memory_fd)
{
    for (size_t at = 0; at < size; at += MIB)
        CHECK(bytes_write(out, memory + at, MIB) == 0);
}

static void bare_receive(struct byte_stream *in, uint8_t *memory, size_t size, int memory_fd)
{
    for (size_t at = 0; at < size; at += CHUNK)
        CHECK(bytes_read_all(in, memory + at, CHUNK) == 0);
}

static const struct shape {
    const char *name;
    void (*send)(struct byte_stream *, const uint8_t *, size_t, int);
    void (*receive)(struct byte_stream *, uint8_t *, size_t, int);
} shapes[] = {
    { "engine", engine_send, engine_receive },
    { "libxc", libxc_send, libxc_receive },
    { "bare", bare_send, bare_receive },
};

static const struct shape *shape_of(const struct words *w)
{
    for (unsigned i = 0; i < ARRAY_LEN(shapes); i++)
        if (strcmp(shapes[i].name, word(w, "shape", "engine")) == 0)
            return &shapes[i];
    fprintf(stderr, "bench_memory: no such shape\n");
    exit(2);
}

/* --- the two ends --- */

static void compare(const char *path, const uint8_t *memory, size_t size)
{
    size_t expected;
    int fd;
    uint8_t *sent = map(path, &expected, &fd, PROT_READ);

    if (expected != size || memcmp(sent, memory, size) != 0) {
        fprintf(stderr, "bench_memory: what was received is not what was sent\n");
        exit(1);
    }
    munmap(sent, expected);
    close(fd);
}

/* All connections of one transfer, and the stream that goes over them. */
struct link {
    struct byte_stream *connections[FAN_MAX], *stream;
    unsigned n;
};

static unsigned streams_of(const struct words *w)
{
    int64_t n = text_to_int(word(w, "streams", "1"), &n) ? n : 0;

    CHECK(n >= 1 && n <= FAN_MAX);
    return (unsigned)n;
}

static bool fanned(const struct words *w) { return streams_of(w) > 1 || word(w, "compress", NULL) != NULL; }

static uint64_t link_bytes(const struct link *l)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < l->n; i++)
        bytes += l->connections[i]->bytes_in + l->connections[i]->bytes_out;
    return bytes;
}

static void link_close(struct link *l)
{
    if (l->stream != l->connections[0])
        bytes_close(l->stream);
    for (unsigned i = 0; i < l->n; i++)
        bytes_close(l->connections[i]);
}

static void link_accept(const struct words *w, struct link *l)
{
    const char *pem = word(w, "tls", NULL);
    int port, listener = listen_local(&port);

    printf("port %d\n", port);
    fflush(stdout);
    for (l->n = 0; l->n < streams_of(w); l->n++) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fd >= 0);
        nodelay(fd);
        l->connections[l->n] = pem != NULL ? serve_tls(pem, fd) : bytes_from_fd(fd);
    }
    l->stream = fanned(w) ? fan_in_new(l->connections, l->n, false) : l->connections[0];
    close(listener);
}

static void link_connect(const struct words *w, struct link *l)
{
    const char *how = word(w, "compress", "off");
    enum fan_compress compress = strcmp(how, "on") == 0 ? FAN_ON : strcmp(how, "auto") == 0 ? FAN_AUTO : FAN_OFF;

    for (l->n = 0; l->n < streams_of(w); l->n++) {
        int fd = connect_local((int)number(w, "port"));
        l->connections[l->n] = word(w, "tls", NULL) != NULL ? connect_tls(fd) : bytes_from_fd(fd);
    }
    l->stream = fanned(w) ? fan_out_new(l->connections, l->n, compress, &clock_real) : l->connections[0];
}

static int receive(const struct words *w)
{
    const struct shape *shape = shape_of(w);
    const char *expected = word(w, "check", NULL);
    size_t size = (size_t)number(w, "mib") * MIB;
    int fd = memfd_create("guest", MFD_CLOEXEC);
    struct link l;

    CHECK(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    link_accept(w, &l);
    struct meter began = meter_now();
    shape->receive(l.stream, memory, size, fd);
    CHECK(bytes_write(l.connections[0], "!", 1) == 0);
    meter_print(&began, link_bytes(&l));
    if (expected != NULL)
        compare(expected, memory, size);
    link_close(&l);
    return 0;
}

static int send_memory(const struct words *w)
{
    const struct shape *shape = shape_of(w);
    size_t size;
    int memory_fd;
    char done;
    const uint8_t *memory = map(word(w, "memory", "corpus"), &size, &memory_fd, PROT_READ);
    struct link l;

    link_connect(w, &l);
    struct meter began = meter_now();
    shape->send(l.stream, memory, size, memory_fd);
    CHECK(bytes_read_all(l.connections[0], &done, 1) == 0);
    meter_print(&began, link_bytes(&l));
    link_close(&l);
    return 0;
}

static int save(const struct words *w)
{
    size_t size;
    int memory_fd, fd = open(word(w, "file", "stream"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const uint8_t *memory = map(word(w, "memory", "corpus"), &size, &memory_fd, PROT_READ);

    CHECK(fd >= 0);
    struct byte_stream *out = bytes_from_fd(fd);
    struct meter began = meter_now();
    engine_send(out, memory, size, memory_fd);
    meter_print(&began, out->bytes_out);
    bytes_close(out);
    return 0;
}

int main(int argc, char **argv)
{
    const struct words w = { argc - 2, argv + 2 };
    static const struct { const char *name; int (*run)(const struct words *); } commands[] = {
        { "corpus", corpus }, { "receive", receive }, { "send", send_memory }, { "save", save },
    };

    for (unsigned i = 0; argc > 1 && i < ARRAY_LEN(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(&w);
    fprintf(stderr, "usage: bench_memory corpus|receive|send|save KEY=VALUE...\n");
    return 2;
}
