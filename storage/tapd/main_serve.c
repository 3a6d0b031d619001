/* tapd serve: an image over NBD, without a directory. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/text.h"
#include "storage/tapd/gate.h"
#include "storage/tapd/main_modes.h"
#include "storage/tapd/nbd_server.h"

LOG_MODULE(tapd);

struct serving {
    struct main_base base;
    const char *image, *address, *socket, *certificate;
    bool read_only, cached, threads;
    struct block *gate, *chain;
    struct nbd_server *server;
    struct block_request flush;
    int result;
};

static void flushed(struct block_request *r)
{
    struct serving *s = r->owner;

    s->result = r->result;
    loop_stop(s->base.loop);
}

static void drained(void *ctx)
{
    struct serving *s = ctx;

    s->flush = (struct block_request){ .op = BLOCK_FLUSH, .done = flushed, .owner = s };
    block_submit(s->chain, &s->flush);
}

static void stop(void *ctx)
{
    struct serving *s = ctx;

    if (s->gate != NULL && gate_is_open(s->gate))
        gate_close(s->gate, drained, s);
}

static bool take_option(struct serving *s, const char *word, const char *next, bool *took_next_r)
{
    const char **value = NULL;

    *took_next_r = false;
    if (strcmp(word, "--listen") == 0)
        value = &s->address;
    else if (strcmp(word, "--socket") == 0)
        value = &s->socket;
    else if (strcmp(word, "--tls") == 0)
        value = &s->certificate;
    else if (strcmp(word, "--read-only") == 0)
        s->read_only = true;
    else if (strcmp(word, "--cached") == 0)
        s->cached = true;
    else if (strcmp(word, "--threads") == 0)
        s->threads = true;
    else if (word[0] != '-' && s->image == NULL)
        s->image = word;
    else
        return false;
    if (value == NULL)
        return true;
    *value = next;
    *took_next_r = true;
    return next != NULL;
}

static bool options(struct serving *s, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        bool took_next;
        if (!take_option(s, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &took_next))
            return false;
        i += took_next;
    }
    return s->image != NULL && (s->address != NULL) != (s->socket != NULL) && (s->certificate == NULL || s->address != NULL);
}

/* Says on standard output where it listens. */
static int listen_on(struct serving *s, struct arena *a)
{
    if (s->socket != NULL) {
        int rc = nbd_server_listen_unix(s->server, s->socket, s->read_only);
        if (rc == 0)
            printf("socket %s\n", s->socket);
        return rc;
    }
    const char *colon = strrchr(s->address, ':');
    int64_t port = -1;
    unsigned got;
    if (colon == NULL || !text_to_int(colon + 1, &port) || port < 0 || port > 65535)
        return -EINVAL;
    const char *address = arena_strndup(a, s->address, (size_t)(colon - s->address));
    int rc = nbd_server_listen_tcp(s->server, address, (unsigned)port, s->certificate, s->read_only, &got);
    if (rc == 0)
        printf("port %u\n", got);
    return rc;
}

static int run(struct serving *s, struct arena *a)
{
    char format[16];
    struct block_open o = { .loop = s->base.loop, .io = s->base.io, .format = format, .read_only = s->read_only, .cached = s->cached, .dir = "/tmp" };

    main_image(s->image, format, &o.path);
    const struct error *e = block_open(a, &o, &s->chain);
    if (e != NULL)
        return main_fail(a, e);
    s->gate = gate_new(s->base.loop, s->chain->size, s->read_only);
    gate_set_below(s->gate, s->chain);
    gate_open(s->gate);
    s->server = nbd_server_new(s->base.loop, s->gate);
    int rc = listen_on(s, a);
    if (rc < 0) {
        fprintf(stderr, "tapd: cannot listen: %s\n", strerror(-rc));
        s->result = rc;
    } else {
        fflush(stdout);
        loop_run(s->base.loop);
        gate_refuse(s->gate, -ESHUTDOWN);
    }
    nbd_server_free(s->server);
    rc = block_close(s->gate);
    if (rc < 0 || s->result < 0)
        log_err("%s: ends with an error: %s", s->image, strerror(s->result < 0 ? -s->result : -rc));
    return rc < 0 || s->result < 0;
}

int main_serve(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    struct serving s = { 0 };

    if (!options(&s, argc, argv))
        return main_usage();
    main_begin(&s.base, s.threads, stop, &s);
    int status = run(&s, a);
    main_end(&s.base);
    return status;
}
