#include "rpc/http/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/lock.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"
#include "rpc/http/chunk.h"
#include "rpc/http/peer_link.h"
#include "rpc/http/parse.h"

#define IDLE_MOST 64u
#define IDLE_MS (60 * 1000) /* well below a server's idle limit */
#define READ_SIZE (64u * 1024)
#define HEAD_MOST ((size_t)64 * 1024)

struct http_client {
    struct tls_context *tls;
    struct lock lock;
    struct peer_link *idle; /* newest first */
    unsigned n_idle;
};

struct http_client *http_client_new(void)
{
    AUTO_ARENA arena = arena_new();
    struct http_client *h = xcalloc(1, sizeof *h);
    struct error *e = tls_client_context(arena, &h->tls);

    CHECK(e == NULL); /* OpenSSL is there, or nothing is */
    lock_init(&h->lock, LOCK_CLIENT);
    return h;
}

void http_client_free(struct http_client *h)
{
    if (h == NULL)
        return;
    while (h->idle != NULL) {
        struct peer_link *l = h->idle;

        h->idle = l->next;
        peer_link_close(l);
    }
    tls_context_free(h->tls);
    lock_release(&h->lock);
    xfree(h);
}

/* --- the pool --------------------------------------------------------------------------------------- */

/* Unlinks the newest connection with the key, or NULL. Old ones move to *stale_r. */
static struct peer_link *take_idle(struct http_client *h, const char *key, int64_t now, struct peer_link **stale_r)
{
    struct peer_link *found = NULL;

    LOCK_SCOPE(&h->lock);
    for (struct peer_link **l = &h->idle; *l != NULL;) {
        struct peer_link *this = *l;
        bool stale = now - this->idle_since_ms > IDLE_MS;

        if (!stale && (found != NULL || strcmp(this->key, key) != 0)) {
            l = &this->next;
            continue;
        }
        *l = this->next;
        h->n_idle--;
        if (stale) {
            this->next = *stale_r;
            *stale_r = this;
        } else {
            found = this;
        }
    }
    return found;
}

/* A pooled connection that still stands, or NULL. */
static struct peer_link *pooled(struct call *c, struct http_client *h, const char *key)
{
    for (;;) {
        struct peer_link *stale = NULL;
        struct peer_link *found = take_idle(h, key, clock_ms(c->clock), &stale);

        while (stale != NULL) {
            struct peer_link *next = stale->next;

            peer_link_close(stale);
            stale = next;
        }
        if (found == NULL || peer_link_quiet(found))
            return found;
        peer_link_close(found);
    }
}

static void give_back(struct call *c, struct http_client *h, struct peer_link *l)
{
    bool kept = false;

    l->idle_since_ms = clock_ms(c->clock);
    lock_take(&h->lock);
    if (h->n_idle < IDLE_MOST) {
        l->next = h->idle;
        h->idle = l;
        h->n_idle++;
        kept = true;
    }
    lock_drop(&h->lock);
    if (!kept)
        peer_link_close(l);
}

/* --- reading an answer ------------------------------------------------------------------------------ */

struct reader {
    struct call *c;
    struct peer_link *link;
    struct text in;  /* read, from 'at' on not used */
    size_t at;
    bool any;        /* something came */
};

/* More bytes; > 0, 0 at the end, or -errno. */
static ssize_t read_more(struct reader *r)
{
    text_grow(&r->in, READ_SIZE);
    ssize_t n = peer_link_read(r->c, r->link, r->in.bytes + r->in.len, READ_SIZE);

    if (n > 0) {
        r->in.len += (size_t)n;
        r->any = true;
    }
    return n;
}

static int read_one_head(struct reader *r, struct head *h, struct http_answer *a)
{
    struct head_limits limits = { .bytes = HEAD_MOST, .lines = 1000 };
    struct head_scan scan = { 0 };

    for (;;) {
        long n = r->in.len > r->at ? head_scan(&scan, r->in.bytes + r->at, r->in.len - r->at, &limits) : 0;

        if (n < 0)
            return -EPROTO;
        if (n > 0) {
            if (head_parse_answer(r->c->arena, r->in.bytes + r->at, (size_t)n, h) != 0)
                return -EPROTO;
            a->head = arena_strndup(r->c->arena, r->in.bytes + r->at, (size_t)n);
            r->at += (size_t)n;
            return 0;
        }
        ssize_t got = read_more(r);

        if (got <= 0)
            return got < 0 ? (int)got : -ECONNRESET;
    }
}

static int read_head(struct reader *r, struct head *h, struct http_answer *a)
{
    int rc;

    do
        rc = read_one_head(r, h, a);
    while (rc == 0 && h->status < 200 && h->status != 101);
    a->status = h->status;
    return rc;
}

static int read_length(struct reader *r, uint64_t length, size_t max, struct http_answer *a)
{
    size_t have = r->in.len - r->at;

    if (length > max)
        return -EMSGSIZE;
    char *body = arena_alloc(r->c->arena, (size_t)length + 1);

    if (have > length)
        have = (size_t)length;
    if (have > 0)
        memcpy(body, r->in.bytes + r->at, have);
    r->at += have;
    while (have < length) {
        ssize_t got = peer_link_read(r->c, r->link, body + have, (size_t)length - have);

        if (got <= 0)
            return got < 0 ? (int)got : -ECONNRESET;
        have += (size_t)got;
    }
    a->body = body;
    a->body_len = have;
    return 0;
}

static int read_chunks(struct reader *r, size_t max, struct text *body)
{
    struct chunk_decoder d = { 0 };

    for (;;) {
        while (r->at < r->in.len && d.state != CHUNK_DONE) {
            size_t used, n;
            const char *data;

            if (!chunk_decode(&d, r->in.bytes + r->at, r->in.len - r->at, &used, &data, &n))
                return -EPROTO;
            if (n > max - body->len)
                return -EMSGSIZE;
            if (n > 0)
                text_add_len(body, data, n);
            r->at += used;
        }
        if (d.state == CHUNK_DONE)
            return 0;
        r->in.len = r->at = 0;
        ssize_t got = read_more(r);

        if (got <= 0)
            return got < 0 ? (int)got : -ECONNRESET;
    }
}

static int read_to_end(struct reader *r, size_t max, struct text *body)
{
    for (;;) {
        size_t n = r->in.len - r->at;

        if (n > max - body->len)
            return -EMSGSIZE;
        if (n > 0)
            text_add_len(body, r->in.bytes + r->at, n);
        r->in.len = r->at = 0;
        ssize_t got = read_more(r);

        if (got <= 0)
            return (int)got;
    }
}

/* *reusable_r: the connection may serve another request. */
static int read_answer(struct reader *r, size_t max, struct http_answer *a, bool *reusable_r)
{
    AUTO_TEXT body = TEXT_INIT;
    struct head h;
    int rc = read_head(r, &h, a);

    if (rc != 0)
        return rc;
    bool none = h.status == 204 || h.status == 304;
    bool to_end = !none && !h.chunked && h.content_length < 0;

    a->body = "";
    a->body_len = 0;
    if (!none && h.content_length >= 0)
        rc = read_length(r, (uint64_t)h.content_length, max, a);
    else if (h.chunked)
        rc = read_chunks(r, max, &body);
    else if (to_end)
        rc = read_to_end(r, max, &body);
    if (rc != 0)
        return rc;
    if (body.len > 0) {
        a->body = arena_memdup(r->c->arena, body.bytes, body.len + 1);
        a->body_len = body.len;
    }
    *reusable_r = h.keep_alive && !to_end && h.status >= 200 && r->at == r->in.len;
    return 0;
}

/* --- requests --------------------------------------------------------------------------------------- */

/* Refuses what would end a line of the head early. */
static bool line_safe(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s <= ' ' || *s == 0x7f)
            return false;
    return true;
}

static int write_head(struct text *out, const struct http_target *t, const char *method, const char *path, const char *extra)
{
    if (!line_safe(method) || !line_safe(path) || *path == '\0')
        return -EINVAL;
    text_printf(out, "%s %s HTTP/1.1\r\n", method, path);
    if (t->port == 0)
        text_add(out, "Host: localhost\r\n");
    else if (strchr(t->address, ':') != NULL && t->address[0] != '[')
        text_printf(out, "Host: [%s]:%d\r\n", t->address, t->port);
    else
        text_printf(out, "Host: %s:%d\r\n", t->address, t->port);
    if (extra != NULL)
        text_add(out, extra);
    return 0;
}

/* Sends and reads over one connection. *any_r: a byte of an answer came. */
static int exchange(struct call *c, struct peer_link *l, const struct text *head, const void *body, size_t len, size_t max,
                    struct http_answer *a, bool *any_r, bool *reusable_r)
{
    struct reader r = { .c = c, .link = l };
    int rc = peer_link_write(c, l, head->bytes, head->len);

    if (rc == 0 && len > 0)
        rc = peer_link_write(c, l, body, len);
    if (rc == 0 || rc == -EPIPE || rc == -ECONNRESET) { /* a refusal may stand there even so */
        int write_rc = rc;

        rc = read_answer(&r, max, a, reusable_r);
        if (write_rc != 0)
            *reusable_r = false;
    }
    *any_r = r.any;
    text_release(&r.in);
    return rc;
}

/* Not even begun when it is too late. */
static int check_call(const struct call *c)
{
    if (c->cancel != NULL && cancel_raised(c->cancel))
        return -ECANCELED;
    return call_cancelled(c) ? -ETIMEDOUT : 0;
}

static bool died(int rc) { return rc == -ECONNRESET || rc == -EPIPE || rc == -EPROTO; }

int http_client_post(struct call *c, struct http_client *h, const struct http_target *t, const char *path, const char *content_type,
                     const char *extra_headers, const void *body, size_t len, size_t max_answer, struct http_answer *answer_r)
{
    AUTO_TEXT head = TEXT_INIT;
    AUTO_FREE char *key = peer_link_key(t);
    bool any = false, reusable = false;
    int rc = check_call(c);

    if (rc == 0)
        rc = write_head(&head, t, "POST", path, extra_headers);
    if (rc != 0)
        return rc;
    text_printf(&head, "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n", content_type, len);
    if (len > 0 && len <= 16 * 1024) { /* one packet */
        text_add_len(&head, body, len);
        len = 0;
    }
    struct peer_link *l = pooled(c, h, key);

    if (l != NULL) {
        rc = exchange(c, l, &head, body, len, max_answer, answer_r, &any, &reusable);
        if (rc != 0 && !any && died(rc)) {
            peer_link_close(l);
            l = NULL;
        }
    }
    if (l == NULL) {
        rc = peer_link_open(c, h->tls, t, xstrdup(key), &l);
        if (rc != 0)
            return rc;
        rc = exchange(c, l, &head, body, len, max_answer, answer_r, &any, &reusable);
    }
    if (rc == 0 && reusable)
        give_back(c, h, l);
    else
        peer_link_close(l);
    return rc;
}

int http_client_raw(struct call *c, struct http_client *h, const struct http_target *t, const char *method, const char *path,
                    const char *extra_headers, struct byte_stream **stream_r)
{
    AUTO_TEXT head = TEXT_INIT;
    struct peer_link *l;
    int rc = check_call(c);

    if (rc == 0)
        rc = write_head(&head, t, method, path, extra_headers);
    if (rc != 0)
        return rc;
    text_add(&head, "\r\n");
    rc = peer_link_open(c, h->tls, t, peer_link_key(t), &l);
    if (rc != 0)
        return rc;
    rc = peer_link_write(c, l, head.bytes, head.len);
    if (rc != 0) {
        peer_link_close(l);
        return rc;
    }
    *stream_r = peer_link_stream(l);
    return 0;
}
