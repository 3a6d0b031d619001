/* The NBD protocol's numbers and fixed structures.
 *
 * Source: the NBD project's doc/proto.md (fixed newstyle negotiation, structured replies, block status,
 * STARTTLS). All integers on the wire are big-endian. Extensions of ours stand at the end; a peer that
 * does not know them never sees them. */
#ifndef RPC_NBD_NBD_PROTOCOL_H
#define RPC_NBD_NBD_PROTOCOL_H

#include <stdint.h>

/* --- negotiation --------------------------------------------------------------------------------- */
#define NBD_MAGIC_INIT 0x4e42444d41474943ull        /* "NBDMAGIC" */
#define NBD_MAGIC_OPTION 0x49484156454f5054ull      /* "IHAVEOPT" */
#define NBD_MAGIC_OPTION_REPLY 0x0003e889045565a9ull

#define NBD_FLAG_FIXED_NEWSTYLE 0x1u /* handshake flags, server; the client's two are the same bits */
#define NBD_FLAG_NO_ZEROES 0x2u

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ACK 1u
#define NBD_REP_SERVER 2u
#define NBD_REP_INFO 3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR(n) (0x80000000u | (n))
#define NBD_REP_ERR_UNSUP NBD_REP_ERR(1u)
#define NBD_REP_ERR_POLICY NBD_REP_ERR(2u)
#define NBD_REP_ERR_INVALID NBD_REP_ERR(3u)
#define NBD_REP_ERR_PLATFORM NBD_REP_ERR(4u)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERR(5u)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERR(6u)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERR(7u)
#define NBD_REP_ERR_BLOCK_SIZE_REQD NBD_REP_ERR(8u)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERR(9u)

#define NBD_INFO_EXPORT 0u
#define NBD_INFO_NAME 1u
#define NBD_INFO_DESCRIPTION 2u
#define NBD_INFO_BLOCK_SIZE 3u

#define NBD_OPTION_MAX 65536u /* longest option payload we take */
#define NBD_NAME_MAX 4096u    /* longest string of the protocol */

/* --- transmission -------------------------------------------------------------------------------- */
#define NBD_TFLAG_HAS_FLAGS 0x0001u
#define NBD_TFLAG_READ_ONLY 0x0002u
#define NBD_TFLAG_SEND_FLUSH 0x0004u
#define NBD_TFLAG_SEND_FUA 0x0008u
#define NBD_TFLAG_ROTATIONAL 0x0010u
#define NBD_TFLAG_SEND_TRIM 0x0020u
#define NBD_TFLAG_SEND_WRITE_ZEROES 0x0040u
#define NBD_TFLAG_SEND_DF 0x0080u
#define NBD_TFLAG_CAN_MULTI_CONN 0x0100u
#define NBD_TFLAG_SEND_CACHE 0x0400u
#define NBD_TFLAG_SEND_FAST_ZERO 0x0800u

#define NBD_MAGIC_REQUEST 0x25609513u
#define NBD_MAGIC_SIMPLE_REPLY 0x67446698u
#define NBD_MAGIC_STRUCTURED_REPLY 0x668e33efu

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
    NBD_CMD_XAPI_HASH = 0x7801, /* ours, see below */
};

#define NBD_CMD_FLAG_FUA 0x01u
#define NBD_CMD_FLAG_NO_HOLE 0x02u
#define NBD_CMD_FLAG_DF 0x04u
#define NBD_CMD_FLAG_REQ_ONE 0x08u
#define NBD_CMD_FLAG_FAST_ZERO 0x10u

#define NBD_REPLY_FLAG_DONE 0x1u
#define NBD_REPLY_NONE 0u
#define NBD_REPLY_OFFSET_DATA 1u
#define NBD_REPLY_OFFSET_HOLE 2u
#define NBD_REPLY_BLOCK_STATUS 5u
#define NBD_REPLY_XAPI_HASH 0x7801u /* ours */
#define NBD_REPLY_ERROR 0x8001u
#define NBD_REPLY_ERROR_OFFSET 0x8002u

#define NBD_STATE_HOLE 0x1u /* base:allocation */
#define NBD_STATE_ZERO 0x2u
#define NBD_STATE_DIRTY 0x1u /* qemu:dirty-bitmap:… */

#define NBD_EPERM 1u
#define NBD_EIO 5u
#define NBD_ENOMEM 12u
#define NBD_EINVAL 22u
#define NBD_ENOSPC 28u
#define NBD_EOVERFLOW 75u
#define NBD_ENOTSUP 95u
#define NBD_ESHUTDOWN 108u

struct nbd_request { /* 28 bytes on the wire */
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
} __attribute__((packed));
struct nbd_simple_reply { /* 16 */
    uint32_t magic, error;
    uint64_t cookie;
} __attribute__((packed));
struct nbd_structured_reply { /* 20; 'length' bytes of payload follow */
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie;
    uint32_t length;
} __attribute__((packed));

#define NBD_REQUEST_MAX (32u << 20) /* longest read or write we take; larger is NBD_EINVAL */
#define NBD_PREFERRED (256u << 10)  /* block sizes we announce: minimum 512, preferred, maximum */

/* --- extensions of ours ---------------------------------------------------------------------------
 * Selected as the metadata context "xapi:hash" (NBD_OPT_SET_META_CONTEXT; structured replies are needed).
 * NBD_CMD_XAPI_HASH [offset, length], both multiples of 4,096 (but for the end of the disk): the server
 * reads the range from its medium and answers one structured chunk NBD_REPLY_XAPI_HASH with the 16 bytes
 * of XXH3-128 (canonical, big-endian) of each NBD_HASH_BLOCK bytes, in order; the last one may be shorter.
 * At most NBD_HASH_MAX bytes in one command.
 *
 * NBD_CONTEXT_SESSION with 16 hexadecimal digits of a session and 16 of a generation, named in
 * NBD_OPT_SET_META_CONTEXT, selects nothing and is not answered. It says: what this client had on connections of the
 * same session and a lower generation is over. The server drops those, and carries out nothing on the new one before
 * all that it had begun on them is done: a request that was lost, and repeated, is never done after its repetition. */
#define NBD_CONTEXT_HASH "xapi:hash"
#define NBD_HASH_BLOCK (64u << 10)
#define NBD_HASH_MAX (32u << 20)

#define NBD_CONTEXT_SESSION "xapi:session:"
#define NBD_CONTEXT_ALLOCATION "base:allocation"
#define NBD_CONTEXT_DIRTY "qemu:dirty-bitmap:cbt" /* present where changed blocks are tracked */

#endif
