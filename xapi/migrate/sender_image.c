/* The image: xenops_save onto the memory streams, watched. A write to a peer that does not read blocks for as long as it
 * likes: cancelling breaks the streams, and so does a peer that takes nothing for migration-silence-s while some is waiting. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/work.h"
#include "xapi/migrate/sender.h"
#include "xenops/stream/confirm.h"

#define LOOK_MS 500
#define CLOSE_MS 10000 /* for the disks of a guest that stands */

/* --- callbacks ------------------------------------------------------------------------------------------ */
static void on_progress(void *ctx, const struct save_progress *p)
{
    struct sender *s = ctx;

    if (p->suspended) { /* the first such report is before the last pages, the last one after them */
        s->last_us[1] = clock_us(s->c->clock);
        if (s->last_us[0] == 0)
            s->last_us[0] = s->last_us[1];
    }
    lock_take(&s->lock);
    s->progress = *p;
    lock_drop(&s->lock);
    call_progress(s->c, 0.02 + 0.93 * p->fraction);
}

/* A mirror that is lost is better told now than inside the blackout. */
static struct error *on_last_moment(void *ctx, struct call *c)
{
    struct sender *s = ctx;
    return migration_disks_ready(c, s->m->xapi, &s->disks);
}

static struct error *on_suspended(void *ctx, struct call *c)
{
    struct sender *s = ctx;
    struct call soon = *c; /* the guest stands: a disk that is lost just now is not waited for */
    soon.deadline_ms = clock_ms(c->clock) + CLOSE_MS;
    TRY(sender_note(s, JOURNAL_SUSPENDED));
    return migration_disks_close(&soon, s->m->xapi, &s->disks);
}

static void on_way_back(void *ctx, struct call *c)
{
    struct sender *s = ctx;
    migration_disks_reopen(c, s->m, s->id, &s->disks);
}

/* --- the watch ------------------------------------------------------------------------------------------ */
struct watch { struct sender *s; uint64_t moved; int64_t moved_ms; bool silent; };

static void break_streams(struct sender *s)
{
    for (unsigned i = 0; i < s->n_streams; i++)
        bytes_abort(s->raw[i]);
}

/* Has any byte moved since the last look, or is none waiting? */
static bool moving(struct watch *w)
{
    uint64_t moved = 0;
    bool waiting = false;

    for (unsigned i = 0; i < w->s->n_streams; i++) {
        struct confirm_state state;
        confirm_look(w->s->confirmed[i], &state);
        moved += state.written + state.confirmed;
        waiting = waiting || state.writing || state.confirmed < state.written;
    }
    if (waiting && moved == w->moved)
        return false;
    w->moved = moved;
    return true;
}

static void *watch_run(void *arg)
{
    struct watch *w = arg;
    struct sender *s = w->s;
    struct pollfd fds[] = { { .fd = s->c->cancel != NULL ? cancel_fd(s->c->cancel) : -1, .events = POLLIN }, { .fd = s->done_fd, .events = POLLIN } };

    w->moved_ms = clock_ms(s->c->clock);
    for (;;) {
        int r = poll(fds, ARRAY_LEN(fds), LOOK_MS);
        int64_t now = clock_ms(s->c->clock);
        if (fds[1].revents != 0)
            return NULL;
        if (r > 0 && fds[0].revents != 0)
            break;
        if (s->confirmed[0] == NULL || moving(w))
            w->moved_ms = now;
        if (now - w->moved_ms < s->silence_ms)
            continue;
        w->silent = true;
        break;
    }
    break_streams(s);
    return NULL;
}

/* When the save fails because the stream broke, cancelling or the destination's own word tells why. */
static bool is_ours(const struct error *own)
{
    static const char *const codes[] = { SAVE_YIELDED, SAVE_NO_CONVERGENCE, SAVE_TIMEOUT, "VM_BAD_POWER_STATE", "DOMAIN_NOT_FOUND" };
    for (unsigned i = 0; i < ARRAY_LEN(codes); i++)
        if (error_is(own, codes[i]))
            return true;
    return false;
}

static struct error *peer_word(struct sender *s, struct error *own, bool silent)
{
    struct error *peer = NULL;
    if (call_cancelled(s->c)) /* it broke because the watch broke it */
        return error_make(s->c->arena, __FILE__, __LINE__, "TASK_CANCELLED", 0);
    if (is_ours(own))
        return own;
    if (silent)
        return sender_contact_failed(s, "the destination takes nothing any more", -ETIMEDOUT);
    if (sender_hear(s, s->vm, -1, 1000, &peer) == 0 && peer != NULL)
        return peer;
    return own;
}

struct error *sender_save(struct sender *s)
{
    const struct save_callbacks callbacks = { .ctx = s, .progress = on_progress, .before_suspend = on_last_moment, .after_suspend = on_suspended, .before_resume = on_way_back };
    AUTO_FD done_fd = eventfd(0, EFD_CLOEXEC);
    struct watch watch = { .s = s };

    if (done_fd < 0)
        return err_internal(s->c->arena, "no descriptor for the watch over the memory stream");
    s->done_fd = done_fd;
    pthread_t watcher = thread_start("migrate-watch", watch_run, &watch);
    struct error *e = xenops_save(s->c, s->m->xapi->xenops, s->vm_uuid, s->mem, &s->policy, &callbacks, &s->saved);
    (void)!eventfd_write(done_fd, 1);
    CHECK(pthread_join(watcher, NULL) == 0);
    return e == NULL ? NULL : peer_word(s, e, watch.silent);
}
