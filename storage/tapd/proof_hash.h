/* XXH3-128 of blocks, as the wire has it (rpc/nbd/nbd_protocol.h): canonical, big-endian. */
#ifndef STORAGE_TAPD_PROOF_HASH_H
#define STORAGE_TAPD_PROOF_HASH_H

#include <stddef.h>
#include <stdint.h>

#define PROOF_DIGEST 16u

void proof_hash(const void *, size_t len, uint8_t digest_r[PROOF_DIGEST]);
/* One digest for each NBD_HASH_BLOCK begun; how many. */
unsigned proof_hash_blocks(const void *, size_t len, uint8_t (*digests_r)[PROOF_DIGEST]);
/* The same of len bytes of zeros, which are not looked at. len of at most NBD_HASH_BLOCK: any multiple of 512. */
void proof_hash_zeros(size_t len, uint8_t digest_r[PROOF_DIGEST]);

#endif
