/* Post-copy between two hosts: the guest runs before its memory is there, and nothing is lost but what the stream loses. */
#include "tests/contract/xenops_job.h"

#define MEMORY (64 * MIB)
#define BUSY "sim-dirty-mib-s=64 sim-fill-mib=48 sim-working-set-mib=40"

static struct error *run_send(struct job *j) { return xenops_postcopy_send(&j->call, j->host->xenops, VM_UUID, j->stream, &j->bytes); }
static struct error *run_receive(struct job *j) { return xenops_postcopy_receive(&j->call, j->host->xenops, VM_UUID, j->stream, &j->bytes); }

/* --- a stream that lets so many bytes out and no more --- */

struct narrow {
    struct byte_stream stream; /* first member */
    struct byte_stream *inner;
    int64_t left;
};

static ssize_t narrow_read(struct byte_stream *s, void *to, size_t n) { return bytes_read(((struct narrow *)s)->inner, to, n); }
static int narrow_writev(struct byte_stream *s, struct iovec *parts, int n)
{
    struct narrow *w = (struct narrow *)s;

    for (int i = 0; i < n; i++)
        w->left -= (int64_t)parts[i].iov_len;
    if (w->left < 0)
        bytes_abort(w->inner);
    return bytes_writev(w->inner, parts, n);
}
static int narrow_finish(struct byte_stream *s) { return bytes_finish(((struct narrow *)s)->inner); }
static void narrow_abort(struct byte_stream *s) { bytes_abort(((struct narrow *)s)->inner); }
static void narrow_close(struct byte_stream *s) { bytes_close(((struct narrow *)s)->inner); }
static int narrow_fd(const struct byte_stream *s) { return ((const struct narrow *)s)->inner->ops->fd(((const struct narrow *)s)->inner); }
static size_t narrow_pending(const struct byte_stream *s) { return ((const struct narrow *)s)->inner->ops->pending(((const struct narrow *)s)->inner); }

static const struct byte_stream_ops narrow_ops = {
    .name = "narrow", .read = narrow_read, .writev = narrow_writev, .finish = narrow_finish, .abort = narrow_abort, .close = narrow_close,
    .fd = narrow_fd, .pending = narrow_pending,
};

/* --- a guest that was moved but for a part of its memory --- */

struct pair {
    struct host *a, *b;
    struct byte_stream *out, *in;
    int64_t left; /* pages that are still to come */
};

static struct vm_spec *spec(struct host *h, const char *platform)
{
    struct vm_spec *s = spec_of(h, VM_UUID, platform);

    s->memory_static_max = s->memory_dynamic_max = MEMORY;
    return s;
}

static void start(struct host *h, const char *platform)
{
    struct domain_info info;

    assert_ok(xenops_start(&h->call, h->xenops, spec(h, platform), false, &info));
    wait_number(h, VM_UUID, "sim/pages_written", 48 * 256);
}

/* Up to the commit point: restored at b, suspended at a. */
static void move(struct pair *p, const char *platform)
{
    struct job save = { .policy = { .live = true, .max_downtime_ms = 1, .postcopy = true }, .control = SAVE_CONTROL_INIT };
    struct domain_info info;

    sockets(&p->out, &p->in);
    atomic_store(&save.control.postcopy, true); /* as soon as all was sent once */
    assert_ok(xenops_create(&p->b->call, p->b->xenops, spec(p->b, platform), VM_UUID, &info));
    job_start(&save, p->a, p->out, run_save);
    struct error *e = xenops_restore(&p->b->call, p->b->xenops, VM_UUID, spec(p->b, platform), p->in);
    assert_ok(job_end(&save));
    assert_ok(e);
    assert_true(save.result.postcopy);
    p->left = save.result.pages_left;
    assert_true(p->left > 0);
    assert_int_equal(guest_number(p->b, VM_UUID, "sim/postcopy_left"), p->left);
    assert_int_equal(info_of(p->a, VM_UUID).state, DOMAIN_SUSPENDED);
}

static const char *postcopy_of(struct host *h)
{
    struct domain_info info = info_of(h, VM_UUID);

    return value_get_string(&info.guest, "sim/postcopy", "");
}

static void pair_open(struct pair *p)
{
    p->a = host_open(NULL);
    p->b = host_open(p->a);
    if (xenops_can(p->b->xenops, XENOPS_POSTCOPY))
        return;
    print_message("no userfaultfd here\n");
    skip();
}

static void pair_close(struct pair *p)
{
    bytes_close(p->out);
    bytes_close(p->in);
    host_close(p->b);
    host_close(p->a);
}

static void pair_start(struct pair *p, const char *platform)
{
    pair_open(p);
    start(p->a, platform);
    move(p, platform);
}

/* A save of a domain in post-copy. */
static struct error *try_save(struct host *h)
{
    static const struct save_policy live = { .live = true };
    struct byte_stream *out, *in;
    struct save_result r;

    sockets(&out, &in);
    struct error *e = xenops_save(&h->call, h->xenops, VM_UUID, out, &live, NULL, &r);
    bytes_close(out);
    bytes_close(in);
    return e;
}

static void test_round_trip(void **state)
{
    struct job send = { .bytes = 0 }, receive = { .bytes = 0 };
    struct save_result r;
    struct pair p;

    pair_start(&p, BUSY);
    assert_string_equal(postcopy_of(p.a), "offered");
    assert_string_equal(postcopy_of(p.b), "filling");
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    long long ticks = guest_number(p.b, VM_UUID, "sim/ticks");
    assert_fails(try_save(p.b), "VM_BAD_POWER_STATE");
    assert_ok(xenops_balloon(&p.b->call, p.b->xenops, VM_UUID, 60 * MIB)); /* done at the end of it */
    job_start(&receive, p.b, p.in, run_receive);
    job_start(&send, p.a, p.out, run_send);
    assert_ok(job_end(&receive));
    assert_ok(job_end(&send));
    assert_true(send.bytes >= p.left * 4096 / 2 && receive.bytes >= send.bytes);
    assert_string_equal(postcopy_of(p.b), "done");
    assert_int_equal(guest_number(p.b, VM_UUID, "sim/postcopy_left"), 0);
    assert_int_equal(guest_number(p.b, VM_UUID, "sim/pages_verified"), 64 * 256);
    struct domain_info info = info_of(p.b, VM_UUID);
    assert_string_equal(value_get_string(&info.guest, "sim/verify", ""), "ok");
    assert_int_equal(info.memory_actual, 60 * MIB);
    int64_t step = INT64_MAX;
    assert_true(text_to_int(value_get_string(&info.guest, "sim/clock_step_us", ""), &step));
    assert_true(step > -60000000 && step < 60000000); /* one machine: its clock may be set, but not by much */
    assert_true(guest_number(p.b, VM_UUID, "sim/stood_us") > 0);
    assert_true(guest_number(p.b, VM_UUID, "sim/blackout_us") >= guest_number(p.b, VM_UUID, "sim/stood_us"));
    wait_number(p.b, VM_UUID, "sim/ticks", ticks + 1);
    assert_fails(xenops_resume(&p.a->call, p.a->xenops, VM_UUID), "VM_BAD_POWER_STATE"); /* never two that run */
    assert_fails(xenops_postcopy_send(&p.a->call, p.a->xenops, VM_UUID, p.out, &send.bytes), "VM_BAD_POWER_STATE");
    assert_ok(xenops_destroy(&p.a->call, p.a->xenops, VM_UUID));
    assert_runs(p.b, VM_UUID);
    bytes_close(p.out); /* and back, whole */
    bytes_close(p.in);
    sockets(&p.out, &p.in);
    struct job save = { .policy = { .live = true, .max_downtime_ms = 500, .fallback_stop = true }, .control = SAVE_CONTROL_INIT };
    assert_ok(xenops_create(&p.a->call, p.a->xenops, spec(p.a, BUSY), VM_UUID, &info));
    job_start(&save, p.b, p.out, run_save);
    assert_ok(xenops_restore(&p.a->call, p.a->xenops, VM_UUID, spec(p.a, BUSY), p.in));
    assert_ok(job_end(&save));
    r = save.result;
    assert_false(r.postcopy);
    assert_ok(xenops_unpause(&p.a->call, p.a->xenops, VM_UUID));
    assert_runs(p.a, VM_UUID);
    pair_close(&p);
}

/* The switch failed: the source has it all and runs on. */
static void test_taken_back(void **state)
{
    struct pair p;

    pair_start(&p, BUSY);
    assert_ok(xenops_destroy(&p.b->call, p.b->xenops, VM_UUID));
    assert_ok(xenops_resume(&p.a->call, p.a->xenops, VM_UUID));
    assert_runs(p.a, VM_UUID);
    assert_string_equal(postcopy_of(p.a), "");
    assert_fails(xenops_postcopy_send(&p.a->call, p.a->xenops, VM_UUID, p.out, &p.left), "VM_BAD_POWER_STATE");
    pair_close(&p);
}

/* Half of it came. The guest waits, runs in the eyes of its host, and can be stopped. */
static void test_stream_is_cut(void **state)
{
    struct job send = { .bytes = 0 }, receive = { .bytes = 0 };
    struct pair p;

    pair_start(&p, BUSY);
    struct narrow narrow = { .stream = { .ops = &narrow_ops }, .inner = p.out, .left = p.left * 4096 / 2 };
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    job_start(&receive, p.b, p.in, run_receive);
    job_start(&send, p.a, &narrow.stream, run_send);
    assert_fails(job_end(&send), "INTERNAL_ERROR");
    assert_fails(job_end(&receive), "INTERNAL_ERROR");
    assert_string_equal(postcopy_of(p.b), "lost");
    assert_true(guest_number(p.b, VM_UUID, "sim/postcopy_left") > 0);
    assert_int_equal(info_of(p.b, VM_UUID).state, DOMAIN_RUNNING);
    assert_fails(try_save(p.b), "VM_BAD_POWER_STATE");
    assert_ok(xenops_pause(&p.b->call, p.b->xenops, VM_UUID));
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    assert_fails(xenops_postcopy_receive(&p.b->call, p.b->xenops, VM_UUID, p.in, &p.left), "VM_BAD_POWER_STATE");
    xenops_close(p.b->xenops);
    host_reopen(p.b, arena_printf(p.b->call.arena, "%s/witness", p.a->dir.path));
    assert_string_equal(postcopy_of(p.b), "lost");
    assert_ok(xenops_shutdown(&p.b->call, p.b->xenops, VM_UUID, 20000));
    assert_ok(xenops_destroy(&p.a->call, p.a->xenops, VM_UUID));
    pair_close(&p);
}

/* A toolstack that ends in the middle: nobody holds the other end any more, and no hole reads as empty. */
static void test_destination_restarts(void **state)
{
    struct pair p;

    pair_start(&p, BUSY);
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    xenops_close(p.b->xenops);
    host_reopen(p.b, arena_printf(p.b->call.arena, "%s/witness", p.a->dir.path));
    assert_string_equal(postcopy_of(p.b), "lost");
    assert_int_equal(info_of(p.b, VM_UUID).state, DOMAIN_RUNNING);
    pair_close(&p);
}

/* What ends the guest at its destination tells the source that no more is needed. */
static void check_end_at_destination(bool hard)
{
    struct job send = { .bytes = 0 }, receive = { .bytes = 0 };
    struct pair p;

    pair_start(&p, BUSY);
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    job_start(&receive, p.b, p.in, run_receive);
    if (hard)
        assert_ok(xenops_destroy(&p.b->call, p.b->xenops, VM_UUID));
    else
        assert_ok(xenops_shutdown(&p.b->call, p.b->xenops, VM_UUID, 20000));
    struct error *e = job_end(&receive);
    assert_true(error_is(e, "VM_BAD_POWER_STATE") || error_is(e, "DOMAIN_NOT_FOUND")); /* it had not begun yet */
    job_start(&send, p.a, p.out, run_send);
    e = job_end(&send);
    assert_true(e == NULL || error_is(e, "INTERNAL_ERROR")); /* told, or cut off */
    pair_close(&p);
}

static void test_destroyed_at_destination(void **state) { check_end_at_destination(true); }
static void test_shut_down_at_destination(void **state) { check_end_at_destination(false); }

static void test_destroyed_at_source(void **state)
{
    struct job send = { .bytes = 0 }, receive = { .bytes = 0 };
    struct pair p;

    pair_start(&p, BUSY);
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    job_start(&send, p.a, p.out, run_send); /* nobody answers it yet */
    while (strcmp(postcopy_of(p.a), "given") != 0)
        (void)poll(NULL, 0, 1);
    assert_ok(xenops_destroy(&p.a->call, p.a->xenops, VM_UUID));
    assert_fails(job_end(&send), "VM_BAD_POWER_STATE");
    job_start(&receive, p.b, p.in, run_receive);
    assert_fails(job_end(&receive), "INTERNAL_ERROR");
    assert_string_equal(postcopy_of(p.b), "lost");
    assert_ok(xenops_destroy(&p.b->call, p.b->xenops, VM_UUID));
    pair_close(&p);
}

/* The process that stood for the guest at its source was killed: its memory is still ours to send. */
static void test_source_process_dies(void **state)
{
    struct job send = { .bytes = 0 }, receive = { .bytes = 0 };
    struct pair p;

    pair_start(&p, BUSY);
    const char *record = tempdir_read(&p.a->dir, arena_printf(p.a->call.arena, "domains/%d/domain.json", info_of(p.a, VM_UUID).domid));
    kill((pid_t)text_number(p.a, strstr(record, "\"pid\":") + 6), SIGKILL);
    wait_state(p.a, VM_UUID, DOMAIN_ENDED);
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    job_start(&receive, p.b, p.in, run_receive);
    job_start(&send, p.a, p.out, run_send);
    assert_ok(job_end(&receive));
    assert_ok(job_end(&send));
    assert_runs(p.b, VM_UUID);
    pair_close(&p);
}

/* A stale page among the outstanding ones: the guest finds it before it writes over it. */
static void test_stale_page_is_caught(void **state)
{
    struct job send = { .bytes = 0 }, receive = { .bytes = 0 };
    struct pair p;

    pair_start(&p, BUSY);
    /* the witness knows of versions that never were: every page is older than it */
    const char *witness = arena_printf(p.a->call.arena, "witness/%s.witness", VM_UUID);
    struct stat st;
    const char *path = tempdir_file(&p.a->dir, witness);
    assert_int_equal(stat(path, &st), 0);
    FILE *f = fopen(path, "r+e");
    assert_non_null(f);
    uint32_t versions[256];
    memset(versions, 0x7f, sizeof(versions));
    assert_int_equal(fseek(f, st.st_size - 64 * 256 * 4, SEEK_SET), 0);
    assert_int_equal(fwrite(versions, sizeof(versions), 1, f), 1);
    assert_int_equal(fclose(f), 0);
    assert_ok(xenops_unpause(&p.b->call, p.b->xenops, VM_UUID));
    job_start(&receive, p.b, p.in, run_receive);
    job_start(&send, p.a, p.out, run_send);
    assert_non_null(job_end(&receive));
    (void)job_end(&send);
    wait_state(p.b, VM_UUID, DOMAIN_ENDED);
    struct domain_info info = info_of(p.b, VM_UUID);
    assert_int_equal(info.end, DOMAIN_END_CRASH);
    assert_memory_equal(value_get_string(&info.guest, "sim/verify", ""), "FAIL:", 5);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_round_trip, hosts_close),
        cmocka_unit_test_teardown(test_taken_back, hosts_close),
        cmocka_unit_test_teardown(test_stream_is_cut, hosts_close),
        cmocka_unit_test_teardown(test_destination_restarts, hosts_close),
        cmocka_unit_test_teardown(test_destroyed_at_destination, hosts_close),
        cmocka_unit_test_teardown(test_shut_down_at_destination, hosts_close),
        cmocka_unit_test_teardown(test_destroyed_at_source, hosts_close),
        cmocka_unit_test_teardown(test_source_process_dies, hosts_close),
        cmocka_unit_test_teardown(test_stale_page_is_caught, hosts_close),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
