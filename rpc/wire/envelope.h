/* Requests and replies of the two protocols: how calls come in, how success, failure and records go
 * onto the wire, whole or in pieces, and the same from the caller's side.
 *
 * Strings of values must be UTF-8 without NUL (the parsers see to that for what comes from outside);
 * in the parameters of an error other bytes are replaced by '?'. */
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
    struct value params; /* VALUE_SET, or VALUE_MAP (JSON-RPC by name) */
    struct value id;     /* JSON-RPC: echoed with its type; unset: null */
    const char *id_text; /* its source text, echoed to the byte; NULL: write 'id' */
    uint32_t id_text_len;
};
/* A JSON-RPC request body; batch requests are refused. False: *reason_r, and call_r holds the format and
 * the id as far as they were found: answer with wire_write_malformed. Missing params are an empty set. */
NODISCARD bool wire_parse_jsonrpc(struct arena *, const char *bytes, size_t len, struct wire_call *call_r,
                                  const char **reason_r);
/* The reply to a JSON-RPC body that is no request (HTTP 200); for XML-RPC the bare reason (HTTP 500). */
void wire_write_malformed(struct text *, const struct wire_call *, const char *reason);

void wire_write_success(struct text *, const struct wire_call *, const struct value *);
/* For system.listMethods over XML-RPC: no Status envelope. */
void wire_write_bare(struct text *, const struct wire_call *, const struct value *);
void wire_write_failure(struct text *, const struct wire_call *, const struct error *);

/* A reply whose value is large: written in pieces of about 'want' bytes, cut between the items or members
 * of the value; together they are what wire_write_success gives. The call and the value must live until
 * it is done. */
struct wire_writer {
    const struct wire_call *call;
    const struct value *value;
    unsigned next; /* item or member */
    int state;     /* 0 nothing written, 1 between items, 2 done */
};
void wire_writer_init(struct wire_writer *, const struct wire_call *, const struct value *);
bool wire_writer_fill(struct wire_writer *, struct text *, size_t want); /* true while more is to come */

/* The caller's side: a request, and the result or failure in its answer. An answer that is none is
 * INTERNAL_ERROR. Values as the parsers give them: over XML-RPC ints are strings. */
void wire_write_call(struct text *, enum wire_format, const char *method, const struct value *params, unsigned n);
NODISCARD struct error *wire_parse_answer(struct arena *, enum wire_format, const char *bytes, size_t len,
                                          struct value *value_r);

/* The serialised snapshot of a record (what stands inside <value>, or the JSON object), made once and
 * shared (counted for the caller). Thread-safe. Both JSON formats share one. The record holds a count of
 * its own: who frees the row does blob_unref(row->record.snapshots[i]). */
struct blob *record_snapshot(const struct record *, enum wire_format);
void blob_unref(struct blob *); /* NULL is fine */

#endif
