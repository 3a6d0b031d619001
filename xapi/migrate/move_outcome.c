#include "xapi/migrate/move_outcome.h"

#include <string.h>

#include "xapi/core/agent.h"
#include "xapi/core/xapi.h"
#include "xapi/migrate/migrations.h"

#define TRIES 60
#define PAUSE_MS 500

bool move_answered(const struct error *e)
{
    return !error_is(e, "CANNOT_CONTACT_HOST") && !error_is(e, "HOST_OFFLINE");
}

static bool live(struct api_call *c, const char *host_ref)
{
    const struct row *host = db_get(c->db, c->arena, &model_classes[CLASS_host], host_ref);
    const struct row *metrics = host != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics)) : NULL;
    return metrics != NULL && row_bool(metrics, F_host_metrics_live);
}

/* The source is gone with its guest: what the destination's journal says is all there is. An undecided one is aborted. */
static enum move_outcome ask_destination(struct api_call *c, const struct move *m, const struct value *args)
{
    struct value answer;
    struct error *e = m->destination.ops == &destination_local ? agent_call(c, m->destination.host, "migrate.ask", args, &answer)
                                                               : agent_call_at(&c->call, c->xapi, &m->destination.target, "migrate.ask", args, &answer);
    if (e != NULL)
        return MOVE_UNKNOWN;
    return strcmp(value_get_string(&answer, "state", ""), "COMMITTED") == 0 ? MOVE_COMMITTED : MOVE_ABORTED;
}

static enum move_outcome ask(struct api_call *c, const struct move *m)
{
    struct member members[] = { member_of("migration_id", value_string(m->attempt != NULL ? m->attempt : "")) };
    struct value args = value_map(members, ARRAY_LEN(members)), answer;
    if (m->attempt == NULL || m->attempt[0] == '\0')
        return MOVE_ABORTED; /* it was never sent */
    struct error *e = agent_call(c, m->from, "migrate.outcome", &args, &answer);
    if (e != NULL)
        return live(c, m->from) ? MOVE_UNKNOWN : ask_destination(c, m, &args);
    const char *state = value_get_string(&answer, "state", "");
    if (strcmp(state, "committed") == 0)
        return MOVE_COMMITTED;
    return strcmp(state, "aborted") == 0 ? MOVE_ABORTED : MOVE_PENDING;
}

enum move_outcome move_outcome(struct api_call *c, const struct move *m, bool patient)
{
    enum move_outcome outcome = ask(c, m);
    for (unsigned tries = 0; patient && tries < TRIES && (outcome == MOVE_UNKNOWN || outcome == MOVE_PENDING); tries++) {
        if (!migrations_pause(c->xapi->migrations, PAUSE_MS))
            break;
        outcome = ask(c, m);
    }
    return outcome;
}
