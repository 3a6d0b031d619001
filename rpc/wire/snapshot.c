/* Serialised records, made when first asked for and shared by all who send them. */
#include "rpc/wire/envelope.h"

#include "rpc/base/memory.h"
#include "rpc/wire/value_writer.h"

static struct blob *blob_make(const struct record *r, enum wire_format format)
{
    struct text t = TEXT_INIT;
    struct out o;

    /* Built behind the room for the head of the blob, so that the text becomes the blob. */
    text_grow(&t, 4096);
    memset(t.bytes, 0, sizeof(struct blob));
    t.len = offsetof(struct blob, bytes);
    out_begin(&o, &t);
    if (format == WIRE_XMLRPC)
        xml_out_record(&o, r);
    else
        json_out_record(&o, r);
    out_finish(&o);

    size_t len = t.len - offsetof(struct blob, bytes);
    struct blob *b = xrealloc(text_steal(&t), offsetof(struct blob, bytes) + len + 1);
    b->len = (uint32_t)len;
    return b;
}

struct blob *record_snapshot(const struct record *r, enum wire_format format)
{
    /* The snapshots are a cache inside an immutable record: the one thing of it that changes. */
    _Atomic(struct blob *) *place = (_Atomic(struct blob *) *)(uintptr_t)&r->snapshots[format == WIRE_XMLRPC ? 0 : 1];
    struct blob *b = atomic_load_explicit(place, memory_order_acquire);

    if (b == NULL) {
        struct blob *made = blob_make(r, format);
        atomic_init(&made->refs, 1); /* the record's */
        if (atomic_compare_exchange_strong_explicit(place, &b, made, memory_order_acq_rel, memory_order_acquire))
            b = made;
        else
            xfree(made); /* another thread was first: b is its */
    }
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void blob_unref(struct blob *b)
{
    if (b != NULL && atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) == 1)
        xfree(b);
}
