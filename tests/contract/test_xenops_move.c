/* Saving, restoring, moving: nothing is lost, and what was lost is noticed. */
#include <fcntl.h>
#include <pthread.h>

#include "rpc/base/work.h"
#include "tests/contract/xenops_world.h"

#define BUSY "sim-dirty-mib-s=16 sim-fill-mib=8 sim-working-set-mib=4"

static const struct save_policy live = { .live = true, .max_downtime_ms = 20, .fallback_stop = true }, at_once = { .live = false };

struct counts {
    unsigned progress, before, after, way_back;
    double fraction;
    bool went_back;
    const char *refuse; /* "before", "after" */
    struct cancel *cancel_at_progress;
    struct host *host;
};

static void on_progress(void *ctx, const struct save_progress *p)
{
    struct counts *n = ctx;

    n->progress++;
    n->went_back |= p->fraction < n->fraction;
    n->fraction = p->fraction;
    if (n->cancel_at_progress != NULL)
        cancel_raise(n->cancel_at_progress);
}
static struct error *on_before(void *ctx, struct call *c)
{
    struct counts *n = ctx;

    n->before++;
    return n->refuse != NULL && strcmp(n->refuse, "before") == 0 ? err_internal(c->arena, "refused") : NULL;
}
static struct error *on_after(void *ctx, struct call *c)
{
    struct counts *n = ctx;
    struct domain_info info;

    n->after++;
    assert_ok(xenops_find(c, n->host->xenops, VM_UUID, &info));
    assert_int_equal(info.state, DOMAIN_SUSPENDED);
    return n->refuse != NULL && strcmp(n->refuse, "after") == 0 ? err_internal(c->arena, "refused") : NULL;
}
/* The guest stands until its disks are open again. */
static void on_way_back(void *ctx, struct call *c)
{
    struct counts *n = ctx;
    struct domain_info info;

    n->way_back++;
    assert_null(c->cancel);
    assert_ok(xenops_find(c, n->host->xenops, VM_UUID, &info));
    assert_int_equal(info.state, DOMAIN_SUSPENDED);
}
static struct save_callbacks callbacks_of(struct counts *n, struct host *h)
{
    n->host = h;
    return (struct save_callbacks){ .ctx = n, .progress = on_progress, .before_suspend = on_before, .after_suspend = on_after,
                                    .before_resume = on_way_back };
}

static void start(struct host *h, const char *platform)
{
    struct domain_info info;

    assert_ok(xenops_start(&h->call, h->xenops, spec_of(h, VM_UUID, platform), false, &info));
    wait_number(h, VM_UUID, "sim/pages_written", 2048 + 100);
}

static struct byte_stream *file_stream(struct host *h, const char *name, int flags)
{
    int fd = open(tempdir_file(&h->dir, name), flags | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return bytes_from_fd(fd);
}

static void save_to_file(struct host *h, const char *name)
{
    struct byte_stream *s = file_stream(h, name, O_CREAT | O_TRUNC | O_WRONLY);
    struct save_result r;

    assert_ok(xenops_save(&h->call, h->xenops, VM_UUID, s, &at_once, NULL, &r));
    assert_int_equal(info_of(h, VM_UUID).state, DOMAIN_SUSPENDED);
    assert_int_equal(r.rounds, 1);
    bytes_close(s);
}

static struct error *restore_from_file(struct host *h, const char *name, const char *platform)
{
    struct byte_stream *s = file_stream(h, name, O_RDONLY);
    struct vm_spec *spec = spec_of(h, VM_UUID, platform);
    struct domain_info info;

    assert_ok(xenops_create(&h->call, h->xenops, spec, VM_UUID, &info));
    struct error *e = xenops_restore(&h->call, h->xenops, VM_UUID, spec, s);
    bytes_close(s);
    return e;
}

static void test_suspend_and_restore(void **state)
{
    struct host *h = host_open(NULL);

    start(h, BUSY);
    save_to_file(h, "image");
    long long written = guest_number(h, VM_UUID, "sim/pages_written");
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_ok(restore_from_file(h, "image", BUSY));
    struct domain_info info = info_of(h, VM_UUID);
    assert_int_equal(info.state, DOMAIN_PAUSED);
    assert_string_equal(value_get_string(&info.guest, "sim/verify", ""), "ok");
    assert_int_equal(guest_number(h, VM_UUID, "sim/pages_verified"), 4096);
    assert_int_equal(guest_number(h, VM_UUID, "sim/pages_written"), written);
    assert_ok(xenops_unpause(&h->call, h->xenops, VM_UUID));
    assert_runs(h, VM_UUID);
    host_close(h);
}

/* A consistent image, but an old one: the guest ran on after it was taken. */
static void test_old_image_is_refused(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    save_to_file(h, "image");
    assert_ok(xenops_resume(&h->call, h->xenops, VM_UUID));
    assert_runs(h, VM_UUID);
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_fails(restore_from_file(h, "image", BUSY), "INTERNAL_ERROR");
    wait_state(h, VM_UUID, DOMAIN_ENDED);
    info = info_of(h, VM_UUID);
    assert_int_equal(info.end, DOMAIN_END_CRASH);
    assert_memory_equal(value_get_string(&info.guest, "sim/verify", ""), "FAIL:", 5);
    const char *log = tempdir_read(&h->dir, arena_printf(h->call.arena, "domains/%d/guest.log", info.domid));
    assert_memory_equal(log, "VERIFY FAIL " VM_UUID " ", 12 + 36 + 1);
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_ok(restore_from_file(h, "image", BUSY " sim-witness-reset=true")); /* a checkpoint is meant to be old */
    assert_ok(xenops_unpause(&h->call, h->xenops, VM_UUID));
    assert_runs(h, VM_UUID);
    host_close(h);
}

/* --- live, from host to host --- */

struct move {
    struct host *from;
    struct arena *arena;
    struct byte_stream *out;
    struct counts counts;
    struct save_policy policy;
    struct save_result result;
    struct error *error;
    pthread_t thread;
};

static void *move_save(void *arg)
{
    struct move *m = arg;
    struct save_callbacks callbacks = callbacks_of(&m->counts, m->from);

    struct call c = m->from->call;

    c.arena = m->arena; /* both ends may be on one host */
    m->error = xenops_save(&c, m->from->xenops, VM_UUID, m->out, &m->policy, &callbacks, &m->result);
    if (m->error != NULL)
        bytes_abort(m->out);
    return NULL;
}

/* The guest of 'a' arrives at 'b' under the uuid 'as'. The restorer's error; the saver's is in m. */
static struct error *move(struct host *a, struct host *b, const char *as, const struct vm_spec *spec, struct move *m)
{
    struct domain_info info;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *m = (struct move){ .from = a, .arena = arena_new(), .out = bytes_from_fd(ends[0]), .policy = live };
    struct byte_stream *in = bytes_from_fd(ends[1]);
    assert_ok(xenops_create(&b->call, b->xenops, spec, as, &info));
    m->thread = thread_start("saver", move_save, m);
    struct error *e = xenops_restore(&b->call, b->xenops, as, spec, in);
    if (e != NULL)
        bytes_abort(in);
    pthread_join(m->thread, NULL);
    m->error = error_dup(b->call.arena, m->error);
    arena_free(m->arena);
    bytes_close(in);
    bytes_close(m->out);
    return e;
}

static void test_live_move(void **state)
{
    struct host *a = host_open(NULL), *b = host_open(a);
    struct move m;

    start(a, BUSY);
    assert_ok(move(a, b, VM_UUID, spec_of(b, VM_UUID, BUSY), &m));
    assert_ok(m.error);
    assert_true(m.result.rounds >= 2);
    assert_true(m.result.pages_sent >= 2048);
    assert_int_equal(m.counts.before, 1);
    assert_int_equal(m.counts.after, 1);
    assert_true(m.counts.progress >= 2 && m.counts.fraction == 1.0 && !m.counts.went_back);
    assert_int_equal(info_of(a, VM_UUID).state, DOMAIN_SUSPENDED);
    assert_int_equal(guest_number(b, VM_UUID, "sim/pages_verified"), 4096);
    assert_ok(xenops_destroy(&a->call, a->xenops, VM_UUID));
    assert_ok(xenops_unpause(&b->call, b->xenops, VM_UUID));
    assert_runs(b, VM_UUID);
    assert_true(guest_number(b, VM_UUID, "sim/blackout_us") > 0);
    assert_ok(move(b, a, VM_UUID, spec_of(a, VM_UUID, BUSY), &m)); /* and back */
    assert_ok(m.error);
    assert_ok(xenops_unpause(&a->call, a->xenops, VM_UUID));
    assert_runs(a, VM_UUID);
    host_close(b);
    host_close(a);
}

static void test_live_move_on_one_host(void **state)
{
    struct host *h = host_open(NULL);
    struct move m;

    start(h, BUSY);
    assert_ok(move(h, h, VM_OTHER, spec_of(h, VM_UUID, BUSY), &m));
    assert_ok(m.error);
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_ok(xenops_rename(&h->call, h->xenops, VM_OTHER, VM_UUID));
    assert_ok(xenops_unpause(&h->call, h->xenops, VM_UUID));
    assert_runs(h, VM_UUID);
    host_close(h);
}

/* What the balloon took stays away; what it gives back can be used. */
static void test_move_of_a_ballooned_guest(void **state)
{
    struct host *a = host_open(NULL), *b = host_open(a);
    struct move m;

    start(a, BUSY);
    assert_ok(xenops_balloon(&a->call, a->xenops, VM_UUID, 6 * MIB));
    assert_ok(move(a, b, VM_UUID, spec_of(b, VM_UUID, BUSY), &m));
    assert_ok(m.error);
    assert_int_equal(info_of(b, VM_UUID).memory_actual, 6 * MIB);
    assert_ok(xenops_destroy(&a->call, a->xenops, VM_UUID));
    assert_ok(xenops_unpause(&b->call, b->xenops, VM_UUID));
    assert_ok(xenops_balloon(&b->call, b->xenops, VM_UUID, 16 * MIB));
    assert_runs(b, VM_UUID);
    assert_ok(move(b, a, VM_UUID, spec_of(a, VM_UUID, BUSY), &m));
    assert_int_equal(info_of(a, VM_UUID).memory_actual, 16 * MIB);
    host_close(b);
    host_close(a);
}

static void test_move_with_disk(void **state)
{
    struct disk_spec disk = { .device = "0", .vdi_uuid = VM_OTHER, .size = 32 * MIB };
    struct domain_info info;
    struct host *a = host_open(NULL), *b = host_open(a);
    struct move m;

    disk.path = tempdir_write(&a->dir, "disk", "");
    assert_int_equal(truncate(disk.path, disk.size), 0);
    struct vm_spec *s = spec_of(a, VM_UUID, BUSY " sim-disk-iops=2000");
    s->disks = &disk;
    s->n_disks = 1;
    assert_ok(xenops_start(&a->call, a->xenops, s, false, &info));
    wait_number(a, VM_UUID, "sim/blocks_written", 100);
    assert_ok(move(a, b, VM_UUID, s, &m));
    assert_ok(m.error);
    assert_true(guest_number(b, VM_UUID, "sim/blocks_verified") > 20);
    assert_ok(xenops_unpause(&b->call, b->xenops, VM_UUID));
    assert_runs(b, VM_UUID);
    assert_ok(xenops_destroy(&a->call, a->xenops, VM_UUID));
    assert_ok(move(b, a, VM_UUID, s, &m));
    assert_int_equal(truncate(disk.path, 0), 0); /* what the guest wrote is gone: it notices before it runs on */
    assert_int_equal(truncate(disk.path, disk.size), 0);
    assert_ok(xenops_destroy(&a->call, a->xenops, VM_UUID));
    assert_ok(xenops_resume(&b->call, b->xenops, VM_UUID));
    assert_fails(move(b, a, VM_UUID, s, &m), "INTERNAL_ERROR");
    host_close(b);
    host_close(a);
}

static void check_fault_is_caught(const char *fault)
{
    struct host *a = host_open(NULL), *b = host_open(a);
    struct move m;

    start(a, BUSY);
    assert_true(fault_arm(fault));
    assert_fails(move(a, b, VM_UUID, spec_of(b, VM_UUID, BUSY), &m), "INTERNAL_ERROR");
    assert_ok(m.error);
    wait_state(b, VM_UUID, DOMAIN_ENDED);
    fault_disarm(NULL);
    assert_ok(xenops_resume(&a->call, a->xenops, VM_UUID)); /* the source has it all */
    assert_runs(a, VM_UUID);
    host_close(b);
    host_close(a);
}

static void test_flipped_bit_is_caught(void **state) { check_fault_is_caught("demo=flip-page"); }
static void test_stale_page_is_caught(void **state) { check_fault_is_caught("demo=stale-page"); }

/* Nothing is dirty in the last round: then it is a page from before the guest's first store. */
static void test_stale_page_of_an_idle_guest(void **state)
{
    static const char idle[] = "sim-dirty-mib-s=0 sim-fill-mib=8";
    struct domain_info info;
    struct host *a = host_open(NULL), *b = host_open(a);
    struct move m;

    assert_ok(xenops_start(&a->call, a->xenops, spec_of(a, VM_UUID, idle), false, &info));
    wait_number(a, VM_UUID, "sim/pages_written", 2048);
    assert_true(fault_arm("demo=stale-page"));
    assert_fails(move(a, b, VM_UUID, spec_of(b, VM_UUID, idle), &m), "INTERNAL_ERROR");
    wait_state(b, VM_UUID, DOMAIN_ENDED);
    host_close(b);
    host_close(a);
}

/* --- failures: the guest runs on --- */

static void check_failed_save(const char *platform, const char *refuse, const char *code)
{
    struct counts n = { .refuse = refuse };
    struct save_result r;
    struct host *h = host_open(NULL);

    start(h, platform);
    struct save_callbacks callbacks = callbacks_of(&n, h);
    struct byte_stream *s = file_stream(h, "image", O_CREAT | O_WRONLY);
    assert_fails(xenops_save(&h->call, h->xenops, VM_UUID, s, &live, &callbacks, &r), code);
    bytes_close(s);
    assert_int_equal(n.way_back, n.after);
    assert_runs(h, VM_UUID);
    if (refuse != NULL) { /* it was not the guest's fault: the next try works, and the image is good */
        save_to_file(h, "image");
        assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
        assert_ok(restore_from_file(h, "image", platform));
    }
    host_close(h);
}

static void test_refused_before_suspend(void **state) { check_failed_save(BUSY, "before", "INTERNAL_ERROR"); }
static void test_refused_after_suspend(void **state) { check_failed_save(BUSY, "after", "INTERNAL_ERROR"); }
static void test_no_suspend_ack(void **state)
{
    suspend_ms = "50";
    check_failed_save(BUSY " sim-no-suspend-ack=true", NULL, "VM_FAILED_SUSPEND_ACKNOWLEDGMENT");
}

static void test_suspend_hangs(void **state)
{
    suspend_ms = "1000"; /* the acknowledgement must come in this time, too */
    check_failed_save(BUSY " sim-suspend-hangs=true", NULL, "VM_SUSPEND_TIMEOUT");
}

static void test_broken_connection(void **state)
{
    struct save_result r;
    struct host *h = host_open(NULL);
    int ends[2];

    start(h, BUSY);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    close(ends[1]);
    struct byte_stream *s = bytes_from_fd(ends[0]);
    assert_fails(xenops_save(&h->call, h->xenops, VM_UUID, s, &live, NULL, &r), "INTERNAL_ERROR");
    assert_fails(xenops_save(&h->call, h->xenops, VM_UUID, s, &at_once, NULL, &r), "INTERNAL_ERROR");
    bytes_close(s);
    assert_runs(h, VM_UUID);
    host_close(h);
}

static void test_cancel_in_mid_save(void **state)
{
    static const struct save_policy slow = { .live = true, .bandwidth = 4 * MIB };
    struct counts n = { .progress = 0 };
    struct save_result r;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    n.cancel_at_progress = h->call.cancel;
    struct save_callbacks callbacks = callbacks_of(&n, h);
    struct byte_stream *s = file_stream(h, "image", O_CREAT | O_WRONLY);
    assert_fails(xenops_save(&h->call, h->xenops, VM_UUID, s, &slow, &callbacks, &r), "TASK_CANCELLED");
    bytes_close(s);
    assert_int_equal(n.before, 0);
    assert_true(r.bytes_sent < 8 * MIB);
    cancel_unref(h->call.cancel);
    h->call.cancel = cancel_new();
    assert_runs(h, VM_UUID);
    host_close(h);
}

static void test_damaged_image_is_refused(void **state)
{
    struct domain_info info;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    save_to_file(h, "image");
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    assert_int_equal(truncate(tempdir_file(&h->dir, "image"), 5 * MIB), 0);
    assert_fails(restore_from_file(h, "image", BUSY), "INTERNAL_ERROR");
    assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
    struct vm_spec *smaller = spec_of(h, VM_UUID, BUSY);
    smaller->memory_static_max = 8 * MIB;
    assert_ok(xenops_create(&h->call, h->xenops, smaller, VM_UUID, &info));
    struct byte_stream *s = file_stream(h, "image", O_RDONLY);
    assert_fails(xenops_restore(&h->call, h->xenops, VM_UUID, smaller, s), "INTERNAL_ERROR");
    bytes_close(s);
    assert_int_equal(info_of(h, VM_UUID).state, DOMAIN_PAUSED);
    host_close(h);
}

/* Two images for tests/system/stream_verifier.sh: of a writing guest, live, and of the suspended one. */
static void make_images(const char *live_path, const char *path)
{
    const struct { const char *path; const struct save_policy *policy; } images[] = { { live_path, &live }, { path, &at_once } };
    struct save_result r;
    struct host *h = host_open(NULL);

    start(h, BUSY);
    for (unsigned i = 0; i < ARRAY_LEN(images); i++) {
        int fd = open(images[i].path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        struct byte_stream *s = bytes_from_fd(fd);
        assert_ok(xenops_save(&h->call, h->xenops, VM_UUID, s, images[i].policy, NULL, &r));
        assert_ok(xenops_resume(&h->call, h->xenops, VM_UUID));
        bytes_close(s);
    }
    host_close(h);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_suspend_and_restore, hosts_close),
        cmocka_unit_test_teardown(test_old_image_is_refused, hosts_close),
        cmocka_unit_test_teardown(test_live_move, hosts_close),
        cmocka_unit_test_teardown(test_live_move_on_one_host, hosts_close),
        cmocka_unit_test_teardown(test_move_of_a_ballooned_guest, hosts_close),
        cmocka_unit_test_teardown(test_move_with_disk, hosts_close),
        cmocka_unit_test_teardown(test_flipped_bit_is_caught, hosts_close),
        cmocka_unit_test_teardown(test_stale_page_is_caught, hosts_close),
        cmocka_unit_test_teardown(test_stale_page_of_an_idle_guest, hosts_close),
        cmocka_unit_test_teardown(test_refused_before_suspend, hosts_close),
        cmocka_unit_test_teardown(test_refused_after_suspend, hosts_close),
        cmocka_unit_test_teardown(test_no_suspend_ack, hosts_close),
        cmocka_unit_test_teardown(test_suspend_hangs, hosts_close),
        cmocka_unit_test_teardown(test_broken_connection, hosts_close),
        cmocka_unit_test_teardown(test_cancel_in_mid_save, hosts_close),
        cmocka_unit_test_teardown(test_damaged_image_is_refused, hosts_close),
    };

    signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && strcmp(argv[1], "images") == 0) {
        make_images(argv[2], argv[3]);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
