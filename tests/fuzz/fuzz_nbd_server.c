/* A client of arbitrary bytes against the NBD server over a disk in memory: no crash, nothing left in flight, no byte
 * outside the disk. The first byte chooses: 1 answers later, 2 read-only, 4 negotiation is done already (the rest is
 * commands), 8 with structured replies and contexts then, 16 reads fail, 32 many small sends.
 *
 * clang -fsanitize=fuzzer,address,undefined; corpus in tests/fuzz/corpus/nbd_server. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/nbd/nbd_endian.h"
#include "rpc/nbd/nbd_handshake.h"
#include "storage/tapd/nbd_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK (4 << 20)

struct disk { struct block block; char *data; bool later, fail; struct block_request *waiting; struct loop_idle idle; };

static void finish(struct disk *d, struct block_request *r)
{
    CHECK(r->op == BLOCK_FLUSH || (r->length <= BLOCK_REQUEST_MAX && r->offset + r->length <= DISK));
    if (r->op == BLOCK_READ && !d->fail)
        memcpy(r->buffer, d->data + r->offset, r->length);
    else if (r->op == BLOCK_WRITE)
        memcpy(d->data + r->offset, r->buffer, r->length);
    else if (r->op == BLOCK_ZERO)
        memset(d->data + r->offset, 0, r->length);
    block_finish(r, d->fail && r->op == BLOCK_READ ? -EIO : 0);
}

static void run_idle(struct loop_idle *idle)
{
    struct disk *d = CONTAINER_OF(idle, struct disk, idle);

    while (d->waiting != NULL) {
        struct block_request *r = d->waiting;
        d->waiting = r->next;
        finish(d, r);
    }
}

static void submit(struct block *b, struct block_request *r)
{
    struct disk *d = (struct disk *)b;

    if (!d->later) {
        finish(d, r);
        return;
    }
    r->next = d->waiting;
    d->waiting = r;
    loop_later(b->loop, &d->idle);
}

static int extents(struct block *b, int64_t offset, int64_t length, bool own_only, block_extent_fn *fn, void *ctx)
{
    for (int64_t at = offset, n; at < offset + length; at += n) {
        n = 65536 - at % 65536 < offset + length - at ? 65536 - at % 65536 : offset + length - at;
        struct block_extent e = { .offset = at, .length = n, .hole = at / 65536 % 3 == 0, .zero = at / 65536 % 3 == 0 };
        if (!fn(ctx, &e))
            break;
    }
    return 0;
}

static int dirty(struct nbd_dirty_source *s, int64_t offset, int64_t length, block_extent_fn *fn, void *ctx)
{
    return extents(NULL, offset, length, false, fn, ctx);
}

static void drain(int fd, struct loop *l)
{
    static char bin[1 << 16];

    do
        loop_turn(l, 0);
    while (recv(fd, bin, sizeof bin, MSG_DONTWAIT) > 0);
}

static void push(int fd, struct loop *l, const void *bytes, size_t n, size_t step)
{
    const char *at = bytes;

    for (unsigned idle = 0; n > 0 && idle < 8;) {
        ssize_t put = send(fd, at, n < step ? n : step, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (put < 0 && errno != EAGAIN)
            return;
        idle = put > 0 ? 0 : idle + 1;
        at += put > 0 ? put : 0;
        n -= put > 0 ? (size_t)put : 0;
        drain(fd, l);
    }
}

static unsigned char *option(unsigned char *p, uint32_t number, const char *payload, uint32_t length)
{
    p = nbd_put32(nbd_put32(nbd_put64(p, NBD_MAGIC_OPTION), number), length);
    memcpy(p, payload, length);
    return p + length;
}

static void negotiate(int fd, struct loop *l, bool structured)
{
    static const char contexts[] = "\0\0\0\0\0\0\0\3\0\0\0\17base:allocation\0\0\0\25qemu:dirty-bitmap:cbt\0\0\0\11xapi:hash";
    unsigned char bytes[512], *p = nbd_put32(bytes, 3);

    if (structured) {
        p = option(p, NBD_OPT_STRUCTURED_REPLY, "", 0);
        p = option(p, NBD_OPT_SET_META_CONTEXT, contexts, sizeof contexts - 1);
    }
    p = option(p, NBD_OPT_GO, "\0\0\0\0\0\0", 6);
    push(fd, l, bytes, (size_t)(p - bytes), sizeof bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct block_ops ops = { .name = "fuzz", .submit = submit, .extents = extents };
    struct nbd_dirty_source source = { .extents = dirty };
    struct disk d = { .idle.run = run_idle };
    int pair[2];

    if (size < 1 || size > 1 << 20)
        return 0;
    struct loop *l = loop_new(&clock_real);
    d.block = (struct block){ .ops = &ops, .loop = l, .size = DISK, .thin = true };
    d.data = xcalloc(1, DISK);
    d.later = data[0] & 1;
    d.fail = data[0] & 16;
    struct nbd_server *s = nbd_server_new(l, &d.block);
    nbd_server_dirty(s, &source);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK(nbd_server_adopt(s, pair[1], data[0] & 2, NULL) == 0);
    if (data[0] & 4)
        negotiate(pair[0], l, data[0] & 8);
    push(pair[0], l, data + 1, size - 1, data[0] & 32 ? 17 : 1 << 20);
    for (unsigned i = 0; i < 100 && nbd_server_in_flight(s) > 0; i++)
        drain(pair[0], l);
    close(pair[0]);
    for (unsigned i = 0; i < 100 && (nbd_server_in_flight(s) > 0 || nbd_server_clients(s) > 0); i++)
        loop_turn(l, 0);
    CHECK(nbd_server_in_flight(s) == 0 && nbd_server_clients(s) == 0);
    nbd_server_free(s);
    loop_free(l);
    xfree(d.data);
    return 0;
}
