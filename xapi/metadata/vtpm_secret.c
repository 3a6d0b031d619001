#include "xapi/metadata/vtpm_secret.h"

const char *vtpm_secret_read(struct api_call *c, const struct row *vtpm)
{
    const struct row *secret = db_get(c->db, c->arena, &model_classes[CLASS_secret], row_string(vtpm, F_VTPM_contents));
    return secret != NULL ? row_string(secret, F_secret_value) : "";
}

struct error *vtpm_secret_make(struct txn *txn, const char *content, const char **secret_r)
{
    const struct field_value fields[] = { { F_secret_value, value_string(content) } };
    return txn_create(txn, CLASS_secret, NULL, NULL, fields, ARRAY_LEN(fields), secret_r);
}

struct error *vtpm_delete(struct txn *txn, const struct row *vtpm)
{
    const struct row *secret = txn_get(txn, &model_classes[CLASS_secret], row_string(vtpm, F_VTPM_contents));

    if (secret != NULL)
        TRY(txn_delete(txn, CLASS_secret, secret->ref));
    return txn_delete(txn, CLASS_VTPM, vtpm->ref);
}
