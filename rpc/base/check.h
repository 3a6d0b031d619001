/* Programming errors stop the process, in all builds, with a backtrace. Never for foreign input. */
#ifndef RPC_BASE_CHECK_H
#define RPC_BASE_CHECK_H

#include "rpc/base/attributes.h"

NORETURN void check_failed(const char *file, int line, const char *expr);
#define CHECK(expr)                                     \
    do {                                                \
        if (__builtin_expect(!(expr), 0))               \
            check_failed(__FILE__, __LINE__, #expr);    \
    } while (0)
#define BUG(text) check_failed(__FILE__, __LINE__, text)

#endif
