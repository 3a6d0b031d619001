/* A pool of one real daemon with simulated guests and a file SR, and short ways to make VMs in it. */
#ifndef TESTS_LIB_VM_WORLD_H
#define TESTS_LIB_VM_WORLD_H

#include "tests/lib/pool_world.h"

#define VM_MEMORY (16ll << 20)

struct vm_world {
    struct pool_world pool;
    const char *host, *sr; /* refs */
};

void vm_world_init(struct vm_world *);
/* Shuts down what runs, too. */
void vm_world_release(struct vm_world *);

/* A halted VM of 16 MiB; platform: pairs of strings, ending with NULL ("sim-…" keys), or NULL. */
const char *vm_world_vm(struct vm_world *, const char *name, const char *const *platform);
const char *vm_world_vdi(struct vm_world *, const char *name, int64_t size);
/* userdevice "autodetect"; mode "RW". */
const char *vm_world_vbd(struct vm_world *, const char *vm, const char *vdi);
struct value vm_world_vbd_record(struct vm_world *, const char *vm, const char *vdi, const char *device, const char *mode, const char *type);
void vm_world_start(struct vm_world *, const char *vm);
/* A running VM without disks. */
const char *vm_world_running(struct vm_world *, const char *name, const char *const *platform);

/* As root on host 0. */
#define vm_ok(w, method, ...) pool_ok(&(w)->pool, 0, method, __VA_ARGS__)
#define vm_fails(w, code, method, ...) pool_fails(&(w)->pool, 0, code, method, __VA_ARGS__)
/* A field as text: vm_field(w, "VM.get_power_state", vm). */
#define vm_field(w, getter, ref) pool_text(&(w)->pool, 0, getter, ref)
#define vm_state_is(w, vm, state) (strcmp(vm_field(w, "VM.get_power_state", vm), state) == 0)

bool vm_world_allows(struct vm_world *, const char *class_name, const char *ref, const char *operation);
/* Fails the test unless the error has exactly these parameters. */
void error_has(const struct error *, unsigned n, ...);

#endif
