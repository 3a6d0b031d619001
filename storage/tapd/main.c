/* tapd: serves one VDI. Contract: storage/tapd/control_protocol.h. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "storage/tapd/main_modes.h"

int main(int argc, char **argv)
{
    umask(077);
    if (argc < 2)
        return main_usage();
    if (strcmp(argv[1], "--version") == 0) {
        puts("tapd 1");
        return 0;
    }
    if (strcmp(argv[1], "copy") == 0)
        return main_copy(argc - 2, argv + 2);
    if (strcmp(argv[1], "serve") == 0)
        return main_serve(argc - 2, argv + 2);
    return main_tap(argc - 1, argv + 1);
}
