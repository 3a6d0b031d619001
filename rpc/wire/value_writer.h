/* The writers of the two protocols, over an open cursor. Private to rpc/wire. */
#ifndef RPC_WIRE_VALUE_WRITER_H
#define RPC_WIRE_VALUE_WRITER_H

#include "rpc/wire/out.h"

/* XML: what stands between <value> and </value>. */
void xml_out_value(struct out *, const struct value *);
void xml_out_string(struct out *, const char *, size_t len, unsigned flags);
/* <member><name>…</name><value>…</value></member> */
void xml_out_member(struct out *, const struct member *);
/* <struct>…</struct>: from the record's fields, whether or not there is a snapshot. */
void xml_out_record(struct out *, const struct record *);

void json_out_value(struct out *, const struct value *);
void json_out_string(struct out *, const char *, size_t len, unsigned flags);
/* "name":value */
void json_out_member(struct out *, const struct member *);
/* {…}: from the record's fields, whether or not there is a snapshot. */
void json_out_record(struct out *, const struct record *);

/* The snapshot of the record if one was made, else NULL; not counted: lives as long as the record. */
static inline const struct blob *record_blob(const struct record *r, unsigned format)
{
    return atomic_load_explicit(&r->snapshots[format], memory_order_acquire);
}

#endif
