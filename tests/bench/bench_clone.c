/* Copies an image as the file drivers do inside one SR: bench_clone FROM TO
 *
 * TO is made. Prints the milliseconds it took, without the start of the process. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "storage/sparse_copy.h"

static struct error *clone(struct call *c, const char *from, const char *to)
{
    AUTO_FD in = open(from, O_RDONLY | O_CLOEXEC);
    AUTO_FD out = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct stat st;

    if (in < 0 || out < 0 || fstat(in, &st) != 0 || ftruncate(out, st.st_size) != 0)
        return err_internal(c->arena, "cannot open %s and make %s", from, to);
    return sparse_copy(c, in, out, st.st_size);
}

int main(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = &clock_real, .id = "clone" };
    int64_t began = clock_us(&clock_real);
    const struct error *e;

    if (argc != 3) {
        fputs("usage: bench_clone FROM TO\n", stderr);
        return 2;
    }
    e = clone(&c, argv[1], argv[2]);
    if (e != NULL) {
        fprintf(stderr, "%s\n", error_text(a, e));
        return 1;
    }
    printf("%.3f\n", (double)(clock_us(&clock_real) - began) / 1000);
    return 0;
}
