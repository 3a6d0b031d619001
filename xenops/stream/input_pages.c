/* PAGE_DATA: all checks first, then the pages, runs of neighbours at once into the domain's memory. */
#include <string.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "xenops/stream/input_bytes.h"

#define LONG_RUN 8u /* pages */

/* The list of pfns, in in->pfns. Room is made by what was really received, not by what was announced:
 * the count is bounded by the body's length, which the record's limit bounds, and by LIBXC_BATCH_MAX. */
static struct error *read_pfns(struct call *c, struct input *in, uint32_t count)
{
    if (count > in->pfns_room) {
        in->pfns = xrealloc(in->pfns, count * sizeof(uint64_t));
        in->pfns_room = count;
    }
    return input_body(c, in, in->pfns, count * sizeof(uint64_t));
}

/* Checks one pfn word; *data_r: a page of data follows for it. */
static struct error *check_pfn(struct call *c, const struct input *in, uint64_t word, bool *data_r)
{
    uint64_t pfn = word & LIBXC_PFN_MASK;

    *data_r = false;
    if ((word & LIBXC_PFN_ZERO) != 0)
        return input_bad(c, in, "reserved bits in pfn word %#llx", (unsigned long long)word);
    if (pfn >= in->target->n_pages)
        return input_bad(c, in, "pfn %llu is outside the domain of %llu pages", (unsigned long long)pfn,
                         (unsigned long long)in->target->n_pages);
    switch ((enum libxc_pfn_type)LIBXC_PFN_TYPE(word)) {
    case LIBXC_PFN_NORMAL:
        *data_r = true;
        return NULL;
    case LIBXC_PFN_ALLOCATE:
    case LIBXC_PFN_INVALID:
        return NULL;
    case LIBXC_PFN_BROKEN:
        return input_bad(c, in, "pfn %llu is a broken page", (unsigned long long)pfn);
    }
    return input_bad(c, in, "page type %#x of pfn %llu in an HVM stream", LIBXC_PFN_TYPE(word), (unsigned long long)pfn);
}

static struct error *check_pfns(struct call *c, struct input *in, uint32_t count)
{
    uint64_t n_data = 0;
    bool data;

    for (uint32_t i = 0; i < count; i++) {
        TRY(check_pfn(c, in, in->pfns[i], &data));
        n_data += data;
        in->result->pages_allocated += LIBXC_PFN_TYPE(in->pfns[i]) == LIBXC_PFN_ALLOCATE;
    }
    if (in->left != n_data * LIBXC_PAGE)
        return input_bad(c, in, "PAGE_DATA of %llu pages has %llu bytes of data", (unsigned long long)n_data, (unsigned long long)in->left);
    in->result->pages_read += n_data;
    return NULL;
}

/* A run of pages that lie side by side. */
static struct error *read_run(struct call *c, struct input *in, uint64_t pfn, uint32_t n_pages)
{
    const struct input_target *t = in->target;
    size_t left = (size_t)n_pages * LIBXC_PAGE, n;
    const uint8_t *bytes;

    if (t->memory_fd < 0 || n_pages < LONG_RUN)
        return input_body(c, in, t->memory + pfn * LIBXC_PAGE, left);
    for (int64_t at = (int64_t)(pfn * LIBXC_PAGE); left > 0; at += (int64_t)n, left -= n) {
        TRY(input_borrow(c, in, left, &bytes, &n));
        int rc = fd_pwrite_all(t->memory_fd, bytes, n, at);
        if (rc < 0)
            return input_bad(c, in, "cannot write the domain's memory: %s", strerror(-rc));
    }
    return NULL;
}

struct error *input_pages(struct call *c, struct input *in)
{
    struct libxc_page_head head;

    TRY(input_body(c, in, &head, sizeof(head)));
    if (head.count == 0 || head.count > LIBXC_BATCH_MAX || head.reserved != 0)
        return input_bad(c, in, "PAGE_DATA of %u pages", head.count);
    if ((uint64_t)head.count * 8 > in->left)
        return input_bad(c, in, "PAGE_DATA of %u pages has only %llu bytes", head.count, (unsigned long long)in->left);
    TRY(read_pfns(c, in, head.count));
    TRY(check_pfns(c, in, head.count));
    for (uint32_t i = 0; i < head.count;) {
        uint32_t run = 1;
        if (LIBXC_PFN_TYPE(in->pfns[i]) != LIBXC_PFN_NORMAL) {
            i++;
            continue;
        }
        while (i + run < head.count && in->pfns[i + run] == in->pfns[i] + run) /* type 0: the words differ by the pfn */
            run++;
        TRY(read_run(c, in, in->pfns[i], run));
        i += run;
    }
    return NULL;
}
