/* The best any server could do: answers each request with the same bytes from one prebuilt buffer.
 *
 * bench_buffer file: the file holds a whole HTTP reply, head included. Prints the port it listens on at
 * 127.0.0.1, serves one client after the other, and ends when its stdin ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/arena.h"
#include "rpc/base/fd.h"

static int listen_somewhere(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, len) != 0 || listen(fd, 64) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return -1;
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

/* Reads up to the end of a request without looking at it: its body is as long as it says. */
static bool read_request(int fd)
{
    char head[16384];
    size_t len = 0;

    for (;;) {
        ssize_t n = recv(fd, head + len, sizeof(head) - 1 - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        head[len] = '\0';
        const char *end = strstr(head, "\r\n\r\n"), *length = strcasestr(head, "\r\ncontent-length:");
        size_t body = length != NULL ? strtoul(length + strlen("\r\ncontent-length:"), NULL, 10) : 0;
        if (end != NULL && len >= (size_t)(end + 4 - head) + body)
            return true;
        if (len + 1 == sizeof(head))
            return false;
    }
}

static void serve(int fd, const char *reply, size_t len)
{
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    while (read_request(fd))
        if (fd_write_all(fd, reply, len) != 0)
            return;
}

/* Waits for a client: false when whoever started us is gone. */
static bool client_comes(int listener)
{
    struct pollfd fds[] = { { .fd = listener, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };

    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    return fds[1].revents == 0;
}

int main(int argc, char **argv)
{
    AUTO_ARENA arena = arena_new();
    char *reply;
    size_t len;

    if (argc != 2 || file_read(arena, argv[1], (size_t)1 << 30, &reply, &len) != 0) {
        fprintf(stderr, "usage: bench_buffer file\n");
        return 2;
    }
    AUTO_FD listener = listen_somewhere();
    if (listener < 0)
        return 1;
    while (client_comes(listener)) {
        AUTO_FD client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client >= 0)
            serve(client, reply, len);
    }
    return 0;
}
