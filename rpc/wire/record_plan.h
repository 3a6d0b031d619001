/* For each record shape: the constant text before every published field, laid out for copying without
 * a look at lengths. Made on first use, kept for ever (as shapes are). Private to rpc/wire. */
#ifndef RPC_WIRE_RECORD_PLAN_H
#define RPC_WIRE_RECORD_PLAN_H

#include <string.h>

#include "rpc/base/value.h"

struct record_plan {
    const struct record_shape *shape;
    unsigned n;     /* published fields */
    unsigned width; /* bytes that stand ready in 'texts' for each: a multiple of 16, the text then rubbish */
    const uint16_t *fields; /* their numbers */
    const uint16_t *lens;   /* bytes of each text */
    const char *texts;
};

/* The text of XML closes the member before and opens this one; the text of JSON is the comma and the name.
 * 'format': 0 XML, 1 JSON. NULL when the table is full: write the record without one. */
const struct record_plan *record_plan(const struct record_shape *, unsigned format);

/* Copies text i to p, where plan->width bytes must fit; returns its end. */
static inline char *record_plan_put(const struct record_plan *plan, unsigned i, char *p)
{
    const char *text = plan->texts + (size_t)i * plan->width;

    for (unsigned k = 0; k < plan->width; k += 16)
        memcpy(p + k, text + k, 16);
    return p + plan->lens[i];
}

#endif
