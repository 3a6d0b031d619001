/* After a host (or this coordinator) came back: its tapds against the VMs that run there.
 *
 * (1) A guest that runs has its disks attached and active, whatever was lost or left half way.
 * (2) A tapd's user "vbd-<uuid>" whose VM neither runs nor is about to run there is dropped.
 * What a current operation is about to change is left to it. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/uuid.h"
#include "xapi/core/agent.h"
#include "xapi/core/vdi_path.h"
#include "xapi/core/vm_disks.h"
#include "xapi/core/vm_state.h"

LOG_MODULE(vm_disks);

#define USER_PREFIX "vbd-"
#define SAME_VM 24 /* characters of a uuid that a migrating copy shares with its VM */

struct settling { struct api_call *c; const char *host; struct value domains, taps; };

static const struct value *domain_of(const struct settling *s, const char *vm_uuid, size_t len)
{
    for (unsigned i = 0; i < s->domains.len; i++)
        if (strncmp(value_get_string(&s->domains.items[i], "uuid", ""), vm_uuid, len) == 0)
            return &s->domains.items[i];
    return NULL;
}

static bool busy(const struct row *vm, const struct row *vbd)
{
    return row_value(vm, F_VM_current_operations)->len > 0 || row_value(vbd, F_VBD_current_operations)->len > 0;
}

/* --- running guests ------------------------------------------------------------------------------------------ */
static bool runs(const struct settling *s, const struct row *vm)
{
    const struct value *domain = domain_of(s, row_string(vm, F_VM_uuid), UUID_LEN);
    const char *state = domain != NULL ? value_get_string(domain, "state", "") : "";

    return strcmp(row_string(vm, F_VM_resident_on), s->host) == 0 && (strcmp(state, "running") == 0 || strcmp(state, "paused") == 0);
}

static bool served(const struct settling *s, const char *user)
{
    for (unsigned i = 0; i < s->taps.len; i++) {
        const struct value *users = value_get(&s->taps.items[i], "users");

        if (users != NULL && value_set_has(users, user))
            return strcmp(value_get_string(&s->taps.items[i], "state", ""), "active") == 0;
    }
    return false;
}

static void serve(const struct settling *s, const struct row *vbd)
{
    struct api_call *c = s->c;
    const struct row *vdi = row_bool(vbd, F_VBD_empty) ? NULL : db_get(c->db, c->arena, &model_classes[CLASS_VDI], row_string(vbd, F_VBD_VDI));
    struct disk_spec disk;

    if (vdi == NULL || served(s, vdi_user_of_vbd(c->arena, vbd)))
        return;
    struct error *error = vm_disk_spec(c, vbd, vdi, s->host, &disk);
    if (error != NULL)
        log_err("disk %s of a running guest is not served: %s", row_string(vdi, F_VDI_uuid), error_text(c->arena, error));
    else
        log_info("disk %s of a running guest is served again", row_string(vdi, F_VDI_uuid));
}

static void serve_all(const struct settling *s)
{
    struct api_call *c = s->c;
    struct row_list vbds = db_all(c->db, c->arena, &model_classes[CLASS_VBD]);

    for (unsigned i = 0; i < vbds.n; i++) {
        const struct row *vbd = vbds.rows[i];
        const struct row *vm = row_bool(vbd, F_VBD_currently_attached) ? db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM)) : NULL;

        if (vm != NULL && runs(s, vm) && !busy(vm, vbd))
            serve(s, vbd);
    }
}

/* --- users that are gone ---------------------------------------------------------------------------------------- */
static bool needed(const struct settling *s, const char *user)
{
    struct api_call *c = s->c;
    const struct row *vbd = db_by_uuid(c->db, c->arena, &model_classes[CLASS_VBD], user + strlen(USER_PREFIX));
    const struct row *vm = vbd != NULL ? db_get(c->db, c->arena, &model_classes[CLASS_VM], row_string(vbd, F_VBD_VM)) : NULL;

    if (vm == NULL)
        return false;
    return busy(vm, vbd) || strcmp(row_string(vm, F_VM_resident_on), s->host) == 0 ||
           strcmp(row_string(vm, F_VM_scheduled_to_be_resident_on), s->host) == 0 || domain_of(s, row_string(vm, F_VM_uuid), SAME_VM) != NULL;
}

static void drop(const struct settling *s, const char *key, const char *user)
{
    struct api_call *c = s->c;
    const char *slash = strchr(key, '/');

    if (slash == NULL)
        return;
    const struct member members[] = {
        member_of("sr", value_string(arena_strndup(c->arena, key, (size_t)(slash - key)))),
        member_of("location", value_string(slash + 1)),
        member_of("user", value_string(user)),
    };
    struct value args = value_map(members, ARRAY_LEN(members)), ignored;
    struct error *error = agent_call(c, s->host, "vdi.detach", &args, &ignored);
    if (error != NULL)
        log_warn("%s of %s: %s", user, key, error_text(c->arena, error));
    else
        log_info("%s does not use %s any more", user, key);
}

static void drop_all(const struct settling *s)
{
    for (unsigned i = 0; i < s->taps.len; i++) {
        const struct value *users = value_get(&s->taps.items[i], "users");

        for (unsigned k = 0; users != NULL && users->kind == VALUE_SET && k < users->len; k++)
            if (strncmp(users->items[k].s, USER_PREFIX, strlen(USER_PREFIX)) == 0 && !needed(s, users->items[k].s))
                drop(s, value_get_string(&s->taps.items[i], "key", ""), users->items[k].s);
    }
}

void vm_disks_settle(struct api_call *c, const char *host_ref)
{
    struct settling s = { .c = c, .host = host_ref };
    struct value none = value_map(NULL, 0);
    struct error *error = agent_call(c, host_ref, "tap.list", &none, &s.taps);

    if (error == NULL)
        error = agent_call(c, host_ref, "vm.list", &none, &s.domains);
    if (error != NULL || s.taps.kind != VALUE_SET || s.domains.kind != VALUE_SET) {
        log_warn("a host's disks are not looked at: %s", error != NULL ? error_text(c->arena, error) : "nonsense");
        return;
    }
    serve_all(&s);
    drop_all(&s);
}
