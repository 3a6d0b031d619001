#include "storage/drivers/image_turn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/drivers/driver_error.h"

#define WAIT_MS 100  /* how often a waiter looks at its cancel flag */
#define RETRY_MS 10  /* between tries of the lock file */

int image_turn_init(struct image_turn *t, const char *lock_path)
{
    *t = (struct image_turn) { .lock_fd = -1 };
    if (lock_path != NULL) {
        t->lock_fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (t->lock_fd < 0)
            return -errno;
    }
    lock_init(&t->lock, LOCK_STORAGE);
    cond_init(&t->changed);
    return 0;
}

void image_turn_release(struct image_turn *t)
{
    CHECK(!t->taken && t->uses == NULL && t->merging == NULL);
    while (t->active != NULL) {
        struct image_use *use = t->active;

        t->active = use->next;
        xfree(use);
    }
    fd_close(&t->lock_fd);
    cond_release(&t->changed);
    lock_release(&t->lock);
}

/* --- the tree ----------------------------------------------------------------------------------- */
static struct error *take_here(struct call *c, struct image_turn *t)
{
    LOCK_SCOPE(&t->lock);
    while (t->taken) {
        if (call_cancelled(c))
            return driver_cancelled(c);
        (void)cond_wait_ms(&t->changed, &t->lock, WAIT_MS);
    }
    t->taken = true;
    return NULL;
}

static void give_here(struct image_turn *t)
{
    LOCK_SCOPE(&t->lock);
    t->taken = false;
    cond_broadcast(&t->changed);
}

static struct error *take_file(struct call *c, struct image_turn *t)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };

    while (fcntl(t->lock_fd, F_OFD_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return driver_failed(c, "locking", ".lock", errno);
        if (call_cancelled(c))
            return driver_cancelled(c);
        (void)poll(NULL, 0, RETRY_MS);
    }
    return NULL;
}

struct error *image_turn_take(struct call *c, struct image_turn *t)
{
    struct error *error = NULL;

    TRY(take_here(c, t));
    if (t->lock_fd >= 0)
        error = take_file(c, t);
    if (error != NULL)
        give_here(t);
    return error;
}

void image_turn_give(struct image_turn *t)
{
    struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_len = 1 };

    if (t->lock_fd >= 0)
        (void)fcntl(t->lock_fd, F_OFD_SETLK, &lock);
    give_here(t);
}

/* --- images ------------------------------------------------------------------------------------- */
static struct image_use **find_locked(struct image_use **list, const char *location)
{
    while (*list != NULL && strcmp((*list)->location, location) != 0)
        list = &(*list)->next;
    return list;
}

/* Until nobody merges 'location'. */
static struct error *unmerged_locked(struct call *c, struct image_turn *t, const char *location)
{
    while (t->merging != NULL && strcmp(t->merging, location) == 0) {
        if (call_cancelled(c))
            return driver_cancelled(c);
        cancel_raise(t->merge_cancel);
        (void)cond_wait_ms(&t->changed, &t->lock, WAIT_MS);
    }
    return NULL;
}

struct error *image_use_begin(struct call *c, struct image_turn *t, struct image_use *use, const char *location)
{
    LOCK_SCOPE(&t->lock);
    TRY(unmerged_locked(c, t, location));
    *use = (struct image_use) { .next = t->uses, .location = location };
    t->uses = use;
    return NULL;
}

void image_use_end(struct image_turn *t, struct image_use *use)
{
    LOCK_SCOPE(&t->lock);
    struct image_use **at = &t->uses;

    while (*at != use)
        at = &(*at)->next;
    *at = use->next;
}

struct error *image_active_set(struct call *c, struct image_turn *t, const char *location, bool active)
{
    LOCK_SCOPE(&t->lock);
    struct image_use **at;

    TRY(unmerged_locked(c, t, location));
    at = find_locked(&t->active, location);
    if (active && *at == NULL) {
        struct image_use *use = xcalloc(1, sizeof(*use) + strlen(location) + 1);

        memcpy(use + 1, location, strlen(location));
        *use = (struct image_use) { .location = (char *)(use + 1) };
        *at = use;
    } else if (!active && *at != NULL) {
        struct image_use *gone = *at;

        *at = gone->next;
        xfree(gone);
    }
    return NULL;
}

bool image_is_active(struct image_turn *t, const char *location)
{
    LOCK_SCOPE(&t->lock);
    return *find_locked(&t->active, location) != NULL;
}

bool image_merge_begin(struct image_turn *t, const char *location, struct cancel *cancel)
{
    LOCK_SCOPE(&t->lock);
    if (t->merging != NULL || *find_locked(&t->uses, location) != NULL)
        return false;
    t->merging = location;
    t->merge_cancel = cancel;
    return true;
}

void image_merge_end(struct image_turn *t)
{
    LOCK_SCOPE(&t->lock);
    t->merging = NULL;
    t->merge_cancel = NULL;
    cond_broadcast(&t->changed);
}
