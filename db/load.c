/* Tables are read and rows packed by a few threads, each with a connection of its own; the rows are then
 * put into the store by one, class by class, in order of creation. */
#include "db/load.h"

#include <string.h>
#include <unistd.h>

#include "db/inverse.h"
#include "db/sqlite.h"
#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

#define THREADS_MAX 4

struct loaded {
    uint64_t id;
    struct row *row;
};
struct class_rows {
    struct loaded *rows;
    unsigned n, cap;
};

struct load {
    struct db *db;
    uint64_t generation;
    atomic_uint next_class;
    struct class_rows *classes; /* model_n_classes; each filled by one thread */
};

struct loader {
    struct load *load;
    struct sqlite *disk;
    struct arena *arena;
    struct error *error;
    pthread_t thread;
};

static struct error *keep_row(void *ctx, struct arena *arena, const struct class_info *class,
                              const struct sqlite_object *object)
{
    struct load *load = ctx;
    struct class_rows *rows = &load->classes[class->id];

    if (object->ref == NULL)
        return err_internal(arena, "the table %s is damaged: a row without a ref", class->name);
    if (rows->n == rows->cap) {
        rows->cap = rows->cap != 0 ? rows->cap * 2 : 16;
        rows->rows = xrealloc(rows->rows, rows->cap * sizeof(*rows->rows));
    }
    rows->rows[rows->n++] = (struct loaded){
        .id = object->id,
        .row = row_new(class, object->ref, object->created, load->generation, object->fields),
    };
    return NULL;
}

static void *loader_run(void *arg)
{
    struct loader *l = arg;
    for (unsigned i; l->error == NULL && (i = atomic_fetch_add(&l->load->next_class, 1)) < model_n_classes;)
        if (class_is_stored(&model_classes[i]))
            l->error = sqlite_load(l->arena, l->disk, &model_classes[i], keep_row, l->load);
    return NULL;
}

/* How many threads beside this one: none for a file behind a test's VFS, to keep that simple, nor for one
 * that is only looked at, beside which no connection may leave files. */
static unsigned helpers_wanted(const struct db *db)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (db->vfs != NULL || db->lock_fd < 0 || cpus < 2)
        return 0;
    return cpus > THREADS_MAX ? THREADS_MAX - 1 : (unsigned)cpus - 1;
}

static struct error *read_tables(struct arena *arena, struct load *load)
{
    struct loader self = { .load = load, .disk = load->db->disk, .arena = arena }, helpers[THREADS_MAX];
    unsigned n = 0, wanted = helpers_wanted(load->db);

    for (; n < wanted; n++) {
        helpers[n] = (struct loader){ .load = load, .arena = arena_new() };
        if (sqlite_open_reader(helpers[n].arena, load->db->path, &helpers[n].disk) != NULL) {
            arena_free(helpers[n].arena); /* then without it */
            break;
        }
        helpers[n].thread = thread_start("db-load", loader_run, &helpers[n]);
    }
    (void)loader_run(&self);
    for (unsigned i = 0; i < n; i++) {
        CHECK(pthread_join(helpers[i].thread, NULL) == 0);
        if (self.error == NULL)
            self.error = error_dup(arena, helpers[i].error);
        sqlite_close(helpers[i].disk);
        arena_free(helpers[i].arena);
    }
    return self.error;
}

static struct error *put_row(struct arena *arena, struct load *load, const struct loaded *loaded)
{
    struct db *db = load->db;
    struct row *row = loaded->row;
    const struct class_info *class = row->class;
    const char *uuid = row_string(row, 0);

    if (store_find_ref(db, row->ref, slot_is_visible) != NULL)
        return err_internal(arena, "the table %s is damaged: the ref %s appears twice", class->name, row->ref);
    if (store_find_uuid(db, class, uuid, slot_is_visible) != NULL)
        return err_internal(arena, "the table %s is damaged: the uuid %s appears twice", class->name, uuid);
    struct slot *slot = store_add_locked(db, class, loaded->id, row->ref, uuid);
    slot->newest = row_ref(row);
    store_show_locked(db, slot, row, load->generation);
    if (loaded->id > db->next_id)
        db->next_id = loaded->id;
    return NULL;
}

static struct error *put_rows(struct arena *arena, struct load *load)
{
    size_t n = 0;
    for (unsigned i = 0; i < model_n_classes; i++)
        n += load->classes[i].n;
    index_reserve(&load->db->by_ref, n);
    index_reserve(&load->db->by_uuid, n);
    for (unsigned i = 0; i < model_n_classes; i++)
        for (unsigned k = 0; k < load->classes[i].n; k++)
            TRY(put_row(arena, load, &load->classes[i].rows[k]));
    return NULL;
}

static void load_release(struct load *load)
{
    for (unsigned i = 0; i < model_n_classes; i++) {
        for (unsigned k = 0; k < load->classes[i].n; k++)
            row_unref(load->classes[i].rows[k].row);
        xfree(load->classes[i].rows);
    }
    xfree(load->classes);
}

/* Every object counts as changed at the start: what is volatile was lost, so a token from before
 * must see all of them again. */
struct error *load_all(struct arena *arena, struct db *db)
{
    uint64_t ceiling;
    TRY(sqlite_ceiling(arena, db->disk, &ceiling));
    struct load load = { .db = db,
                         .generation = ceiling + 1,
                         .classes = xcalloc(model_n_classes, sizeof(struct class_rows)) };

    struct error *error = read_tables(arena, &load);
    if (error == NULL)
        error = put_rows(arena, &load);
    load_release(&load);
    if (error != NULL)
        return error;
    inverse_load(db);
    db->assigned = load.generation;
    atomic_store(&db->generation, load.generation);
    return NULL;
}
