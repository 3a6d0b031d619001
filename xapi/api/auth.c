#include "xapi/core/authenticate.h"
#include "xapi/core/subject.h"
#include "xapi/core/xapi.h"

/* The directory behind these is the users file, or the host's own users through PAM. */
static struct error *user_of(struct api_call *c, const char *identifier, const char **user_r)
{
    bool known = false;

    *user_r = subject_user(identifier);
    if (*user_r != NULL)
        TRY(authenticate_known(c->arena, c->xapi->config, *user_r, &known));
    return known ? NULL : err_subject_cannot_be_resolved(c->arena);
}

struct error *api_auth_get_subject_identifier(struct api_call *c, const struct api_auth_get_subject_identifier_args *a, struct value *result_r)
{
    bool known;

    TRY(authenticate_known(c->arena, c->xapi->config, a->subject_name, &known));
    if (!known)
        return err_subject_cannot_be_resolved(c->arena);
    *result_r = value_string(subject_identifier(c->arena, a->subject_name));
    return NULL;
}

struct error *api_auth_get_subject_information_from_identifier(struct api_call *c,
                                                               const struct api_auth_get_subject_information_from_identifier_args *a,
                                                               struct value *result_r)
{
    struct value_dict d = { 0 };
    const char *user;

    TRY(user_of(c, a->subject_identifier, &user));
    value_dict_add(c->arena, &d, "subject-name", value_string(user));
    value_dict_add(c->arena, &d, "subject-sid", value_string(a->subject_identifier));
    value_dict_add(c->arena, &d, "subject-is-group", value_string("false"));
    value_dict_add(c->arena, &d, "subject-account-disabled", value_string("false"));
    *result_r = value_dict_value(&d);
    return NULL;
}

/* There are no groups. */
struct error *api_auth_get_group_membership(struct api_call *c, const struct api_auth_get_group_membership_args *a, struct value *result_r)
{
    const char *user;

    TRY(user_of(c, a->subject_identifier, &user));
    *result_r = value_set(NULL, 0);
    return NULL;
}
