/* What happens to a guest while it is saved: its own end, what its toolstack asks for, being slowed down. */
#include "tests/contract/xenops_job.h"

#define BUSY "sim-dirty-mib-s=16 sim-fill-mib=8 sim-working-set-mib=4"

static void start(struct host *h, const char *platform)
{
    struct domain_info info;

    assert_ok(xenops_start(&h->call, h->xenops, spec_of(h, VM_UUID, platform), false, &info));
    while (info_of(h, VM_UUID).state == DOMAIN_RUNNING && guest_number(h, VM_UUID, "sim/pages_written") < 1024)
        (void)poll(NULL, 0, 1); /* more than a socket holds */
}

/* A save that nobody reads: it stands in a write once the socket is full. */
struct frozen {
    struct job save;
    struct byte_stream *in;
};

static void save_start(struct frozen *f, struct host *h, int64_t bandwidth)
{
    struct byte_stream *out;

    sockets(&out, &f->in);
    f->save = (struct job){ .policy = { .live = true, .max_downtime_ms = 1, .bandwidth = bandwidth }, .control = SAVE_CONTROL_INIT };
    job_start(&f->save, h, out, run_save);
    while (atomic_load(&f->save.over) == false && __atomic_load_n(&out->bytes_out, __ATOMIC_RELAXED) == 0)
        (void)poll(NULL, 0, 1);
}

static void assert_ended(struct frozen *f)
{
    struct error *e = job_end(&f->save);

    assert_fails(e, "VM_BAD_POWER_STATE");
    assert_string_equal(e->params[0], "running");
    assert_string_equal(e->params[1], "halted");
    bytes_close(f->in);
    bytes_close(f->save.stream);
}

/* The save of a guest that ends of its own accord ends too, also where it stands in a write or waits for its pace. */
static void test_ends_of_its_own(void **state)
{
    static const struct { const char *platform; enum domain_end end; int64_t bandwidth; } cases[] = {
        { BUSY " sim-shutdown-after-ms=300", DOMAIN_END_POWEROFF, 0 },
        { BUSY " sim-reboot-after-ms=300", DOMAIN_END_REBOOT, 4096 },
        { BUSY " sim-crash-after-ms=300", DOMAIN_END_CRASH, 0 },
    };
    struct host *h = host_open(NULL);
    struct frozen f;

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        start(h, cases[i].platform);
        save_start(&f, h, cases[i].bandwidth);
        assert_ended(&f);
        assert_int_equal(info_of(h, VM_UUID).state, DOMAIN_ENDED);
        assert_int_equal(info_of(h, VM_UUID).end, cases[i].end);
        assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    }
    host_close(h);
}

static void test_killed(void **state)
{
    struct host *h = host_open(NULL);
    struct frozen f;

    start(h, BUSY);
    save_start(&f, h, 0);
    const char *record = tempdir_read(&h->dir, arena_printf(h->call.arena, "domains/%d/domain.json", info_of(h, VM_UUID).domid));
    kill((pid_t)text_number(h, strstr(record, "\"pid\":") + 6), SIGKILL);
    assert_ended(&f);
    assert_int_equal(info_of(h, VM_UUID).end, DOMAIN_END_KILLED);
    host_close(h);
}

static void test_shutdown(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);
    struct frozen f;

    start(h, BUSY);
    save_start(&f, h, 0);
    assert_ok(xenops_shutdown(&h->call, h->xenops, VM_UUID, 20000));
    assert_true(atomic_load(&f.save.over)); /* it returns after the save */
    assert_ended(&f);
    assert_fails(xenops_find(&h->call, h->xenops, VM_UUID, &info), "DOMAIN_NOT_FOUND");
    host_close(h);
}

static void check_reboot(bool hard)
{
    struct domain_info info;
    struct host *h = host_open(NULL);
    struct frozen f;

    start(h, BUSY);
    int domid = info_of(h, VM_UUID).domid;
    save_start(&f, h, 0);
    assert_ok(xenops_reboot(&h->call, h->xenops, spec_of(h, VM_UUID, BUSY), hard, 20000, &info));
    assert_ended(&f);
    assert_true(info.domid > domid);
    assert_runs(h, VM_UUID);
    host_close(h);
}

static void test_reboot(void **state) { check_reboot(false); }
static void test_hard_reboot(void **state) { check_reboot(true); }

static void test_destroy(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);
    struct frozen f;

    start(h, BUSY);
    save_start(&f, h, 0);
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_true(atomic_load(&f.save.over));
    assert_ended(&f);
    assert_fails(xenops_find(&h->call, h->xenops, VM_UUID, &info), "DOMAIN_NOT_FOUND");
    start(h, BUSY); /* its name is free */
    host_close(h);
}

/* Cancelling works as before: the guest runs on. */
static void test_cancelled(void **state)
{
    struct host *h = host_open(NULL);
    struct frozen f;

    start(h, BUSY);
    save_start(&f, h, 4096);
    cancel_raise(f.save.call.cancel);
    assert_fails(job_end(&f.save), "TASK_CANCELLED");
    bytes_close(f.in);
    bytes_close(f.save.stream);
    assert_runs(h, VM_UUID);
    host_close(h);
}

/* --- after it was suspended --- */

struct late {
    struct job save, end;
    struct host *host;
    bool fail;
    atomic_bool asked;
};

static struct error *run_shutdown(struct job *j) { return xenops_shutdown(&j->call, j->host->xenops, VM_UUID, 20000); }

/* The guest is suspended: now its shutdown is asked for. */
static struct error *on_suspended(void *ctx, struct call *c)
{
    struct late *l = ctx;

    job_start(&l->end, l->host, NULL, run_shutdown);
    (void)poll(NULL, 0, 50); /* it gets some time to go wrong */
    assert_false(atomic_load(&l->end.over));
    return l->fail ? err_internal(c->arena, "refused") : NULL;
}

static void *drain(void *arg)
{
    char room[65536];

    while (bytes_read(arg, room, sizeof(room)) > 0)
        ;
    return NULL;
}

static void check_late_shutdown(bool fail)
{
    struct late l = { .fail = fail };
    struct byte_stream *out, *in;
    struct host *h = host_open(NULL);

    l.host = h;
    start(h, BUSY);
    sockets(&out, &in);
    pthread_t drainer = thread_start("drain", drain, in);
    l.save = (struct job){ .policy = { .live = true, .max_downtime_ms = 500, .fallback_stop = true }, .control = SAVE_CONTROL_INIT,
                           .callbacks = { .ctx = &l, .after_suspend = on_suspended } };
    job_start(&l.save, h, out, run_save);
    struct error *saved = job_end(&l.save), *ended = job_end(&l.end);
    bytes_abort(out);
    pthread_join(drainer, NULL);
    bytes_close(out);
    bytes_close(in);
    if (fail) {
        assert_fails(saved, "INTERNAL_ERROR");
        assert_ok(ended); /* it ran again, and was shut down */
    } else {
        assert_ok(saved);
        assert_fails(ended, "VM_BAD_POWER_STATE");
        assert_string_equal(ended->params[1], "suspended");
        assert_int_equal(info_of(h, VM_UUID).state, DOMAIN_SUSPENDED);
    }
    host_close(h);
}

static void test_shutdown_too_late(void **state) { check_late_shutdown(false); }
static void test_shutdown_after_failed_save(void **state) { check_late_shutdown(true); }

/* --- slowed down --- */

/* Pages that the guest writes in a millisecond of some time. */
static double pace_of(struct host *h)
{
    long long pages = guest_number(h, VM_UUID, "sim/pages_written");
    int64_t began = clock_us(&clock_real);

    (void)poll(NULL, 0, 300);
    return (double)(guest_number(h, VM_UUID, "sim/pages_written") - pages) * 1000 / (double)(clock_us(&clock_real) - began);
}

/* Also while a save goes on. A guest that would write without end is slowed by its time, another by what it owes. */
static void test_throttle(void **state)
{
    static const char *const guests[] = { "sim-dirty-mib-s=100000 sim-fill-mib=4", "sim-dirty-mib-s=40 sim-fill-mib=4" };
    struct frozen f;

    for (unsigned i = 0; i < ARRAY_LEN(guests); i++) {
        struct host *h = host_open(NULL);
        assert_true(xenops_can(h->xenops, XENOPS_THROTTLE));
        start(h, guests[i]);
        wait_number(h, VM_UUID, "sim/pages_written", 1024 + 100);
        save_start(&f, h, 0);
        double free = pace_of(h);
        assert_ok(xenops_throttle(&h->call, h->xenops, VM_UUID, 90));
        double slowed = pace_of(h);
        assert_true(slowed > 0 && slowed < free / 2);
        assert_ok(xenops_throttle(&h->call, h->xenops, VM_UUID, 0));
        assert_true(pace_of(h) > slowed * 2);
        assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
        assert_ended(&f);
        assert_fails(xenops_throttle(&h->call, h->xenops, VM_UUID, 50), "DOMAIN_NOT_FOUND");
        host_close(h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_ends_of_its_own, hosts_close),   cmocka_unit_test_teardown(test_killed, hosts_close),
        cmocka_unit_test_teardown(test_shutdown, hosts_close),          cmocka_unit_test_teardown(test_reboot, hosts_close),
        cmocka_unit_test_teardown(test_hard_reboot, hosts_close),       cmocka_unit_test_teardown(test_destroy, hosts_close),
        cmocka_unit_test_teardown(test_cancelled, hosts_close),         cmocka_unit_test_teardown(test_shutdown_too_late, hosts_close),
        cmocka_unit_test_teardown(test_shutdown_after_failed_save, hosts_close), cmocka_unit_test_teardown(test_throttle, hosts_close),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
