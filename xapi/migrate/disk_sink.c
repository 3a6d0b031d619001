#include "xapi/migrate/disk_sink.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/log.h"
#include "rpc/base/relay.h"
#include "rpc/nbd/nbd_uri.h"
#include "storage/sr.h"
#include "xapi/migrate/credentials.h"

LOG_MODULE(disk_sink);

#define NBD_HEAD "Transfer-encoding: nbd\r\n"
#define EMPTY_HEAD "Content-Length: 0\r\nConnection: close\r\n"
#define CUT_MS 30000

/* --- names -------------------------------------------------------------------------------------------------------- */
bool disk_sink_path_parse(struct arena *a, const char *path, struct disk_sink_path *p)
{
    static const char *const starts[] = { "/services/SM/nbdproxy/import/", "/services/SM/nbdproxy/", "/services/SM/nbd/" };
    const char *at = NULL, *sr, *location, *dp;

    for (unsigned i = 0; i < ARRAY_LEN(starts) && at == NULL; i++)
        if (strncmp(path, starts[i], strlen(starts[i])) == 0)
            at = path + strlen(starts[i]);
    sr = at != NULL ? strchr(at, '/') : NULL;
    location = sr != NULL ? strchr(sr + 1, '/') : NULL;
    dp = location != NULL ? strrchr(location + 1, '/') : NULL; /* a location may have slashes of its own */
    if (dp == NULL || dp[1] == '\0' || sr == at || location == sr + 1 || dp == location + 1)
        return false;
    *p = (struct disk_sink_path){ .vm = arena_strndup(a, at, (size_t)(sr - at)),
                                  .sr = arena_strndup(a, sr + 1, (size_t)(location - sr - 1)),
                                  .location = arena_strndup(a, location + 1, (size_t)(dp - location - 1)) };
    return true;
}

/* "SHA256 fingerprint AA:BB:…" and its like: the hex digits alone. */
static const char *bare_fingerprint(struct arena *a, const char *text)
{
    const char *last = strrchr(text, ' ');
    char *out = arena_strdup(a, last != NULL ? last + 1 : text), *to = out;

    for (const char *at = out; *at != '\0'; at++)
        if (*at != ':')
            *to++ = *at;
    *to = '\0';
    return out;
}

const char *disk_sink_uri(struct arena *a, const struct http_target *t, const char *vm_uuid, const char *sr_uuid, const char *location)
{
    const char *path = arena_printf(a, "/services/SM/nbd/%s/%s/%s/incoming", nbd_uri_escape(a, vm_uuid), nbd_uri_escape(a, sr_uuid),
                                    nbd_uri_escape(a, location));
    const char *uri = arena_printf(a, strchr(t->address, ':') != NULL ? "%s://[%s]:%d/?" : "%s://%s:%d/?", t->tls ? "nbds" : "nbd", t->address, t->port);

    if (t->tls)
        uri = arena_printf(a, "%stls=first&", uri);
    if (t->tls && t->fingerprint != NULL && t->fingerprint[0] != '\0')
        uri = arena_printf(a, "%sfingerprint=%s&", uri, bare_fingerprint(a, t->fingerprint));
    uri = arena_printf(a, "%sput=%s", uri, nbd_uri_escape(a, path));
    return t->cookie == NULL ? uri : arena_printf(a, "%s&cookie=%s", uri, nbd_uri_escape(a, t->cookie));
}

/* --- one connection ------------------------------------------------------------------------------------------------ */
struct sink { struct call call; struct xapi *xapi; struct disk_sink_path disk; const char *peer; };

static void refuse(const struct sink *s, struct byte_stream *client, int status, const char *why)
{
    log_info("%s is refused a disk: %s", s->peer, why);
    if (http_write_head(client, status, EMPTY_HEAD) == 0)
        (void)!bytes_finish(client);
}

/* The socket itself: nothing but the head has been read from it. */
static void give(struct sink *s, struct byte_stream *client)
{
    int fd = fcntl(client->ops->fd(client), F_DUPFD_CLOEXEC, 3);

    if (fd < 0 || http_write_head(client, 200, NBD_HEAD) != 0) {
        fd_close(&fd);
        return;
    }
    struct error *e = vdi_adopt(&s->call, s->xapi->storage, s->disk.sr, s->disk.location, fd, false, NULL);
    fd_close(&fd);
    if (e != NULL) {
        log_warn("%s: the disk %s does not take the connection: %s", s->peer, s->disk.location, error_text(s->call.arena, e));
        bytes_abort(client);
    }
}

static void carry(struct sink *s, struct byte_stream *client)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        refuse(s, client, 500, "no more descriptors");
        return;
    }
    struct byte_stream *disk = bytes_from_fd(pair[0]);
    struct error *e = vdi_adopt(&s->call, s->xapi->storage, s->disk.sr, s->disk.location, pair[1], false, NULL);
    close(pair[1]);
    if (e != NULL) {
        refuse(s, client, 409, error_text(s->call.arena, e));
    } else if (http_write_head(client, 200, NBD_HEAD) == 0) {
        struct cancel *cancel = cancel_new();

        log_info("%s sends the disk %s", s->peer, s->disk.location);
        relay_run(client, disk, cancel);
        cancel_unref(cancel);
    }
    bytes_close(disk);
}

static void serve(struct http_exchange *x, struct byte_stream *client, void *ctx)
{
    const struct http_request *req = http_request(x);
    struct sink s = { .call = { .arena = http_arena(x), .clock = ((struct xapi *)ctx)->clock, .id = "disk-sink" }, .xapi = ctx, .peer = req->peer };
    struct call *before = call_enter(&s.call);
    struct credential credential;

    credential_read(s.call.arena, req, &credential);
    struct error *e = credential_check(&s.call, s.xapi, &credential);
    if (e != NULL)
        refuse(&s, client, error_is(e, "RBAC_PERMISSION_DENIED") ? 403 : 401, e->code);
    else if (!req->tls && !req->unix_socket && config_bool(s.xapi->config, "migration-https-only"))
        refuse(&s, client, 403, "it does not use TLS");
    else if (!disk_sink_path_parse(s.call.arena, req->path, &s.disk))
        refuse(&s, client, 404, "no such path");
    else if (!vdi_is_served(s.xapi->storage, s.disk.sr, s.disk.location))
        refuse(&s, client, 404, "it is not here");
    else if (!req->tls && client->ops->pending(client) == 0)
        give(&s, client);
    else
        carry(&s, client);
    call_enter(before);
    bytes_close(client);
}

void disk_sink_http_put(struct http_exchange *x, void *ctx) { http_takeover(x, serve, ctx); }

/* --- the end ------------------------------------------------------------------------------------------------------- */
void disk_sinks_cut(struct xapi *xapi, const struct value *disks)
{
    AUTO_ARENA a = arena_new();
    struct call c = { .arena = a, .clock = xapi->clock, .deadline_ms = clock_ms(xapi->clock) + CUT_MS, .id = "disk-sink" };

    for (unsigned i = 0; disks != NULL && disks->kind == VALUE_SET && i < disks->len; i++) {
        const char *location = value_get_string(&disks->items[i], "location", "");
        struct error *e = vdi_cut(&c, xapi->storage, value_get_string(&disks->items[i], "sr", ""), location);

        if (e != NULL)
            log_warn("cutting off who sends the disk %s: %s", location, error_text(a, e));
    }
}
