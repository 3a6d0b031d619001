#include "xapi/migrate/move_options.h"

#include <string.h>
#include <strings.h>

#include "rpc/base/datetime.h"
#include "rpc/base/text.h"
#include "xapi/migrate/disk_move.h"

#define STREAMS_MAX 16

struct reader { struct arena *arena; const struct value *map; };

static const char *text_of(const struct reader *r, const char *key)
{
    return value_get_string(r->map, key, "");
}

static struct error *bad(const struct reader *r, const char *key)
{
    return err_invalid_value(r->arena, key, text_of(r, key));
}

/* --- kinds of values ------------------------------------------------------------------------------------------- */
static bool word_bool(const char *word, bool *b_r)
{
    static const char *const words[] = { "false", "off", "0", "true", "on", "1" };

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        if (strcasecmp(word, words[i]) == 0) {
            *b_r = i >= 3;
            return true;
        }
    return false;
}

static struct error *read_bool(const struct reader *r, const char *key, bool *b_r)
{
    const char *word = text_of(r, key);

    return word[0] == '\0' || word_bool(word, b_r) ? NULL : bad(r, key);
}

static struct error *read_number(const struct reader *r, const char *key, int64_t least, int64_t most, int64_t *n_r)
{
    const char *text = text_of(r, key);
    int64_t n;

    if (text[0] == '\0')
        return NULL;
    if (!text_to_int(text, &n) || n < least || n > most)
        return bad(r, key);
    *n_r = n;
    return NULL;
}

/* The index of a word in a list that ends with NULL; an absent one leaves *index_r. */
static struct error *read_word(const struct reader *r, const char *key, const char *const *words, unsigned *index_r)
{
    const char *word = text_of(r, key);

    if (word[0] == '\0')
        return NULL;
    for (unsigned i = 0; words[i] != NULL; i++)
        if (strcmp(word, words[i]) == 0) {
            *index_r = i;
            return NULL;
        }
    return bad(r, key);
}

/* --- options one by one ------------------------------------------------------------------------------------------ */
/* xapi's reading: what is not understood is absent. */
static enum move_compress compress_of(const char *word)
{
    bool on;

    if (word_bool(word, &on))
        return on ? COMPRESS_ON : COMPRESS_OFF;
    return strcasecmp(word, "auto") == 0 ? COMPRESS_AUTO : COMPRESS_DEFAULT;
}

/* "never", "allowed" or "after:<s>" */
static struct error *read_postcopy(const struct reader *r, struct move_options *o)
{
    const char *word = text_of(r, "postcopy");

    if (word[0] == '\0' || strcmp(word, "never") == 0)
        return NULL;
    o->postcopy = POSTCOPY_ALLOWED;
    if (strcmp(word, "allowed") == 0)
        return NULL;
    o->postcopy = POSTCOPY_AFTER;
    if (strncmp(word, "after:", 6) != 0 || !text_to_int(word + 6, &o->postcopy_after_s) || o->postcopy_after_s < 0 ||
        o->postcopy_after_s > INT32_MAX)
        return bad(r, "postcopy");
    return NULL;
}

/* libvirt's form: "tcp://host", "tcp://host:port", "tcp://[v6]:port"; the scheme may be left out. */
static struct error *read_uri(const struct reader *r, struct move_options *o)
{
    const char *at = text_of(r, "migrate_uri"), *end, *port;
    int64_t n = 0;

    if (at[0] == '\0')
        return NULL;
    if (strncmp(at, "tcp:", 4) == 0)
        at += 4;
    if (strncmp(at, "//", 2) == 0)
        at += 2;
    if (at[0] == '[') {
        end = strchr(++at, ']');
        port = end == NULL ? "" : end + 1;
    } else {
        port = end = at + strcspn(at, ":");
    }
    if (end == NULL || end == at || strspn(at, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:%") < (size_t)(end - at))
        return bad(r, "migrate_uri");
    if (port[0] != '\0' && (port[0] != ':' || !text_to_int(port + 1, &n) || n < 1 || n > UINT16_MAX))
        return bad(r, "migrate_uri");
    o->migrate_address = arena_strndup(r->arena, at, (size_t)(end - at));
    o->migrate_port = (int)n;
    return NULL;
}

/* Seconds of the epoch, or a XenAPI datetime. */
static struct error *read_not_before(const struct reader *r, struct move_options *o)
{
    const char *text = text_of(r, "not_before");

    if (text[0] == '\0' || (text_to_int(text, &o->not_before) && o->not_before >= 0))
        return NULL;
    return strchr(text, 'T') != NULL && datetime_parse(text, strlen(text), &o->not_before) ? NULL : bad(r, "not_before");
}

static bool clock_time(const char *at)
{
    static const char digits[] = "0123456789";

    for (unsigned i = 0; i < 5; i++)
        if (i == 2 ? at[i] != ':' : at[i] == '\0' || strchr(digits, at[i]) == NULL)
            return false;
    return at[0] < '2' ? at[3] < '6' : at[0] == '2' && at[1] < '4' && at[3] < '6';
}

/* "HH:MM-HH:MM" */
static struct error *read_window(const struct reader *r, struct move_options *o)
{
    const char *text = text_of(r, "window");

    if (text[0] == '\0')
        return NULL;
    if (strlen(text) != 11 || !clock_time(text) || text[5] != '-' || !clock_time(text + 6))
        return bad(r, "window");
    o->window = text;
    return NULL;
}

/* --- groups ------------------------------------------------------------------------------------------------------ */
static struct error *read_memory(const struct reader *r, struct move_options *o)
{
    static const char *const timeouts[] = { "continue", "abort", "suspend", "postcopy", NULL };
    static const char *const fallbacks[] = { "none", "non-live", NULL };
    const char *bandwidth = text_of(r, "bandwidth");
    int64_t streams = 0, downtime = 0;
    unsigned timeout = TIMEOUT_CONTINUE, fallback = 0;

    TRY(read_number(r, "streams", 0, STREAMS_MAX, &streams));
    if (bandwidth[0] != '\0' && !disk_move_bandwidth(bandwidth, &o->bandwidth))
        return bad(r, "bandwidth");
    TRY(read_number(r, "max_downtime_ms", 0, INT32_MAX, &downtime));
    TRY(read_number(r, "timeout_s", 0, INT32_MAX, &o->timeout_s));
    TRY(read_word(r, "on_timeout", timeouts, &timeout));
    TRY(read_postcopy(r, o));
    TRY(read_word(r, "fallback", fallbacks, &fallback));
    TRY(read_bool(r, "auto_converge", &o->auto_converge));
    o->streams = (unsigned)streams;
    o->max_downtime_ms = (unsigned)downtime;
    o->on_timeout = (enum move_on_timeout)timeout;
    o->fallback_non_live = fallback == 1;
    return NULL;
}

static struct error *read_ends(const struct reader *r, struct move_options *o)
{
    static const char *const cds[] = { "refuse", "eject", NULL };
    unsigned cd = 0;

    TRY(read_bool(r, "paused", &o->paused));
    TRY(read_bool(r, "keep_source", &o->keep_source));
    TRY(read_bool(r, "persistent", &o->persistent));
    TRY(read_bool(r, "overwrite", &o->overwrite));
    TRY(read_word(r, "cd", cds, &cd));
    o->eject_cds = cd == 1;
    return read_uri(r, o);
}

static struct error *read_queue(const struct reader *r, struct move_options *o)
{
    static const char *const queues[] = { "wait", "refuse", NULL };
    unsigned queue = 0;
    int64_t priority = 0;

    TRY(read_word(r, "queue", queues, &queue));
    TRY(read_number(r, "priority", INT32_MIN, INT32_MAX, &priority));
    TRY(read_not_before(r, o));
    TRY(read_window(r, o));
    TRY(read_bool(r, "hold", &o->hold));
    o->queue_refuse = queue == 1;
    o->priority = (int)priority;
    return NULL;
}

static struct error *combinations(const struct reader *r, const struct move_options *o)
{
    if (!o->persistent && !o->keep_source && !o->copy && !o->force)
        return err_operation_not_allowed(r->arena, "With persistent=false and keep_source=false no definition of the VM is left once it "
                                                   "shuts down: force=true is needed");
    if (o->on_timeout == TIMEOUT_POSTCOPY && o->postcopy == POSTCOPY_NEVER)
        return err_operation_not_allowed(r->arena, "on_timeout=postcopy needs postcopy=allowed or postcopy=after:<s>");
    return NULL;
}

struct error *move_options_read(struct arena *arena, const struct value *map, struct move_options *o)
{
    const struct reader r = { arena, map };
    const char *network = text_of(&r, "network");

    *o = (struct move_options) {
        .live = true,
        .force = strcmp(text_of(&r, "force"), "true") == 0,
        .copy = strcmp(text_of(&r, "copy"), "true") == 0,
        .compress = compress_of(text_of(&r, "compress")),
        .network = network[0] == '\0' || strcmp(network, "OpaqueRef:NULL") == 0 ? NULL : network,
        .persistent = true,
    };
    if (!word_bool(text_of(&r, "live"), &o->live))
        o->live = true; /* as for xapi, which never looks at it */
    TRY(read_memory(&r, o));
    TRY(read_ends(&r, o));
    TRY(read_queue(&r, o));
    return combinations(&r, o);
}
