/* VM.assert_can_migrate: what VM.migrate_send asks, and nothing of what it does. */
#include "xapi/migrate/send_checks.h"

struct error *api_VM_assert_can_migrate(struct api_call *c, const struct api_VM_assert_can_migrate_args *a, struct value *result_r)
{
    const struct value no_formats = value_map(NULL, 0);
    const struct send_request request = { .vm = a->vm, .dest = a->dest, .vdi_map = a->vdi_map, .vif_map = a->vif_map, .vgpu_map = a->vgpu_map,
                                          .format_map = &no_formats, .options = a->options };
    struct move move = { .kind = "migrate_send" };
    const char *const *vbds;
    unsigned n;

    *result_r = value_void();
    return send_checks(c, &request, false, &move, &vbds, &n);
}
