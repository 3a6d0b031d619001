/* What a restarted xapi finds: domain.json, and the record of the end. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "xenops/sim/host.h"
#include "xenops/state_text.h"

LOG_MODULE(sim);

#define RECORD_MAX (1u << 20)

static const char *const end_names[] = GUEST_END_NAMES;

struct error *sim_record_write(struct call *c, const struct sim_domain *d, const char *uuid)
{
    AUTO_TEXT t = TEXT_INIT;
    const struct member head[] = {
        member_of("uuid", value_string(uuid)),
        member_of("domid", value_int(d->domid)),
        member_of("pid", value_int(d->pid)),
        member_of("start_time", value_int((int64_t)d->start_time)),
        member_of("started_at", value_int(d->started_at)),
        member_of("pages", value_int((int64_t)d->n_pages)),
        member_of("vcpus", value_int(d->vcpus)),
    };
    struct value v = value_map(head, ARRAY_LEN(head));

    state_text_add(&t, &v);
    t.len--; /* the closing brace: the specification goes in front of it */
    text_printf(&t, ",\"spec\":%s}\n", d->spec);
    int rc = file_replace(arena_printf(c->arena, "%s/domain.json", d->dir), t.bytes, t.len, 0600);
    return rc < 0 ? err_internal(c->arena, "%s/domain.json: %s", d->dir, strerror(-rc)) : NULL;
}

struct sim_domain *sim_record_read(struct arena *a, const char *dir, const char **why_r)
{
    struct value v;
    char *bytes;
    size_t len;
    int rc = file_read(a, arena_printf(a, "%s/domain.json", dir), RECORD_MAX, &bytes, &len);

    *why_r = rc < 0 ? strerror(-rc) : NULL;
    if (rc < 0 || !state_text_read(a, bytes, len, &v, why_r))
        return NULL;
    *why_r = "it names no domain";
    const struct value *spec = value_get(&v, "spec");
    const char *uuid = value_get_string(&v, "uuid", "");
    if (uuid[0] == '\0' || spec == NULL || spec->kind != VALUE_MAP || value_get_int(&v, "domid", 0) <= 0)
        return NULL;
    AUTO_TEXT t = TEXT_INIT;
    state_text_add(&t, spec);
    struct sim_domain *d = sim_domain_new(uuid, (int)value_get_int(&v, "domid", 0), dir);
    xfree(d->spec);
    d->spec = text_steal(&t);
    d->pid = (pid_t)value_get_int(&v, "pid", 0);
    d->start_time = (unsigned long long)value_get_int(&v, "start_time", 0);
    d->started_at = value_get_int(&v, "started_at", 0);
    d->n_pages = (uint64_t)value_get_int(&v, "pages", 0);
    d->vcpus = (unsigned)value_get_int(&v, "vcpus", 1);
    d->memory_static_max = (int64_t)(d->n_pages * GUEST_PAGE);
    return d;
}

void sim_end_write(const struct sim_domain *d, enum guest_end end)
{
    AUTO_FREE char *path = xprintf("%s/end", d->dir);
    int rc = file_replace(path, end_names[end], strlen(end_names[end]), 0600);

    if (rc < 0)
        log_warn("%s: %s", path, strerror(-rc));
}

enum guest_end sim_end_read(const struct sim_domain *d)
{
    AUTO_ARENA a = arena_new();
    char *bytes;
    size_t len;

    if (file_read(a, arena_printf(a, "%s/end", d->dir), 64, &bytes, &len) < 0)
        return GUEST_END_NONE;
    for (unsigned i = GUEST_END_POWEROFF; i < ARRAY_LEN(end_names); i++)
        if (strcmp(bytes, end_names[i]) == 0)
            return (enum guest_end)i;
    return GUEST_END_CRASH;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) { return remove(path); }

void sim_dir_remove(const char *dir)
{
    if (nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        log_debug("%s: not all of it could be removed", dir);
}
