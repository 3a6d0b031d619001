/* The blocking client against a genuine server (nbdkit) and against one that lies. */
#include "tests/lib/unit.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"
#include "rpc/nbd/nbd_client.h"
#include "rpc/nbd/nbd_endian.h"
#include "rpc/nbd/nbd_protocol.h"
#include "tests/lib/tempdir.h"

#define MIB (1u << 20)

/* --- nbdkit --------------------------------------------------------------------------------------------- */

struct kit { struct tempdir dir; struct arena *arena; const char *socket; struct nbd_uri uri; pid_t pid; };

static void kit_serve(struct kit *k, const char *const *words)
{
    const char *pidfile = tempdir_file(&k->dir, "pid"), *argv[24] = { "nbdkit", "-f", "-U", k->socket, "-P", pidfile };
    struct child_spec spec = CHILD_SPEC_INIT;
    unsigned n = 6;

    unlink(pidfile);
    unlink(k->socket);
    while (*words != NULL)
        argv[n++] = *words++;
    spec.argv = argv;
    assert_int_equal(child_start(&spec, &k->pid), 0);
    for (unsigned i = 0; access(pidfile, F_OK) != 0; i++) {
        assert_true(i < 4000);
        assert_int_equal(waitpid(k->pid, NULL, WNOHANG), 0);
        poll(NULL, 0, 5);
    }
}
#define KIT_SERVE(k, ...) kit_serve(k, (const char *const[]){ __VA_ARGS__, NULL })

static void kit_start(struct kit *k)
{
    *k = (struct kit){ .arena = arena_new() };
    tempdir_make(&k->dir);
    k->socket = tempdir_file(&k->dir, "sock");
    assert_true(nbd_uri_parse(k->arena, nbd_uri_unix(k->arena, k->socket), &k->uri));
}

static void kit_kill(struct kit *k)
{
    kill(k->pid, SIGKILL);
    waitpid(k->pid, NULL, 0);
}

static void kit_end(struct kit *k)
{
    kit_kill(k);
    tempdir_remove(&k->dir);
    arena_free(k->arena);
}

static void fill(char *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)(i * 7 + i / 251);
}

static void count_zeros(void *ctx, uint64_t offset, uint64_t length, bool zero)
{
    uint64_t *zeros = ctx;

    if (zero)
        *zeros += length;
}

static void all_calls(struct nbd_client *c)
{
    char *out = xcalloc(1, 40 * MIB), *in = xcalloc(1, 40 * MIB);
    uint64_t zeros = 0;

    fill(out, 40 * MIB);
    assert_int_equal(nbd_write(c, out, 40 * MIB, 4096, true), 0); /* longer than one request */
    assert_int_equal(nbd_read(c, in, 40 * MIB, 4096), 0);
    assert_memory_equal(in, out, 40 * MIB);
    assert_int_equal(nbd_flush(c), 0);
    assert_int_equal(nbd_zero(c, 2 * MIB, 8 * MIB, false), 0);
    assert_int_equal(nbd_zero(c, MIB, 12 * MIB, true), 0);
    assert_int_equal(nbd_trim(c, MIB, 16 * MIB), 0);
    assert_int_equal(nbd_read(c, in, 8 * MIB, 6 * MIB), 0);
    memset(out, 0, 2 * MIB);
    assert_memory_equal(in + 2 * MIB, out, 2 * MIB);
    assert_memory_equal(in + 6 * MIB, out, MIB);
    assert_int_equal(nbd_status(c, 0, 64 * MIB, count_zeros, &zeros), 0);
    assert_true(zeros <= 64 * MIB);
    xfree(out);
    xfree(in);
}

static void test_nbdkit(void **state)
{
    static const char *const filters[] = { "--filter=nozero", "--filter=noextents", "--no-sr", "--filter=nocache" };

    for (unsigned i = 0; i < ARRAY_LEN(filters); i++) {
        struct nbd_client *c;
        struct nbd_export e;
        struct kit k;

        kit_start(&k);
        KIT_SERVE(&k, filters[i], "memory", "64M");
        assert_int_equal(nbd_client_open(&k.uri, -1, &c, &e), 0);
        assert_int_equal(e.size, 64 * MIB);
        all_calls(c);
        nbd_client_close(c);
        kit_end(&k);
    }
}

static void test_errors_and_holes(void **state)
{
    struct nbd_client *c;
    struct nbd_export e;
    struct kit k;
    char block[4096];
    uint64_t zeros = 0;

    kit_start(&k);
    KIT_SERVE(&k, "--filter=error", "memory", "64M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%");
    assert_int_equal(nbd_client_open(&k.uri, -1, &c, &e), 0);
    assert_true(e.has_status);
    assert_int_equal(nbd_write(c, block, sizeof block, 0, false), -ENOSPC);
    assert_false(nbd_client_gone(c));
    assert_int_equal(nbd_read(c, block, sizeof block, 64 * MIB), -EINVAL);
    assert_int_equal(nbd_read(c, block, sizeof block, 0), 0);
    assert_int_equal(nbd_status(c, 0, 64 * MIB, count_zeros, &zeros), 0);
    assert_int_equal(zeros, 64 * MIB);
    nbd_client_close(c);
    kit_end(&k);
}

static void test_reconnect(void **state)
{
    struct nbd_client *c;
    struct nbd_export e;
    struct kit k;
    char out[4096], in[4096];
    int stop = eventfd(0, EFD_CLOEXEC);

    kit_start(&k);
    const char *image = tempdir_write(&k.dir, "image", "");
    assert_int_equal(truncate(image, MIB), 0);
    KIT_SERVE(&k, "file", image);
    assert_int_equal(nbd_client_open(&k.uri, stop, &c, &e), 0);
    fill(out, sizeof out);
    assert_int_equal(nbd_write(c, out, sizeof out, 8192, false), 0);
    kit_kill(&k);
    assert_int_equal(nbd_write(c, out, sizeof out, 0, false), -ECONNRESET);
    assert_true(nbd_client_gone(c));
    assert_int_equal(nbd_read(c, in, sizeof in, 0), -ECONNRESET);
    KIT_SERVE(&k, "file", image);
    assert_int_equal(nbd_client_reconnect(c, stop), 0);
    assert_int_equal(nbd_write(c, out, sizeof out, 0, false), 0);
    assert_int_equal(nbd_read(c, in, sizeof in, 8192), 0);
    assert_memory_equal(in, out, sizeof in);
    kit_kill(&k);
    eventfd_write(stop, 1);
    assert_int_equal(nbd_client_reconnect(c, stop), -ECANCELED);
    nbd_client_close(c);
    assert_int_not_equal(nbd_client_open(&k.uri, -1, &c, &e), 0);
    KIT_SERVE(&k, "file", image);
    fd_close(&stop);
    kit_end(&k);
}

/* --- a liar ----------------------------------------------------------------------------------------------- */

struct liar { int fd; const unsigned char *bytes; size_t n; pthread_t thread; };

static void *lie(void *arg)
{
    struct liar *l = arg;
    char drain[4096];

    if (fd_write_all(l->fd, l->bytes, l->n) == 0)
        shutdown(l->fd, SHUT_WR);
    while (read(l->fd, drain, sizeof drain) > 0)
        ;
    fd_close(&l->fd);
    return NULL;
}

/* Says these bytes, whatever it is asked; then reads a block. What the client made of it. */
static int read_from_liar(const unsigned char *bytes, size_t n)
{
    struct liar l = { .bytes = bytes, .n = n };
    struct nbd_client *c;
    struct nbd_export e;
    char block[4096];
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    l.fd = pair[1];
    l.thread = thread_start("liar", lie, &l);
    int rc = nbd_client_on(bytes_from_fd(pair[0]), "", -1, &c, &e);
    if (rc == 0) {
        rc = nbd_read(c, block, sizeof block, 0);
        assert_true(rc == 0 || rc == -EIO || nbd_client_gone(c));
        nbd_client_close(c);
    }
    pthread_join(l.thread, NULL);
    return rc;
}

static unsigned char *hello(unsigned char *p, unsigned flags) { return nbd_put16(nbd_put64(nbd_put64(p, NBD_MAGIC_INIT), NBD_MAGIC_OPTION), (uint16_t)flags); }

static unsigned char *option_reply(unsigned char *p, uint32_t option, uint32_t type, uint32_t length)
{
    return nbd_put32(nbd_put32(nbd_put32(nbd_put64(p, NBD_MAGIC_OPTION_REPLY), option), type), length);
}

/* A whole negotiation with structured replies. */
static unsigned char *negotiated(unsigned char *p)
{
    p = hello(p, 3);
    p = option_reply(p, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, 0);
    p = option_reply(p, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, 0);
    p = option_reply(p, NBD_OPT_GO, NBD_REP_INFO, 12);
    p = nbd_put16(nbd_put64(nbd_put16(p, NBD_INFO_EXPORT), MIB), NBD_TFLAG_HAS_FLAGS);
    return option_reply(p, NBD_OPT_GO, NBD_REP_ACK, 0);
}

static unsigned char *chunk(unsigned char *p, unsigned flags, unsigned type, uint64_t cookie, uint32_t length)
{
    p = nbd_put16(nbd_put16(nbd_put32(p, NBD_MAGIC_STRUCTURED_REPLY), (uint16_t)flags), (uint16_t)type);
    return nbd_put32(nbd_put64(p, cookie), length);
}

static void test_negotiation_lies(void **state)
{
    unsigned char bytes[8192] = { 0 }, *p;

    assert_int_equal(read_from_liar(bytes, 0), -ECONNRESET);
    memset(bytes, 0, 18);
    assert_int_equal(read_from_liar(bytes, 18), -EPROTO);
    p = nbd_put16(nbd_put64(nbd_put64(bytes, NBD_MAGIC_INIT), 0x00420281861253ull), 0);
    assert_int_equal(read_from_liar(bytes, (size_t)(p - bytes)), -ENOTSUP);
    p = option_reply(hello(bytes, 3), NBD_OPT_GO, NBD_REP_ACK, 0); /* to a question not asked */
    assert_int_equal(read_from_liar(bytes, (size_t)(p - bytes)), -EPROTO);
    p = option_reply(hello(bytes, 3), NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, UINT32_MAX);
    assert_int_equal(read_from_liar(bytes, (size_t)(p - bytes)), -EPROTO);
    p = option_reply(hello(bytes, 3), NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, 0);
    p = option_reply(p, NBD_OPT_GO, NBD_REP_ACK, 0); /* without an export */
    assert_int_equal(read_from_liar(bytes, (size_t)(p - bytes)), -EPROTO);
    p = option_reply(hello(bytes, 3), NBD_OPT_STRUCTURED_REPLY, NBD_REP_ERR_UNSUP, 0);
    p = option_reply(p, NBD_OPT_GO, NBD_REP_ERR_UNKNOWN, 5000); /* a text longer than what we keep */
    memset(p, 'x', 5000);
    assert_int_equal(read_from_liar(bytes, (size_t)(p + 5000 - bytes)), -ENOENT);
    p = hello(bytes, 0); /* EXPORT_NAME only */
    memset(nbd_put16(nbd_put64(p, MIB), NBD_TFLAG_HAS_FLAGS), 0, 124);
    p += 10 + 124;
    memset(nbd_put64(nbd_put32(nbd_put32(p, NBD_MAGIC_SIMPLE_REPLY), 0), 1), 7, 4096);
    assert_int_equal(read_from_liar(bytes, (size_t)(p + 16 + 4096 - bytes)), 0);
}

static void test_reply_lies(void **state)
{
    /* type, length, offset in the payload, bytes of a hole; the outcome */
    static const struct { unsigned flags, type; uint64_t cookie; uint32_t length; uint64_t offset; uint32_t hole; int rc; } lies[] = {
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 12, 0, 4096, 0 },
        { 1, NBD_REPLY_OFFSET_HOLE, 2, 12, 0, 4096, -EPROTO },
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 12, 0, 4097, -EPROTO },
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 12, 4096, 4096, -EPROTO },
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 12, UINT64_MAX, 4096, -EPROTO },
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 12, 0, 0, -EPROTO },
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 12, 0, 512, -EPROTO },
        { 1, NBD_REPLY_OFFSET_HOLE, 1, 13, 0, 4096, -EPROTO },
        { 1, NBD_REPLY_OFFSET_DATA, 1, 8, 0, 0, -EPROTO },
        { 1, NBD_REPLY_OFFSET_DATA, 1, 4105, 0, 0, -EPROTO },
        { 1, NBD_REPLY_OFFSET_DATA, 1, UINT32_MAX, 0, 0, -EPROTO },
        { 1, NBD_REPLY_NONE, 1, 0, 0, 0, -EPROTO },
        { 1, NBD_REPLY_NONE, 1, 12, 0, 0, -EPROTO },
        { 1, NBD_REPLY_BLOCK_STATUS, 1, 12, 0, 0, -EPROTO },
        { 1, NBD_REPLY_ERROR, 1, 6, 5ull << 32, 0, -EIO },
        { 1, NBD_REPLY_ERROR, 1, 5, 5ull << 32, 0, -EPROTO },
        { 1, NBD_REPLY_ERROR, 1, 6, 0, 0, -EPROTO },
        { 1, NBD_REPLY_ERROR, 1, UINT32_MAX, 5ull << 32, 0, -EPROTO },
        { 1, 77, 1, 12, 0, 0, -EPROTO },
        { 0, NBD_REPLY_OFFSET_HOLE, 1, 12, 0, 4096, -ECONNRESET },
    };
    unsigned char bytes[512] = { 0 };

    for (unsigned i = 0; i < ARRAY_LEN(lies); i++) {
        unsigned char *p = chunk(negotiated(bytes), lies[i].flags, lies[i].type, lies[i].cookie, lies[i].length);
        p = nbd_put32(nbd_put64(p, lies[i].offset), lies[i].hole);
        size_t unused = lies[i].type == NBD_REPLY_ERROR ? 6 : 0;
        assert_int_equal(read_from_liar(bytes, (size_t)(p - bytes) - unused), lies[i].rc);
    }
    unsigned char *p = nbd_put64(nbd_put32(nbd_put32(negotiated(bytes), NBD_MAGIC_SIMPLE_REPLY), 0), 1);
    assert_int_equal(read_from_liar(bytes, (size_t)(p - bytes)), -EPROTO); /* a read must be structured now */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nbdkit),
        cmocka_unit_test(test_errors_and_holes),
        cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_negotiation_lies),
        cmocka_unit_test(test_reply_lies),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
