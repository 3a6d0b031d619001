#include "xapi/migrate/disk_mirror.h"

#include <poll.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/task.h"
#include "xapi/migrate/disk_move.h"
#include "xapi/migrate/migrations.h"
#include "xapi/pool/storage_errors.h"

LOG_MODULE(disk_mirror);

#define POLL_MS 100
#define LOST_HOST_TRIES 100 /* a host that does not answer is asked this often before the move is given up */

struct error *disk_mirror_verb(struct api_call *c, const struct disk_mirror *m, const char *name, const struct member *more, unsigned n,
                               struct value *result_r)
{
    struct value_dict args = { 0 };
    struct value v, ignored;

    value_dict_add(c->arena, &args, "sr", value_string(m->sr_uuid));
    value_dict_add(c->arena, &args, "location", value_string(m->location));
    for (unsigned i = 0; i < n; i++)
        value_dict_set(c->arena, &args, more[i].name, more[i].value);
    v = value_dict_value(&args);
    return storage_error(c, agent_call(c, m->host, name, &v, result_r != NULL ? result_r : &ignored), m->sr, m->vdi);
}

struct error *disk_mirror_look(struct api_call *calm, struct disk_mirror *m)
{
    struct error *e = disk_mirror_verb(calm, m, "vdi.mirror_status", NULL, 0, &m->status);

    if (!error_is(e, "CANNOT_CONTACT_HOST") && !error_is(e, "HOST_OFFLINE")) {
        m->lost = 0;
        return e;
    }
    m->unknown = ++m->lost >= LOST_HOST_TRIES; /* the host's tapd goes on by itself meanwhile */
    m->status = value_map(NULL, 0);
    return m->unknown ? e : NULL;
}

const char *disk_mirror_state(const struct disk_mirror *m)
{
    return m->status.kind == VALUE_MAP ? value_get_string(&m->status, "mirror", "") : "";
}

struct error *disk_mirror_failed(struct api_call *c, const struct disk_mirror *m, const char *why)
{
    struct error *e = err_mirror_failed(c->arena, m->vdi);

    e->cause = why;
    task_note(c, "migrate:error", why);
    return e;
}

struct error *disk_mirror_cause(struct api_call *c, const struct disk_mirror *m)
{
    const char *why = value_get_string(&m->status, "mirror_error", "");

    return disk_mirror_failed(c, m, why[0] != '\0' ? why : "the mirror has gone");
}

int64_t disk_mirror_wanted_bandwidth(struct api_call *c, int64_t fallback)
{
    const struct row *task = c->task != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_task], c->task) : NULL;
    const char *wanted = task != NULL ? row_map(task, F_task_other_config, "bandwidth", "") : "";
    int64_t bandwidth;

    return wanted[0] != '\0' && disk_move_bandwidth(wanted, &bandwidth) ? bandwidth : fallback;
}

void disk_mirror_limit(struct api_call *c, struct disk_mirror *m, int64_t bandwidth)
{
    const struct member args[] = { member_of("bandwidth", value_int(bandwidth)), member_of("budget_us", value_int(-1)) };

    if (bandwidth == m->bandwidth)
        return;
    struct error *e = disk_mirror_verb(c, m, "vdi.mirror_set", args, ARRAY_LEN(args), NULL);
    if (e != NULL)
        log_warn("disk %s: bandwidth stays as it was: %s", m->location, error_text(c->arena, e));
    else
        m->bandwidth = bandwidth;
}

void disk_mirror_tell(struct api_call *c, int64_t eta_ms, int64_t left)
{
    task_note(c, "migrate:eta_ms", arena_printf(c->arena, "%lld", (long long)eta_ms));
    if (eta_ms < 0)
        task_note(c, "migrate:will_not_converge", arena_printf(c->arena, "%lld bytes would stay behind", (long long)left));
}

struct error *disk_mirror_rest(struct api_call *c)
{
    struct call *call = &c->call;
    struct pollfd fd = { .fd = call->cancel != NULL ? cancel_fd(call->cancel) : -1, .events = POLLIN };
    int rc = poll(&fd, 1, POLL_MS);

    if (call_cancelled(call))
        return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
    if (rc < 0 || !migrations_pause(c->xapi->migrations, 0))
        return err_internal(c->arena, "this host's daemon is stopping");
    return NULL;
}
