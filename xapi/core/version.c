#include "xapi/core/version.h"

#include <ctype.h>
#include <string.h>

bool version_upgrade_in_progress(struct api_call *c)
{
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    return pools.n > 0 && row_map(pools.rows[0], F_pool_other_config, "rolling_upgrade_in_progress", NULL) != NULL;
}

/* The next number of a version text; 0 at its end and for a part that begins with no digit. */
static unsigned long long next_number(const char **p)
{
    unsigned long long n = 0;
    const char *s = *p;
    for (; isdigit((unsigned char)*s); s++)
        n = n * 10 + (unsigned)(*s - '0');
    s += strcspn(s, ".-");
    *p = *s == '\0' ? s : s + 1;
    return n;
}

int version_compare(const char *a, const char *b)
{
    while (*a != '\0' || *b != '\0') {
        unsigned long long x = next_number(&a), y = next_number(&b);
        if (x != y)
            return x < y ? -1 : 1;
    }
    return 0;
}

bool version_not_decreasing(const struct row *from, const struct row *to)
{
    static const char *const keys[] = { "platform_version", "xapi_build", "xen" };
    for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
        if (version_compare(row_map(to, F_host_software_version, keys[i], "0.0.0"), row_map(from, F_host_software_version, keys[i], "0.0.0")) < 0)
            return false;
    return true;
}

bool version_is_highest(struct api_call *c, const struct row *host)
{
    struct row_list hosts = db_all(c->db, c->arena, &model_classes[CLASS_host]);
    for (unsigned i = 0; i < hosts.n; i++)
        if (!version_not_decreasing(hosts.rows[i], host))
            return false;
    return true;
}

bool version_is_coordinators(struct api_call *c, const struct row *host)
{
    struct row_list pools = db_all(c->db, c->arena, &model_classes[CLASS_pool]);
    const struct row *coordinator = pools.n > 0 ? db_get(c->db, c->arena, &model_classes[CLASS_host], row_string(pools.rows[0], F_pool_master)) : NULL;
    return coordinator == NULL || version_compare(row_map(host, F_host_software_version, "platform_version", "0.0.0"),
                                                  row_map(coordinator, F_host_software_version, "platform_version", "0.0.0")) == 0;
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
