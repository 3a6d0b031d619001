/* The layer that notes changed blocks in a log (storage/image/cbt_log.h), and shows them to NBD clients as
 * qemu:dirty-bitmap:cbt.
 *
 * A block is marked before the write (WRITE, ZERO, DISCARD) is handed down, so no write is on the medium
 * without its bit; a request whose bit cannot be noted fails. For blocks that are marked already this is one
 * look at a bit. Loop thread only. */
#ifndef STORAGE_TAPD_CBT_H
#define STORAGE_TAPD_CBT_H

#include "storage/tapd/block.h"
#include "storage/tapd/nbd_server.h"

/* Takes 'below' (closed on failure too). A log of a smaller disk grows. Errors: SR_BACKEND_FAILURE. Blocks. */
NODISCARD struct error *cbt_layer(struct arena *, struct block *below, const char *path, struct block **block_r);
/* For nbd_server_dirty; lives as long as the layer. */
struct nbd_dirty_source *cbt_dirty(struct block *);
bool block_is_cbt(const struct block *);

#endif
