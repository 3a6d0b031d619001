/* libFuzzer target: what an NBD server may send to tapd's client, from the greeting on. The first byte says how
 * much of a good negotiation goes before, so that replies are reached as well. corpus/tapd_nbd_client has seeds. */
#include <endian.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/nbd/nbd_protocol.h"
#include "storage/tapd/nbd_client_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

/* Flags, contexts 7 and 9, 1 MiB. */
static const uint8_t hello[] =
    "NBDMAGIC" "IHAVEOPT" "\0\3"
    "\0\3\350\211\4\125\145\251" "\0\0\0\10" "\0\0\0\1" "\0\0\0\0"
    "\0\3\350\211\4\125\145\251" "\0\0\0\12" "\0\0\0\4" "\0\0\0\23" "\0\0\0\7" "base:allocation"
    "\0\3\350\211\4\125\145\251" "\0\0\0\12" "\0\0\0\4" "\0\0\0\15" "\0\0\0\11" "xapi:hash"
    "\0\3\350\211\4\125\145\251" "\0\0\0\12" "\0\0\0\1" "\0\0\0\0"
    "\0\3\350\211\4\125\145\251" "\0\0\0\7" "\0\0\0\3" "\0\0\0\14" "\0\0" "\0\0\0\0\0\20\0\0" "\0\155"
    "\0\3\350\211\4\125\145\251" "\0\0\0\7" "\0\0\0\1" "\0\0\0\0";

#define N_REQUESTS 8u

struct round {
    unsigned left;
    struct block_request r[N_REQUESTS];
    struct nbd_hash hash;
    uint8_t digests[4][16];
    uint8_t buffers[N_REQUESTS][4096];
};

static void one_done(struct block_request *r) { ((struct round *)r->owner)->left--; }
static void hash_done(struct nbd_hash *h) { ((struct round *)h->owner)->left--; }
static bool see(void *ctx, const struct block_extent *e) { return e->length > 0; }

static void use(struct loop *loop, struct block *b)
{
    static struct round round;

    round = (struct round) { .left = N_REQUESTS + 1 };
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        round.r[i] = (struct block_request) { .op = (enum block_op)(i % 5), .offset = i * 4096, .length = i % 5 == BLOCK_FLUSH ? 0 : 4096,
                                              .buffer = round.buffers[i], .done = one_done, .owner = &round };
        block_submit(b, &round.r[i]);
    }
    round.hash = (struct nbd_hash) { .length = 4 * NBD_HASH_BLOCK, .digests = round.digests, .done = hash_done, .owner = &round };
    nbd_hash(b, &round.hash);
    if (block_extents(b, 0, b->size, false, see, NULL) != 0)
        CHECK(nbd_is_lost(b) || b->size > 0);
    while (round.left > 0)
        loop_turn(loop, 10);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const struct nbd_options options;
    struct loop *loop;
    struct block *b;
    AUTO_ARENA arena = arena_new();
    int fds[2];
    size_t before;

    if (len < 1 || len > 65536)
        return 0;
    before = bytes[0] >= sizeof hello - 1 ? sizeof hello - 1 : bytes[0];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK(fd_write_all(fds[1], hello, before) == 0 && fd_write_all(fds[1], bytes + 1, len - 1) == 0);
    shutdown(fds[1], SHUT_WR);
    loop = loop_new(&clock_real);
    if (nbd_open_fd(arena, loop, fds[0], &options, false, &b) == NULL) {
        if (b->size >= (1 << 20) && b->size < (1ll << 40))
            use(loop, b);
        block_close(b);
    }
    loop_free(loop);
    close(fds[1]);
    return 0;
}
