/* XenAPI datetimes: yyyyMMddTHH:mm:ssZ out, several ISO 8601 forms in. */
#ifndef RPC_BASE_DATETIME_H
#define RPC_BASE_DATETIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATETIME_LEN 18
/* "19700101T00:00:00Z" */
void datetime_format(int64_t epoch, char out[DATETIME_LEN + 1]);
/* Basic or dashed date, optional fraction (dropped), zone Z, +hh:mm, -hhmm or none (UTC). */
bool datetime_parse(const char *, size_t len, int64_t *epoch_r);

#endif
