#include "xapi/ctl/daemon.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/text.h"
#include "xapi/core/control_socket.h"

static const char *answer_read(struct arena *a, int fd)
{
    AUTO_TEXT answer = TEXT_INIT;
    char piece[4096];
    ssize_t n;

    while ((n = read(fd, piece, sizeof(piece))) > 0)
        text_add_len(&answer, piece, (size_t)n);
    return arena_strdup(a, answer.bytes != NULL ? answer.bytes : "");
}

bool ctl_ask(struct arena *a, const struct options *o, const char *const *words, int n, const char **text_r)
{
    const char *path = arena_printf(a, "%s/" CONTROL_SOCKET_NAME, config_string(o->config, "dir"));
    AUTO_TEXT line = TEXT_INIT;
    AUTO_FD fd = unix_connect(path);

    *text_r = "";
    if (fd < 0) {
        fprintf(stderr, "xapi-ctl: %s: %s (is xapi running?)\n", path, strerror(-fd));
        fd = -1;
        return false;
    }
    for (int i = 0; i < n; i++)
        text_printf(&line, "%s%s", i > 0 ? " " : "", words[i]);
    text_add(&line, "\n");
    int rc = fd_write_all(fd, line.bytes, line.len);
    if (rc < 0) {
        fprintf(stderr, "xapi-ctl: %s: %s\n", path, strerror(-rc));
        return false;
    }
    const char *answer = answer_read(a, fd), *body = strchr(answer, '\n');
    bool ok = strncmp(answer, "ok\n", 3) == 0;
    if (ok)
        *text_r = body + 1;
    else
        fputs(body != NULL ? body + 1 : answer, stderr);
    return ok;
}
