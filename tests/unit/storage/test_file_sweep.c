/* Every step of every operation on the tree of images: killed there, or failing there. After a kill the next attach
 * finds the old tree or the new one, and the operation, asked for again, succeeds; after a failure all is as before. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "storage/image/cbt_log.h"
#include "storage/image/image.h"
#include "tests/lib/file_world.h"
#include "tests/lib/unit.h"

#define MIB ((int64_t)1 << 20)
#define VDI "00000000-0000-4000-8000-0000000000aa"
#define OLD "00000000-0000-4000-8000-0000000000bb" /* a snapshot of it */
#define MADE "00000000-0000-4000-8000-0000000000cc"

static const struct sr_driver *const driver = &sr_driver_file;

/* --- the operations ------------------------------------------------------------------------------------ */
static struct error *do_snapshot(struct file_world *w)
{
    struct vdi_stat stat;

    return driver->vdi_snapshot(w->c, &w->sr, VDI, MADE, &stat);
}

static struct error *do_clone(struct file_world *w)
{
    struct vdi_stat stat;

    return driver->vdi_clone(w->c, &w->sr, VDI, MADE, &stat);
}

static struct error *do_revert(struct file_world *w)
{
    struct vdi_stat stat;

    w->guest.location = NULL;
    return driver->vdi_revert(w->c, &w->sr, VDI, OLD, &stat);
}

/* The snapshot was written to: it becomes a base itself. */
static struct error *do_revert_written(struct file_world *w)
{
    file_world_put(w, OLD, 8 * MIB, 'x');
    return do_revert(w);
}

static struct error *do_resize(struct file_world *w)
{
    struct vdi_stat stat;

    return driver->vdi_resize(w->c, &w->sr, VDI, 6000 * MIB, &stat);
}

static struct error *do_create(struct file_world *w)
{
    const struct vdi_create_spec spec = { .uuid = MADE, .virtual_size = MIB, .format = "" };
    struct vdi_stat stat;

    return driver->vdi_create(w->c, &w->sr, &spec, &stat);
}

static struct error *do_destroy(struct file_world *w)
{
    return driver->vdi_destroy(w->c, &w->sr, OLD);
}

/* The oldest state goes, then what is left of it. */
static struct error *do_clean(struct file_world *w)
{
    struct error *error = driver->vdi_destroy(w->c, &w->sr, OLD);
    bool more = true;

    for (int i = 0; error == NULL && more && i < 20; i++)
        error = driver->sr_clean(w->c, &w->sr, &more);
    return error;
}

/* A base below a base: its children move down. */
static struct error *do_adopt(struct file_world *w)
{
    TRY(do_snapshot(w));
    return do_clean(w);
}

static struct error *do_data_destroy(struct file_world *w)
{
    return driver->vdi_data_destroy(w->c, &w->sr, OLD);
}

static struct error *do_disable(struct file_world *w)
{
    return driver->vdi_disable_cbt(w->c, &w->sr, VDI);
}

#define STEPS_FORK "journal link child made flush pause commit publish commit-flush resume hide done"
static const struct operation {
    const char *name, *family, *format, *steps;
    struct error *(*run)(struct file_world *);
    bool fails_quietly; /* a background step that fails is no error */
} operations[] = {
    { "snapshot", "snapshot", "vhd", STEPS_FORK, do_snapshot, false },
    { "snapshot", "snapshot", "raw", "part journal pause log copy publish", do_snapshot, false },
    { "clone", "clone", "vhd", STEPS_FORK, do_clone, false },
    { "clone", "clone", "raw", "part copy publish", do_clone, false },
    { "revert", "revert", "vhd", "child publish", do_revert, false },
    { "revert-written", "revert", "vhd", STEPS_FORK, do_revert_written, false },
    { "revert", "revert", "raw", "part copy publish", do_revert, false },
    { "resize", "resize", "vhd", "pause log image", do_resize, false },
    { "create", "create", "vhd", "image name", do_create, false },
    { "destroy", "destroy", "vhd", "image", do_destroy, false },
    { "clean", "fold", "vhd", "journal commit show done", do_clean, true },
    { "clean", "clean", "vhd", "merge", do_clean, true },
    { "clean", "cbt", "vhd", "remove unlink", do_clean, true },
    { "adopt", "adopt", "vhd", "journal link done", do_adopt, true },
    { "adopt", "clean", "vhd", "merge remove", do_adopt, true },
    { "data-destroy", "destroy", "vhd", "image", do_data_destroy, false },
    { "disable", "cbt", "vhd", "remove unlink", do_disable, false },
};

/* --- the world before and after -------------------------------------------------------------------------- */
static struct vdi_stat made_exactly(struct file_world *w, const char *uuid, const char *format)
{
    const struct vdi_create_spec spec = { .uuid = uuid, .virtual_size = 16 * MIB, .format = format };
    struct vdi_stat stat;

    file_ok(driver->vdi_create(w->c, &w->sr, &spec, &stat));
    return stat;
}

/* 'a' then 'A' at 0, 'b' at 4 MiB; OLD is the state with 'a'. Changes are tracked (vhd). */
static void world_before(const char *dir, const char *format)
{
    struct file_world w;
    struct vdi_stat stat;
    struct cbt_log *log;

    file_world_init(&w, dir, format);
    made_exactly(&w, VDI, format);
    file_world_put(&w, VDI, 0, 'a');
    file_world_put(&w, VDI, 4 * MIB, 'b');
    file_ok(driver->vdi_enable_cbt(w.c, &w.sr, VDI));
    file_ok(driver->vdi_snapshot(w.c, &w.sr, VDI, OLD, &stat));
    file_world_put(&w, VDI, 0, 'A');
    assert_int_equal(cbt_log_open(arena_printf(w.c->arena, "%s/%s.cbtlog", dir, VDI), &log), 0);
    assert_int_equal(cbt_log_mark(log, 0, 4096), 0);
    assert_int_equal(cbt_log_close(log), 0);
    file_world_release(&w);
}

static bool exists(struct file_world *w, const char *location)
{
    struct vdi_stat stat;
    struct error *error = driver->vdi_stat(w->c, &w->sr, location, &stat);

    assert_true(error == NULL || error_is(error, "VDI_MISSING"));
    return error == NULL && !stat.cbt_metadata;
}

static void no_leftovers(const char *dir)
{
    DIR *d = opendir(dir);

    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;)
        if (strstr(entry->d_name, ".part") != NULL || strstr(entry->d_name, ".journal") != NULL)
            fail_msg("left behind: %s", entry->d_name);
    closedir(d);
}

/* What holds before, in between and after. */
static void check_world(struct file_world *w, const struct operation *o)
{
    char now = file_world_get(w, VDI, 0);
    struct vdi_stat *vdis;
    unsigned n, visible = 0;

    assert_true(now == 'A' || ((o->run == do_revert || o->run == do_revert_written) && now == 'a'));
    assert_int_equal(file_world_get(w, VDI, 4 * MIB), 'b');
    if (exists(w, OLD)) {
        assert_int_equal(file_world_get(w, OLD, 0), 'a');
        assert_int_equal(file_world_get(w, OLD, 4 * MIB), 'b');
    } else
        assert_true(o->run == do_destroy || o->run == do_clean || o->run == do_adopt || o->run == do_data_destroy);
    if (exists(w, MADE) && o->run != do_create) {
        assert_int_equal(file_world_get(w, MADE, 0), 'A');
        assert_int_equal(file_world_get(w, MADE, 4 * MIB), 'b');
    }
    file_ok(driver->sr_scan(w->c, &w->sr, &vdis, &n));
    for (unsigned i = 0; i < n; i++) {
        if (vdis[i].hidden || vdis[i].cbt_metadata)
            continue;
        visible++;
        assert_true(strcmp(vdis[i].location, VDI) == 0 || strcmp(vdis[i].location, OLD) == 0 || strcmp(vdis[i].location, MADE) == 0);
    }
    assert_true(visible >= 1 && visible <= 3);
    no_leftovers(w->path);
}

static void check_images(struct file_world *w)
{
    struct vdi_stat *vdis;
    unsigned n;

    file_ok(driver->sr_scan(w->c, &w->sr, &vdis, &n));
    for (unsigned i = 0; i < n; i++)
        if (strcmp(vdis[i].format, "vhd") == 0)
            file_ok(image_vhd.check(w->c, arena_printf(w->c->arena, "%s/%s.vhd", w->path, vdis[i].location)));
}

/* Changes between OLD and VDI are known as long as they are tracked, and are no fewer than what changed. */
static void check_log(struct file_world *w, const struct operation *o)
{
    uint8_t *bitmap;
    size_t len;
    struct error *error = driver->vdi_changed_blocks(w->c, &w->sr, OLD, VDI, &bitmap, &len);

    if (o->run == do_disable || o->run == do_destroy || o->run == do_clean || o->run == do_adopt)
        return;
    file_ok(error);
    assert_int_equal(bitmap[0] & 0x80, 0x80);
}

/* The VDI is in use, so far as 'raw' without tapd allows. */
static void guest_sits_down(struct file_world *w)
{
    file_world_guest(w, VDI);
}

/* --- killed -------------------------------------------------------------------------------------------------- */
static void kill_run(const struct operation *o, const char *dir)
{
    struct file_world w;
    struct error *error;

    fault_init_from_env();
    file_world_make(&w, dir, o->format);
    file_world_attach(&w);
    guest_sits_down(&w);
    error = o->run(&w);
    exit(error == NULL ? 0 : 1);
}

/* True when it died at the point. */
static bool killed_at(struct arena *arena, const struct operation *o, const char *point, const char *dir)
{
    const char *const argv[] = { "/proc/self/exe", "--run", arena_printf(arena, "%u", (unsigned)(o - operations)), dir, NULL };
    const char *const env[] = { arena_printf(arena, "FAULTS=%s=crash", point), "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output;
    int status;

    spec.argv = argv;
    spec.env = env;
    assert_int_equal(child_run(arena, &spec, 60000, 65536, &status, &output), 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    print_message("%s: status %#x\n%s", point, (unsigned)status, output);
    return false;
}

static void sweep_kill(const struct operation *o, const char *point)
{
    struct tempdir dir;
    struct file_world w;
    AUTO_ARENA arena = arena_new();

    tempdir_make(&dir);
    world_before(dir.path, o->format);
    if (!killed_at(arena, o, point, dir.path))
        fail_msg("%s is not on the way of %s %s", point, o->name, o->format);
    file_world_make(&w, dir.path, o->format);
    w.guest = (struct guest) { .location = VDI, .format = o->format, .path = arena_printf(arena, "%s/%s.%s", dir.path, VDI, o->format), .paused = true };
    file_world_attach(&w);
    check_world(&w, o);
    check_images(&w);
    check_log(&w, o);
    guest_sits_down(&w);
    file_ok(o->run(&w)); /* the caller asks again */
    check_world(&w, o);
    check_log(&w, o);
    if (o->run == do_snapshot || o->run == do_clone || o->run == do_create)
        assert_true(exists(&w, MADE));
    w.guest.location = NULL;
    file_world_clean(&w);
    check_world(&w, o);
    check_images(&w);
    file_world_release(&w);
    tempdir_remove(&dir);
}

/* --- failing ------------------------------------------------------------------------------------------------- */
static void sweep_error(const struct operation *o, const char *point)
{
    struct tempdir dir;
    struct file_world w;
    AUTO_ARENA arena = arena_new();
    unsigned before;
    struct error *error;

    tempdir_make(&dir);
    world_before(dir.path, o->format);
    file_world_init(&w, dir.path, o->format);
    guest_sits_down(&w);
    before = file_world_count(&w, false) + file_world_count(&w, true);
    assert_true(fault_arm(arena_printf(arena, "%s=error", point)));
    error = o->run(&w);
    fault_disarm(NULL);
    assert_false(w.guest.paused);
    check_world(&w, o);
    check_log(&w, o);
    if (error != NULL && !o->fails_quietly && o->run != do_destroy)
        assert_int_equal(file_world_count(&w, false) + file_world_count(&w, true), before);
    file_ok(o->run(&w));
    check_world(&w, o);
    check_images(&w);
    file_world_release(&w);
    tempdir_remove(&dir);
}

static void each_point(void (*sweep)(const struct operation *, const char *point))
{
    AUTO_ARENA arena = arena_new();

    for (unsigned i = 0; i < ARRAY_LEN(operations); i++) {
        const struct operation *o = &operations[i];

        for (const char *at = o->steps; *at != '\0';) {
            size_t n = strcspn(at, " ");

            sweep(o, arena_printf(arena, "sr.file.%s.%s", o->family, arena_strndup(arena, at, n)));
            at += n + (at[n] == ' ');
        }
    }
}

static void test_killed_at_every_step(void **state)
{
    each_point(sweep_kill);
}

static void test_failing_at_every_step(void **state)
{
    each_point(sweep_error);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_at_every_step),
        cmocka_unit_test(test_failing_at_every_step),
    };

    if (argc == 4 && strcmp(argv[1], "--run") == 0)
        kill_run(&operations[strtoul(argv[2], NULL, 10)], argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
