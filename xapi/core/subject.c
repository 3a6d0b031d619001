#include "xapi/core/subject.h"

#include <string.h>

#define PREFIX "u:"

char *subject_identifier(struct arena *a, const char *user) { return arena_printf(a, PREFIX "%s", user); }

const char *subject_user(const char *identifier)
{
    return strncmp(identifier, PREFIX, strlen(PREFIX)) == 0 ? identifier + strlen(PREFIX) : NULL;
}

const struct row *subject_of_user(struct api_call *c, const char *user)
{
    struct row_list all = db_all(c->db, c->arena, &model_classes[CLASS_subject]);
    const char *identifier = subject_identifier(c->arena, user);

    for (unsigned i = 0; i < all.n; i++) {
        const struct row *row = all.rows[i];
        const char *id = row_string(row, F_subject_subject_identifier);
        if (strcmp(id, identifier) == 0 || strcmp(id, user) == 0)
            return row;
        if (strcmp(row_map(row, F_subject_other_config, "subject-name", ""), user) == 0)
            return row;
    }
    return NULL;
}
