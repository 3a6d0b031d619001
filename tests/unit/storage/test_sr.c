/* storage/sr.c over its drivers: life cycles, repeated calls, errors, true sizes. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/uuid.h"
#include "rpc/base/work.h"
#include "storage/sr.h"
#include "tests/lib/fakecall.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)

struct world {
    struct fakecall fake;
    struct tempdir dir;
    struct storage *storage;
    struct call *c;
    struct member config[1];
    struct sr_spec sr;
};

static const struct vdi_use writer = { .user = "writer" }, reader = { .user = "reader", .read_only = true };

static void ok(struct error *error)
{
    if (error != NULL)
        fail_msg("%s %s", error->code, error->n_params > 2 ? error->params[2] : "");
}

static void world_init(struct world *w, const char *type)
{
    fakecall_init(&w->fake);
    tempdir_make(&w->dir);
    w->c = &w->fake.call;
    w->storage = storage_new(NULL);
    w->config[0] = member_of("location", value_string(tempdir_file(&w->dir, "sr")));
    w->sr = (struct sr_spec) { .uuid = uuid_make(w->c->arena), .type = type, .device_config = value_map(w->config, 1) };
}

static void world_release(struct world *w)
{
    storage_free(w->storage);
    tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
}

static void world_attached(struct world *w)
{
    world_init(w, "file");
    ok(sr_create(w->c, w->storage, &w->sr, 0));
    ok(sr_attach(w->c, w->storage, &w->sr));
}

static const char *disk(struct world *w, int64_t size, struct vdi_stat *stat)
{
    const struct vdi_create_spec spec = { .uuid = uuid_make(w->c->arena), .virtual_size = size, .format = "raw" };

    ok(vdi_create(w->c, w->storage, w->sr.uuid, &spec, stat));
    return stat->location;
}

static void fill(struct world *w, const char *location, int64_t at, const void *bytes, size_t n)
{
    struct vdi_where where;
    FILE *f;

    ok(vdi_attach(w->c, w->storage, w->sr.uuid, location, &writer, &where));
    assert_string_equal(where.format, "raw");
    f = fopen(where.path, "r+e");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static char byte_at(struct world *w, const char *sr, const char *location, int64_t at)
{
    struct vdi_where where;
    FILE *f;
    int c;

    ok(vdi_attach(w->c, w->storage, sr, location, &reader, &where));
    f = fopen(where.path, "re");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    c = fgetc(f);
    fclose(f);
    return (char)c;
}

static void test_spec_errors(void **state)
{
    struct world w;
    struct error *error;

    world_init(&w, "tape");
    error = sr_create(w.c, w.storage, &w.sr, 0);
    assert_true(error_is(error, "SR_UNKNOWN_DRIVER"));
    assert_string_equal(error->params[0], "tape");
    w.sr.type = "file";
    w.sr.device_config = value_map(NULL, 0);
    assert_true(error_is(sr_attach(w.c, w.storage, &w.sr), "SR_BACKEND_FAILURE"));
    world_release(&w);
}

static void test_attach_is_idempotent_and_needs_the_directory(void **state)
{
    struct world w;

    world_init(&w, "file");
    assert_true(error_is(sr_attach(w.c, w.storage, &w.sr), "SR_BACKEND_FAILURE"));
    assert_false(sr_is_attached(w.storage, w.sr.uuid));
    ok(sr_create(w.c, w.storage, &w.sr, 0));
    ok(sr_attach(w.c, w.storage, &w.sr));
    ok(sr_attach(w.c, w.storage, &w.sr));
    assert_true(sr_is_attached(w.storage, w.sr.uuid));
    ok(sr_detach(w.c, w.storage, w.sr.uuid));
    ok(sr_detach(w.c, w.storage, w.sr.uuid));
    assert_false(sr_is_attached(w.storage, w.sr.uuid));
    ok(sr_destroy(w.c, w.storage, &w.sr));
    ok(sr_destroy(w.c, w.storage, &w.sr));
    world_release(&w);
}

static void test_verbs_need_an_attached_sr(void **state)
{
    struct world w;
    struct sr_stat stat;
    struct error *error;

    world_init(&w, "file");
    error = sr_stat(w.c, w.storage, w.sr.uuid, &stat);
    assert_true(error_is(error, "SR_NOT_ATTACHED"));
    assert_string_equal(error->params[0], w.sr.uuid);
    world_release(&w);
}

static void test_vdi_sizes_are_true(void **state)
{
    struct world w;
    struct vdi_stat stat;
    struct sr_stat sizes;
    const char *location;
    char block[4096];

    world_attached(&w);
    location = disk(&w, 3 * MIB + 1, &stat);
    assert_int_equal(stat.virtual_size, 3 * MIB + 512);
    assert_int_equal(stat.physical_utilisation, 0);
    memset(block, 'x', sizeof(block));
    fill(&w, location, MIB, block, sizeof(block));
    ok(vdi_stat(w.c, w.storage, w.sr.uuid, location, &stat));
    assert_in_range(stat.physical_utilisation, 4096, 64 * 1024);
    ok(sr_stat(w.c, w.storage, w.sr.uuid, &sizes));
    assert_int_equal(sizes.virtual_allocation, 3 * MIB + 512);
    assert_true(sizes.physical_size > sizes.physical_utilisation);
    world_release(&w);
}

static void test_vdi_create_again_is_the_same_disk(void **state)
{
    struct world w;
    struct vdi_stat stat, again;
    struct vdi_create_spec spec;
    struct vdi_stat *all;
    unsigned n;

    world_attached(&w);
    spec = (struct vdi_create_spec) { .uuid = disk(&w, MIB, &stat), .virtual_size = MIB, .format = "raw" };
    ok(vdi_create(w.c, w.storage, w.sr.uuid, &spec, &again));
    assert_string_equal(stat.location, again.location);
    ok(sr_scan(w.c, w.storage, w.sr.uuid, &all, &n));
    assert_int_equal(n, 1);
    spec.format = "vhd";
    assert_true(error_is(vdi_create(w.c, w.storage, w.sr.uuid, &spec, &again), "SR_BACKEND_FAILURE"));
    world_release(&w);
}

static void test_vdi_limits(void **state)
{
    struct world w;
    struct vdi_stat stat;
    struct vdi_create_spec spec = { .uuid = "u", .virtual_size = 0, .format = "" };

    world_attached(&w);
    assert_true(error_is(vdi_create(w.c, w.storage, w.sr.uuid, &spec, &stat), "VDI_TOO_SMALL"));
    spec.virtual_size = (int64_t)64 << 40;
    assert_true(error_is(vdi_create(w.c, w.storage, w.sr.uuid, &spec, &stat), "VDI_TOO_LARGE"));
    world_release(&w);
}

static void test_vdi_resize_only_grows(void **state)
{
    struct world w;
    struct vdi_stat stat;
    const char *location;

    world_attached(&w);
    location = disk(&w, MIB, &stat);
    fill(&w, location, 100, "y", 1);
    ok(vdi_resize(w.c, w.storage, w.sr.uuid, location, 2 * MIB, &stat));
    assert_int_equal(stat.virtual_size, 2 * MIB);
    assert_int_equal(byte_at(&w, w.sr.uuid, location, 100), 'y');
    assert_true(error_is(vdi_resize(w.c, w.storage, w.sr.uuid, location, MIB, &stat), "VDI_TOO_SMALL"));
    world_release(&w);
}

static void test_vdi_missing(void **state)
{
    struct world w;
    struct vdi_stat stat;
    const char *location;
    struct error *error;

    world_attached(&w);
    location = disk(&w, MIB, &stat);
    ok(vdi_destroy(w.c, w.storage, w.sr.uuid, location));
    ok(vdi_destroy(w.c, w.storage, w.sr.uuid, location));
    error = vdi_stat(w.c, w.storage, w.sr.uuid, location, &stat);
    assert_true(error_is(error, "VDI_MISSING"));
    assert_string_equal(error->params[0], w.sr.uuid);
    world_release(&w);
}

static void test_vdi_clone_copies_data_and_keeps_holes(void **state)
{
    struct world w;
    struct vdi_stat stat, clone;
    const char *location;
    char block[8192];

    world_attached(&w);
    location = disk(&w, 64 * MIB, &stat);
    memset(block, 'z', sizeof(block));
    fill(&w, location, 40 * MIB, block, sizeof(block));
    ok(vdi_clone(w.c, w.storage, w.sr.uuid, location, uuid_make(w.c->arena), &clone));
    assert_int_equal(clone.virtual_size, 64 * MIB);
    assert_true(clone.physical_utilisation < MIB);
    assert_int_equal(byte_at(&w, w.sr.uuid, clone.location, 40 * MIB + 5000), 'z');
    fill(&w, location, 40 * MIB, "a", 1);
    assert_int_equal(byte_at(&w, w.sr.uuid, clone.location, 40 * MIB), 'z');
    assert_true(w.fake.progress > 0);
    world_release(&w);
}

static void test_vdi_clone_cancelled_leaves_nothing(void **state)
{
    struct world w;
    struct vdi_stat stat, clone, *all;
    const char *location;
    unsigned n;

    world_attached(&w);
    location = disk(&w, 8 * MIB, &stat);
    fill(&w, location, 0, "a", 1);
    cancel_raise(w.c->cancel);
    assert_true(error_is(vdi_clone(w.c, w.storage, w.sr.uuid, location, uuid_make(w.c->arena), &clone), "TASK_CANCELLED"));
    ok(sr_scan(w.c, w.storage, w.sr.uuid, &all, &n));
    assert_int_equal(n, 1);
    world_release(&w);
}

static void test_vdi_copy_between_srs(void **state)
{
    struct world w;
    struct vdi_stat stat, copy;
    struct sr_spec other;
    struct member config[] = { member_of("location", value_void()) };
    const char *location;

    world_attached(&w);
    config[0].value = value_string(tempdir_file(&w.dir, "other"));
    other = (struct sr_spec) { .uuid = uuid_make(w.c->arena), .type = "file", .device_config = value_map(config, 1) };
    ok(sr_create(w.c, w.storage, &other, 0));
    ok(sr_attach(w.c, w.storage, &other));
    location = disk(&w, 2 * MIB, &stat);
    fill(&w, location, MIB, "q", 1);
    const struct vdi_create_spec spec = { .uuid = uuid_make(w.c->arena), .virtual_size = 2 * MIB, .format = "raw" };
    ok(vdi_create(w.c, w.storage, other.uuid, &spec, &copy));
    ok(vdi_copy(w.c, w.storage, w.sr.uuid, location, other.uuid, copy.location));
    assert_int_equal(copy.virtual_size, 2 * MIB);
    assert_int_equal(byte_at(&w, other.uuid, copy.location, MIB), 'q');
    world_release(&w);
}

static void test_missing_capability(void **state)
{
    struct world w;
    struct vdi_stat stat;

    world_attached(&w);
    w.sr = (struct sr_spec) { .uuid = uuid_make(w.c->arena), .type = "iso", .device_config = w.sr.device_config };
    ok(sr_attach(w.c, w.storage, &w.sr));
    assert_true(error_is(vdi_snapshot(w.c, w.storage, w.sr.uuid, "a.iso", "u", &stat), "SR_OPERATION_NOT_SUPPORTED"));
    world_release(&w);
}

static void test_iso(void **state)
{
    struct world w;
    struct vdi_stat *all, stat;
    struct vdi_where where;
    unsigned n;

    world_init(&w, "iso");
    assert_true(error_is(sr_create(w.c, w.storage, &w.sr, 0), "SR_BACKEND_FAILURE"));
    assert_int_equal(mkdir(tempdir_file(&w.dir, "sr"), 0755), 0);
    tempdir_write(&w.dir, "sr/b.ISO", "bb");
    tempdir_write(&w.dir, "sr/a.iso", "a");
    tempdir_write(&w.dir, "sr/readme.txt", "c");
    ok(sr_create(w.c, w.storage, &w.sr, 0));
    ok(sr_attach(w.c, w.storage, &w.sr));
    ok(sr_scan(w.c, w.storage, w.sr.uuid, &all, &n));
    assert_int_equal(n, 2);
    assert_string_equal(all[0].location, "a.iso");
    assert_true(all[0].read_only);
    assert_string_equal(all[0].uuid, "");
    ok(vdi_attach(w.c, w.storage, w.sr.uuid, "a.iso", &reader, &where));
    assert_int_equal(access(where.path, R_OK), 0);
    assert_true(error_is(vdi_stat(w.c, w.storage, w.sr.uuid, "../sr/a.iso", &stat), "VDI_MISSING"));
    world_release(&w);
}

static void test_fault_points(void **state)
{
    struct world w;

    world_init(&w, "file");
    ok(sr_create(w.c, w.storage, &w.sr, 0));
    assert_true(fault_arm("sr.attach=error"));
    assert_true(error_is(sr_attach(w.c, w.storage, &w.sr), "SR_BACKEND_FAILURE"));
    fault_disarm(NULL);
    ok(sr_attach(w.c, w.storage, &w.sr));
    world_release(&w);
}

static void test_features(void **state)
{
    struct fakecall fake;
    struct value features;

    fakecall_init(&fake);
    features = sr_driver_features(fake.call.arena, sr_driver_find("file")->caps);
    assert_true(value_set_has(&features, "VDI_CREATE"));
    assert_null(sr_driver_find("gluster"));
    fakecall_release(&fake);
}

/* --- clearing up ------------------------------------------------------------------------------------------ */
struct cleaner { struct world *w; pthread_t thread; bool ok; };

static void *clean(void *arg)
{
    struct cleaner *k = arg;
    struct arena *arena = arena_new();
    struct call c = { .arena = arena, .clock = &clock_real };

    k->ok = sr_clean(&c, k->w->storage, k->w->sr.uuid) == NULL;
    arena_free(arena);
    return NULL;
}

/* A step that is under way keeps those out that make and remove images, and nobody else. */
static void test_clearing_up_has_the_turn(void **state)
{
    struct world w;
    struct cleaner k = { .w = &w };
    struct sr_stat sizes;
    struct vdi_stat stat;
    struct call hasty;

    world_attached(&w);
    disk(&w, MIB, &stat);
    hasty = *w.c;
    hasty.cancel = cancel_new();
    cancel_raise(hasty.cancel);
    assert_true(fault_arm("sr.clean=stop"));
    k.thread = thread_start("clean", clean, &k);
    while (!error_is(vdi_destroy(&hasty, w.storage, w.sr.uuid, uuid_make(w.c->arena)), "TASK_CANCELLED"))
        ;
    ok(sr_stat(w.c, w.storage, w.sr.uuid, &sizes));
    assert_int_equal(sizes.virtual_allocation, MIB);
    fault_disarm(NULL);
    disk(&w, MIB, &stat);
    pthread_join(k.thread, NULL);
    assert_true(k.ok);
    cancel_unref(hasty.cancel);
    ok(sr_detach(w.c, w.storage, w.sr.uuid));
    assert_true(error_is(sr_clean(w.c, w.storage, w.sr.uuid), "SR_NOT_ATTACHED"));
    world_release(&w);
}

static void test_what_clearing_up_fails_with_is_told(void **state)
{
    struct world w;

    world_attached(&w);
    assert_true(fault_arm("sr.clean=error"));
    assert_true(error_is(sr_clean(w.c, w.storage, w.sr.uuid), "SR_BACKEND_FAILURE"));
    fault_disarm(NULL);
    ok(sr_clean(w.c, w.storage, w.sr.uuid));
    world_release(&w);
}

/* --- one call per SR and per VDI at a time --------------------------------------------------------------- */
#define THREADS 8

struct racer { struct world *w; pthread_t thread; const char *location; };

static void *race(void *arg)
{
    struct racer *r = arg;
    struct arena *arena = arena_new();
    struct call c = { .arena = arena, .clock = &clock_real };
    struct vdi_stat stat;

    for (int i = 0; i < 20; i++) {
        const struct vdi_create_spec spec = { .uuid = uuid_make(arena), .virtual_size = MIB, .format = "" };
        struct vdi_stat clone;
        struct error *error;

        error = sr_attach(&c, r->w->storage, &r->w->sr);
        if (error == NULL)
            error = vdi_create(&c, r->w->storage, r->w->sr.uuid, &spec, &stat);
        if (error == NULL)
            error = vdi_clone(&c, r->w->storage, r->w->sr.uuid, r->location, uuid_make(arena), &clone);
        if (error == NULL)
            error = vdi_destroy(&c, r->w->storage, r->w->sr.uuid, stat.location);
        if (error == NULL)
            error = vdi_destroy(&c, r->w->storage, r->w->sr.uuid, clone.location);
        if (error != NULL)
            break;
        r->location = r->location != NULL && i == 19 ? NULL : r->location;
    }
    arena_free(arena);
    return NULL;
}

static void test_threads(void **state)
{
    struct world w;
    struct racer racers[THREADS];
    struct vdi_stat stat, *all;
    const char *location;
    unsigned n;

    world_attached(&w);
    location = disk(&w, MIB, &stat);
    for (unsigned i = 0; i < THREADS; i++) {
        racers[i] = (struct racer) { .w = &w, .location = location };
        racers[i].thread = thread_start("racer", race, &racers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(racers[i].thread, NULL);
        assert_null(racers[i].location); /* went through to the end */
    }
    ok(sr_scan(w.c, w.storage, w.sr.uuid, &all, &n));
    assert_int_equal(n, 1);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec_errors),
        cmocka_unit_test(test_attach_is_idempotent_and_needs_the_directory),
        cmocka_unit_test(test_verbs_need_an_attached_sr),
        cmocka_unit_test(test_vdi_sizes_are_true),
        cmocka_unit_test(test_vdi_create_again_is_the_same_disk),
        cmocka_unit_test(test_vdi_limits),
        cmocka_unit_test(test_vdi_resize_only_grows),
        cmocka_unit_test(test_vdi_missing),
        cmocka_unit_test(test_vdi_clone_copies_data_and_keeps_holes),
        cmocka_unit_test(test_vdi_clone_cancelled_leaves_nothing),
        cmocka_unit_test(test_vdi_copy_between_srs),
        cmocka_unit_test(test_missing_capability),
        cmocka_unit_test(test_iso),
        cmocka_unit_test(test_fault_points),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_clearing_up_has_the_turn),
        cmocka_unit_test(test_what_clearing_up_fails_with_is_told),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
