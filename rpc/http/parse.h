/* Heads of HTTP/1.x messages: strict, without I/O, fuzzed (tests/fuzz/fuzz_http_head.c).
 *
 * Lines end in CR LF and nothing else. A head is first found (head_scan, incremental), then parsed.
 * What is refused, and how:
 *
 *   400  bare LF or CR, NUL or another control byte, obs-fold, a space before the colon, an empty or
 *        non-token name, a malformed request line, method token, target or percent escape of the path,
 *        Content-Length that is repeated (even when equal), empty, not all digits or beyond int64,
 *        Content-Length beside Transfer-Encoding, repeated Transfer-Encoding or Host,
 *        Transfer-Encoding in HTTP/1.0
 *   417  an expectation other than 100-continue
 *   431  more bytes or lines than the limits
 *   501  a transfer coding other than exactly "chunked"
 *   505  HTTP/x.y other than 1.0 and 1.1
 *
 * Accepted on purpose: one empty line before the request line (RFC 9112 2.2), a missing Host (some
 * XenAPI clients send none), a target in absolute form. */
#ifndef RPC_HTTP_PARSE_H
#define RPC_HTTP_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/arena.h"
#include "rpc/http/server.h"

struct head_limits { size_t bytes; unsigned lines; };

/* Progress of a search; all zero at the start of a message. */
struct head_scan { size_t at; unsigned lines; };

/* Looks for the end of a head in the first 'len' bytes; call again with more of the same bytes.
 * > 0: the length of the head with its empty line; 0: not complete yet; < 0: minus the status. */
NODISCARD long head_scan(struct head_scan *, const char *bytes, size_t len, const struct head_limits *);

struct head {
    const char *method, *target, *path, *query; /* of a request; path is decoded */
    int status;                                 /* of an answer */
    unsigned minor;
    struct http_header *headers; /* names lower-cased, values trimmed */
    unsigned n_headers;
    int64_t content_length; /* -1: none */
    bool chunked;
    bool keep_alive;
    bool expect_continue;
};

/* Parse what head_scan found. Strings go to the arena, 'bytes' is not kept. 0, or the status to
 * refuse with (of an answer: 502). */
NODISCARD int head_parse_request(struct arena *, const char *bytes, size_t len, struct head *);
NODISCARD int head_parse_answer(struct arena *, const char *bytes, size_t len, struct head *);

/* Percent-decodes 'len' bytes into the arena; NULL where an escape is malformed (strict) or gives NUL.
 * Not strict: a malformed escape stands for itself. plus: '+' is a space. */
char *percent_decode(struct arena *, const char *, size_t len, bool strict, bool plus);

#endif
