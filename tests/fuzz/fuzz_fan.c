/* libFuzzer target: the blocks of two memory connections as another host sends them. The first byte says where the input is
 * split between them. Whatever comes, the reader ends with the image's end or a fault that has a text, and what it gives is no
 * more than what was said. corpus/fan has seeds. */
#include <stdint.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/clock.h"
#include "xenops/stream/fan.h"
#include "xenops/stream/input.h"

#define PAGES 256u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct fuzz_stream {
    struct byte_stream stream; /* first member */
    const uint8_t *at;
    size_t left;
};

static ssize_t fuzz_read(struct byte_stream *s, void *to, size_t n)
{
    struct fuzz_stream *f = (struct fuzz_stream *)s;

    n = n < f->left ? n : f->left;
    if (n > 0)
        memcpy(to, f->at, n);
    f->at += n;
    f->left -= n;
    return (ssize_t)n;
}
static int no_fd(const struct byte_stream *s) { return -1; }
static void no_abort(struct byte_stream *s) {}
static const struct byte_stream_ops fuzz_ops = { .name = "fuzz", .read = fuzz_read, .fd = no_fd, .abort = no_abort };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static uint8_t memory[PAGES * LIBXC_PAGE];
    const struct input_target target = { .memory = memory, .n_pages = PAGES, .memory_fd = -1 };
    struct input_result r;

    if (len == 0)
        return 0;
    size_t first = (len - 1) * bytes[0] / 255;
    struct fuzz_stream streams[2] = {
        { .stream = { .ops = &fuzz_ops }, .at = bytes + 1, .left = first },
        { .stream = { .ops = &fuzz_ops }, .at = bytes + 1 + first, .left = len - 1 - first },
    };
    struct byte_stream *const connections[2] = { &streams[0].stream, &streams[1].stream };
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = &clock_real };
    struct byte_stream *fan = fan_in_new(connections, 2, false);
    struct error *e = input_read(&c, fan, &target, &r);
    char more;

    CHECK(e != NULL || r.context_len > 0);
    if (e == NULL)
        CHECK(bytes_read(fan, &more, 1) <= 0 || fan_in_fault(fan) == NULL);
    CHECK(fan_in_fault(fan) == NULL || fan_in_fault(fan)[0] != '\0');
    bytes_close(fan);
    return 0;
}
