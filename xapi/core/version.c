#include "xapi/core/version.h"

#include <ctype.h>
#include <stdlib.h>

bool version_upgrade_in_progress(struct api_call *c)
{
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    return pools.n > 0 && row_map(pools.rows[0], F_pool_other_config, "rolling_upgrade_in_progress", NULL) != NULL;
}

/* The next number of a version text split at '.' and '-'; 0 at its end. */
static long next_number(const char **p)
{
    char *end;
    long n = strtol(*p, &end, 10);
    while (*end != '\0' && *end != '.' && *end != '-')
        end++;
    *p = *end == '\0' ? end : end + 1;
    return n;
}

static int compare(const char *a, const char *b)
{
    while (*a != '\0' || *b != '\0') {
        long x = next_number(&a), y = next_number(&b);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return 0;
}

bool version_not_decreasing(const struct row *from, const struct row *to)
{
    static const char *const keys[] = { "platform_version", "xapi_build", "xen" };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (compare(row_map(to, F_host_software_version, keys[i], "0.0.0"), row_map(from, F_host_software_version, keys[i], "0.0.0")) < 0)
            return false;
    return true;
}

struct error *version_check_upgrade(struct api_call *c, const char *from_host, const char *to_host)
{
    if (!version_upgrade_in_progress(c))
        return NULL;
    const struct row *from, *to;
    TRY(db_need(c->db, c->arena, CLASS_host, from_host, &from));
    TRY(db_need(c->db, c->arena, CLASS_host, to_host, &to));
    return version_not_decreasing(from, to) ? NULL : err_not_supported_during_upgrade(c->arena);
}
