/* A guest whose disk is served over NBD: it waits for a server that is away or holds its requests, repeats what was
 * not answered, flushes before it is moved, and finds its blocks again. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "rpc/base/work.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/tapd/nbd_server.h"
#include "tests/contract/xenops_world.h"
#include "tests/lib/ram_block.h"

#define DISK_SIZE (32 * MIB)
#define PLATFORM "sim-dirty-mib-s=4 sim-disk-iops=1000 sim-disk-flush-every=16"

/* --- a server that can be told to stop and to hold -------------------------------------------------------- */

enum word { HOLD = 1, LET_GO, END };
struct place {
    struct loop *loop;
    struct ram_block *disk;
    struct nbd_server *server;
    struct loop_fd words;
    const char *path;
    pthread_t thread;
};

static void told(struct loop_fd *f, uint32_t events)
{
    struct place *p = CONTAINER_OF(f, struct place, words);
    eventfd_t word;

    assert_int_equal(eventfd_read(f->fd, &word), 0);
    if (word == HOLD)
        p->disk->hold = true;
    else
        ram_block_let_go(p->disk);
    if (word == END)
        loop_stop(p->loop);
}

static void *serve(void *arg)
{
    struct place *p = arg;

    loop_run(p->loop);
    nbd_server_free(p->server); /* connections end as when it is killed */
    return NULL;
}

static void place_serve(struct place *p)
{
    p->server = nbd_server_new(p->loop, &p->disk->block);
    assert_int_equal(nbd_server_listen_unix(p->server, p->path, false), 0);
    p->thread = thread_start("nbd", serve, p);
}

static void place_tell(struct place *p, enum word word) { assert_int_equal(eventfd_write(p->words.fd, word), 0); }

static void place_end(struct place *p)
{
    place_tell(p, END);
    pthread_join(p->thread, NULL);
}

static struct disk_spec place_start(struct place *p, struct host *h)
{
    *p = (struct place){ .loop = loop_new(&clock_real), .path = tempdir_file(&h->dir, "nbd") };
    p->disk = ram_block_new(p->loop, DISK_SIZE);
    p->words = (struct loop_fd){ .fd = eventfd(0, EFD_CLOEXEC), .ready = told, .events = EPOLLIN };
    loop_add(p->loop, &p->words);
    place_serve(p);
    return (struct disk_spec){ .device = "0", .vdi_uuid = VM_OTHER, .size = DISK_SIZE, .path = nbd_uri_unix(h->call.arena, p->path) };
}

static void place_free(struct place *p)
{
    loop_remove(p->loop, &p->words);
    fd_close(&p->words.fd);
    ram_block_free(p->disk);
    loop_free(p->loop);
}

/* --- the guest ---------------------------------------------------------------------------------------------- */

static struct vm_spec *start(struct host *h, struct disk_spec *disk, const char *platform)
{
    struct vm_spec *s = spec_of(h, VM_UUID, platform);
    struct domain_info info;

    s->disks = disk;
    s->n_disks = 1;
    assert_ok(xenops_start(&h->call, h->xenops, s, false, &info));
    wait_number(h, VM_UUID, "sim/blocks_written", 100);
    return s;
}

static void assert_writes(struct host *h)
{
    wait_number(h, VM_UUID, "sim/blocks_written", guest_number(h, VM_UUID, "sim/blocks_written") + 50);
    assert_int_equal(guest_number(h, VM_UUID, "sim/disk_errors"), 0);
}

static struct error *save_to(struct host *h, const char *name)
{
    static const struct save_policy at_once = { .live = false };
    struct byte_stream *s = bytes_from_fd(open(tempdir_file(&h->dir, name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    struct save_result r;
    struct error *e = xenops_save(&h->call, h->xenops, VM_UUID, s, &at_once, NULL, &r);

    bytes_close(s);
    return e;
}

static struct error *restore_from(struct host *h, const char *name, struct vm_spec *spec)
{
    struct byte_stream *s = bytes_from_fd(open(tempdir_file(&h->dir, name), O_RDONLY | O_CLOEXEC));
    struct domain_info info;

    assert_ok(xenops_create(&h->call, h->xenops, spec, VM_UUID, &info));
    struct error *e = xenops_restore(&h->call, h->xenops, VM_UUID, spec, s);
    bytes_close(s);
    return e;
}

static void test_server_comes_back(void **state)
{
    struct host *h = host_open(NULL);
    struct place p;
    struct disk_spec disk = place_start(&p, h);

    start(h, &disk, PLATFORM);
    for (unsigned i = 0; i < 3; i++) {
        place_end(&p);
        long long written = guest_number(h, VM_UUID, "sim/blocks_written");
        assert_runs(h, VM_UUID); /* its processors do not care */
        assert_true(guest_number(h, VM_UUID, "sim/blocks_written") <= written + 1);
        place_serve(&p);
        assert_writes(h);
    }
    host_close(h);
    place_end(&p);
    assert_true(p.disk->n[BLOCK_FLUSH] >= 5);
    place_free(&p);
}

/* Boot, suspend, resume elsewhere: with the disk verified when it is used again. */
static void test_suspend_and_restore(void **state)
{
    static const char *const platforms[] = { PLATFORM, PLATFORM " sim-disk-write-kib=64", PLATFORM " sim-disk-write-kib=256 sim-disk-working-set-mib=1" };

    for (unsigned i = 0; i < ARRAY_LEN(platforms); i++) {
        struct host *h = host_open(NULL);
        struct place p;
        struct disk_spec disk = place_start(&p, h);
        struct vm_spec *s = start(h, &disk, platforms[i]);

        place_end(&p);
        place_serve(&p);
        assert_ok(save_to(h, "image"));
        assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
        place_end(&p); /* nobody serves it while the guest is restored: it is looked at when the guest runs */
        unsigned flushes = p.disk->n[BLOCK_FLUSH];
        assert_true(flushes > 0);
        assert_ok(restore_from(h, "image", s));
        assert_int_equal(guest_number(h, VM_UUID, "sim/blocks_verified"), 0);
        place_serve(&p);
        assert_ok(xenops_unpause(&h->call, h->xenops, VM_UUID));
        assert_true(guest_number(h, VM_UUID, "sim/blocks_verified") > 20);
        assert_writes(h);
        assert_ok(save_to(h, "image"));
        assert_ok(xenops_destroy(&h->call, h->xenops, VM_UUID));
        place_end(&p);
        memset(p.disk->data, 0, DISK_SIZE); /* its data is gone: it does not run on */
        place_serve(&p);
        assert_ok(restore_from(h, "image", s));
        assert_fails(xenops_unpause(&h->call, h->xenops, VM_UUID), "INTERNAL_ERROR");
        wait_state(h, VM_UUID, DOMAIN_ENDED);
        host_close(h);
        place_end(&p);
        place_free(&p);
    }
}

/* A tapd that holds the guest's request: the suspend waits, its time runs out, and the guest lives on. */
static void test_suspend_waits_for_the_disk(void **state)
{
    suspend_ms = "300";
    struct host *h = host_open(NULL);
    struct place p;
    struct disk_spec disk = place_start(&p, h);

    start(h, &disk, PLATFORM);
    place_tell(&p, HOLD);
    struct error *e = save_to(h, "image");
    assert_non_null(e);
    place_tell(&p, LET_GO);
    assert_ok(xenops_resume(&h->call, h->xenops, VM_UUID));
    assert_runs(h, VM_UUID);
    assert_writes(h);
    host_close(h);
    place_end(&p);
    place_free(&p);
}

static void test_unplug_without_server(void **state)
{
    struct host *h = host_open(NULL);
    struct place p;
    struct disk_spec disk = place_start(&p, h);

    start(h, &disk, PLATFORM);
    assert_ok(xenops_disk_unplug(&h->call, h->xenops, VM_UUID, &disk));
    assert_ok(xenops_disk_plug(&h->call, h->xenops, VM_UUID, &disk));
    assert_writes(h);
    place_end(&p);
    assert_ok(xenops_disk_unplug(&h->call, h->xenops, VM_UUID, &disk));
    assert_runs(h, VM_UUID);
    place_serve(&p);
    assert_ok(xenops_disk_plug(&h->call, h->xenops, VM_UUID, &disk));
    assert_writes(h);
    place_end(&p);
    assert_ok(xenops_shutdown(&h->call, h->xenops, VM_UUID, 20000)); /* it does not wait for ever for its last write */
    host_close(h);
    place_free(&p);
}

/* What the server answers is the disk's own error. */
static void test_errors_count(void **state)
{
    struct host *h = host_open(NULL);
    struct place p;
    struct disk_spec disk = place_start(&p, h);

    place_end(&p);
    p.disk->error = -EIO;
    p.disk->error_op = BLOCK_WRITE;
    p.disk->error_from = DISK_SIZE / 2;
    place_serve(&p);
    start(h, &disk, PLATFORM);
    wait_number(h, VM_UUID, "sim/disk_errors", 10);
    host_close(h);
    place_end(&p);
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_server_comes_back, hosts_close),
        cmocka_unit_test_teardown(test_suspend_and_restore, hosts_close),
        cmocka_unit_test_teardown(test_suspend_waits_for_the_disk, hosts_close),
        cmocka_unit_test_teardown(test_unplug_without_server, hosts_close),
        cmocka_unit_test_teardown(test_errors_count, hosts_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
