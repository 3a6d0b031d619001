/* PAGE_DATA: all checks first, then the pages, runs of neighbours at once into the domain's memory. */
#include <string.h>

#include "rpc/base/memory.h"
#include "xenops/stream/input_bytes.h"

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

struct error *input_pages(struct call *c, struct input *in)
{
    struct libxc_page_head head;
    uint8_t *memory = in->target->memory;

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
        TRY(input_body(c, in, memory + in->pfns[i] * LIBXC_PAGE, (size_t)run * LIBXC_PAGE));
        i += run;
    }
    return NULL;
}
