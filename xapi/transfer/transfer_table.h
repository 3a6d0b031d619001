/* Private to xapi/transfer: the coordinator's table. */
#ifndef XAPI_TRANSFER_TRANSFER_TABLE_H
#define XAPI_TRANSFER_TRANSFER_TABLE_H

#include "xapi/transfer/transfer.h"

const char *transfer_kind_name(enum transfer_kind);

#endif
