#include "rpc/http/input.h"

#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

void input_consume(struct input *in, size_t n)
{
    CHECK(n <= input_len(in));
    in->start += n;
    if (in->start == in->end)
        in->start = in->end = 0;
}

static void own(struct input *in, size_t cap)
{
    char *bytes = xrealloc(NULL, cap);
    size_t len = input_len(in);

    if (len > 0)
        memcpy(bytes, input_bytes(in), len);
    if (!in->borrowed)
        xfree(in->buffer);
    *in = (struct input){ .buffer = bytes, .end = len, .cap = cap };
}

char *input_room(struct input *in, char *scratch, size_t scratch_size, size_t least, size_t *n_r)
{
    if (in->buffer == NULL)
        *in = (struct input){ .buffer = scratch, .cap = scratch_size, .borrowed = true };
    if (in->cap - in->end < least) {
        size_t need = input_len(in) + least;

        own(in, need + need / 2);
    }
    *n_r = in->cap - in->end;
    return in->buffer + in->end;
}

void input_settle(struct input *in)
{
    if (input_len(in) == 0)
        input_release(in);
    else if (in->borrowed)
        own(in, input_len(in));
}

void input_release(struct input *in)
{
    if (!in->borrowed)
        xfree(in->buffer);
    *in = (struct input){ 0 };
}
