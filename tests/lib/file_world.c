#include "tests/lib/file_world.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/uuid.h"
#include "tests/lib/image_bytes.h"
#include "tests/lib/unit.h"

#define PIECE 4096u

void file_world_ok(struct error *error, const char *file, int line)
{
    if (error != NULL)
        fail_msg("%s:%d: %s %s %s", file, line, error->code, error->n_params > 0 ? error->params[0] : "", error->n_params > 2 ? error->params[2] : "");
}

/* --- the guest's tapd ------------------------------------------------------------------------------ */
static struct guest *served(struct file_world *w, const char *location)
{
    return w->guest.location != NULL && strcmp(w->guest.location, location) == 0 ? &w->guest : NULL;
}

static struct error *live_pause(void *ctx, struct call *c, const char *location, bool *active_r)
{
    struct guest *g = served(ctx, location);

    *active_r = g != NULL;
    if (g != NULL) {
        g->paused = true;
        g->pauses++;
    }
    return NULL;
}

static void open_chain(struct file_world *w, const struct vdi_where *where)
{
    struct guest *g = &w->guest;

    g->format = arena_strdup(w->c->arena, where->format);
    g->path = arena_strdup(w->c->arena, where->path);
    g->cbt = arena_strdup(w->c->arena, where->cbt == NULL ? "" : where->cbt);
}

static struct error *live_resume(void *ctx, struct call *c, const char *location, const struct vdi_where *where)
{
    struct file_world *w = ctx;
    struct guest *g = served(w, location);

    if (g == NULL)
        return NULL;
    if (where != NULL && g->refuse_resume) {
        g->refuse_resume = false;
        return error_make(c->arena, __FILE__, __LINE__, "SR_BACKEND_FAILURE", 3, "tapd", "", "does not open");
    }
    if (where != NULL)
        open_chain(w, where);
    g->paused = false;
    return NULL;
}

static struct error *live_resized(void *ctx, struct call *c, const char *location, int64_t size)
{
    struct guest *g = served(ctx, location);

    if (g != NULL)
        g->size = size;
    return NULL;
}

static struct error *live_copy_point(void *ctx, struct call *c, const char *location, const struct vdi_where *from, const struct vdi_where *to)
{
    struct file_world *w = ctx;
    struct vdi_stat stat;
    static char buffer[PIECE];

    file_ok(w->sr.driver->vdi_stat(c, &w->sr, location, &stat));
    for (int64_t at = 0; at < stat.virtual_size; at += PIECE) {
        image_get(from->format, from->path, at, buffer, PIECE);
        if (buffer[0] != 0 || memcmp(buffer, buffer + 1, PIECE - 1) != 0)
            image_put(to->format, to->path, at, buffer, PIECE);
    }
    return NULL;
}

static struct error *live_merge(void *ctx, struct call *c, const char *location, const struct vdi_where *from, const struct vdi_where *to, bool *active_r)
{
    struct file_world *w = ctx;
    struct guest *g = served(w, location);

    *active_r = false;
    w->guest.merges++;
    image_merge(from->path, to->path, 1);
    if (w->merging != NULL)
        w->merging(w, location);
    if (call_cancelled(c))
        return error_make(c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    image_merge(from->path, to->path, UINT32_MAX);
    if (g != NULL) {
        g->paused = true;
        *active_r = true;
    }
    return NULL;
}

/* --- the SR -------------------------------------------------------------------------------------------- */
void file_world_init(struct file_world *w, const char *dir, const char *format)
{
    file_world_make(w, dir, format);
    file_world_attach(w);
}

void file_world_attach(struct file_world *w)
{
    w->sr.state = xcalloc(1, w->sr.driver->state_size + 1);
    file_ok(w->sr.driver->sr_create(w->c, &w->sr, 0));
    file_ok(w->sr.driver->sr_attach(w->c, &w->sr));
}

void file_world_make(struct file_world *w, const char *dir, const char *format)
{
    *w = (struct file_world) { .n_config = ARRAY_LEN(w->config) };
    fakecall_init(&w->fake);
    w->c = &w->fake.call;
    if (dir == NULL)
        tempdir_make(&w->dir);
    w->path = dir != NULL ? dir : tempdir_file(&w->dir, "sr");
    w->config[0] = member_of("location", value_string(w->path));
    w->config[1] = member_of("image-format", value_string(format));
    w->config[2] = w->config[3] = member_of("unused", value_string(""));
    w->live = (struct vdi_live) { w, live_pause, live_resume, live_resized, live_copy_point, live_merge };
    w->sr = (struct sr) {
        .driver = &sr_driver_file,
        .uuid = uuid_make(w->c->arena),
        .device_config = value_map(w->config, w->n_config),
        .live = &w->live,
    };
}

void file_world_reattach(struct file_world *w)
{
    file_ok(w->sr.driver->sr_detach(w->c, &w->sr));
    memset(w->sr.state, 0, w->sr.driver->state_size);
    file_ok(w->sr.driver->sr_attach(w->c, &w->sr));
}

void file_world_release(struct file_world *w)
{
    file_ok(w->sr.driver->sr_detach(w->c, &w->sr));
    xfree(w->sr.state);
    if (w->dir.arena != NULL)
        tempdir_remove(&w->dir);
    fakecall_release(&w->fake);
}

const char *file_world_uuid(struct file_world *w)
{
    return uuid_make(w->c->arena);
}

const char *file_world_vdi(struct file_world *w, int64_t size, const char *format)
{
    const struct vdi_create_spec spec = { .uuid = file_world_uuid(w), .virtual_size = size, .format = format };
    struct vdi_stat stat;

    file_ok(w->sr.driver->vdi_create(w->c, &w->sr, &spec, &stat));
    return stat.location;
}

void file_world_put(struct file_world *w, const char *location, int64_t offset, char byte)
{
    struct vdi_where where;
    char bytes[PIECE];

    memset(bytes, byte, sizeof(bytes));
    file_ok(w->sr.driver->vdi_attach(w->c, &w->sr, location, false, &where));
    image_put(where.format, where.path, offset, bytes, sizeof(bytes));
}

char file_world_get(struct file_world *w, const char *location, int64_t offset)
{
    struct vdi_where where;
    char bytes[PIECE];

    file_ok(w->sr.driver->vdi_attach(w->c, &w->sr, location, true, &where));
    image_get(where.format, where.path, offset, bytes, sizeof(bytes));
    for (unsigned i = 1; i < sizeof(bytes); i++)
        assert_int_equal(bytes[i], bytes[0]);
    return bytes[0];
}

void file_world_guest(struct file_world *w, const char *location)
{
    struct vdi_where where;

    file_ok(w->sr.driver->vdi_attach(w->c, &w->sr, location, false, &where));
    if (w->sr.driver->vdi_activate != NULL)
        file_ok(w->sr.driver->vdi_activate(w->c, &w->sr, location));
    w->guest = (struct guest) { .location = location };
    open_chain(w, &where);
}

void guest_put(struct file_world *w, int64_t offset, char byte)
{
    char bytes[PIECE];

    assert_false(w->guest.paused);
    memset(bytes, byte, sizeof(bytes));
    image_put(w->guest.format, w->guest.path, offset, bytes, sizeof(bytes));
}

unsigned file_world_count(struct file_world *w, bool hidden)
{
    struct vdi_stat *vdis;
    unsigned n, count = 0;

    file_ok(w->sr.driver->sr_scan(w->c, &w->sr, &vdis, &n));
    for (unsigned i = 0; i < n; i++)
        if (vdis[i].hidden == hidden)
            count++;
    return count;
}

void file_world_clean(struct file_world *w)
{
    bool more = true;

    for (unsigned i = 0; more; i++) {
        assert_true(i < 100);
        file_ok(w->sr.driver->sr_clean(w->c, &w->sr, &more));
    }
}
