#include "rpc/wire/record_plan.h"

#include "rpc/base/memory.h"
#include "rpc/base/text.h"

#define SLOTS 512 /* a power of two; there are some 70 classes, fewer than a quarter of it */
#define PROBES 16

/* Found by the address of the shape; a slot once filled stays. */
static _Atomic(const struct record_plan *) slots[2][SLOTS];

static void add_text(struct text *t, const struct record_shape *shape, unsigned field, bool first, unsigned format)
{
    if (format == 0)
        text_add(t, first ? "<struct>" : "</value></member>");
    else
        text_add(t, first ? "{" : ",");
    text_add(t, format == 0 ? shape->xml_open[field] : shape->json_open[field]);
}

/* Numbers and text lengths of the published fields; returns how many. */
static unsigned measure(const struct record_shape *shape, unsigned format, uint16_t *fields, uint16_t *lens)
{
    AUTO_TEXT t = TEXT_INIT;
    unsigned n = 0;

    for (unsigned i = 0; i < shape->n_fields; i++) {
        if (!shape->published[i])
            continue;
        text_clear(&t);
        add_text(&t, shape, i, n == 0, format);
        fields[n] = (uint16_t)i;
        lens[n++] = (uint16_t)t.len;
    }
    return n;
}

static struct record_plan *plan_make(const struct record_shape *shape, unsigned format)
{
    struct record_plan *plan = xcalloc(1, sizeof(*plan) + shape->n_fields * 2u * sizeof(uint16_t));
    uint16_t *fields = (uint16_t *)(plan + 1), *lens = fields + shape->n_fields;
    AUTO_TEXT t = TEXT_INIT;

    plan->shape = shape;
    plan->fields = fields;
    plan->lens = lens;
    plan->n = measure(shape, format, fields, lens);
    for (unsigned i = 0; i < plan->n; i++)
        if (lens[i] > plan->width)
            plan->width = lens[i];
    plan->width = (plan->width + 15) / 16 * 16;

    char *texts = xcalloc(plan->n, plan->width);
    for (unsigned i = 0; i < plan->n; i++) {
        text_clear(&t);
        add_text(&t, shape, fields[i], i == 0, format);
        memcpy(texts + (size_t)i * plan->width, t.bytes, t.len);
    }
    plan->texts = texts;
    return plan;
}

static void plan_free(struct record_plan *plan)
{
    xfree((char *)(uintptr_t)plan->texts);
    xfree(plan);
}

const struct record_plan *record_plan(const struct record_shape *shape, unsigned format)
{
    size_t start = (uintptr_t)shape / 8 * 0x9e3779b1u >> 7;

    for (unsigned i = 0; i < PROBES; i++) {
        _Atomic(const struct record_plan *) *slot = &slots[format][(start + i) % SLOTS];
        const struct record_plan *plan = atomic_load_explicit(slot, memory_order_acquire);
        if (plan == NULL) {
            struct record_plan *made = plan_make(shape, format);
            if (atomic_compare_exchange_strong_explicit(slot, &plan, made, memory_order_acq_rel, memory_order_acquire))
                return made;
            plan_free(made); /* another thread filled the slot: perhaps with the same */
        }
        if (plan->shape == shape)
            return plan;
    }
    return NULL;
}
