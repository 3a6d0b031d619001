/* Parked event.from calls, and the replies they share. */
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "xapi/core/event_batch.h"
#include "xapi/core/event_internal.h"
#include "xapi/core/session.h"
#include "xapi/core/xapi.h"

#define SESSION_BIT 127 /* in the mask of every waiter: a session ended */
#define MARK "@events@"

/* The body of a reply without its envelope; counted. */
struct shared_reply { atomic_uint refs; struct text body; };

struct waiter {
    struct http_parked parked; /* first */
    struct events *events;
    struct session *session;   /* counted; NULL for a pool peer without one */
    struct event_filter *filter;
    uint64_t since, since_messages;
    struct wire_call call;     /* what a failure reply needs; id_text points into envelope */
    char *envelope;            /* head, tail, id text: all heap, one block */
    uint32_t head_len, tail_len;
};

/* --- shared replies ------------------------------------------------------------------------------------ */

static void shared_unref(struct shared_reply *r)
{
    if (r == NULL || atomic_fetch_sub(&r->refs, 1) > 1)
        return;
    text_release(&r->body);
    xfree(r);
}

static void cached_clear(struct cached_reply *c)
{
    event_filter_unref(c->filter);
    shared_unref(c->reply);
    *c = (struct cached_reply){ 0 };
}

void event_cache_release(struct events *e)
{
    for (unsigned i = 0; i < EVENT_CACHE; i++)
        cached_clear(&e->cache[i]);
}

static enum wire_format body_format(enum wire_format f) { return f == WIRE_XMLRPC ? WIRE_XMLRPC : WIRE_JSON2; }

static bool cached_fits(const struct cached_reply *c, const struct waiter *w, uint64_t generation)
{
    return c->reply != NULL && c->generation == generation && c->since == w->since && c->since_messages == w->since_messages &&
           c->format == body_format(w->call.format) && event_filter_equal(c->filter, w->filter);
}

/* Counted, or NULL. */
static struct shared_reply *cache_find(struct events *e, const struct waiter *w)
{
    uint64_t generation = db_generation(e->xapi->db);
    struct shared_reply *found = NULL;
    LOCK_SCOPE(&e->cache_lock);

    for (unsigned i = 0; i < EVENT_CACHE && found == NULL; i++)
        if (cached_fits(&e->cache[i], w, generation))
            found = e->cache[i].reply;
    if (found != NULL)
        atomic_fetch_add(&found->refs, 1);
    return found;
}

static void cache_add(struct events *e, const struct waiter *w, uint64_t generation, struct shared_reply *reply)
{
    struct cached_reply old;

    atomic_fetch_add(&reply->refs, 1);
    lock_take(&e->cache_lock);
    struct cached_reply *c = &e->cache[e->next_cached++ % EVENT_CACHE];
    old = *c;
    *c = (struct cached_reply){
        .filter = event_filter_ref(w->filter),
        .since = w->since,
        .since_messages = w->since_messages,
        .generation = generation,
        .format = body_format(w->call.format),
        .reply = reply,
    };
    lock_drop(&e->cache_lock);
    cached_clear(&old);
}

/* The reply for a waiter, counted; NULL when there is nothing for it yet: its tokens moved on. */
static struct shared_reply *reply_make(struct events *e, struct waiter *w, bool even_empty)
{
    AUTO_ARENA a = arena_new();
    struct event_batch b;

    event_batch_collect(e->xapi->db, a, w->filter, w->since, w->since_messages, &b);
    if (b.n == 0 && !even_empty) {
        w->since = w->since_messages = b.generation;
        return NULL;
    }
    struct shared_reply *r = xcalloc(1, sizeof(*r));
    atomic_init(&r->refs, 1);
    event_batch_write(e->xapi->db, &b, w->call.format, &r->body);
    if (b.n > 0) {
        atomic_store(&e->answered_ms, clock_ms(e->xapi->clock));
        cache_add(e, w, b.generation, r);
    }
    return r;
}

/* --- the waiter -------------------------------------------------------------------------------------------- */

static void waiter_free(struct waiter *w)
{
    session_unref(w->session);
    event_filter_unref(w->filter);
    xfree(w->envelope);
    xfree(w);
}

struct sent { struct shared_reply *reply; char *envelope; };

static void sent_release(void *ctx)
{
    struct sent *s = ctx;

    shared_unref(s->reply);
    xfree(s->envelope);
    xfree(s);
}

static void answer(struct waiter *w, struct shared_reply *reply)
{
    struct sent *sent = xcalloc(1, sizeof(*sent));
    const struct http_piece pieces[] = {
        { w->envelope, w->head_len },
        { reply->body.bytes, reply->body.len },
        { w->envelope + w->head_len, w->tail_len },
    };

    *sent = (struct sent){ .reply = reply, .envelope = w->envelope };
    w->envelope = NULL;
    http_parked_reply_pieces(&w->parked, 200, wire_content_type(w->call.format), pieces, ARRAY_LEN(pieces), sent_release, sent);
    waiter_free(w);
}

static void answer_failure(struct waiter *w)
{
    AUTO_ARENA a = arena_new();
    struct text body = TEXT_INIT;

    wire_write_failure(&body, &w->call, err_session_invalid(a, w->session->ref));
    http_parked_reply(&w->parked, 200, wire_content_type(w->call.format), &body);
    text_release(&body);
    waiter_free(w);
}

static bool waiter_poll(struct http_parked *parked, bool expired)
{
    struct waiter *w = CONTAINER_OF(parked, struct waiter, parked);
    struct events *e = w->events;
    uint64_t since = w->since < w->since_messages ? w->since : w->since_messages;

    if (w->session != NULL && atomic_load(&w->session->gone)) {
        answer_failure(w);
        return true;
    }
    if (!expired && !change_log_newer(e->xapi->db, since, &w->filter->touched))
        return false;
    struct shared_reply *reply = cache_find(e, w);
    if (reply == NULL)
        reply = reply_make(e, w, expired);
    if (reply == NULL)
        return false;
    answer(w, reply);
    return true;
}

static void waiter_closed(struct http_parked *parked) { waiter_free(CONTAINER_OF(parked, struct waiter, parked)); }

static const struct http_parked_ops waiter_ops = { .poll = waiter_poll, .closed = waiter_closed };

/* Cuts a success reply around the place of its value: what comes before and after it, and the text of
 * the id for a failure reply, end up in one block. */
static void envelope_make(struct waiter *w, const struct wire_call *call)
{
    AUTO_TEXT whole = TEXT_INIT;
    struct value mark = value_string(MARK);
    bool json = call->format != WIRE_XMLRPC;

    wire_write_success(&whole, call, &mark);
    const char *at = strstr(whole.bytes, json ? "\"" MARK "\"" : MARK);
    CHECK(at != NULL);
    size_t mark_len = strlen(MARK) + (json ? 2 : 0);
    w->head_len = (uint32_t)(at - whole.bytes);
    w->tail_len = (uint32_t)(whole.len - w->head_len - mark_len);
    w->envelope = xcalloc(1, w->head_len + w->tail_len + call->id_text_len + 1u);
    memcpy(w->envelope, whole.bytes, w->head_len);
    memcpy(w->envelope + w->head_len, at + mark_len, w->tail_len);
    w->call = (struct wire_call){ .format = call->format, .method = "event.from" };
    if (call->id_text != NULL) {
        char *id = w->envelope + w->head_len + w->tail_len;
        memcpy(id, call->id_text, call->id_text_len);
        w->call.id_text = id;
        w->call.id_text_len = call->id_text_len;
    }
}

static void waiter_mask(struct waiter *w)
{
    memcpy(w->parked.mask, w->filter->touched.bits, sizeof(w->parked.mask));
    w->parked.mask[SESSION_BIT / 64] |= 1ull << (SESSION_BIT % 64);
}

void event_park(struct api_call *c, struct http_exchange *x, const struct wire_call *call, struct event_query *q)
{
    struct events *e = c->xapi->events;
    struct waiter *w = xcalloc(1, sizeof(*w));
    struct class_set touched = q->filter->touched;
    uint64_t since = q->since;

    w->parked.ops = &waiter_ops;
    w->parked.deadline_ms = q->deadline_ms;
    w->events = e;
    w->session = c->session != NULL ? session_find(c->xapi->sessions, c->session) : NULL;
    w->filter = q->filter;
    w->since = q->since;
    w->since_messages = q->since_messages;
    envelope_make(w, call);
    waiter_mask(w);
    http_park(x, &w->parked);
    if (change_log_newer(e->xapi->db, since, &touched))
        events_wake(e, &touched); /* it came while we looked, or we hold it back */
}
