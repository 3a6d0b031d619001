/* Subjects: users other than root who may log in, named by a subject identifier.
 *
 * A user of the users file (or of PAM) has the identifier "u:NAME". */
#ifndef XAPI_CORE_SUBJECT_H
#define XAPI_CORE_SUBJECT_H

#include "xapi/core/api_call.h"

/* The row of a user's subject: by identifier, by the bare name, or by other_config:subject-name. NULL: none. */
const struct row *subject_of_user(struct api_call *c, const char *user);
char *subject_identifier(struct arena *, const char *user);
/* The user of an identifier, or NULL when it is none of ours. */
const char *subject_user(const char *identifier);

#endif
