/* The chunked transfer coding, decoded strictly and incrementally; no I/O.
 *
 * Refused: a size that is empty, not hexadecimal or beyond 2^60, bare LF or CR, a wrong end of a
 * chunk, control bytes or more than 256 bytes in an extension, trailer fields (any). */
#ifndef RPC_HTTP_CHUNK_H
#define RPC_HTTP_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/attributes.h"

enum chunk_state {
    CHUNK_SIZE,      /* in the digits */
    CHUNK_EXTENSION, /* after ';', up to CR */
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_END_CR, /* after the last chunk: the empty trailer */
    CHUNK_END_LF,
    CHUNK_DONE,
    CHUNK_BAD,
};
struct chunk_decoder { enum chunk_state state; unsigned digits, extension; uint64_t left; }; /* zero to begin */

/* Looks at in[0..len): *used_r bytes were consumed, of which *data_r … *data_len_r are payload (a run
 * inside 'in'; may be empty). Returns false for malformed input. Call until all is used or the state
 * is CHUNK_DONE; one call gives at most one run. */
NODISCARD bool chunk_decode(struct chunk_decoder *, const char *in, size_t len, size_t *used_r, const char **data_r,
                            size_t *data_len_r);

#endif
