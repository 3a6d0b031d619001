#include "xapi/core/vm_memory.h"

#include <math.h>
#include <string.h>

#include "xapi/core/vm_state.h"

#define MIB (1ll << 20)
#define PAGES_PER_VCPU 256 /* of page tables */

struct vm_memory vm_memory_of(const struct row *vm)
{
    return (struct vm_memory){ .static_min = row_int(vm, F_VM_memory_static_min), .dynamic_min = row_int(vm, F_VM_memory_dynamic_min),
                               .dynamic_max = row_int(vm, F_VM_memory_dynamic_max), .static_max = row_int(vm, F_VM_memory_static_max) };
}

bool vm_memory_in_order(const struct vm_memory *m)
{
    return m->static_min <= m->dynamic_min && m->dynamic_min <= m->dynamic_max && m->dynamic_max <= m->static_max;
}

static int64_t between(int64_t low, int64_t n, int64_t high)
{
    return n < low ? low : n > high ? high : n;
}

bool vm_memory_coerce(struct vm_memory *m)
{
    if (m->static_min > m->static_max)
        return false;
    m->dynamic_min = between(m->static_min, m->dynamic_min, m->static_max);
    m->dynamic_max = between(m->static_min, m->dynamic_max, m->static_max);
    return vm_memory_in_order(m);
}

int64_t vm_memory_overhead_for(bool paging, int64_t static_max, int64_t vcpus_max, double shadow_multiplier)
{
    if (!paging)
        return MIB;
    /* a page of page tables for each MiB of the guest and of its physical map, some for each processor */
    double max_mib = ceil((double)static_max / (double)MIB), pages = PAGES_PER_VCPU * (double)vcpus_max + 2 * max_mib;
    return (int64_t)ceil(pages * (shadow_multiplier > 1 ? shadow_multiplier : 1) / 256) * MIB + 5 * MIB; /* video memory and emulation */
}

int64_t vm_memory_overhead(const struct row *vm)
{
    return vm_memory_overhead_for(strcmp(vm_domain_type(vm), "pv") != 0, row_int(vm, F_VM_memory_static_max), row_int(vm, F_VM_VCPUs_max),
                                  row_float(vm, F_VM_HVM_shadow_multiplier));
}

struct error *vm_memory_overhead_update(struct txn *txn, const char *vm_ref)
{
    const struct row *vm;
    TRY(txn_need(txn, CLASS_VM, vm_ref, &vm));
    return txn_set_int(txn, CLASS_VM, vm_ref, F_VM_memory_overhead, vm_memory_overhead(vm));
}

int64_t vm_memory_needed(const struct row *vm)
{
    struct vm_memory m = vm_memory_of(vm);
    vm_memory_coerce(&m);
    return (strcmp(vm_domain_type(vm), "pv_in_pvh") == 0 ? m.static_max : m.dynamic_min) + row_int(vm, F_VM_memory_overhead);
}

int64_t host_memory_free(struct txn *txn, const struct row *host, const char *except)
{
    const struct row *metrics = txn_get(txn, &model_classes[CLASS_host_metrics], row_string(host, F_host_metrics));
    int64_t free_bytes = (metrics != NULL ? row_int(metrics, F_host_metrics_memory_total) : 0) - row_int(host, F_host_memory_overhead);
    struct row_list vms = txn_all(txn, &model_classes[CLASS_VM]);
    for (unsigned i = 0; i < vms.n; i++) {
        const struct row *vm = vms.rows[i];
        if (except != NULL && strcmp(vm->ref, except) == 0)
            continue;
        if (strcmp(row_string(vm, F_VM_resident_on), host->ref) == 0 || strcmp(row_string(vm, F_VM_scheduled_to_be_resident_on), host->ref) == 0)
            free_bytes -= vm_memory_needed(vm);
    }
    return free_bytes;
}
