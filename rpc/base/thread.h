/* Starting threads; thread_start itself is declared in work.h. */
#ifndef RPC_BASE_THREAD_H
#define RPC_BASE_THREAD_H

#include <pthread.h>

#include "rpc/base/attributes.h"

/* A joinable thread with our stack size and a name (15 bytes of it are shown). 0 or -errno. */
NODISCARD int thread_try_start(const char *name, void *(*fn)(void *), void *arg, pthread_t *thread_r);

#endif
