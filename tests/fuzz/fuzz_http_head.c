/* Heads and chunked bodies of arbitrary bytes: no crash, and the same result however they are cut.
 *
 * clang -fsanitize=fuzzer,address,undefined; corpus in tests/fuzz/corpus/http_head. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/arena.h"
#include "rpc/base/check.h"
#include "rpc/base/text.h"
#include "rpc/http/chunk.h"
#include "rpc/http/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct head_limits limits = { .bytes = 4096, .lines = 20 };

static bool clean(const char *s) { return strpbrk(s, "\r\n") == NULL; }

static void check_head(const struct head *h)
{
    CHECK(!h->chunked || h->content_length < 0);
    CHECK(h->content_length >= -1);
    for (unsigned i = 0; i < h->n_headers; i++) {
        const char *name = h->headers[i].name;

        CHECK(name[0] != '\0' && clean(name) && clean(h->headers[i].value) && strpbrk(name, " \t:") == NULL);
        for (; *name != '\0'; name++)
            CHECK(*name < 'A' || *name > 'Z');
    }
}

static void look_up(struct arena *a, const struct head *h)
{
    struct http_request r = { .query = h->query, .headers = h->headers, .n_headers = h->n_headers };
    const char *user, *password;

    (void)http_query(a, &r, "session_id");
    (void)http_cookie(a, &r, "session_id");
    (void)http_basic_auth(a, &r, &user, &password);
}

static void try_head(const char *bytes, size_t len)
{
    AUTO_ARENA a = arena_new();
    struct head_scan whole = { 0 }, steps = { 0 };
    struct head request, answer;
    long n = head_scan(&whole, bytes, len, &limits), stepped = 0;

    for (size_t i = 1; i <= len && stepped == 0; i++)
        stepped = head_scan(&steps, bytes, i, &limits);
    CHECK(n > 0 ? stepped == n : (n < 0) == (stepped < 0));
    if (n <= 0)
        return;
    if (head_parse_request(a, bytes, (size_t)n, &request) == 0) {
        check_head(&request);
        CHECK(request.path != NULL && request.minor <= 1);
        look_up(a, &request);
    }
    if (head_parse_answer(a, bytes, (size_t)n, &answer) == 0)
        check_head(&answer);
}

static enum chunk_state decode(const char *bytes, size_t len, size_t step, struct text *out)
{
    struct chunk_decoder d = { 0 };

    for (size_t at = 0; at < len && d.state != CHUNK_DONE;) {
        size_t used, n, now = len - at < step ? len - at : step;
        const char *data;

        if (!chunk_decode(&d, bytes + at, now, &used, &data, &n))
            break;
        CHECK(used > 0 && used <= now && data >= bytes && data + n <= bytes + len);
        if (n > 0)
            text_add_len(out, data, n);
        at += used;
    }
    return d.state;
}

static void try_chunks(const char *bytes, size_t len)
{
    AUTO_TEXT whole = TEXT_INIT, steps = TEXT_INIT;
    enum chunk_state a = decode(bytes, len, len, &whole), b = decode(bytes, len, 1, &steps);

    CHECK(a == b && whole.len == steps.len);
    CHECK(whole.len == 0 || memcmp(whole.bytes, steps.bytes, whole.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    const char *end = memmem(bytes, size, "\r\n\r\n", 4);
    size_t body = end != NULL ? (size_t)(end + 4 - bytes) : 0;

    try_head(bytes, size);
    try_chunks(bytes + body, size - body);
    return 0;
}
