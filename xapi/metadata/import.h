/* Private to xapi/metadata: one import on its way through a transaction. */
#ifndef XAPI_METADATA_IMPORT_H
#define XAPI_METADATA_IMPORT_H

#include "xapi/core/xapi.h"
#include "xapi/metadata/metadata.h"
#include "xapi/metadata/ova.h"

/* A VM of the file that becomes a row. */
struct imported_vm {
    const struct ova_object *object;
    const char *sent;           /* power state as sent */
    const char *ref;            /* once made */
    const struct row *replaces; /* NULL: none */
    bool is_snapshot;
};

struct importer {
    struct api_call *c;
    struct txn *txn;
    const struct metadata_import *in;
    struct ova ova;
    const char **refs;          /* by object: what it is here; NULL: nothing */
    struct imported_vm *vms;
    unsigned n_vms;
    struct imported_vm **vm_of; /* by object; NULL: none, or not made */
};

/* What "Ref:n" is here; NULL: nothing. */
const char *import_ref(const struct importer *, const char *id);
void import_set_ref(struct importer *, const struct ova_object *, const char *ref);

/* May parts be left out? Never of a VM that moves: it arrives whole or not at all. */
static inline bool import_forced(const struct importer *m) { return m->in->force && m->in->incoming == NULL; }

/* import_find.c: everything that must be there already: hosts, SRs, disks, networks, GPU groups and types. */
NODISCARD struct error *import_find(struct importer *);
/* A disk that is needed: its ref, or NULL where it may be left out. */
NODISCARD struct error *import_disk(struct importer *, const char *id, const char **ref_r);

/* import_check.c: which VMs are made and which existing ones they replace; nothing is written. */
NODISCARD struct error *import_choose(struct importer *);
NODISCARD struct error *import_check_seeds(struct importer *);
/* Room and processor of the host; the row's power state is the one sent. */
NODISCARD struct error *import_check_host(struct importer *, const struct imported_vm *);

/* import_vm.c: rows of VMs, in two rounds: first each for itself, then what links them and their final state. */
NODISCARD struct error *import_vm_make(struct importer *, struct imported_vm *);
NODISCARD struct error *import_vm_link(struct importer *, const struct imported_vm *);

/* import_devices.c: those of all VMs that are made. */
NODISCARD struct error *import_devices(struct importer *);

/* The object's fields as values for a row, without uuid, operations, inverse sets, references and those in 'skip' (ends with
 * 0); 'changes' come on top. */
NODISCARD struct error *import_row(struct importer *, unsigned class_id, const char *uuid, const struct ova_object *, const unsigned *skip,
                                   const struct field_value *changes, unsigned n_changes, const char **ref_r);
/* The object's other_config without what only the way needed. */
struct value import_other_config(struct importer *, const struct ova_object *);

/* remove.c: the VM's row and all that belongs to it alone. */
NODISCARD struct error *vm_rows_delete(struct txn *, struct arena *, const struct row *vm);

#endif
