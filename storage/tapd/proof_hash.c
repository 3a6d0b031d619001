#include "storage/tapd/proof_hash.h"

#include <stdbool.h>
#include <string.h>

#include <xxhash.h>

#include "rpc/nbd/nbd_protocol.h"

void proof_hash(const void *bytes, size_t len, uint8_t digest_r[PROOF_DIGEST])
{
    XXH128_canonical_t wire;

    XXH128_canonicalFromHash(&wire, XXH3_128bits(bytes, len));
    memcpy(digest_r, wire.digest, PROOF_DIGEST);
}

unsigned proof_hash_blocks(const void *bytes, size_t len, uint8_t (*digests_r)[PROOF_DIGEST])
{
    unsigned n = 0;

    for (size_t at = 0; at < len; at += NBD_HASH_BLOCK)
        proof_hash((const uint8_t *)bytes + at, len - at < NBD_HASH_BLOCK ? len - at : NBD_HASH_BLOCK, digests_r[n++]);
    return n;
}

void proof_hash_zeros(size_t len, uint8_t digest_r[PROOF_DIGEST])
{
    static const uint8_t zeros[NBD_HASH_BLOCK];
    static uint8_t whole[PROOF_DIGEST]; /* of a full block, the usual one */
    static bool known;

    if (len != NBD_HASH_BLOCK) {
        proof_hash(zeros, len, digest_r);
        return;
    }
    if (!known)
        proof_hash(zeros, len, whole);
    known = true;
    memcpy(digest_r, whole, PROOF_DIGEST);
}
