/* Another pool, read through its API with an administrator's name and password: what pool.join needs.
 * The connection is TLS; its certificate is not known yet and therefore not checked. */
#ifndef XAPI_POOL_REMOTE_POOL_H
#define XAPI_POOL_REMOTE_POOL_H

#include "xapi/core/api_call.h"
#include "xapi/core/xapi.h"

struct remote_pool {
    struct api_call *c;
    struct http_target target;
    const char *session;
};

/* JOINING_HOST_CONNECTION_FAILED [] where nobody answers, JOINING_HOST_SERVICE_FAILED [] where what answers
 * is no xapi, otherwise the remote pool's own error. */
NODISCARD struct error *remote_login(struct api_call *c, const char *address, const char *user, const char *password, struct remote_pool *);
void remote_logout(struct remote_pool *);
/* Calls Class.message with the session and up to 4 more parameters. */
NODISCARD struct error *remote_call(struct remote_pool *, const char *method, const struct value *params, unsigned n, struct value *result_r);
/* Class.get_all_records: a map by ref. */
NODISCARD struct error *remote_records(struct remote_pool *, const char *class_name, struct value *records_r);

#endif
