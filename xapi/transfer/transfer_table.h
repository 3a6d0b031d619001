/* Private to xapi/transfer: the coordinator's table. */
#ifndef XAPI_TRANSFER_TRANSFER_TABLE_H
#define XAPI_TRANSFER_TRANSFER_TABLE_H

#include "rpc/base/lock.h"
#include "xapi/transfer/transfer.h"
#include "xapi/transfer/transfer_watch.h"

struct admitted;
struct transfers {
    struct lock lock;              /* class TASK: the list */
    struct admitted *list;         /* of the coordinator */
    struct transfer_watch *watch;  /* of what this host does itself */
};

const char *transfer_kind_name(enum transfer_kind);

#endif
