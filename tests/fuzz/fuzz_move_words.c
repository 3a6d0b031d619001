/* What a client says about a move, in words: the token's URLs and the options. No crash, and what is understood is well-formed. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"
#include "xapi/migrate/move_options.h"
#include "xapi/migrate/peer_pool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void url(struct arena *a, const char *text)
{
    const char *address, *again;
    int port, port_again;
    bool tls;

    if (!migration_url_read(a, text, &tls, &address, &port))
        return;
    CHECK(address[0] != '\0' && strpbrk(address, "/?#@ []") == NULL);
    CHECK(port >= 0 && port < 65536);
    CHECK(migration_url_read(a, migration_url(a, address, port, "/services/xenops"), &tls, &again, &port_again));
    CHECK(!tls && strcmp(again, address) == 0 && port_again == (port == 80 ? 0 : port));
}

static void option(struct arena *a, const char *key, const char *text)
{
    const struct member member = member_of(key, value_string(text));
    const struct value map = value_map(&member, 1);
    struct move_options o;

    if (move_options_read(a, &map, &o) != NULL)
        return;
    CHECK(o.streams <= 16 && o.bandwidth >= 0 && o.timeout_s >= 0 && o.postcopy_after_s >= 0);
    CHECK(o.migrate_port >= 0 && o.migrate_port < 65536 && (o.migrate_port == 0 || o.migrate_address != NULL));
    CHECK(o.window == NULL || strlen(o.window) == 11);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = { "migrate_uri", "window", "not_before", "postcopy", "bandwidth", "streams", "timeout_s", "compress", "on_timeout" };
    AUTO_ARENA a = arena_new();
    char *text = size > 0 ? arena_strndup(a, (const char *)data + 1, size - 1) : arena_strdup(a, "");

    url(a, text);
    option(a, keys[(size > 0 ? data[0] : 0) % ARRAY_LEN(keys)], text);
    return 0;
}
