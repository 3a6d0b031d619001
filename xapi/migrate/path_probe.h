/* One connection to a peer's sample route, to find out what the path is like: the client's half; preflight_http_sample is the
 * server's (path_serve.c). Nothing of it is kept.
 *
 *   PUT /services/xenops/migrate/sample/<bytes>   Cookie: the migration's key, a session or the pool's secret
 *   D -> S  a handshake message (wire.h): success, or why not
 *   then S asks as often as it likes, each a letter and a 64-bit number, big-endian:
 *     E nonce  D answers nonce and its wall time in microseconds, 64 bits each
 *     U n      n bytes follow, which D swallows
 *     D n      D answers n bytes
 *   n is at most PATH_CHUNK_MAX; all n of U, and those of D, sum up to <bytes> at most. Closing ends it. */
#ifndef XAPI_MIGRATE_PATH_PROBE_H
#define XAPI_MIGRATE_PATH_PROBE_H

#include "rpc/base/value.h"
#include "rpc/http/client.h"
#include "xapi/core/xapi.h"

#define PATH_SAMPLE_ROUTE "/services/xenops/migrate/sample/"
#define PATH_CHUNK_MAX (1u << 20)
#define PATH_SAMPLE_MAX (8ll << 20) /* bytes in each direction */
#define PATH_REQUEST 9              /* bytes of a request */
#define PATH_ANSWER 16              /* of the answer to E */

/* What a path failed at: the tests of the pre-flight in their order. */
enum path_test { PATH_CONNECT, PATH_TLS, PATH_CREDENTIALS, PATH_RECEIVER, PATH_BACK, PATH_SAMPLE, PATH_DISKS };
const char *path_test_name(enum path_test); /* "connect" … */

struct path;
/* Connects and is let in. On failure *failed_r says at what; the error is the peer's own, or
 * VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED [] with a cause that says what to do; TASK_CANCELLED. Blocks for 15 s at most. */
NODISCARD struct error *path_open(struct call *, struct xapi *, const struct http_target *, int64_t bytes, struct path **, enum path_test *failed_r);
void path_close(struct path *); /* NULL is fine */

struct path_facts {
    int64_t rtt_us;          /* of the fastest exchange */
    int64_t clock_offset_us; /* their wall time minus ours, at its middle */
    int64_t there, back;     /* bytes/s; 0: not sampled */
    unsigned mtu, mss;       /* as the kernel knows them; 0: unknown */
};
/* A few small exchanges. */
NODISCARD struct error *path_echo(struct path *, struct path_facts *);
/* At most PATH_SAMPLE_MAX bytes or 100 ms each way, with full segments. When they do not get through within 5 s but small
 * ones do, the cause names the MTU. */
NODISCARD struct error *path_sample(struct path *, struct path_facts *);

/* The server's half once the handshake is over, until the peer closes (-EPIPE) or asks for what it may not (-EPROTO): 'bytes'
 * each way. Blocks: watch it. */
NODISCARD int path_serve(struct byte_stream *, int64_t bytes);

/* A failure as a verb's answer, so that its cause travels too: { failed, code, params, cause }. */
struct value path_failure_value(struct arena *, enum path_test, const struct error *);
/* NULL where an answer is none of those; 'before' is said in front of the cause. */
struct error *path_failure_error(struct arena *, const struct value *answer, const char *before);

/* Microseconds since the epoch. */
int64_t path_wall_us(void);
/* 64 bits, big-endian. */
void path_put64(uint8_t *, uint64_t);
uint64_t path_get64(const uint8_t *);

#endif
