/* Before the switch: cut-over windows, and those that wait for somebody's word. */
#include <poll.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/move_notes.h"
#include "xapi/migrate/queue.h"

#define DAY_S 86400
#define LOOK_MS 200

/* "HH:MM" as seconds of the day. */
static int64_t seconds_of(const char *t)
{
    return ((t[0] - '0') * 10 + (t[1] - '0')) * 3600 + ((t[3] - '0') * 10 + (t[4] - '0')) * 60;
}

bool queue_window_open(const char *window, int64_t wall)
{
    int64_t from = seconds_of(window), to = seconds_of(window + 6), now = wall % DAY_S;

    if (from == to)
        return true; /* all day */
    return from < to ? now >= from && now < to : now >= from || now < to;
}

static bool released(struct api_call *c)
{
    const struct row *task = c->task != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_task], c->task) : NULL;
    return task == NULL || strcmp(row_map(task, F_task_other_config, "release", ""), "true") == 0; /* without a task nobody could say it */
}

bool queue_may_switch(struct api_call *c, const struct move_options *o, const char **waits_for_r)
{
    *waits_for_r = "";
    if (o->hold && !released(c))
        *waits_for_r = "release";
    else if (o->window != NULL && !queue_window_open(o->window, clock_wall(c->call.clock)))
        *waits_for_r = "window";
    return (*waits_for_r)[0] == '\0';
}

static bool look(const struct api_call *c, const struct move_options *o, const char **told)
{
    AUTO_ARENA a = arena_new();
    struct api_call brief = *c;
    const char *waits_for;

    brief.arena = brief.call.arena = a;
    bool may = queue_may_switch(&brief, o, &waits_for);
    if (strcmp(waits_for, *told) == 0)
        return may;
    struct member note[] = { member_of("waiting_for", value_string(waits_for)) };
    struct value v = value_map(note, 1);
    move_notes_write(&brief, &v);
    *told = waits_for;
    return may;
}

struct error *queue_before_switch(struct api_call *c, const struct move_options *o)
{
    struct call *call = &c->call;
    struct pollfd fd = { .fd = call->cancel != NULL ? cancel_fd(call->cancel) : -1, .events = POLLIN };
    const char *told = "";

    while (!look(c, o, &told)) {
        (void)poll(&fd, 1, LOOK_MS);
        if (call_cancelled(call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        if (c->xapi->migrations != NULL && !migrations_pause(c->xapi->migrations, 0))
            return err_internal(c->arena, "this host's daemon is stopping");
    }
    return NULL;
}
