/* libFuzzer target: a client of a host's NBD server before it has a disk: greeting, options, STARTTLS.
 * corpus/nbd_gate has seeds. */
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "xapi/transfer/nbd_gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct tls_context *tls;
    struct xapi xapi = { .clock = &clock_real, .dir = "/nonexistent", .host_uuid = "", .is_coordinator = true };
    AUTO_ARENA arena = arena_new();
    struct nbd_gate gate;
    int pair[2];

    if (tls == NULL)
        CHECK(tls_client_context(arena, &tls) == NULL); /* no handshake gets far: it stands for one that fails */
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    if (len > 65536)
        len = 65536;
    CHECK(fd_write_all(pair[1], bytes, len) == 0);
    CHECK(shutdown(pair[1], SHUT_WR) == 0);
    nbd_gate_init(&gate, &xapi, tls, pair[0]);
    nbd_gate_serve(&gate);
    nbd_gate_release(&gate);
    close(pair[1]);
    return 0;
}
