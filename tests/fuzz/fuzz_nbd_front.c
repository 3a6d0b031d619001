/* The head of an HTTP front's answer, of arbitrary bytes: an end, no byte outside the buffer, and a verdict that does not
 * depend on what comes behind it. corpus/nbd_front has seeds. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/check.h"
#include "storage/tapd/nbd_front.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct nbd_front f;
    char line[40];
    int rc = 0;
    size_t i = 0;

    f.len = 0;
    while (i < size && rc == 0)
        rc = nbd_front_byte(&f, (char)data[i++]);
    CHECK(f.len <= NBD_FRONT_HEAD_MAX && i <= NBD_FRONT_HEAD_MAX + 1);
    if (rc == 1) {
        CHECK(i >= 16 && memcmp(data, "HTTP/1.", 7) == 0 && memcmp(data + 8, " 200", 4) == 0);
        CHECK(memcmp(data + i - 4, "\r\n\r\n", 4) == 0);
    }
    nbd_front_line(&f, line, sizeof line);
    CHECK(strlen(line) < sizeof line && strpbrk(line, "\r\n") == NULL);
    return 0;
}
