/* The front measured: memory of a parked connection, CPU of a small request, plain and TLS.
 *
 *   bench_http            all of it: the server here, the clients in a child (itself with "client")
 *   bench_http client KIND PORT N
 *
 * Prints "name value unit" lines. Server CPU is user + system time of this process only. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/bytes.h"
#include "rpc/base/check.h"
#include "rpc/base/child.h"
#include "rpc/base/memory.h"
#include "rpc/http/server.h"
#include "rpc/http/tls.h"

#define PARKED 2000
#define REQUESTS 200000
#define CONNECTIONS 64

/* --- the server ------------------------------------------------------------------------------------ */

struct waiter { struct http_parked parked; };
static atomic_int woken;

static bool waiter_poll(struct http_parked *p, bool expired)
{
    struct text body = TEXT_INIT;

    text_add(&body, "woken");
    http_parked_reply(p, 200, "text/xml", &body);
    xfree(CONTAINER_OF(p, struct waiter, parked));
    atomic_fetch_add(&woken, 1);
    return true;
}
static void waiter_closed(struct http_parked *p) { xfree(CONTAINER_OF(p, struct waiter, parked)); }
static const struct http_parked_ops waiter_ops = { waiter_poll, waiter_closed };

static void wait_here(struct http_exchange *ex, void *ctx)
{
    struct waiter *w = xcalloc(1, sizeof *w);

    w->parked = (struct http_parked){ .ops = &waiter_ops, .mask = { 1 }, .deadline_ms = clock_ms(&clock_real) + 600000 };
    http_park(ex, &w->parked);
}

static void small(struct http_exchange *ex, void *ctx)
{
    static const char answer[227] = { [0 ... 226] = 'a' };
    struct text t = TEXT_INIT;

    text_add_len(&t, answer, sizeof answer);
    http_reply(ex, 200, "text/xml", NULL, &t);
}

static const struct http_route routes[] = {
    { "GET", "/wait", HTTP_BODY_BUFFER, wait_here, NULL },
    { "POST", "/", HTTP_BODY_BUFFER, small, NULL },
    { 0 },
};

static double cpu_seconds(void)
{
    struct rusage r;

    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static double seconds(void) { return (double)clock_us(&clock_real) / 1e6; }

static long rss_kb(void)
{
    long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    CHECK(f != NULL && fscanf(f, "%ld %ld", &pages, &resident) == 2);
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static pid_t start_client(const char *kind, int port, int n, int in_fd)
{
    char port_text[12], n_text[12];
    const char *argv[] = { "/proc/self/exe", "client", kind, port_text, n_text, NULL };
    struct child_spec spec = { .argv = argv, .stdin_fd = in_fd, .stdout_fd = -1, .stderr_fd = -1 };
    pid_t pid;

    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(n_text, sizeof n_text, "%d", n);
    CHECK(child_start(&spec, &pid) == 0);
    return pid;
}

static void pause_ms(long ms)
{
    struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

    nanosleep(&t, NULL);
}

static void wait_parked(struct http_server *s, unsigned n)
{
    struct http_server_stats stats;

    do {
        pause_ms(5);
        http_server_stats(s, &stats);
    } while (stats.parked != n);
}

static void measure_parked(struct http_server *s, const char *kind, int port)
{
    static const uint64_t mask[2] = { 1 };
    int ends[2], status;

    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    malloc_trim(0);
    long rss = rss_kb();
    size_t heap = mallinfo2().uordblks;
    pid_t pid = start_client(kind, port, PARKED, ends[0]);

    wait_parked(s, PARKED);
    printf("%s_parked_heap %.2f KB\n", kind, ((double)mallinfo2().uordblks - (double)heap) / 1024 / PARKED);
    printf("%s_parked_rss %.2f KB\n", kind, (double)(rss_kb() - rss) / PARKED);
    double cpu = cpu_seconds();

    pause_ms(1000);
    printf("%s_parked_idle_cpu %.3f %%\n", kind, (cpu_seconds() - cpu) * 100);
    cpu = cpu_seconds();
    double at = seconds();

    atomic_store(&woken, 0);
    http_server_wake(s, mask);
    while (atomic_load(&woken) != PARKED)
        pause_ms(1);
    printf("%s_wake_all %.1f ms, %.1f us CPU each\n", kind, (seconds() - at) * 1000, (cpu_seconds() - cpu) * 1e6 / PARKED);
    close(ends[1]); /* the client ends */
    CHECK(child_wait(pid, 60000, &status) == 0);
    close(ends[0]);
}

static void measure_requests(const char *kind, int port)
{
    int status;
    double cpu = cpu_seconds(), at = seconds();
    pid_t pid = start_client(kind, port, REQUESTS, -1);

    CHECK(child_wait(pid, 600000, &status) == 0);
    printf("%s %.2f us CPU a request, %.0f requests/s\n", kind, (cpu_seconds() - cpu) * 1e6 / REQUESTS, REQUESTS / (seconds() - at));
}

static int serve(void)
{
    AUTO_ARENA a = arena_new();
    char pem[] = "/tmp/bench_http.XXXXXX";
    struct http_server_options o = { .clock = &clock_real, .routes = routes };
    struct http_server *s;
    struct tls_context *tls;
    int id, plain, secure;

    close(mkstemp(pem));
    unlink(pem);
    CHECK(http_server_new(a, &o, &s) == NULL && tls_make_certificate(a, pem, TLS_KEY_RSA2048, "x", NULL, 0) == NULL &&
          tls_server_context(a, pem, &tls) == NULL);
    CHECK(http_listen_tcp(a, s, "127.0.0.1", 0, NULL, &id, &plain) == NULL &&
          http_listen_tcp(a, s, "127.0.0.1", 0, tls, &id, &secure) == NULL);
    http_server_start(s);
    measure_parked(s, "plain", plain);
    measure_parked(s, "tls", secure);
    measure_requests("plain_requests", plain);
    measure_requests("tls_requests", secure);
    http_server_free(s);
    tls_context_free(tls);
    unlink(pem);
    return 0;
}

/* --- the clients ----------------------------------------------------------------------------------- */

static struct byte_stream *dial(struct tls_context *tls, int port)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int error, on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct byte_stream *s = tls != NULL ? tls_connect(tls, fd, NULL, NULL, &error) : bytes_from_fd(fd);

    CHECK(s != NULL);
    return s;
}

static void park_clients(struct tls_context *tls, int port, int n)
{
    struct byte_stream **s = xcalloc((size_t)n, sizeof *s);
    char byte;

    for (int i = 0; i < n; i++) {
        static const char get[] = "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n";

        s[i] = dial(tls, port);
        CHECK(bytes_write(s[i], get, sizeof get - 1) == 0);
    }
    while (read(0, &byte, 1) > 0)
        ;
}

static void request_clients(struct tls_context *tls, int port, int n)
{
    struct byte_stream *s[CONNECTIONS];
    char request[500], answer[1000];
    int len = snprintf(request, sizeof request, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 304\r\n\r\n");

    memset(request + len, 'x', 304);
    for (int i = 0; i < CONNECTIONS; i++)
        s[i] = dial(tls, port);
    for (int done = 0; done < n; done += CONNECTIONS) {
        for (int i = 0; i < CONNECTIONS; i++)
            CHECK(bytes_write(s[i], request, (size_t)len + 304) == 0);
        for (int i = 0; i < CONNECTIONS; i++)
            CHECK(bytes_read(s[i], answer, sizeof answer) > 227);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        bytes_close(s[i]);
}

int main(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    struct tls_context *tls = NULL;

    int64_t port, n;

    if (argc < 5 || strcmp(argv[1], "client") != 0 || !text_to_int(argv[3], &port) || !text_to_int(argv[4], &n))
        return serve();
    if (strncmp(argv[2], "tls", 3) == 0)
        CHECK(tls_client_context(a, &tls) == NULL);
    if (strstr(argv[2], "requests") != NULL)
        request_clients(tls, (int)port, (int)n);
    else
        park_clients(tls, (int)port, (int)n);
    return 0;
}
