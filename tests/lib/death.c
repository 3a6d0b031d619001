#include "tests/lib/death.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "rpc/base/arena.h"
#include "rpc/base/check.h"
#include "rpc/base/child.h"

#define ARGUMENT "--deed"
#define TIMEOUT_MS 20000
#define OUTPUT_MAX 65536u

void death_main(int argc, char **argv, const struct deed *deeds)
{
    const struct rlimit none = { 0, 0 };

    if (argc != 3 || strcmp(argv[1], ARGUMENT) != 0)
        return;
    setrlimit(RLIMIT_CORE, &none);
    for (const struct deed *d = deeds; d->name != NULL; d++) {
        if (strcmp(d->name, argv[2]) == 0) {
            d->fn();
            exit(0);
        }
    }
    BUG("no such deed");
}

bool death_of(const char *name, const char *text)
{
    AUTO_ARENA a = arena_new();
    const char *const argv[] = { "/proc/self/exe", ARGUMENT, name, NULL };
    struct child_spec spec = CHILD_SPEC_INIT;
    char *output;
    int status;

    spec.argv = argv;
    int rc = child_run(a, &spec, TIMEOUT_MS, OUTPUT_MAX, &status, &output);
    CHECK(rc == 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(output, text) != NULL)
        return true;
    fprintf(stderr, "'%s': status %#x, output:\n%s", name, (unsigned)status, output);
    return false;
}
