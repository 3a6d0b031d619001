/* tapd copy: one image onto another, by the mirror in its mode 'copy', with no guest. */
#include <stdio.h>
#include <string.h>

#include "gen/errors.h"
#include "rpc/base/text.h"
#include "storage/tapd/main_modes.h"
#include "storage/tapd/mirror.h"
#include "storage/tapd/nbd_client.h"

struct copying {
    struct main_base base;
    const char *from, *to;
    bool proof, cached, threads, interrupted, stopping;
    int64_t bandwidth, connections;
    struct block *layer;
    struct mirror_status status;
};

static void ended(void *ctx)
{
    struct copying *c = ctx;

    loop_stop(c->base.loop);
}

static void end(struct copying *c)
{
    if (c->stopping || c->layer == NULL)
        return;
    c->stopping = true;
    mirror_get(c->layer, &c->status);
    mirror_stop(c->layer, ended, c);
}

static void changed(void *ctx)
{
    struct copying *c = ctx;
    struct mirror_status m;

    if (c->layer == NULL)
        return;
    mirror_get(c->layer, &m);
    if (m.state == MIRROR_DONE || m.state == MIRROR_FAILED)
        end(c);
}

static void interrupted(void *ctx)
{
    struct copying *c = ctx;

    c->interrupted = true;
    end(c);
}

static bool take_option(struct copying *c, const char *word, const char *next, bool *took_next_r)
{
    *took_next_r = strcmp(word, "--bandwidth") == 0 || strcmp(word, "--connections") == 0;
    if (*took_next_r)
        return next != NULL && text_to_int(next, strcmp(word, "--bandwidth") == 0 ? &c->bandwidth : &c->connections);
    if (strcmp(word, "--proof") == 0)
        c->proof = true;
    else if (strcmp(word, "--cached") == 0)
        c->cached = true;
    else if (strcmp(word, "--threads") == 0)
        c->threads = true;
    else if (word[0] == '-' || c->to != NULL)
        return false;
    else if (c->from == NULL)
        c->from = word;
    else
        c->to = word;
    return true;
}

static bool options(struct copying *c, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        bool took_next;
        if (!take_option(c, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &took_next))
            return false;
        i += took_next;
    }
    return c->to != NULL && c->bandwidth >= 0 && c->connections >= 0 && c->connections <= NBD_CONNECTIONS_MAX;
}

static struct error *open_image(struct copying *c, struct arena *a, const char *image, bool read_only, struct block **block_r)
{
    char format[16];
    struct block_open o = { .loop = c->base.loop, .io = c->base.io, .format = format, .read_only = read_only, .cached = c->cached, .dir = "/tmp" };
    struct nbd_options nbd = { .connections = (unsigned)c->connections };

    main_image(image, format, &o.path);
    return strcmp(format, "nbd") == 0 && nbd.connections > 0 ? nbd_open_with(a, &o, &nbd, block_r) : block_open(a, &o, block_r);
}

static struct error *copy(struct copying *c, struct arena *a, struct block *from, struct block *to)
{
    const struct mirror_options o = { .mode = MIRROR_COPY, .bandwidth = c->bandwidth, .proof = c->proof };

    c->layer = mirror_layer(a, from, to, &o, changed, c);
    changed(c); /* nothing to copy: it may be done already */
    if (c->interrupted)
        end(c);
    loop_run(c->base.loop);
    struct block *rest = mirror_take(c->layer);
    block_close(c->layer);
    block_close(rest);
    if (c->interrupted)
        return err_sr_backend_failure(a, "tapd", "", "interrupted");
    if (c->status.state != MIRROR_DONE)
        return err_sr_backend_failure(a, "tapd", "", c->status.error);
    return NULL;
}

static struct error *run(struct copying *c, struct arena *a)
{
    struct block *from = NULL, *to = NULL;
    struct error *e;

    TRY(open_image(c, a, c->from, true, &from));
    e = open_image(c, a, c->to, false, &to);
    if (e == NULL && to->size < from->size)
        e = err_sr_backend_failure(a, "tapd", "", arena_printf(a, "%s is smaller than %s", c->to, c->from));
    if (e == NULL)
        return copy(c, a, from, to);
    block_close(from);
    block_close(to);
    return e;
}

int main_copy(int argc, char **argv)
{
    AUTO_ARENA a = arena_new();
    struct copying c = { 0 };

    if (!options(&c, argc, argv))
        return main_usage();
    main_begin(&c.base, c.threads, interrupted, &c);
    int64_t began = clock_us(&clock_real);
    const struct error *e = run(&c, a);
    int64_t us = clock_us(&clock_real) - began;
    main_end(&c.base);
    if (e != NULL)
        return main_fail(a, e);
    printf("total %lld copied %lld sent %lld proven %lld repaired %u in %lld ms\n", (long long)c.status.total, (long long)c.status.copied,
           (long long)c.status.sent, (long long)c.status.proven, c.status.repaired, (long long)(us / 1000));
    return 0;
}
