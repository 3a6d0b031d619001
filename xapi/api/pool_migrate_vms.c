/* pool.migrate_vms: many VMs to one host, a few at once; what cannot go is named, the others go. */
#include <ctype.h>
#include <string.h>

#include "db/change_log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/dispatch.h"
#include "xapi/core/internal_call.h"
#include "xapi/core/placement.h"
#include "xapi/core/task.h"
#include "xapi/core/xapi.h"

#define LOOK_MS 500
#define NODE_MARK "k8s-node" /* a tag, or a key of other_config: nodes of a Kubernetes cluster are moved one by one, by its operator */

struct one { const char *vm, *task, *reason; bool started, over; double progress; };
struct bulk {
    struct api_call *c;
    const struct api_pool_migrate_vms_args *a;
    struct one *ones;
    unsigned n;
    struct value token; /* of host.migrate_receive, once it is needed */
};

/* --- who cannot go ---------------------------------------------------------------------------------------------------- */
static const char *reason_of(struct arena *a, const struct error *e)
{
    const char *text = arena_printf(a, "%s [", e->code);

    for (unsigned i = 0; i < e->n_params; i++)
        text = arena_printf(a, "%s%s%s", text, i > 0 ? "; " : "", e->params[i]);
    return arena_printf(a, "%s]", text);
}

static const char *lower(struct arena *a, const char *word)
{
    char *s = arena_strdup(a, word);

    s[0] = (char)tolower((unsigned char)s[0]);
    return s;
}

static struct error *blocker(struct api_call *c, const struct row *vm, const char *operation)
{
    const struct value *blocked = value_get(row_value(vm, F_VM_blocked_operations), operation);

    if (row_bool(vm, F_VM_is_a_template) || row_bool(vm, F_VM_is_a_snapshot))
        return err_vm_is_template(c->arena, vm->ref);
    if (value_set_has(row_value(vm, F_VM_tags), NODE_MARK) || row_map(vm, F_VM_other_config, NODE_MARK, "")[0] != '\0')
        return err_operation_not_allowed(c->arena, "The VM is a node of a Kubernetes cluster (" NODE_MARK ")");
    if (strcmp(row_string(vm, F_VM_power_state), "Running") != 0)
        return err_vm_bad_power_state(c->arena, vm->ref, "running", lower(c->arena, row_string(vm, F_VM_power_state)));
    return blocked != NULL ? err_operation_blocked(c->arena, vm->ref, blocked->s) : NULL;
}

/* Can the host have its disks as they are? */
static bool disks_are_seen(struct api_call *c, const struct row *vm, const char *host)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct value *vbds = row_value(vm, F_VM_VBDs);

    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        const struct row *vdi = vbd != NULL ? txn_get(txn, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI)) : NULL;
        if (vdi != NULL && !placement_sr_attached(txn, row_string(vdi, F_VDI_SR), host))
            return false;
    }
    return true;
}

/* --- starting one --------------------------------------------------------------------------------------------------------- */
static struct error *call(struct bulk *b, const char *method, const struct value *args, unsigned n, struct value *result_r)
{
    struct api_call *c = b->c, sub;
    struct value_list params = { 0 };

    api_call_init(&sub, c->xapi, c->arena, method);
    sub.session_kind = c->session_kind;
    sub.superuser = c->superuser;
    sub.trusted = c->trusted;
    sub.peer = c->peer;
    sub.originator = c->originator;
    sub.subtask_of = c->task;
    value_list_add(c->arena, &params, value_string(c->session != NULL ? c->session : ""));
    for (unsigned i = 0; i < n; i++)
        value_list_add(c->arena, &params, args[i]);
    struct value v = value_list_value(&params);
    return dispatch(&sub, &v, result_r);
}

/* The network of the host's management interface. */
static struct error *token_get(struct bulk *b)
{
    struct api_call *c = b->c;
    struct row_list pifs = db_all(c->db, c->arena, &model_classes[CLASS_PIF]);
    const char *network = REF_NULL;

    if (b->token.kind == VALUE_MAP)
        return NULL;
    for (unsigned i = 0; i < pifs.n; i++)
        if (row_bool(pifs.rows[i], F_PIF_management) && strcmp(row_string(pifs.rows[i], F_PIF_host), b->a->host) == 0)
            network = row_string(pifs.rows[i], F_PIF_network);
    const struct value args[] = { value_string(b->a->host), value_string(network), value_map(NULL, 0) };
    return call(b, "host.migrate_receive", args, ARRAY_LEN(args), &b->token);
}

static struct error *start_with_disks(struct bulk *b, struct one *o, struct value *task_r)
{
    struct value none = value_map(NULL, 0);

    TRY(token_get(b));
    const struct value args[] = { value_string(o->vm), b->token, value_bool(true), none, none, *b->a->options };
    return call(b, "Async.VM.migrate_send", args, ARRAY_LEN(args), task_r);
}

static struct error *start_one(struct bulk *b, struct one *o)
{
    struct api_call *c = b->c;
    struct value task = value_void();
    const struct row *vm;

    TRY(db_need(c->db, c->arena, CLASS_VM, o->vm, &vm));
    if (strcmp(row_string(vm, F_VM_resident_on), b->a->host) == 0) {
        o->over = true; /* it is there */
        return NULL;
    }
    bool with_disks = !disks_are_seen(c, vm, b->a->host);
    TRY(blocker(c, vm, with_disks ? "migrate_send" : "pool_migrate"));
    if (with_disks) {
        TRY(start_with_disks(b, o, &task));
    } else {
        const struct value args[] = { value_string(o->vm), value_string(b->a->host), *b->a->options };
        TRY(call(b, "Async.VM.pool_migrate", args, ARRAY_LEN(args), &task));
    }
    o->task = task.s;
    return NULL;
}

/* --- following them ---------------------------------------------------------------------------------------------------------- */
static void end_one(struct one *o, const char *reason)
{
    o->over = true;
    o->reason = reason;
    o->progress = 1;
}

static void look_at(struct bulk *b, struct one *o)
{
    AUTO_ARENA a = arena_new(); /* a bulk may take days */
    struct api_call brief = *b->c;
    struct value ignored;

    brief.arena = brief.call.arena = a;
    const struct row *task = db_get(brief.db, a, &model_classes[CLASS_task], o->task);
    if (task == NULL) {
        end_one(o, "HANDLE_INVALID [task]: its task was destroyed; how it ended is in the history of migrations");
        return;
    }
    const char *status = row_string(task, F_task_status);
    o->progress = row_float(task, F_task_progress);
    if (strcmp(status, "pending") == 0 || strcmp(status, "cancelling") == 0)
        return;
    struct error *e = task_wait(&brief, o->task, &ignored); /* it is over: this only reads */
    end_one(o, e == NULL ? "" : reason_of(b->c->arena, e));
}

static void start_some(struct bulk *b, unsigned batch)
{
    unsigned running = 0;

    for (unsigned i = 0; i < b->n; i++)
        running += b->ones[i].started && !b->ones[i].over;
    for (unsigned i = 0; i < b->n && running < batch; i++) {
        struct one *o = &b->ones[i];
        if (o->started)
            continue;
        o->started = true;
        struct error *e = start_one(b, o);
        if (e != NULL)
            end_one(o, reason_of(b->c->arena, e));
        running += !o->over;
    }
}

/* Those that run are cancelled and waited for; the others do not begin. */
static void cancel_all(struct bulk *b)
{
    for (unsigned i = 0; i < b->n; i++) {
        struct one *o = &b->ones[i];
        if (o->started && !o->over)
            (void)task_cancel_running(b->c->xapi->tasks, o->task);
        if (!o->started) {
            o->started = true;
            end_one(o, "TASK_CANCELLED []");
        }
    }
}

static bool all_over(struct bulk *b)
{
    double progress = 0;
    bool over = true;

    for (unsigned i = 0; i < b->n; i++) {
        if (b->ones[i].started && !b->ones[i].over)
            look_at(b, &b->ones[i]);
        over = over && b->ones[i].over;
        progress += b->ones[i].over ? 1 : b->ones[i].progress;
    }
    if (b->n > 0)
        call_progress(&b->c->call, progress / b->n);
    return over;
}

static void run_all(struct bulk *b, struct api_call *calm)
{
    unsigned batch = (unsigned)config_int(b->c->xapi->config, "evacuation-batch-size");
    struct class_set tasks = { { 0 } };
    bool cancelled = false;

    class_set_add(&tasks, CLASS_task);
    for (;;) {
        uint64_t seen = db_generation(b->c->db);
        if (!cancelled && call_cancelled(&b->c->call)) {
            cancelled = true;
            cancel_all(b);
        }
        start_some(b, batch);
        if (all_over(b))
            return;
        change_log_wait(b->c->db, cancelled ? &calm->call : &b->c->call, seen, &tasks, LOOK_MS);
    }
}

struct error *api_pool_migrate_vms(struct api_call *c, const struct api_pool_migrate_vms_args *a, struct value *result_r)
{
    struct api_call calm = internal_call_cleanup(c);
    struct bulk b = { .c = c, .a = a, .n = a->vms->len };
    struct value_dict result = { 0 };

    b.ones = arena_calloc(c->arena, b.n + 1u, sizeof(*b.ones));
    for (unsigned i = 0; i < b.n; i++)
        b.ones[i] = (struct one){ .vm = a->vms->items[i].s, .reason = "" };
    task_set_cancellable(c, true);
    run_all(&b, &calm);
    if (call_cancelled(&c->call))
        return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
    for (unsigned i = 0; i < b.n; i++)
        value_dict_set(c->arena, &result, b.ones[i].vm, value_string(b.ones[i].reason));
    *result_r = value_dict_value(&result);
    return NULL;
}
