/* One verb in a thread of its own, with its own call, for the xenops contract tests: what goes on beside it. */
#ifndef TESTS_CONTRACT_XENOPS_JOB_H
#define TESTS_CONTRACT_XENOPS_JOB_H

#include <pthread.h>

#include "rpc/base/work.h"
#include "tests/contract/xenops_world.h"

struct job {
    struct host *host;
    struct call call;
    struct byte_stream *stream;
    struct error *(*run)(struct job *);
    struct error *error;
    struct save_policy policy;
    struct save_control control;
    struct save_callbacks callbacks;
    struct save_result result;
    int64_t bytes;
    atomic_bool over;
    pthread_t thread;
};

static inline void *job_run(void *arg)
{
    struct job *j = arg;

    j->error = j->run(j);
    if (j->error != NULL && j->stream != NULL)
        bytes_abort(j->stream);
    atomic_store(&j->over, true);
    return NULL;
}

static inline void job_start(struct job *j, struct host *h, struct byte_stream *stream, struct error *(*run)(struct job *))
{
    j->host = h;
    j->call = h->call;
    j->call.arena = arena_new();
    j->call.cancel = cancel_new();
    j->stream = stream;
    j->run = run;
    j->thread = thread_start("job", job_run, j);
}

/* The error, in the host's arena. */
static inline struct error *job_end(struct job *j)
{
    pthread_join(j->thread, NULL);
    struct error *e = error_dup(j->host->call.arena, j->error);
    arena_free(j->call.arena);
    cancel_unref(j->call.cancel);
    return e;
}

static inline struct error *run_save(struct job *j)
{
    j->policy.control = &j->control;
    return xenops_save(&j->call, j->host->xenops, VM_UUID, j->stream, &j->policy, &j->callbacks, &j->result);
}

static inline void sockets(struct byte_stream **out, struct byte_stream **in)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    *out = bytes_from_fd(ends[0]);
    *in = bytes_from_fd(ends[1]);
}

#endif
