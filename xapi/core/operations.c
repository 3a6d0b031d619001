#include "xapi/core/operations.h"

#include <string.h>

#include "rpc/base/lock.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "xapi/core/allowed.h"
#include "xapi/core/task.h"
#include "xapi/core/xapi.h"

LOG_MODULE(operations);

#define WAIT_TOTAL_MS (2 * 60 * 60 * 1000) /* specs §2.9 */
#define WAIT_STEP_MS 1000
#define WAITERS_MAX 100

struct operations {
    struct lock lock; /* class OPERATIONS: waiters */
    unsigned waiters;
};

static const struct operation_rules *const all_rules[] = { &allowed_vm, &allowed_host, &allowed_vdi,  &allowed_vbd,
                                                           &allowed_vif, &allowed_sr,  &allowed_pool, &allowed_task };

struct operations *operations_new(struct xapi *xapi)
{
    struct operations *o = xcalloc(1, sizeof *o);
    lock_init(&o->lock, LOCK_OPERATIONS);
    return o;
}

void operations_free(struct operations *o)
{
    if (o == NULL)
        return;
    lock_release(&o->lock);
    xfree(o);
}

static const struct operation_rules *rules_of(unsigned class_id)
{
    for (unsigned i = 0; i < ARRAY_LEN(all_rules); i++)
        if (all_rules[i]->class_id == class_id)
            return all_rules[i];
    return NULL;
}

bool one_of(const char *s, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(s, *list) == 0)
            return true;
    return false;
}

struct error *allowed_conflict(struct api_call *c, const char *class_name, const struct row *row, const struct value *current,
                               const char *separator, bool always_braces, const char *(*spelling)(const char *))
{
    AUTO_TEXT ops = TEXT_INIT;
    AUTO_TEXT tasks = TEXT_INIT;
    bool braces = always_braces || current->len > 1;
    text_add(&ops, braces ? "{" : "");
    text_add(&tasks, braces ? "{" : "");
    for (unsigned i = 0; i < current->len; i++) {
        const char *op = current->members[i].value.s;
        text_printf(&ops, "%s%s", i == 0 ? "" : separator, spelling != NULL ? spelling(op) : op);
        text_printf(&tasks, "%s%s", i == 0 ? "" : separator, current->members[i].name);
    }
    text_add(&ops, braces ? "}" : "");
    text_add(&tasks, braces ? "}" : "");
    return err_other_operation_in_progress(c->arena, class_name, row->ref, ops.bytes, tasks.bytes);
}

struct error *operation_check_vm(struct api_call *c, struct txn *txn, const struct row *vm, const char *operation, bool strict)
{
    return allowed_vm.check(c, txn, vm, operation, strict);
}

struct error *operation_check(struct api_call *c, struct txn *txn, unsigned class_id, const struct row *row, const char *operation, bool strict)
{
    const struct operation_rules *rules = rules_of(class_id);
    return rules != NULL ? rules->check(c, txn, row, operation, strict) : NULL;
}

/* --- allowed_operations ---------------------------------------------------------------------------------- */
struct error *operations_update(struct api_call *c, struct txn *txn, unsigned class_id, const char *ref)
{
    const struct operation_rules *rules = rules_of(class_id);
    if (rules == NULL)
        return NULL;
    const struct row *row;
    TRY(txn_need(txn, class_id, ref, &row));
    const struct type_info *set = model_classes[class_id].fields[rules->allowed_field].type;
    const struct enum_info *names = set->item->enum_info;
    struct value_list list = { 0 };
    for (unsigned i = 0; i < names->n_values; i++)
        if (rules->published(c, row, names->values[i]) && rules->check(c, txn, row, names->values[i], true) == NULL)
            value_list_add(c->arena, &list, value_string(names->values[i]));
    return txn_set(txn, class_id, ref, rules->allowed_field, value_list_value(&list));
}

static struct error *update_if_there(struct api_call *c, struct txn *txn, unsigned class_id, const char *ref)
{
    return txn_get(txn, &model_classes[class_id], ref) != NULL ? operations_update(c, txn, class_id, ref) : NULL;
}

static struct error *update_all(struct api_call *c, struct txn *txn, unsigned class_id, const struct value *refs)
{
    for (unsigned i = 0; i < refs->len; i++)
        TRY(update_if_there(c, txn, class_id, refs->items[i].s));
    return NULL;
}

static struct error *update_disk_users(struct api_call *c, struct txn *txn, const char *vdi_ref)
{
    const struct row *vdi = txn_get(txn, &model_classes[CLASS_VDI], vdi_ref);
    return vdi != NULL ? update_all(c, txn, CLASS_VBD, row_value(vdi, F_VDI_VBDs)) : NULL;
}

static struct error *update_vm_devices(struct api_call *c, struct txn *txn, const struct row *vm)
{
    const struct value *vbds = row_value(vm, F_VM_VBDs);
    TRY(update_all(c, txn, CLASS_VBD, vbds));
    for (unsigned i = 0; i < vbds->len; i++) {
        const struct row *vbd = txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s);
        if (vbd != NULL)
            TRY(update_if_there(c, txn, CLASS_VDI, row_string(vbd, F_VBD_VDI)));
    }
    return update_all(c, txn, CLASS_VIF, row_value(vm, F_VM_VIFs));
}

struct error *operations_update_around(struct api_call *c, struct txn *txn, unsigned class_id, const char *ref)
{
    const struct row *row;
    if (rules_of(class_id) == NULL)
        return NULL;
    TRY(txn_need(txn, class_id, ref, &row));
    if (class_id == CLASS_VM)
        TRY(update_vm_devices(c, txn, row));
    if (class_id == CLASS_VBD) {
        TRY(update_if_there(c, txn, CLASS_VDI, row_string(row, F_VBD_VDI)));
        TRY(update_disk_users(c, txn, row_string(row, F_VBD_VDI)));
    }
    if (class_id == CLASS_VDI)
        TRY(update_disk_users(c, txn, ref));
    return operations_update(c, txn, class_id, ref);
}

/* --- marking ------------------------------------------------------------------------------------------------ */
/* The key in current_operations: the task, or a dummy of this call's where it has none. */
static const char *mark_key(struct api_call *c)
{
    return c->task != NULL ? c->task : arena_printf(c->arena, "DummyRef:|%s", c->call.id != NULL ? c->call.id : "none");
}

static struct error *put_mark(struct api_call *c, struct txn *txn, const struct operation_rules *rules, const char *ref, const char *operation)
{
    TRY(txn_map_put(txn, rules->class_id, ref, rules->current_field, mark_key(c), value_string(operation)));
    return operations_update_around(c, txn, rules->class_id, ref);
}

struct error *operation_mark(struct api_call *c, struct txn *txn, unsigned class_id, const char *ref, const char *operation, bool strict)
{
    const struct operation_rules *rules = rules_of(class_id);
    const struct row *row;
    if (rules == NULL)
        return NULL;
    TRY(txn_need(txn, class_id, ref, &row));
    TRY(rules->check(c, txn, row, operation, strict));
    return put_mark(c, txn, rules, ref, operation);
}

struct error *operation_unmark(struct api_call *c, struct txn *txn, unsigned class_id, const char *ref)
{
    const struct operation_rules *rules = rules_of(class_id);
    if (rules == NULL || txn_get(txn, &model_classes[class_id], ref) == NULL)
        return NULL; /* the operation destroyed it */
    TRY(txn_map_remove(txn, class_id, ref, rules->current_field, mark_key(c)));
    return operations_update_around(c, txn, class_id, ref);
}

struct error *operation_take(struct api_call *c, unsigned class_id, const char *ref, const char *operation, bool *taken_r)
{
    const struct operation_rules *rules = rules_of(class_id);
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row = rules != NULL ? txn_get(txn, &model_classes[class_id], ref) : NULL;
    *taken_r = false;
    if (row == NULL || row_value(row, rules->current_field)->len > 0)
        return NULL;
    TRY(put_mark(c, txn, rules, ref, operation));
    TRY(txn_commit(txn, NULL));
    *taken_r = true;
    return NULL;
}

/* --- waiting ------------------------------------------------------------------------------------------------- */
static struct error *waiters_enter(struct api_call *c, struct operations *o)
{
    LOCK_SCOPE(&o->lock);
    if (o->waiters >= WAITERS_MAX)
        return err_too_many_pending_tasks(c->arena);
    o->waiters++;
    return NULL;
}

static void waiters_leave(struct operations *o)
{
    LOCK_SCOPE(&o->lock);
    o->waiters--;
}

static struct error *retry_until(struct api_call *c, unsigned class_id, int64_t until, operation_attempt_fn *attempt, void *ctx)
{
    struct class_set classes = { { 0 } };
    class_set_add(&classes, class_id);
    for (;;) {
        uint64_t since = db_generation(c->db);
        struct error *e = attempt(c, ctx);
        if (!error_is(e, "OTHER_OPERATION_IN_PROGRESS") || clock_ms(c->call.clock) >= until)
            return e;
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, mark_key(c));
        change_log_wait(c->db, &c->call, since, &classes, WAIT_STEP_MS);
    }
}

struct error *operation_retry(struct api_call *c, unsigned class_id, int64_t wait_ms, operation_attempt_fn *attempt, void *ctx)
{
    struct error *e = attempt(c, ctx);
    if (!error_is(e, "OTHER_OPERATION_IN_PROGRESS"))
        return e;
    struct operations *o = c->xapi->operations;
    TRY(waiters_enter(c, o));
    task_set_cancellable(c, true);
    e = retry_until(c, class_id, clock_ms(c->call.clock) + wait_ms, attempt, ctx);
    task_set_cancellable(c, false);
    waiters_leave(o);
    return e;
}

/* --- begin and end ----------------------------------------------------------------------------------------------- */
struct begin { unsigned class_id; const char *ref, *operation; bool strict; };

static struct error *try_begin(struct api_call *c, void *ctx)
{
    const struct begin *b = ctx;
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(operation_mark(c, txn, b->class_id, b->ref, b->operation, b->strict));
    return txn_commit(txn, NULL);
}

/* A halted VM may be started at any moment of its move: the move gives way (requirements XE-40). */
static struct error *begin_start(struct api_call *c, void *ctx)
{
    const struct begin *b = ctx;
    struct error *e = try_begin(c, ctx);
    const struct row *vm = error_is(e, "OTHER_OPERATION_IN_PROGRESS") ? db_get(c->db, c->arena, &model_classes[CLASS_VM], b->ref) : NULL;
    if (vm == NULL || strcmp(row_string(vm, F_VM_power_state), "Halted") != 0)
        return e;
    const struct value *current = row_value(vm, F_VM_current_operations);
    for (unsigned i = 0; i < current->len; i++)
        if (strcmp(current->members[i].value.s, "migrate_send") == 0)
            (void)task_cancel_running(c->xapi->tasks, current->members[i].name);
    return e;
}

struct error *operation_begin(struct api_call *c, unsigned class_id, const char *ref, const char *operation, bool strict)
{
    struct begin b = { class_id, ref, operation, strict };
    bool starts = class_id == CLASS_VM && (strcmp(operation, "start") == 0 || strcmp(operation, "start_on") == 0);
    return rules_of(class_id) != NULL ? operation_retry(c, class_id, WAIT_TOTAL_MS, starts ? begin_start : try_begin, &b) : NULL;
}

static struct error *end(struct api_call *c, unsigned class_id, const char *ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    TRY(operation_unmark(c, txn, class_id, ref));
    return txn_commit(txn, NULL);
}

void operation_end(struct api_call *c, unsigned class_id, const char *ref, const char *operation)
{
    struct error *e = rules_of(class_id) != NULL ? end(c, class_id, ref) : NULL;
    if (e != NULL)
        log_err("operation %s of %s stays marked: %s", operation, ref, error_text(c->arena, e));
}

void operation_scope_end(struct operation_scope *s)
{
    if (s->c != NULL)
        operation_end(s->c, s->class_id, s->ref, s->operation);
}
