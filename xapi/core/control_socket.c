#include "xapi/core/control_socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gen/model_ids.h"
#include "rpc/base/check.h"
#include "rpc/base/fault.h"
#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/memory.h"
#include "rpc/base/work.h"

LOG_MODULE(control);

#define LINE_MAX_BYTES 4096
#define PATIENCE_MS 5000
#define WORDS_MAX 8

struct control_socket {
    struct xapi *xapi;
    const struct control_command *more;
    int fd, stop_fd;
    char *path;
    pthread_t thread;
};

/* --- commands ------------------------------------------------------------------------------------------- */

static bool command_status(struct xapi *xapi, unsigned n, char **words, struct text *t)
{
    struct http_server_stats http = { 0 };
    struct db_stats db = { 0 };

    http_server_stats(xapi->http, &http);
    db_stats(xapi->db, &db);
    text_printf(t, "pid %d\nrole %s\nhost %s\naddress %s\nserving %s\n", (int)getpid(), xapi->is_coordinator ? "coordinator" : "member",
                xapi->host_uuid, xapi->address, atomic_load(&xapi->serving) ? "yes" : "no");
    text_printf(t, "connections %u\nparked %u\nrequests %llu\nrefused %llu\n", http.connections, http.parked,
                (unsigned long long)http.requests, (unsigned long long)http.refused);
    text_printf(t, "sessions %u\ntasks %u\ngeneration %llu\ncommits %llu\n", db_count(xapi->db, &model_classes[CLASS_session]),
                db_count(xapi->db, &model_classes[CLASS_task]), (unsigned long long)db_generation(xapi->db), (unsigned long long)db.commits);
    text_printf(t, "busy workers %u peers %u tasks %u logins %u\n", work_pool_busy(xapi->workers), work_pool_busy(xapi->peer_workers),
                work_pool_busy(xapi->task_workers), work_pool_busy(xapi->login_workers));
    return true;
}

static bool command_log(struct xapi *xapi, unsigned n, char **words, struct text *t)
{
    enum log_level level;

    if (strcmp(words[1], "set") != 0 || !log_level_parse(words[3], &level)) {
        text_add(t, "log set MODULE err|warn|info|debug");
        return false;
    }
    log_set_level(strcmp(words[2], "all") == 0 ? NULL : words[2], level);
    return true;
}

static bool command_fault(struct xapi *xapi, unsigned n, char **words, struct text *t)
{
    if (!config_bool(xapi->config, "allow-faults")) {
        text_add(t, "faults are not allowed by the configuration (allow-faults)");
        return false;
    }
    if (strcmp(words[1], "disarm") == 0) {
        fault_disarm(n > 2 ? words[2] : NULL);
        return true;
    }
    if (strcmp(words[1], "arm") == 0 && n == 3 && fault_arm(words[2]))
        return true;
    if (strcmp(words[1], "list") == 0 && n == 2) {
        fault_list(t);
        return true;
    }
    text_add(t, "fault arm NAME=ACTION[@N] | fault disarm [NAME] | fault list");
    return false;
}

static const struct control_command commands[] = {
    { "status", 1, 1, command_status },
    { "log", 4, 4, command_log },
    { "fault", 2, 3, command_fault },
    { 0 },
};

/* --- the socket ------------------------------------------------------------------------------------------- */

static unsigned split(char *line, char **words)
{
    unsigned n = 0;

    while (n < WORDS_MAX) {
        line += strspn(line, " \t\r\n");
        if (*line == '\0')
            break;
        words[n++] = line;
        line += strcspn(line, " \t\r\n");
        if (*line != '\0')
            *line++ = '\0';
    }
    return n;
}

static const struct control_command *find(const struct control_command *table, const char *name)
{
    while (table != NULL && table->name != NULL && strcmp(table->name, name) != 0)
        table++;
    return table != NULL && table->name != NULL ? table : NULL;
}

static void usage(struct text *answer, const struct control_command *table)
{
    for (; table != NULL && table->name != NULL; table++)
        text_printf(answer, " %s", table->name);
}

static void run_line(struct control_socket *s, char *line, struct text *answer)
{
    char *words[WORDS_MAX];
    unsigned n = split(line, words);
    const char *name = n > 0 ? words[0] : "";
    const struct control_command *c = find(commands, name);
    AUTO_TEXT said = TEXT_INIT;

    if (c == NULL)
        c = find(s->more, name);
    if (c == NULL || n < c->min_words || n > c->max_words) {
        text_add(answer, "error\ncommands:");
        usage(answer, commands);
        usage(answer, s->more);
        text_add(answer, "\n");
        return;
    }
    bool ok = c->run(s->xapi, n, words, &said);
    text_printf(answer, "%s\n%s%s", ok ? "ok" : "error", said.bytes != NULL ? said.bytes : "", ok ? "" : "\n");
}

static bool wait_readable(int fd, int stop_fd, int ms)
{
    struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
    int rc = poll(fds, 2, ms);

    return rc > 0 && (fds[1].revents & POLLIN) == 0;
}

/* One line; false when none comes. */
static bool read_line(struct control_socket *s, int fd, char *line)
{
    size_t len = 0;

    while (len < LINE_MAX_BYTES - 1 && wait_readable(fd, s->stop_fd, PATIENCE_MS)) {
        ssize_t n = read(fd, line + len, LINE_MAX_BYTES - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
        line[len] = '\0';
        if (memchr(line, '\n', len) != NULL)
            return true;
    }
    line[len] = '\0';
    return len > 0;
}

static void serve_one(struct control_socket *s, int fd)
{
    char line[LINE_MAX_BYTES];
    AUTO_TEXT answer = TEXT_INIT;

    if (!read_line(s, fd, line))
        return;
    run_line(s, line, &answer);
    if (fd_write_all(fd, answer.bytes, answer.len) < 0)
        log_debug("a client of the control socket went away");
}

static void *control_main(void *arg)
{
    struct control_socket *s = arg;
    struct pollfd fds[] = { { .fd = s->fd, .events = POLLIN }, { .fd = s->stop_fd, .events = POLLIN } };

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (fds[1].revents != 0)
            return NULL;
        if (fds[0].revents == 0)
            continue;
        AUTO_FD fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0)
            serve_one(s, fd);
    }
}

struct error *control_socket_start(struct arena *a, struct xapi *xapi, const struct control_command *more, struct control_socket **socket_r)
{
    const char *path = arena_printf(a, "%s/" CONTROL_SOCKET_NAME, xapi->dir);
    int fd = unix_listen(path, 0600, 8);

    if (fd < 0)
        return err_internal(a, "%s: %s", path, strerror(-fd));
    struct control_socket *s = xcalloc(1, sizeof(*s));
    s->xapi = xapi;
    s->more = more;
    s->fd = fd;
    s->stop_fd = eventfd(0, EFD_CLOEXEC);
    s->path = xstrdup(path);
    CHECK(s->stop_fd >= 0);
    s->thread = thread_start("control", control_main, s);
    *socket_r = s;
    return NULL;
}

void control_socket_stop(struct control_socket *s)
{
    if (s == NULL)
        return;
    CHECK(eventfd_write(s->stop_fd, 1) == 0);
    pthread_join(s->thread, NULL);
    unlink(s->path);
    close(s->fd);
    close(s->stop_fd);
    xfree(s->path);
    xfree(s);
}
