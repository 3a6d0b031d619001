/* The pool as a whole. */
#include <string.h>

#include "xapi/core/xapi.h"
#include "xapi/pool/eject.h"
#include "xapi/pool/join.h"

struct error *api_pool_join(struct api_call *c, const struct api_pool_join_args *a, struct value *result_r)
{
    return pool_join(c, a->master_address, a->master_username, a->master_password, false);
}

struct error *api_pool_join_force(struct api_call *c, const struct api_pool_join_force_args *a, struct value *result_r)
{
    return pool_join(c, a->master_address, a->master_username, a->master_password, true);
}

struct error *api_pool_eject(struct api_call *c, const struct api_pool_eject_args *a, struct value *result_r)
{
    return pool_eject(c, a->host);
}

struct error *api_pool_initial_auth(struct api_call *c, const struct api_pool_initial_auth_args *a, struct value *result_r)
{
    *result_r = value_string(c->xapi->pool_secret);
    return NULL;
}

struct error *api_pool_is_slave(struct api_call *c, const struct api_pool_is_slave_args *a, struct value *result_r)
{
    *result_r = value_bool(!c->xapi->is_coordinator);
    return NULL;
}

struct error *api_pool_set_https_only(struct api_call *c, const struct api_pool_set_https_only_args *a, struct value *result_r)
{
    struct row_list hosts = db_all(c->db, c->arena, &model_classes[CLASS_host]);

    for (unsigned i = 0; i < hosts.n; i++) {
        const struct api_host_set_https_only_args args = { .self = hosts.rows[i]->ref, .value = a->value };

        TRY(api_run(c, M_host_set_https_only, &args, result_r));
    }
    return NULL;
}
