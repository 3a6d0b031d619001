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

/* Devices follow their VM's operations, a VM its devices': called after a mark changed. */
static struct error *update_related(struct api_call *c, struct txn *txn, unsigned class_id, const char *ref)
{
    TRY(operations_update(c, txn, class_id, ref));
    if (class_id != CLASS_VM)
        return NULL;
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, ref, &vm));
    const struct value *vbds = row_value(vm, F_VM_VBDs), *vifs = row_value(vm, F_VM_VIFs);
    for (unsigned i = 0; i < vbds->len; i++)
        if (txn_get(txn, &model_classes[CLASS_VBD], vbds->items[i].s) != NULL)
            TRY(operations_update(c, txn, CLASS_VBD, vbds->items[i].s));
    for (unsigned i = 0; i < vifs->len; i++)
        if (txn_get(txn, &model_classes[CLASS_VIF], vifs->items[i].s) != NULL)
            TRY(operations_update(c, txn, CLASS_VIF, vifs->items[i].s));
    return NULL;
}

/* --- marking ------------------------------------------------------------------------------------------------ */
/* The key in current_operations: the task, or a dummy of this call's where it has none. */
static const char *mark_key(struct api_call *c)
{
    return c->task != NULL ? c->task : arena_printf(c->arena, "DummyRef:|%s", c->call.id != NULL ? c->call.id : "none");
}

static struct error *try_mark(struct api_call *c, const struct operation_rules *rules, const char *ref, const char *operation, bool strict)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *row;
    TRY(txn_need(txn, rules->class_id, ref, &row));
    TRY(rules->check(c, txn, row, operation, strict));
    TRY(txn_map_put(txn, rules->class_id, ref, rules->current_field, mark_key(c), value_string(operation)));
    TRY(update_related(c, txn, rules->class_id, ref));
    return txn_commit(txn, NULL);
}

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

/* Retries until the mark is had, another error comes, the call is cancelled, or two hours are over. */
static struct error *wait_and_mark(struct api_call *c, const struct operation_rules *rules, const char *ref, const char *operation, bool strict)
{
    struct class_set classes = { { 0 } };
    class_set_add(&classes, rules->class_id);
    int64_t until = clock_ms(c->call.clock) + WAIT_TOTAL_MS;
    task_set_cancellable(c, true);
    for (;;) {
        uint64_t since = db_generation(c->db);
        struct error *e = try_mark(c, rules, ref, operation, strict);
        if (!error_is(e, "OTHER_OPERATION_IN_PROGRESS") || clock_ms(c->call.clock) >= until) {
            task_set_cancellable(c, false);
            return e;
        }
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, mark_key(c));
        change_log_wait(c->db, &c->call, since, &classes, WAIT_STEP_MS);
    }
}

struct error *operation_begin(struct api_call *c, unsigned class_id, const char *ref, const char *operation, bool strict)
{
    const struct operation_rules *rules = rules_of(class_id);
    if (rules == NULL)
        return NULL;
    struct error *e = try_mark(c, rules, ref, operation, strict);
    if (!error_is(e, "OTHER_OPERATION_IN_PROGRESS"))
        return e;
    struct operations *o = c->xapi->operations;
    TRY(waiters_enter(c, o));
    e = wait_and_mark(c, rules, ref, operation, strict);
    waiters_leave(o);
    return e;
}

static struct error *unmark(struct api_call *c, const struct operation_rules *rules, const char *ref)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    if (txn_get(txn, &model_classes[rules->class_id], ref) == NULL)
        return NULL; /* the operation destroyed it */
    TRY(txn_map_remove(txn, rules->class_id, ref, rules->current_field, mark_key(c)));
    TRY(update_related(c, txn, rules->class_id, ref));
    return txn_commit(txn, NULL);
}

void operation_end(struct api_call *c, unsigned class_id, const char *ref, const char *operation)
{
    const struct operation_rules *rules = rules_of(class_id);
    if (rules == NULL)
        return;
    struct error *e = unmark(c, rules, ref);
    if (e != NULL)
        log_err("operation %s of %s stays marked: %s", operation, ref, error_text(c->arena, e));
}

void operation_scope_end(struct operation_scope *s)
{
    if (s->c != NULL)
        operation_end(s->c, s->class_id, s->ref, s->operation);
}
