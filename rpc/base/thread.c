#include "rpc/base/thread.h"

#include <stdio.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

#define NAME_LEN 15u /* the kernel's limit */
#if defined(SANITIZED)
#define STACK_SIZE (2u << 20)
#else
#define STACK_SIZE (256u << 10)
#endif

struct start {
    char name[NAME_LEN + 1];
    void *(*fn)(void *);
    void *arg;
};

static void *begin(void *p)
{
    struct start s = *(struct start *)p;

    xfree(p);
    pthread_setname_np(pthread_self(), s.name);
    return s.fn(s.arg);
}

int thread_try_start(const char *name, void *(*fn)(void *), void *arg, pthread_t *thread_r)
{
    struct start *s = xcalloc(1, sizeof(*s));
    pthread_attr_t attributes;

    snprintf(s->name, sizeof(s->name), "%.*s", (int)NAME_LEN, name);
    s->fn = fn;
    s->arg = arg;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, STACK_SIZE) == 0);
    int rc = pthread_create(thread_r, &attributes, begin, s);
    pthread_attr_destroy(&attributes);
    if (rc != 0)
        xfree(s);
    return -rc;
}

pthread_t thread_start(const char *name, void *(*fn)(void *), void *arg)
{
    pthread_t thread;
    int rc = thread_try_start(name, fn, arg, &thread);

    CHECK(rc == 0);
    return thread;
}
