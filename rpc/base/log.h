/* Logging: "time level module req=… text". A file that logs says LOG_MODULE(name) once.
 *
 * err = an operator must act; warn = degraded; info = one line per API call (the dispatcher's);
 * debug = the rest. Session refs and secrets never appear in clear. errno is preserved. Anything a
 * client can trigger goes through the _rl macros (at most 10 lines a second for each place). */
#ifndef RPC_BASE_LOG_H
#define RPC_BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>

#include "rpc/base/attributes.h"

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_limit { atomic_long window; atomic_uint n; };

#define LOG_MODULE(name) static const char log_module_[] = #name
void log_line(enum log_level, const char *module, const char *fmt, ...) PRINTF(3, 4);
bool log_allowed(struct log_limit *);
/* Would a line of this level be written? For lines that are dear to put together. */
bool log_wanted(enum log_level, const char *module);

#define log_err(...) log_line(LOG_ERR, log_module_, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, log_module_, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, log_module_, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, log_module_, __VA_ARGS__)
#define log_warn_rl(...)                                    \
    do {                                                    \
        static struct log_limit limit_;                     \
        if (log_allowed(&limit_))                           \
            log_line(LOG_WARN, log_module_, __VA_ARGS__);   \
    } while (0)

/* To stderr by default; to a file (appended, O_CLOEXEC) once opened. 0 or -errno. */
int log_open(const char *path);
int log_fd(void); /* where lines go, for crash reports; borrowed */
/* module NULL: all. Thread-safe. */
void log_set_level(const char *module, enum log_level);
bool log_level_parse(const char *, enum log_level *);

#endif
