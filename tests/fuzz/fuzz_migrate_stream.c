/* libFuzzer target: an image as it comes from another host or a suspend VDI. It must be refused or fill
 * the domain's memory and nothing beyond. Build with clang -fsanitize=fuzzer,address,undefined;
 * corpus/migrate_stream has seeds. */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpc/base/check.h"
#include "rpc/base/clock.h"
#include "xenops/state_text.h"
#include "xenops/stream/input.h"
#include "xenops/vm_spec.h"

#define PAGES 16u

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

struct fuzz_stream {
    struct byte_stream stream; /* first member */
    const uint8_t *at;
    size_t left, step;
};

static ssize_t fuzz_read(struct byte_stream *s, void *to, size_t n)
{
    struct fuzz_stream *f = (struct fuzz_stream *)s;

    n = n < f->left ? n : f->left;
    n = n < f->step ? n : f->step;
    if (n > 0)
        memcpy(to, f->at, n);
    f->at += n;
    f->left -= n;
    return (ssize_t)n;
}
static int no_fd(const struct byte_stream *s) { return -1; }

static const struct byte_stream_ops fuzz_ops = { .name = "fuzz", .read = fuzz_read, .fd = no_fd };

static struct error *accept_state(void *ctx, struct call *c, const char *state, size_t len)
{
    struct vm_spec spec;
    struct value v;
    const char *why = NULL;

    if (!state_text_read(c->arena, state, len, &v, &why)) {
        CHECK(why != NULL);
        return NULL; /* the pages are to be read all the same */
    }
    const struct value *vm = value_get(&v, "vm");
    struct error *e = vm_spec_from_value(c->arena, vm != NULL ? vm : &v, &spec);
    return e == NULL || error_is(e, "INTERNAL_ERROR") ? NULL : e;
}

static bool read_once(const uint8_t *bytes, size_t len, size_t step, uint8_t *memory, int memory_fd)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = &clock_real };
    struct fuzz_stream s = { .stream = { .ops = &fuzz_ops }, .at = bytes, .left = len, .step = step };
    const struct input_target target = { .memory = memory, .n_pages = PAGES, .memory_fd = memory_fd, .accept = accept_state };
    struct input_result r;

    struct error *e = input_read(&c, &s.stream, &target, &r);
    CHECK(e != NULL || (r.context_len > 0 && r.bytes <= len));
    CHECK(r.bytes + s.left == len);
    return e == NULL;
}

/* Once in large pieces into a file, once in small ones into plain memory: the outcome is the same. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static uint8_t plain[PAGES * LIBXC_PAGE], *mapped;
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        CHECK(fd >= 0 && ftruncate(fd, sizeof(plain)) == 0);
        mapped = mmap(NULL, sizeof(plain), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(mapped != MAP_FAILED);
    }
    memset(plain, 0, sizeof(plain));
    memset(mapped, 0, sizeof(plain));
    bool good = read_once(bytes, len, SIZE_MAX, mapped, fd);
    CHECK(read_once(bytes, len, 13, plain, -1) == good);
    CHECK(!good || memcmp(plain, mapped, sizeof(plain)) == 0);
    return 0;
}
