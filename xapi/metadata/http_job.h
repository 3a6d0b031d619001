/* Private to xapi/metadata: an HTTP request that moves a file of a VM: who asks, under which task, and the answer.
 *
 * Everything is on the coordinator: a member answers 302. Runs on a thread of its own with a blocking stream. */
#ifndef XAPI_METADATA_HTTP_JOB_H
#define XAPI_METADATA_HTTP_JOB_H

#include "rpc/http/server.h"
#include "xapi/core/api_call.h"

struct http_job;
struct http_job_kind {
    const char *permission;  /* "http/get_export_metadata" */
    unsigned roles;
    const char *task_label;  /* of the task made where the client gives none; NULL: makes none */
    bool open;               /* run() decides who may: strangers come in, too */
    struct error *(*run)(struct http_job *); /* answers nothing itself, except a head before the body of a PUT */
};
struct http_job {
    const struct http_job_kind *kind;
    struct xapi *xapi;
    struct http_exchange *x;
    struct byte_stream *stream;
    struct api_call c;
    bool known;              /* has a session, or is trusted */
    bool head_sent;
    int64_t left;            /* of a body with a length, else -1 */
    /* the answer: */
    struct value result;     /* of the task */
    const char *type, *file_name; /* of the body; NULL: no body, or no name */
    struct text body;
};

/* Takes the exchange over and serves it. */
void http_job_start(struct http_exchange *, struct xapi *, const struct http_job_kind *);

/* A parameter of the query, else a cookie; NULL: none. */
const char *http_job_parameter(struct http_job *, const char *name);
bool http_job_flag(struct http_job *, const char *name, bool fallback);
/* The object that "ref" or "uuid" names. HANDLE_INVALID, UUID_INVALID, MESSAGE_PARAMETER_COUNT_MISMATCH-like INTERNAL_ERROR. */
NODISCARD struct error *http_job_object(struct http_job *, unsigned class_id, const struct row **row_r);
/* Values of all query keys that begin with 'prefix', which is cut off: a map, or the values alone. */
struct value http_job_parameters(struct http_job *, const char *prefix);

/* --- the body ----------------------------------------------------------------------------------------------------- */
/* Clients of HTTP/1.0 hear 200 before they send: their task says how it ended. */
NODISCARD struct error *http_job_body(struct http_job *);
/* Exactly 'len' bytes; *ended_r: there are no more. IMPORT_ERROR [text] when it stalls or breaks, TASK_CANCELLED. */
NODISCARD struct error *http_job_read(struct http_job *, void *, size_t len, bool *ended_r);
/* All of it, at most 'max' bytes: IMPORT_ERROR [text] above that. */
NODISCARD struct error *http_job_read_all(struct http_job *, size_t max, struct text *);
/* Reads what is behind the part that counts, until nothing comes for a moment. */
void http_job_skip(struct http_job *, size_t max, int moment_ms);

#endif
