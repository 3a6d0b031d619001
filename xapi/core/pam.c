#include "xapi/core/pam.h"

#include <security/pam_appl.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/log.h"

LOG_MODULE(pam);

struct answers {
    const char *old_password, *password; /* password NULL: only the old one is asked for */
    unsigned n_asked;
};

/* PAM frees the replies and their texts with free(), so these two come from the C library's heap. */
static int converse(int n, const struct pam_message **messages, struct pam_response **replies_r, void *ctx)
{
    struct answers *answers = ctx;
    struct pam_response *replies = n > 0 ? calloc((size_t)n, sizeof(*replies)) : NULL; /* lint: PAM frees it */

    if (replies == NULL)
        return PAM_CONV_ERR;
    for (int i = 0; i < n; i++) {
        int style = messages[i]->msg_style;
        if (style != PAM_PROMPT_ECHO_OFF && style != PAM_PROMPT_ECHO_ON)
            continue;
        bool fresh = answers->password != NULL && answers->n_asked++ > 0;
        replies[i].resp = strdup(fresh ? answers->password : answers->old_password); /* lint: PAM frees it */
    }
    *replies_r = replies;
    return PAM_SUCCESS;
}

static bool failed(struct arena *a, pam_handle_t *handle, int rc, const char *user, const char **why_r)
{
    if (rc == PAM_SUCCESS)
        return false;
    *why_r = arena_strdup(a, pam_strerror(handle, rc));
    log_warn_rl("PAM refuses '%s': %s", user, *why_r);
    return true;
}

/* PAM would sleep after a failure, on our thread: the front makes the client wait instead. */
static void no_delay(int rc, unsigned microseconds, void *ctx) {}

bool pam_check(struct arena *a, const char *service, const char *user, const char *password, const char **why_r)
{
    struct answers answers = { .old_password = password };
    struct pam_conv conversation = { converse, &answers };
    pam_handle_t *handle = NULL;
    int rc = pam_start(service, user, &conversation, &handle);

    if (failed(a, handle, rc, user, why_r))
        return false;
    pam_set_item(handle, PAM_FAIL_DELAY, (const void *)no_delay);
    rc = pam_authenticate(handle, PAM_DISALLOW_NULL_AUTHTOK);
    if (rc == PAM_SUCCESS)
        rc = pam_acct_mgmt(handle, PAM_DISALLOW_NULL_AUTHTOK);
    bool ok = !failed(a, handle, rc, user, why_r);
    pam_end(handle, rc);
    return ok;
}

bool pam_change(struct arena *a, const char *service, const char *user, const char *old_password, const char *password, const char **why_r)
{
    struct answers answers = { .old_password = old_password, .password = password };
    struct pam_conv conversation = { converse, &answers };
    pam_handle_t *handle = NULL;
    int rc = pam_start(service, user, &conversation, &handle);

    if (failed(a, handle, rc, user, why_r))
        return false;
    /* As root PAM asks for no old password: the first prompt is for the new one already. */
    answers.n_asked = 1;
    rc = pam_chauthtok(handle, 0);
    bool ok = !failed(a, handle, rc, user, why_r);
    pam_end(handle, rc);
    return ok;
}
