/* Replies of the two protocols: how success, failure and records go onto the wire, whole or in pieces. */
#ifndef RPC_WIRE_ENVELOPE_H
#define RPC_WIRE_ENVELOPE_H

#include "rpc/base/error.h"
#include "rpc/base/text.h"
#include "rpc/base/value.h"

enum wire_format { WIRE_XMLRPC, WIRE_JSON1, WIRE_JSON2 };
const char *wire_content_type(enum wire_format); /* "text/xml", "application/json": exactly */

struct wire_call {
    enum wire_format format;
    const char *method;
    struct value params;  /* VALUE_SET, or VALUE_MAP (JSON-RPC by name) */
    struct value id;      /* JSON-RPC: echoed with its type */
};
/* A JSON-RPC request body; batch requests are refused. False: *reason_r; reply HTTP 4xx/500 per spec. */
NODISCARD bool wire_parse_jsonrpc(struct arena *, const char *bytes, size_t len, struct wire_call *call_r, const char **reason_r);

void wire_write_success(struct text *, const struct wire_call *, const struct value *);
/* For system.listMethods over XML-RPC: no Status envelope. */
void wire_write_bare(struct text *, const struct wire_call *, const struct value *);
void wire_write_failure(struct text *, const struct wire_call *, const struct error *);

/* A reply whose value is large: written in pieces of about 'want' bytes. The call and the value must
 * live until it is done. */
struct wire_writer { const struct wire_call *call; const struct value *value; unsigned next; int state; };
void wire_writer_init(struct wire_writer *, const struct wire_call *, const struct value *);
bool wire_writer_fill(struct wire_writer *, struct text *, size_t want); /* true while more is to come */

/* The serialised snapshot of a record, made once and shared (counted for the caller). */
struct blob *record_snapshot(const struct record *, enum wire_format);
void blob_unref(struct blob *);

#endif
