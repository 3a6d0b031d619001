/* When a guest was heard: bench_heartbeat SOURCE DESTINATION
 *
 * Reads the bytes of a guest from two FIFOs, before and after its move, and prints each longer silence when it ends:
 * "WHERE END SECONDS", with WHERE "source", "switch" (first word at the destination) or "destination", and END on the
 * monotonic clock. Words: 'F' from the guest is printed as "filled". Ends when its standard input does. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SILENCE 0.004 /* seconds: four of its words are missing */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void heard(const char *where, double *last, double at, bool always)
{
    if (*last > 0 && (always || at - *last > SILENCE)) {
        printf("%s %.6f %.6f\n", where, at, at - *last);
        fflush(stdout);
    }
    *last = at;
}

int main(int argc, char **argv)
{
    struct pollfd fds[3] = { { .fd = STDIN_FILENO, .events = POLLIN } };
    bool moved = false;
    double last = 0;
    char bytes[4096];

    if (argc != 3)
        return 2;
    for (int i = 1; i < 3; i++) {
        fds[i] = (struct pollfd){ .fd = open(argv[i], O_RDWR | O_NONBLOCK | O_CLOEXEC), .events = POLLIN };
        if (fds[i].fd < 0) {
            fprintf(stderr, "bench_heartbeat: %s: %s\n", argv[i], strerror(errno));
            return 1;
        }
    }
    for (;;) {
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            return 1;
        double at = now();
        for (int i = 1; i < 3; i++) {
            ssize_t n = fds[i].revents != 0 ? read(fds[i].fd, bytes, sizeof(bytes)) : 0;
            if (n <= 0)
                continue;
            if (memchr(bytes, 'F', (size_t)n) != NULL) {
                printf("filled\n");
                fflush(stdout);
            }
            heard(i == 1 ? "source" : moved ? "destination" : "switch", &last, at, i == 2 && !moved);
            moved = moved || i == 2;
        }
        if (fds[0].revents != 0 && read(STDIN_FILENO, bytes, sizeof(bytes)) <= 0)
            return 0;
    }
}
