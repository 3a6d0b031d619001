#include "tests/lib/vm_world.h"

#include <stdarg.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "tests/lib/unit.h"

static const char *make_sr(struct vm_world *w)
{
    const struct member config[] = { member_of("location", S(tempdir_file(&w->pool.dir, "files"))) };
    return vm_ok(w, "SR.create", 9, S(w->host), value_map(config, 1), value_int(0), S("files"), S("a test SR"), S("file"), S("user"), value_bool(true),
                 value_map(NULL, 0)).s;
}

void vm_world_init(struct vm_world *w)
{
    log_set_level(NULL, LOG_ERR);
    pool_world_init(&w->pool, 1);
    pool_world_option(&w->pool, "log-level", "err");
    pool_world_option(&w->pool, "sim-suspend-ack-ms", "1000");
    pool_world_start(&w->pool);
    w->host = pool_host_ref(&w->pool, 0);
    w->sr = make_sr(w);
    const char *pool = vm_ok(w, "pool.get_all", 0).items[0].s;
    vm_ok(w, "pool.set_default_SR", 2, S(pool), S(w->sr));
}

void vm_world_release(struct vm_world *w)
{
    struct value vms = vm_ok(w, "VM.get_all", 0), ignored;
    for (unsigned i = 0; i < vms.len; i++) {
        const char *vm = vms.items[i].s;
        if (strcmp(vm_field(w, "VM.get_is_control_domain", vm), "true") == 0 || vm_state_is(w, vm, "Halted") || vm_state_is(w, vm, "Suspended"))
            continue;
        vm_ok(w, "VM.set_blocked_operations", 2, S(vm), value_map(NULL, 0));
        const struct error *e = pool_call(&w->pool, 0, "VM.hard_shutdown", &ignored, 1, S(vm));
        if (e != NULL)
            print_error("a guest may be left: %s\n", error_text(w->pool.arena, e));
    }
    pool_world_release(&w->pool);
}

const char *vm_world_vm(struct vm_world *w, const char *name, const char *const *platform)
{
    struct value_dict d = { 0 };
    for (; platform != NULL && platform[0] != NULL; platform += 2)
        value_dict_add(w->pool.arena, &d, platform[0], S(platform[1]));
    const struct member record[] = {
        member_of("name_label", S(name)),
        member_of("memory_static_max", value_int(VM_MEMORY)),
        member_of("memory_dynamic_max", value_int(VM_MEMORY)),
        member_of("memory_dynamic_min", value_int(VM_MEMORY)),
        member_of("memory_static_min", value_int(VM_MEMORY / 2)),
        member_of("VCPUs_max", value_int(1)),
        member_of("VCPUs_at_startup", value_int(1)),
        member_of("HVM_boot_policy", S("BIOS order")),
        member_of("platform", value_dict_value(&d)),
    };
    return vm_ok(w, "VM.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

const char *vm_world_vdi(struct vm_world *w, const char *name, int64_t size)
{
    const struct member record[] = {
        member_of("name_label", S(name)), member_of("SR", S(w->sr)), member_of("virtual_size", value_int(size)), member_of("type", S("user")),
    };
    return vm_ok(w, "VDI.create", 1, value_map(record, ARRAY_LEN(record))).s;
}

struct value vm_world_vbd_record(struct vm_world *w, const char *vm, const char *vdi, const char *device, const char *mode, const char *type)
{
    struct value_dict d = { 0 };
    value_dict_add(w->pool.arena, &d, "VM", S(vm));
    value_dict_add(w->pool.arena, &d, "VDI", S(vdi));
    value_dict_add(w->pool.arena, &d, "userdevice", S(device));
    value_dict_add(w->pool.arena, &d, "mode", S(mode));
    value_dict_add(w->pool.arena, &d, "type", S(type));
    value_dict_add(w->pool.arena, &d, "empty", value_bool(ref_is_null(vdi)));
    return value_dict_value(&d);
}

const char *vm_world_vbd(struct vm_world *w, const char *vm, const char *vdi)
{
    return vm_ok(w, "VBD.create", 1, vm_world_vbd_record(w, vm, vdi, "autodetect", "RW", "Disk")).s;
}

void vm_world_start(struct vm_world *w, const char *vm)
{
    vm_ok(w, "VM.start", 3, S(vm), value_bool(false), value_bool(false));
}

const char *vm_world_running(struct vm_world *w, const char *name, const char *const *platform)
{
    const char *vm = vm_world_vm(w, name, platform);
    vm_world_start(w, vm);
    return vm;
}

bool vm_world_allows(struct vm_world *w, const char *class_name, const char *ref, const char *operation)
{
    struct value set = vm_ok(w, arena_printf(w->pool.arena, "%s.get_allowed_operations", class_name), 1, S(ref));
    return value_set_has(&set, operation);
}

void error_has(const struct error *e, unsigned n, ...)
{
    va_list args;
    assert_int_equal(e->n_params, n);
    va_start(args, n);
    for (unsigned i = 0; i < n; i++)
        assert_string_equal(e->params[i], va_arg(args, const char *));
    va_end(args);
}
