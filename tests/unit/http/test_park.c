/* Long polls: waking by mask, deadlines, clients that leave, pipelining behind one, very many at once. */
#include "tests/unit/http/front_fixture.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rpc/base/memory.h"
#include "rpc/base/work.h"

#define GET "GET /now HTTP/1.1\r\nHost: x\r\n\r\n"

struct waiter { struct http_parked parked; char *name; int answer_at; };

static sem_t came, left;
static atomic_int go;       /* pollers answer when it has reached their answer_at */
static atomic_int n_polled;

static void waiter_free(struct waiter *w)
{
    xfree(w->name);
    xfree(w);
}

static bool waiter_poll(struct http_parked *p, bool expired)
{
    struct waiter *w = CONTAINER_OF(p, struct waiter, parked);
    struct text body = TEXT_INIT;

    atomic_fetch_add(&n_polled, 1);
    if (!expired && atomic_load(&go) < w->answer_at)
        return false;
    text_printf(&body, "%s %s", w->name, expired ? "expired" : "woken");
    http_parked_reply(p, 200, "text/plain", &body);
    waiter_free(w);
    return true;
}

static void waiter_closed(struct http_parked *p)
{
    waiter_free(CONTAINER_OF(p, struct waiter, parked));
    sem_post(&left);
}

static const struct http_parked_ops waiter_ops = { .poll = waiter_poll, .closed = waiter_closed };

static struct waiter *waiter_new(struct http_exchange *ex)
{
    const struct http_request *r = http_request(ex);
    struct arena *a = http_arena(ex);
    const char *bit = http_query(a, r, "bit"), *deadline = http_query(a, r, "deadline"), *at = http_query(a, r, "at");
    struct waiter *w = xcalloc(1, sizeof *w);
    int b = bit != NULL ? (int)strtol(bit, NULL, 10) : 0;

    w->parked.ops = &waiter_ops;
    w->parked.mask[b / 64] = UINT64_C(1) << (b % 64);
    w->parked.deadline_ms = deadline != NULL ? strtoll(deadline, NULL, 10) : 0;
    w->name = xstrdup(r->path);
    w->answer_at = at != NULL ? (int)strtol(at, NULL, 10) : 1;
    return w;
}

static void wait_here(struct http_exchange *ex, void *ctx)
{
    struct waiter *w = waiter_new(ex);

    http_park(ex, &w->parked);
    sem_post(&came);
}

static void *park_elsewhere(void *arg)
{
    wait_here(arg, NULL);
    return NULL;
}

static pthread_t elsewhere[64];
static atomic_uint n_elsewhere;

static void wait_elsewhere(struct http_exchange *ex, void *ctx)
{
    elsewhere[atomic_fetch_add(&n_elsewhere, 1)] = thread_start("park", park_elsewhere, ex);
}

static void now(struct http_exchange *ex, void *ctx)
{
    struct text t = TEXT_INIT;

    text_add(&t, "now");
    http_reply(ex, 200, NULL, NULL, &t);
}

static const struct http_route routes[] = {
    { "GET", "/wait", HTTP_BODY_BUFFER, wait_here, NULL },
    { "GET", "/park-elsewhere", HTTP_BODY_BUFFER, wait_elsewhere, NULL },
    { "GET", "/now", HTTP_BODY_BUFFER, now, NULL },
    { 0 },
};

static int setup(void **state)
{
    atomic_store(&go, 0);
    atomic_store(&n_polled, 0);
    return sem_init(&came, 0, 0) + sem_init(&left, 0, 0);
}

static struct wire park(struct front *f, const char *target)
{
    struct wire w = { .fd = front_dial(f->port) };
    struct text r = TEXT_INIT;

    text_printf(&r, "GET %s HTTP/1.1\r\n\r\n", target);
    put(w.fd, r.bytes, r.len);
    text_release(&r);
    sem_wait(&came);
    return w;
}

static void expect(struct wire *w, const char *want)
{
    struct text head = TEXT_INIT, body = TEXT_INIT;

    assert_int_equal(wire_answer(w, &head, &body, false), 200);
    assert_string_equal(body.bytes, want);
    text_release(&head);
    text_release(&body);
}

static void wake(struct front *f, int bit)
{
    uint64_t mask[2] = { 0 };

    mask[bit / 64] = UINT64_C(1) << (bit % 64);
    http_server_wake(f->server, mask);
}

static void test_wake_by_mask(void **state)
{
    struct front f;

    front_open(&f, routes, 1, NULL);
    struct wire a = park(&f, "/wait/a?bit=3"), b = park(&f, "/wait/b?bit=70"), c = park(&f, "/wait/c?bit=3&at=2");

    atomic_store(&go, 1);
    wake(&f, 3);
    expect(&a, "/wait/a woken");
    front_sync(&f, GET);
    assert_int_equal(atomic_load(&n_polled), 2); /* a and c; b was not touched */
    struct http_server_stats s;

    http_server_stats(f.server, &s);
    assert_int_equal(s.parked, 2);
    wake(&f, 70);
    expect(&b, "/wait/b woken");
    atomic_store(&go, 2);
    wake(&f, 3);
    expect(&c, "/wait/c woken");
    say(a.fd, GET); /* the connections go on */
    expect(&a, "now");
    http_server_stats(f.server, &s);
    assert_int_equal(s.parked, 0);
    wire_close(&a);
    wire_close(&b);
    wire_close(&c);
    front_close(&f);
}

static void test_deadlines(void **state)
{
    enum { N = 200 };
    struct front f;
    struct wire w[N];
    struct text t = TEXT_INIT;

    front_open(&f, routes, 2, NULL);
    for (int i = 0; i < N; i++) {
        text_clear(&t);
        text_printf(&t, "/wait/%d?deadline=%d", i, 1000 * (1 + (i * 7) % N));
        w[i] = park(&f, t.bytes);
    }
    for (int step = 1; step <= N; step++) {
        int who = 0;

        while (1 + (who * 7) % N != step)
            who++;
        front_advance(&f, 1000);
        text_clear(&t);
        text_printf(&t, "/wait/%d expired", who);
        expect(&w[who], t.bytes);
    }
    for (int i = 0; i < N; i++)
        wire_close(&w[i]);
    assert_int_equal(atomic_load(&n_polled), N); /* each exactly once */
    text_release(&t);
    front_close(&f);
}

static void test_client_leaves(void **state)
{
    struct front f;

    front_open(&f, routes, 2, NULL);
    for (int i = 0; i < 20; i++) {
        struct wire w = park(&f, "/wait/x");

        if (i % 2) {
            struct linger reset = { .l_onoff = 1 };

            setsockopt(w.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        }
        wire_close(&w);
        sem_wait(&left); /* closed() freed it */
    }
    struct http_server_stats s;

    http_server_stats(f.server, &s);
    assert_int_equal(s.parked, 0);
    assert_int_equal(atomic_load(&n_polled), 0);
    front_close(&f);
}

/* What a client sends behind a long poll waits for its reply. */
static void test_pipelined_behind(void **state)
{
    struct front f;

    front_open(&f, routes, 1, NULL);
    struct wire w = { .fd = front_dial(f.port) };

    say(w.fd, "GET /wait/1 HTTP/1.1\r\n\r\nGET /now HTTP/1.1\r\n\r\nGET /wa");
    sem_wait(&came);
    say(w.fd, "it/2 HTTP/1.1\r\n\r\n" GET);
    front_sync(&f, GET);
    atomic_store(&go, 1);
    wake(&f, 0);
    expect(&w, "/wait/1 woken");
    expect(&w, "now");
    sem_wait(&came);
    wake(&f, 0);
    expect(&w, "/wait/2 woken");
    expect(&w, "now");
    wire_close(&w);
    front_close(&f);
}

/* Parked by another thread, a wake that came too early is not lost. */
static void test_park_from_another_thread(void **state)
{
    struct front f;

    atomic_store(&n_elsewhere, 0);
    atomic_store(&go, 1);
    front_open(&f, routes, 1, NULL);
    for (int i = 0; i < 20; i++) {
        struct wire w = park(&f, "/park-elsewhere");

        expect(&w, "/park-elsewhere woken");
        wire_close(&w);
    }
    front_close(&f);
    for (unsigned i = 0; i < atomic_load(&n_elsewhere); i++)
        pthread_join(elsewhere[i], NULL);
}

static void test_stop_with_parked(void **state)
{
    struct front f;
    struct wire w[50];

    front_open(&f, routes, 2, NULL);
    for (int i = 0; i < 50; i++)
        w[i] = park(&f, "/wait");
    front_close(&f);
    for (int i = 0; i < 50; i++) {
        sem_wait(&left);
        wire_expect_end(&w[i]);
        wire_close(&w[i]);
    }
}

/* A thousand at once: each is answered by one wake, and costs little memory. */
static void test_thousand_parked(void **state)
{
    enum { N = 1000 };
    struct front f;
    static struct wire w[N];
    size_t before;

    front_open(&f, routes, 2, NULL);
    w[0] = park(&f, "/wait/p?bit=1");
    before = mallinfo2().uordblks;
    for (int i = 1; i < N; i++)
        w[i] = park(&f, "/wait/p?bit=1&deadline=100000");
    size_t each = (mallinfo2().uordblks - before) / (N - 1);
    struct http_server_stats s;

    front_sync(&f, GET);
    do
        http_server_stats(f.server, &s);
    while (s.parked != N); /* the last handlers are on their way out */
    print_message("%zu bytes of heap a parked connection, the test's object included\n", each);
#if !defined(SANITIZED)
    assert_true(each < 2048);
#endif
    for (int round = 1; round <= 3; round++) {
        atomic_store(&go, 1);
        wake(&f, 1);
        for (int i = 0; i < N; i++)
            expect(&w[i], "/wait/p woken");
        assert_int_equal(atomic_load(&n_polled), N * round);
        atomic_store(&go, 0);
        for (int i = 0; i < N && round < 3; i++) {
            say(w[i].fd, "GET /wait/p?bit=1 HTTP/1.1\r\n\r\n");
            sem_wait(&came);
        }
    }
    for (int i = 0; i < N; i++)
        wire_close(&w[i]);
    front_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_wake_by_mask, setup),
        cmocka_unit_test_setup(test_deadlines, setup),
        cmocka_unit_test_setup(test_client_leaves, setup),
        cmocka_unit_test_setup(test_pipelined_behind, setup),
        cmocka_unit_test_setup(test_park_from_another_thread, setup),
        cmocka_unit_test_setup(test_stop_with_parked, setup),
        cmocka_unit_test_setup(test_thousand_parked, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
