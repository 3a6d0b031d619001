/* libFuzzer target: what a peer may ask of a host's sample route (xapi/migrate/path_probe.h). corpus/path_serve has seeds. */
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/work.h"
#include "xapi/migrate/path_probe.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void *swallow(void *arg)
{
    static char rest[65536];
    const int *fd = arg;

    while (read(*fd, rest, sizeof rest) > 0)
        ;
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    int pair[2];

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    if (len > 65536)
        len = 65536;
    CHECK(fd_write_all(pair[1], bytes, len) == 0);
    CHECK(shutdown(pair[1], SHUT_WR) == 0);
    pthread_t reader = thread_start("reader", swallow, &pair[1]);
    struct byte_stream *stream = bytes_from_fd(pair[0]);
    CHECK(path_serve(stream, 1 << 20) != 0);
    bytes_close(stream);
    CHECK(pthread_join(reader, NULL) == 0);
    close(pair[1]);
    return 0;
}
