/* The memory of VMs: limits, and live ballooning between them. */
#include <inttypes.h>
#include <string.h>

#include "rpc/base/uuid.h"
#include "xapi/core/operations.h"
#include "xapi/core/vm_memory.h"
#include "xapi/core/vm_run.h"
#include "xapi/core/vm_state.h"
#include "xapi/core/xapi.h"
#include "xapi/core/agent.h"

#define MIB (1ll << 20)
#define TARGET_TOLERANCE MIB
#define VCPUS_APPROXIMATE 64 /* of maximise_memory: room for adding processors later */
#define WAIT_STEP_MS 500

/* --- rules ---------------------------------------------------------------------------------------------- */
static bool nested_virt(struct txn *txn, const struct row *vm)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_VM_metrics], row_string(vm, F_VM_metrics));
    if (metrics != NULL)
        return row_bool(metrics, F_VM_metrics_nested_virt);
    const char *key = row_map(vm, F_VM_platform, "nested-virt", "false");
    return strcmp(key, "true") == 0 || strcmp(key, "1") == 0;
}

static struct error *check_limits(struct api_call *c, struct txn *txn, const struct row *vm, const struct vm_memory *m)
{
    bool pinned = m->static_min <= m->dynamic_min && m->dynamic_min == m->dynamic_max && m->dynamic_max == m->static_max;
    const char *reason = row_bool(vm, F_VM_is_control_domain) ? "control domain" : nested_virt(txn, vm) ? "nested virt" : NULL;
    if (m->static_min < 0 || !vm_memory_in_order(m))
        return err_memory_constraint_violation(c->arena, "Memory limits must satisfy: static_min ≤ dynamic_min ≤ dynamic_max ≤ static_max");
    if (reason == NULL || pinned)
        return NULL;
    return err_memory_constraint_violation(
        c->arena, arena_printf(c->arena, "Memory limits must satisfy: static_min ≤ dynamic_min = dynamic_max = static_max (%s)", reason));
}

static struct error *write_limits(struct txn *txn, const char *vm_ref, const struct vm_memory *m)
{
    TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_memory_static_min, m->static_min));
    TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_memory_dynamic_min, m->dynamic_min));
    TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_memory_target, m->dynamic_min));
    TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_memory_dynamic_max, m->dynamic_max));
    TRY(txn_set_int(txn, CLASS_VM, vm_ref, F_VM_memory_static_max, m->static_max));
    return vm_memory_overhead_update(txn, vm_ref);
}

/* Limits that are to stay as they are. */
#define KEEP INT64_MIN
static struct error *set_limits(struct api_call *c, const char *vm_ref, const struct vm_memory *wanted)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    struct vm_memory m = vm_memory_of(vm);
    m.static_min = wanted->static_min != KEEP ? wanted->static_min : m.static_min;
    m.dynamic_min = wanted->dynamic_min != KEEP ? wanted->dynamic_min : m.dynamic_min;
    m.dynamic_max = wanted->dynamic_max != KEEP ? wanted->dynamic_max : m.dynamic_max;
    m.static_max = wanted->static_max != KEEP ? wanted->static_max : m.static_max;
    TRY(check_limits(c, txn, vm, &m));
    TRY(write_limits(txn, vm_ref, &m));
    return txn_commit(txn, NULL);
}

/* --- ballooning ---------------------------------------------------------------------------------------------- */
/* More for this VM must be there: what all others may be ballooned down to leaves it room. */
static struct error *check_room(struct api_call *c, const struct row *vm, int64_t dynamic_min)
{
    AUTO_TXN txn = txn_begin(c->db, c->arena);
    const struct row *host;
    TRY(txn_need(txn, CLASS_host, row_string(vm, F_VM_resident_on), &host));
    int64_t free_bytes = host_memory_free(txn, host, vm->ref), needed = dynamic_min + row_int(vm, F_VM_memory_overhead);
    if (needed <= free_bytes || dynamic_min <= row_int(vm, F_VM_memory_dynamic_min))
        return NULL;
    return err_host_not_enough_free_memory(c->arena, arena_printf(c->arena, "%" PRId64, needed),
                                           arena_printf(c->arena, "%" PRId64, free_bytes > 0 ? free_bytes : 0));
}

static struct error *balloon(struct api_call *c, const char *vm_ref, int64_t target)
{
    const struct row *vm;
    const char *host;
    TRY(vm_run_residence(c, vm_ref, "running", &vm, &host));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))), member_of("target", value_int(target)) };
    struct value v = value_map(args, ARRAY_LEN(args)), ignored;
    return vm_run_error(c, vm_ref, agent_call(c, host, "vm.balloon", &v, &ignored));
}

/* The guest is moved to the upper end if its host has the memory, and to the lower end otherwise. */
static struct error *balloon_into(struct api_call *c, const char *vm_ref, int64_t min, int64_t max)
{
    struct error *e = balloon(c, vm_ref, max);
    return error_is(e, "HOST_NOT_ENOUGH_FREE_MEMORY") && min < max ? balloon(c, vm_ref, min) : e;
}

static struct error *set_dynamic(struct api_call *c, const char *vm_ref, int64_t min, int64_t max)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, vm_ref, &vm));
    struct vm_memory wanted = { KEEP, min != KEEP ? min : row_int(vm, F_VM_memory_dynamic_min),
                                max != KEEP ? max : row_int(vm, F_VM_memory_dynamic_max), KEEP };
    bool running = strcmp(row_string(vm, F_VM_power_state), "Running") == 0;
    if (running && !row_bool(vm, F_VM_is_control_domain))
        TRY(check_room(c, vm, wanted.dynamic_min));
    TRY(set_limits(c, vm_ref, &wanted));
    return running && !row_bool(vm, F_VM_is_control_domain) ? balloon_into(c, vm_ref, wanted.dynamic_min, wanted.dynamic_max) : NULL;
}

struct error *api_VM_set_memory_dynamic_range(struct api_call *c, const struct api_VM_set_memory_dynamic_range_args *a, struct value *result_r)
{
    return set_dynamic(c, a->self, a->min, a->max);
}

struct error *api_VM_set_memory_dynamic_min(struct api_call *c, const struct api_VM_set_memory_dynamic_min_args *a, struct value *result_r)
{
    return set_dynamic(c, a->self, a->value, KEEP);
}

struct error *api_VM_set_memory_dynamic_max(struct api_call *c, const struct api_VM_set_memory_dynamic_max_args *a, struct value *result_r)
{
    return set_dynamic(c, a->self, KEEP, a->value);
}

/* Old clients: the range shrinks to the target, which must lie within the static limits. */
struct error *api_VM_set_memory_target_live(struct api_call *c, const struct api_VM_set_memory_target_live_args *a, struct value *result_r)
{
    return set_dynamic(c, a->self, a->target, a->target);
}

/* --- the static limits: of halted VMs ---------------------------------------------------------------------------- */
struct error *api_VM_set_memory_static_range(struct api_call *c, const struct api_VM_set_memory_static_range_args *a, struct value *result_r)
{
    return set_limits(c, a->self, &(struct vm_memory){ a->min, KEEP, KEEP, a->max });
}

struct error *api_VM_set_memory_static_min(struct api_call *c, const struct api_VM_set_memory_static_min_args *a, struct value *result_r)
{
    return set_limits(c, a->self, &(struct vm_memory){ a->value, KEEP, KEEP, KEEP });
}

struct error *api_VM_set_memory_static_max(struct api_call *c, const struct api_VM_set_memory_static_max_args *a, struct value *result_r)
{
    return set_limits(c, a->self, &(struct vm_memory){ KEEP, KEEP, KEEP, a->value });
}

struct error *api_VM_set_memory_limits(struct api_call *c, const struct api_VM_set_memory_limits_args *a, struct value *result_r)
{
    return set_limits(c, a->self, &(struct vm_memory){ a->static_min, a->dynamic_min, a->dynamic_max, a->static_max });
}

struct error *api_VM_set_memory(struct api_call *c, const struct api_VM_set_memory_args *a, struct value *result_r)
{
    return set_limits(c, a->self, &(struct vm_memory){ KEEP, a->value, a->value, a->value });
}

/* --- questions ------------------------------------------------------------------------------------------------------ */
static struct error *reached(struct api_call *c, const char *vm_ref, bool *reached_r)
{
    const struct row *vm;
    const char *host;
    TRY(vm_run_residence(c, vm_ref, "running", &vm, &host));
    struct member args[] = { member_of("uuid", value_string(row_string(vm, F_VM_uuid))) };
    struct value v = value_map(args, ARRAY_LEN(args)), domain;
    TRY(vm_run_error(c, vm_ref, agent_call(c, host, "vm.find", &v, &domain)));
    int64_t off = value_get_int(&domain, "memory_actual", 0) - value_get_int(&domain, "memory_target", 0);
    *reached_r = off <= TARGET_TOLERANCE && off >= -TARGET_TOLERANCE;
    return NULL;
}

struct error *api_VM_wait_memory_target_live(struct api_call *c, const struct api_VM_wait_memory_target_live_args *a, struct value *result_r)
{
    int64_t until = clock_ms(c->call.clock) + config_int(c->xapi->config, "wait_memory_target_timeout") * 1000;
    struct class_set nothing = { { 0 } };
    for (;;) {
        bool there;
        TRY(reached(c, a->self, &there));
        if (there)
            return NULL;
        if (call_cancelled(&c->call))
            return err_task_cancelled(c->arena, c->task != NULL ? c->task : REF_NULL);
        if (clock_ms(c->call.clock) >= until)
            return err_vm_memory_target_wait_timeout(c->arena);
        change_log_wait(c->db, &c->call, db_generation(c->db), &nothing, WAIT_STEP_MS);
    }
}

/* The largest static maximum, in whole MiB, that fits into 'total' together with its overhead. */
struct error *api_VM_maximise_memory(struct api_call *c, const struct api_VM_maximise_memory_args *a, struct value *result_r)
{
    const struct row *vm;
    TRY(db_need(c->db, c->arena, CLASS_VM, a->self, &vm));
    bool paging = a->approximate || strcmp(vm_domain_type(vm), "pv") != 0;
    int64_t vcpus = a->approximate ? VCPUS_APPROXIMATE : row_int(vm, F_VM_VCPUs_max);
    double multiplier = row_float(vm, F_VM_HVM_shadow_multiplier);
    int64_t low = 0, high = a->total > 0 ? a->total / MIB : 0;
    while (low < high) {
        int64_t middle = low + (high - low + 1) / 2;
        if (middle * MIB + vm_memory_overhead_for(paging, middle * MIB, vcpus, multiplier) <= a->total)
            low = middle;
        else
            high = middle - 1;
    }
    *result_r = value_int(low * MIB);
    return NULL;
}
