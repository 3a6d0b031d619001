/* The load of every row that has a server on its other side: one generator for all of them.
 *
 * bench_load get    -c address:port -r requests [-k repeats] [-o file]
 *     One request after the other: times of the first and the last byte. -o: keeps the last reply.
 * bench_load closed -c address:port -r requests -n connections -s seconds [-x text]
 *     Every connection sends its request again as soon as it has the reply.
 * bench_load fanout -c address:port -r requests -n connections -t trigger [-p replies] [-x text] [-y text]
 *     Opens all connections; with -p each also sends its request and takes that many replies. Prints
 *     "ready" and obeys lines on stdin until it ends. "wait TOKEN": all send their request, with TOKEN in
 *     place of 41 '#' (with -p: nothing to do); prints "ready". "go": sends the trigger on a
 *     connection of its own and times until each connection has got one message more.
 *
 * -f http (default) or json: how messages are cut. A requests file holds requests separated by NUL;
 * connection i sends the i-th. Ten '@' in a request become a counter, so that each is another one.
 * -x: a reply without that text in its first kilobyte has failed; fanout: a wake-up, and -y for the
 * trigger's reply. Prints one line of JSON. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/arena.h"
#include "rpc/base/clock.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "tests/bench/frame.h"

#define CONNECTIONS_MAX 2001u /* with the trigger */
#define LATENCIES_MAX 1000000u
#define BURST 32u             /* connections opened before the server gets a moment to accept them … */
#define BURST_ANSWERED 4u     /* … or at a time where each is answered: ovsdb-server's queue is short */
#define WAKE_MS 30000
#define COUNTER "@@@@@@@@@@"
#define TOKEN "#########################################"

struct connection {
    int fd;
    unsigned number;
    char *request;           /* the connection's own copy */
    char *counter, *token;   /* where they stand in it, or NULL */
    size_t len;
    const char *expect;      /* in each reply; NULL: anything */
    unsigned replies;
    uint64_t bytes;                     /* of the message being received */
    int64_t sent_us, first_us, done_us; /* first_us 0: nothing yet */
    struct frame frame;
};

struct load {
    struct sockaddr_in address;
    enum frame_kind kind;
    const char *expect, *expect_trigger, *save, *requests, *trigger;
    unsigned n, repeats, setup_replies;
    double seconds;
    int epoll_fd, save_fd;
    struct connection *connections;
    void (*on_message)(struct load *, struct connection *);
    bool stopping;
    unsigned wanted, arrived;       /* fanout: messages each connection shall get; connections that did */
    uint64_t counter, failed, done; /* of messages */
    uint64_t bytes_min;             /* of the smallest message */
    uint32_t *latencies;
    unsigned n_latencies;
    char buffer[256 * 1024];
};

static int64_t now_us(void) { return clock_us(&clock_real); }

NORETURN static void die(const char *what)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* --- requests ------------------------------------------------------------------------------------- */

/* The i-th NUL-separated piece, counted round and round. */
static const char *piece(const char *bytes, size_t len, unsigned i)
{
    size_t n = 1;

    for (size_t at = 0; at + 1 < len; at++)
        n += bytes[at] == '\0';
    const char *at = bytes;
    for (size_t skip = i % n; skip > 0; skip--)
        at += strlen(at) + 1;
    return at;
}

static void read_requests(struct load *l, const char *path, unsigned first, unsigned n)
{
    AUTO_ARENA arena = arena_new();
    char *bytes;
    size_t len;

    errno = -file_read(arena, path, 64u << 20, &bytes, &len);
    if (errno != 0)
        die(path);
    for (unsigned i = first; i < first + n; i++) {
        struct connection *c = &l->connections[i];
        c->request = xstrdup(piece(bytes, len, i - first));
        c->len = strlen(c->request);
        c->counter = strstr(c->request, COUNTER);
        c->token = strstr(c->request, TOKEN);
    }
}

/* --- connections ---------------------------------------------------------------------------------- */

static void open_connection(struct load *l, struct connection *c)
{
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (const struct sockaddr *)&l->address, sizeof(l->address)) != 0)
        die("connect");
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (fd_set_nonblock(c->fd, true) != 0)
        die("nonblock");
    c->frame.kind = l->kind;
    frame_reset(&c->frame);
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = c->number };
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
        die("epoll_ctl");
}

static void write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = { .fd = fd, .events = POLLOUT };
            (void)poll(&p, 1, 1000);
        } else if (n < 0)
            die("send");
        else
            bytes += n, len -= (size_t)n;
    }
}

static void send_request(struct load *l, struct connection *c)
{
    char digits[16];

    if (c->counter != NULL) {
        snprintf(digits, sizeof(digits), "%010" PRIu64, l->counter++ % 10000000000u);
        memcpy(c->counter, digits, strlen(COUNTER));
    }
    c->bytes = 0;
    c->first_us = 0;
    c->sent_us = now_us();
    write_all(c->fd, c->request, c->len);
}

/* ovsdb-server asks its clients whether they live. */
static bool answer_echo(const struct load *l, struct connection *c)
{
    static const char reply[] = "{\"id\":\"echo\",\"result\":[],\"error\":null}";

    if (l->kind != FRAME_JSON || strstr(c->frame.kept, "\"method\":\"echo\"") == NULL)
        return false;
    write_all(c->fd, reply, sizeof(reply) - 1);
    return true;
}

static void message_done(struct load *l, struct connection *c)
{
    if (answer_echo(l, c)) {
        frame_reset(&c->frame);
        c->bytes = 0;
        return;
    }
    c->replies++;
    l->done++;
    if (c->number < l->n && (l->bytes_min == 0 || c->bytes < l->bytes_min))
        l->bytes_min = c->bytes;
    if (c->expect != NULL && strstr(c->frame.kept, c->expect) == NULL && l->failed++ == 0)
        fprintf(stderr, "bench_load: unexpected reply: %.500s\n", c->frame.kept);
    bool closes = c->frame.kind == FRAME_HTTP && c->frame.closes;
    if (closes) {
        fd_close(&c->fd);
        if (!l->stopping)
            open_connection(l, c);
    }
    l->on_message(l, c);
    frame_reset(&c->frame);
    c->bytes = 0;
}

static void connection_lost(struct load *l, struct connection *c)
{
    if (l->kind == FRAME_HTTP && c->frame.state == FRAME_CLOSE) {
        message_done(l, c);
        return;
    }
    errno = ECONNRESET;
    die("a connection was lost");
}

static void take_bytes(struct load *l, struct connection *c, size_t n)
{
    if (c->first_us == 0)
        c->first_us = now_us();
    if (l->save_fd >= 0 && fd_write_all(l->save_fd, l->buffer, n) != 0)
        die(l->save);
    for (size_t at = 0; at < n;) {
        bool done;
        ssize_t took = frame_feed(&c->frame, l->buffer + at, n - at, &done);
        if (took < 0) {
            errno = EPROTO;
            die("a reply is no reply");
        }
        at += (size_t)took;
        c->bytes += (uint64_t)took;
        if (done) {
            c->done_us = now_us();
            message_done(l, c);
        }
    }
}

static void receive(struct load *l, struct connection *c)
{
    ssize_t n = recv(c->fd, l->buffer, sizeof(l->buffer), 0);

    if (n > 0)
        take_bytes(l, c, (size_t)n);
    else if (n == 0 || errno != EAGAIN)
        connection_lost(l, c);
}

#define STDIN_NUMBER UINT32_MAX

/* Serves what there is; true when a line came on stdin. */
static bool serve(struct load *l, int timeout_ms)
{
    struct epoll_event events[256];
    bool told = false;
    int n = epoll_wait(l->epoll_fd, events, 256, timeout_ms);

    for (int i = 0; i < n; i++) {
        if (events[i].data.u32 == STDIN_NUMBER)
            told = true;
        else
            receive(l, &l->connections[events[i].data.u32]);
    }
    return told;
}

/* --- get ------------------------------------------------------------------------------------------ */

static void got(struct load *l, struct connection *c)
{
    l->stopping = true;
}

static void restart_saving(struct load *l)
{
    if (l->save_fd >= 0 && (ftruncate(l->save_fd, 0) != 0 || lseek(l->save_fd, 0, SEEK_SET) != 0))
        die(l->save);
}

static void run_get(struct load *l)
{
    struct connection *c = &l->connections[0];

    l->on_message = got;
    printf("{\"first_ms\": [");
    double last[1000];
    for (unsigned i = 0; i < l->repeats; i++) {
        restart_saving(l);
        if (c->fd < 0)
            open_connection(l, c);
        l->stopping = false;
        for (send_request(l, c); !l->stopping;)
            (void)serve(l, -1);
        printf("%s%.3f", i > 0 ? ", " : "", (double)(c->first_us - c->sent_us) / 1e3);
        last[i] = (double)(c->done_us - c->sent_us) / 1e3;
    }
    printf("], \"last_ms\": [");
    for (unsigned i = 0; i < l->repeats; i++)
        printf("%s%.3f", i > 0 ? ", " : "", last[i]);
    printf("], \"bytes\": %" PRIu64 ", \"status\": %ld, \"failed\": %" PRIu64 "}\n", l->bytes_min,
           strtol(c->frame.head + strlen("HTTP/1.x "), NULL, 10), l->failed);
}

/* --- closed --------------------------------------------------------------------------------------- */

static void again(struct load *l, struct connection *c)
{
    if (l->n_latencies < LATENCIES_MAX)
        l->latencies[l->n_latencies++] = (uint32_t)(c->done_us - c->sent_us);
    if (!l->stopping)
        send_request(l, c);
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static double percentile(const struct load *l, double share)
{
    return l->n_latencies == 0 ? 0 : l->latencies[(unsigned)(share * (l->n_latencies - 1))] / 1e3;
}

static void run_closed(struct load *l)
{
    l->on_message = again;
    l->latencies = xcalloc(LATENCIES_MAX, sizeof(*l->latencies));
    for (unsigned i = 0; i < l->n; i++)
        open_connection(l, &l->connections[i]);
    int64_t start = now_us(), end = start + (int64_t)(l->seconds * 1e6);
    for (unsigned i = 0; i < l->n; i++)
        send_request(l, &l->connections[i]);
    while (now_us() < end)
        (void)serve(l, 100);
    double took = (double)(now_us() - start) / 1e6;
    qsort(l->latencies, l->n_latencies, sizeof(*l->latencies), by_size);
    printf("{\"done\": %" PRIu64 ", \"seconds\": %.3f, \"rate\": %.1f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"failed\": %" PRIu64 "}\n",
           l->done, took, (double)l->done / took, percentile(l, 0.5), percentile(l, 0.99), l->failed);
    xfree(l->latencies);
}

/* --- fanout --------------------------------------------------------------------------------------- */

static void arrive(struct load *l, struct connection *c)
{
    if (c->number < l->n && c->replies == l->wanted)
        l->arrived++;
    else if (c->number < l->n) {
        fprintf(stderr, "bench_load: a waiting client was served before the change: %.700s\n", c->frame.kept);
        exit(1);
    }
}

/* From now on each connection shall get 'wanted' messages. */
static void expect_messages(struct load *l, unsigned wanted)
{
    l->wanted = wanted;
    l->arrived = 0;
    l->bytes_min = 0;
    l->n_latencies = 0;
    for (unsigned i = 0; i <= l->n; i++)
        l->connections[i].replies = 0;
}

/* A connection beyond the listener's queue is dropped and tried again a second later, so: a few at a time. */
static void set_up(struct load *l)
{
    expect_messages(l, l->setup_replies);
    for (unsigned i = 0; i <= l->n; i++) {
        open_connection(l, &l->connections[i]);
        if (i % BURST == BURST - 1)
            nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        if (l->setup_replies == 0 || i == l->n)
            continue;
        for (send_request(l, &l->connections[i]); l->arrived + BURST_ANSWERED <= i;)
            (void)serve(l, 100);
    }
    while (l->setup_replies > 0 && l->arrived < l->n)
        (void)serve(l, 100);
}

static void wait_again(struct load *l, const char *token)
{
    expect_messages(l, 0);
    for (unsigned i = 0; i < l->n && l->setup_replies == 0; i++) {
        struct connection *c = &l->connections[i];
        if (c->token != NULL && strlen(token) == strlen(TOKEN))
            memcpy(c->token, token, strlen(TOKEN));
        send_request(l, c);
    }
}

static void fire(struct load *l)
{
    struct connection *trigger = &l->connections[l->n];
    int64_t end = now_us() + WAKE_MS * 1000;

    expect_messages(l, 1);
    for (unsigned i = 0; i < l->n; i++)
        l->connections[i].expect = l->expect;
    trigger->expect = l->expect_trigger;
    send_request(l, trigger);
    while ((l->arrived < l->n || trigger->replies == 0) && now_us() < end)
        (void)serve(l, 100);
}

static void print_wake(struct load *l)
{
    const struct connection *trigger = &l->connections[l->n];

    for (unsigned i = 0; i < l->n; i++)
        if (l->connections[i].replies > 0)
            l->latencies[l->n_latencies++] = (uint32_t)(l->connections[i].done_us - trigger->sent_us);
    qsort(l->latencies, l->n_latencies, sizeof(*l->latencies), by_size);
    printf("{\"woken\": %u, \"first_ms\": %.3f, \"p50_ms\": %.3f, \"last_ms\": %.3f, \"trigger_ms\": %.3f, \"bytes_min\": %" PRIu64
           ", \"failed\": %" PRIu64 "}\n",
           l->n_latencies, percentile(l, 0), percentile(l, 0.5), percentile(l, 1), (double)(trigger->done_us - trigger->sent_us) / 1e3,
           l->bytes_min, l->failed);
}

/* The next line from whoever runs us; false at the end. */
static bool next_command(struct load *l, char *line, int size)
{
    printf("ready\n");
    fflush(stdout);
    while (!serve(l, -1))
        ;
    if (fgets(line, size, stdin) == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return true;
}

static void run_fanout(struct load *l)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = STDIN_NUMBER };
    char line[128];

    l->on_message = arrive;
    l->latencies = xcalloc(LATENCIES_MAX, sizeof(*l->latencies));
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        die("stdin");
    set_up(l);
    while (next_command(l, line, sizeof(line))) {
        if (strncmp(line, "wait", 4) == 0)
            wait_again(l, line[4] == ' ' ? line + 5 : "");
        else if (strcmp(line, "go") == 0) {
            fire(l);
            print_wake(l);
        } else
            return;
    }
    xfree(l->latencies);
}

/* --- arguments ------------------------------------------------------------------------------------ */

static void parse_address(struct load *l, const char *text)
{
    char host[64];
    const char *colon = strchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
        die("-c address:port");
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    l->address.sin_family = AF_INET;
    l->address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &l->address.sin_addr) != 1)
        die("-c address:port");
}

static bool take_option(struct load *l, int option, const char *value)
{
    switch (option) {
    case 'c': parse_address(l, value); return true;
    case 'f': l->kind = strcmp(value, "json") == 0 ? FRAME_JSON : FRAME_HTTP; return true;
    case 'k': l->repeats = (unsigned)strtoul(value, NULL, 10); return true;
    case 'n': l->n = (unsigned)strtoul(value, NULL, 10); return true;
    case 'o': l->save = value; return true;
    case 'p': l->setup_replies = (unsigned)strtoul(value, NULL, 10); return true;
    case 'r': l->requests = value; return true;
    case 's': l->seconds = strtod(value, NULL); return true;
    case 't': l->trigger = value; return true;
    case 'x': l->expect = value; return true;
    case 'y': l->expect_trigger = value; return true;
    default: return false;
    }
}

static bool parse_arguments(struct load *l, int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "c:f:k:n:o:p:r:s:t:x:y:")) != -1;)
        if (!take_option(l, option, optarg))
            return false;
    return l->requests != NULL && l->address.sin_port != 0 && l->n > 0 && l->n < CONNECTIONS_MAX && l->repeats > 0 && l->repeats <= 1000;
}

static void prepare(struct load *l)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->save != NULL && (l->save_fd = open(l->save, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)) < 0)
        die(l->save);
    l->connections = xcalloc(l->n + 1, sizeof(*l->connections));
    for (unsigned i = 0; i <= l->n; i++) {
        l->connections[i].fd = -1;
        l->connections[i].number = i;
        l->connections[i].expect = l->trigger == NULL ? l->expect : NULL;
    }
    read_requests(l, l->requests, 0, l->n);
    if (l->trigger != NULL)
        read_requests(l, l->trigger, l->n, 1);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*run)(struct load *); } modes[] = {
        { "get", run_get }, { "closed", run_closed }, { "fanout", run_fanout },
    };
    static struct load load = { .n = 1, .repeats = 1, .seconds = 1, .save_fd = -1 };

    for (unsigned i = 0; argc > 1 && i < ARRAY_LEN(modes); i++) {
        if (strcmp(argv[1], modes[i].name) != 0 || !parse_arguments(&load, argc - 1, argv + 1))
            continue;
        if ((i == 2) != (load.trigger != NULL))
            break;
        prepare(&load);
        load.counter = (uint64_t)now_us() % 1000000000u; /* not what an earlier run wrote */
        modes[i].run(&load);
        return 0;
    }
    fprintf(stderr, "usage: bench_load get|closed|fanout -c address:port -r requests [-f http|json] …; see bench_load.c\n");
    return 2;
}
