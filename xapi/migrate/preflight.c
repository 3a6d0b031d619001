#include "xapi/migrate/preflight.h"

#include <string.h>

#include "rpc/base/log.h"
#include "xapi/migrate/ledger.h"
#include "xapi/migrate/migrations.h"
#include "xapi/migrate/network_choice.h"
#include "xapi/migrate/path_probe.h"

LOG_MODULE(preflight);

static bool is_cancel(const struct error *e)
{
    return error_is(e, "TASK_CANCELLED");
}

/* --- on the destination ------------------------------------------------------------------------------------------- */
struct error *preflight_verb_echo(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct value_dict d = { 0 };
    value_dict_add(c->arena, &d, "nonce", value_string(value_get_string(args, "nonce", "")));
    value_dict_add(c->arena, &d, "wall_us", value_int(path_wall_us()));
    *result_r = value_dict_value(&d);
    return NULL;
}

static struct error *back_target(struct arena *a, const struct value *args, struct http_target *t)
{
    const struct value *back = value_get(args, "back");
    struct member as_destination[] = { member_of("destination", back != NULL ? *back : value_void()) };
    struct value v = value_map(as_destination, 1);
    return migration_target(a, &v, t);
}

struct error *preflight_verb_probe(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct http_target target;
    TRY(back_target(c->arena, args, &target));
    struct path *path = NULL;
    struct path_facts facts = { 0 };
    enum path_test test = PATH_CONNECT;
    struct error *e = path_open(c, xapi, &target, 0, &path, &test);
    if (e == NULL)
        e = path_echo(path, &facts);
    path_close(path);
    if (is_cancel(e))
        return e;
    if (e != NULL) {
        *result_r = path_failure_value(c->arena, test, e);
        return NULL;
    }
    struct value_dict d = { 0 };
    value_dict_add(c->arena, &d, "rtt_us", value_int(facts.rtt_us));
    *result_r = value_dict_value(&d);
    return NULL;
}

/* --- on the source -------------------------------------------------------------------------------------------------- */
struct preflight {
    struct call *c;
    struct xapi *xapi;
    const struct value *args;
    struct http_target target;
    struct path *path;
    struct path_facts facts;
};

/* An agent verb on the destination whose answer may be a failure; the error is the peer's. */
static struct error *ask_peer(struct preflight *p, const char *verb, const struct value *args, struct value *answer_r)
{
    struct error *e = agent_call_at(p->c, p->xapi, &p->target, verb, args, answer_r);
    if (e != NULL && !is_cancel(e) && e->cause == NULL)
        e->cause = arena_printf(p->c->arena, "%s port %d: the connection stands, but %s is not answered", p->target.address, p->target.port, verb);
    return e;
}

static struct error *test_connect(struct preflight *p, enum path_test *test)
{
    TRY(path_open(p->c, p->xapi, &p->target, PATH_SAMPLE_MAX, &p->path, test));
    *test = PATH_RECEIVER;
    return path_echo(p->path, &p->facts);
}

static struct error *test_receiver(struct preflight *p, enum path_test *test)
{
    struct value answer, none = value_map(NULL, 0);
    *test = PATH_RECEIVER;
    return ask_peer(p, "migrate.echo", &none, &answer);
}

static struct error *test_back(struct preflight *p, enum path_test *test)
{
    const struct value *back = value_get(p->args, "back");
    if (back == NULL)
        return NULL;
    struct value answer;
    struct member members[] = { member_of("back", *back) };
    struct value args = value_map(members, 1);
    *test = PATH_BACK;
    TRY(ask_peer(p, "migrate.probe", &args, &answer));
    const char *before = arena_printf(p->c->arena, "the destination cannot reach this host (%s): ", value_get_string(&answer, "failed", ""));
    return path_failure_error(p->c->arena, &answer, before);
}

static struct error *test_sample(struct preflight *p, enum path_test *test)
{
    *test = PATH_SAMPLE;
    return path_sample(p->path, &p->facts);
}

static bool same_disk(const struct value *a, const struct value *b)
{
    return strcmp(value_get_string(a, "sr", ""), value_get_string(b, "sr", "")) == 0 &&
           strcmp(value_get_string(a, "location", ""), value_get_string(b, "location", "")) == 0;
}

static void add_disks(struct arena *a, struct value_list *list, const struct value *more)
{
    for (unsigned i = 0; more != NULL && more->kind == VALUE_SET && i < more->len; i++) {
        bool have = false;
        for (unsigned j = 0; j < list->n; j++)
            have = have || same_disk(&list->items[j], &more->items[i]);
        if (!have)
            value_list_add(a, list, more->items[i]);
    }
}

static struct error *test_disks(struct preflight *p, enum path_test *test)
{
    struct value_list disks = { 0 };
    add_disks(p->c->arena, &disks, value_get(p->args, "disks"));
    add_disks(p->c->arena, &disks, value_get(p->args, "shared"));
    *test = PATH_DISKS;
    if (disks.n == 0)
        return NULL;
    struct value answer;
    struct member members[] = { member_of("disks", value_list_value(&disks)) };
    struct value args = value_map(members, 1);
    TRY(ask_peer(p, "migrate.try_disks", &args, &answer));
    return path_failure_error(p->c->arena, &answer, "");
}

static struct error *run_tests(struct preflight *p, enum path_test *test)
{
    static struct error *(*const tests[])(struct preflight *, enum path_test *) = { test_connect, test_receiver, test_back, test_sample, test_disks };
    for (unsigned i = 0; i < ARRAY_LEN(tests); i++)
        TRY(tests[i](p, test));
    return NULL;
}

static struct value facts_value(struct arena *a, const struct path_facts *f, int64_t duration_us)
{
    struct value_dict d = { 0 };
    value_dict_add(a, &d, "rtt_us", value_int(f->rtt_us));
    value_dict_add(a, &d, "clock_offset_us", value_int(f->clock_offset_us));
    value_dict_add(a, &d, "bandwidth", value_int(f->there));
    value_dict_add(a, &d, "bandwidth_back", value_int(f->back));
    value_dict_add(a, &d, "mtu", value_int(f->mtu));
    value_dict_add(a, &d, "mss", value_int(f->mss));
    value_dict_add(a, &d, "duration_us", value_int(duration_us));
    return value_dict_value(&d);
}

struct error *preflight_verb_preflight(struct call *c, struct xapi *xapi, const struct value *args, struct value *result_r)
{
    struct preflight p = { .c = c, .xapi = xapi, .args = args };
    enum path_test test = PATH_CONNECT;
    int64_t began = clock_us(c->clock);
    TRY(migration_target(c->arena, args, &p.target));
    struct error *e = run_tests(&p, &test);
    path_close(p.path);
    if (is_cancel(e))
        return e;
    if (e != NULL)
        log_warn("pre-flight: %s fails: %s (%s)", path_test_name(test), error_text(c->arena, e), e->cause != NULL ? e->cause : "");
    *result_r = e != NULL ? path_failure_value(c->arena, test, e) : facts_value(c->arena, &p.facts, clock_us(c->clock) - began);
    return NULL;
}

/* --- on the coordinator ----------------------------------------------------------------------------------------------- */
/* Of the guest's own disks those that stay, or those that the destination has made. */
static struct value own_disks(struct api_call *c, const struct move *m, bool stay)
{
    struct value_list list = { 0 };
    for (unsigned i = 0; i < m->n_disks; i++) {
        const struct move_disk *d = &m->disks[i];
        const char *sr = d->target_sr_uuid, *location = d->target_location;
        if ((d->how == MOVE_DISK_STAYS) != stay || d->is_snapshot || d->is_suspend_image)
            continue;
        if (!stay && (sr == NULL || *sr == '\0' || location == NULL || *location == '\0'))
            continue;
        struct value_dict one = { 0 };
        value_dict_add(c->arena, &one, "sr", value_string(sr != NULL && *sr != '\0' ? sr : d->sr_uuid));
        value_dict_add(c->arena, &one, "location", value_string(location != NULL && *location != '\0' ? location : d->location));
        value_list_add(c->arena, &list, value_dict_value(&one));
    }
    return value_list_value(&list);
}

static struct error *preflight_args(struct api_call *c, const struct move *m, struct value *args_r)
{
    bool here = m->destination.peer == NULL;
    struct http_target back;
    TRY(network_back(c, m->from, here ? m->destination.host : NULL, &m->options, &back));
    back.cookie = m->destination.target.cookie;
    struct value_dict d = { 0 };
    value_dict_add(c->arena, &d, "destination", migration_target_value(c->arena, &m->destination.target));
    value_dict_add(c->arena, &d, "back", migration_target_value(c->arena, &back));
    value_dict_add(c->arena, &d, "disks", own_disks(c, m, false));
    value_dict_add(c->arena, &d, "shared", own_disks(c, m, true));
    *args_r = value_dict_value(&d);
    return NULL;
}

/* As strings, each under "preflight.". */
static void note_facts(struct api_call *c, const struct move *m, const struct value *answer)
{
    struct value_dict d = { 0 };
    for (unsigned i = 0; i < answer->len; i++) {
        const struct member *f = &answer->members[i];
        const char *text = f->value.kind == VALUE_INT || f->value.kind == VALUE_INT32 ? arena_printf(c->arena, "%lld", (long long)f->value.i)
                           : f->value.kind == VALUE_STRING                            ? f->value.s
                                                                                      : NULL;
        if (text != NULL)
            value_dict_add(c->arena, &d, arena_printf(c->arena, "preflight.%s", f->name), value_string(text));
    }
    if (m->destination.peer == NULL) {
        const char *fallback = network_fallback(c, m->from, m->destination.host, &m->options);
        value_dict_add(c->arena, &d, "network_fallback", value_string(fallback != NULL ? fallback : ""));
    }
    struct value facts = value_dict_value(&d);
    struct error *e = c->xapi->ledger != NULL ? ledger_add_facts(c->arena, c->xapi->ledger, m->id, LEDGER_OUT, &facts) : NULL;
    if (e != NULL)
        log_warn("migration %s: the pre-flight's facts are not in the ledger: %s", m->id, error_text(c->arena, e));
}

struct error *preflight_run(struct api_call *c, struct move *m)
{
    if (!config_bool(c->xapi->config, "migration-preflight") || (m->destination.peer == NULL && strcmp(m->from, m->destination.host) == 0))
        return NULL;
    struct value args, answer = value_void();
    TRY(preflight_args(c, m, &args));
    TRY(agent_call(c, m->from, "migrate.preflight", &args, &answer));
    if (answer.kind == VALUE_MAP)
        note_facts(c, m, &answer);
    return path_failure_error(c->arena, &answer, arena_printf(c->arena, "pre-flight, %s: ", value_get_string(&answer, "failed", "")));
}
