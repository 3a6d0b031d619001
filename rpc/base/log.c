/* A line is put together on the stack and leaves in one write, so lines of threads do not mix and no
 * lock is held. Reopening (log rotation) swaps the file behind the same descriptor. */
#include "rpc/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/call.h"
#include "rpc/base/check.h"
#include "rpc/base/datetime.h"
#include "rpc/base/text.h"

#define LINES_PER_SECOND 10u
#define MODULES_MAX 64u
#define MODULE_LEN 31u
#define LINE_MAX_BYTES 16384u

static atomic_int sink = STDERR_FILENO;
static atomic_int level_of_all = LOG_INFO;

/* Levels of single modules. Entries are only ever added; readers see the first n_overrides of them. */
static struct override {
    char module[MODULE_LEN + 1];
    atomic_int level;
} overrides[MODULES_MAX];
static atomic_uint n_overrides;
static pthread_mutex_t overrides_lock = PTHREAD_MUTEX_INITIALIZER; /* for those who add */

static const char *const level_names[] = {
    [LOG_ERR] = "err",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

static struct override *override_find(const char *module)
{
    unsigned n = atomic_load_explicit(&n_overrides, memory_order_acquire);

    for (unsigned i = 0; i < n; i++)
        if (strcmp(overrides[i].module, module) == 0)
            return &overrides[i];
    return NULL;
}

bool log_wanted(enum log_level level, const char *module)
{
    const struct override *o = override_find(module);

    return (int)level <= atomic_load_explicit(o != NULL ? &o->level : &level_of_all, memory_order_relaxed);
}

void log_set_level(const char *module, enum log_level level)
{
    pthread_mutex_lock(&overrides_lock);
    unsigned n = atomic_load(&n_overrides);
    if (module == NULL) {
        atomic_store(&level_of_all, (int)level);
        for (unsigned i = 0; i < n; i++)
            atomic_store(&overrides[i].level, (int)level);
    } else {
        struct override *o = override_find(module);
        if (o != NULL) {
            atomic_store(&o->level, (int)level);
        } else if (n < MODULES_MAX && strlen(module) <= MODULE_LEN) {
            snprintf(overrides[n].module, sizeof(overrides[n].module), "%s", module);
            atomic_store(&overrides[n].level, (int)level);
            atomic_store_explicit(&n_overrides, n + 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&overrides_lock);
}

bool log_level_parse(const char *s, enum log_level *level_r)
{
    for (unsigned i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(level_names[i], s) == 0) {
            *level_r = (enum log_level)i;
            return true;
        }
    }
    return false;
}

int log_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

    if (fd < 0)
        return -errno;
    int old = atomic_load(&sink);
    if (old == STDERR_FILENO) {
        atomic_store(&sink, fd);
        return 0;
    }
    int rc = dup3(fd, old, O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

int log_fd(void) { return atomic_load(&sink); }

/* "2026-11-22T06:40:01.123Z " */
static void add_time(struct text *t)
{
    struct timespec now;
    char s[DATETIME_LEN + 1];

    clock_gettime(CLOCK_REALTIME, &now);
    datetime_format(now.tv_sec, s);
    text_printf(t, "%.4s-%.2s-%.11s.%03ldZ ", s, s + 4, s + 6, now.tv_nsec / 1000000);
}

/* Control bytes, and U+0080 to U+009F that some terminals obey, become visible: a client must not be
 * able to make a line of its own. */
static void add_escaped(struct text *t, const char *s)
{
    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s, next = (unsigned char)s[1];
        if (c == '\n')
            text_add(t, "\\n");
        else if (c < 0x20 || c == 0x7f)
            text_printf(t, "\\x%02x", c);
        else if (c == 0xc2 && next >= 0x80 && next < 0xa0) {
            text_printf(t, "\\x%02x", next);
            s++;
        } else
            text_add_byte(t, (char)c);
    }
}

static void write_line(const struct text *t)
{
    size_t done = 0;

    while (done < t->len) {
        ssize_t n = write(log_fd(), t->bytes + done, t->len - done);
        if (n < 0 && errno != EINTR)
            return; /* nowhere to complain */
        if (n > 0)
            done += (size_t)n;
    }
}

void log_line(enum log_level level, const char *module, const char *fmt, ...)
{
    int saved = errno;
    va_list args;

    if (!log_wanted(level, module))
        return;
    AUTO_TEXT message = TEXT_INIT;
    va_start(args, fmt);
    text_vprintf(&message, fmt, args); /* errno is still the caller's: %m works */
    va_end(args);
    if (message.len > LINE_MAX_BYTES)
        memcpy(message.bytes + LINE_MAX_BYTES - 4, "...", 4);

    AUTO_TEXT line = TEXT_INIT;
    const struct call *c = call_current();
    add_time(&line);
    text_printf(&line, "%s %s ", level_names[level], module);
    if (c != NULL && c->id != NULL) {
        text_add(&line, "req=");
        add_escaped(&line, c->id);
        text_add_byte(&line, ' ');
    }
    add_escaped(&line, message.bytes);
    text_add_byte(&line, '\n');
    write_line(&line);
    errno = saved;
}

bool log_allowed(struct log_limit *limit)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    long last = atomic_load(&limit->window), second = now.tv_sec + 1; /* 0 is the unused limit */
    if (last != second && atomic_compare_exchange_strong(&limit->window, &last, second)) {
        unsigned n = atomic_exchange(&limit->n, 0);
        if (n > LINES_PER_SECOND)
            log_line(LOG_WARN, "log", "%u lines like the next one held back", n - LINES_PER_SECOND);
    }
    return atomic_fetch_add(&limit->n, 1) < LINES_PER_SECOND;
}
