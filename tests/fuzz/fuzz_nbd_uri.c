/* NBD URIs of arbitrary bytes: no crash, and what is understood is well-formed. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "rpc/base/check.h"
#include "rpc/nbd/nbd_uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_ARENA a = arena_new();
    char *text = arena_strndup(a, (const char *)data, size);
    struct nbd_uri u, again;

    if (nbd_uri_parse(a, text, &u)) {
        CHECK(nbd_uri_is(text));
        CHECK(u.name != NULL && (u.socket != NULL) != (u.host != NULL));
        CHECK(u.port > 0 && u.port < 65536);
        CHECK(!u.tls_first || u.tls);
        CHECK(u.put == NULL || (u.put[0] == '/' && strpbrk(u.put, " \r\n") == NULL));
        CHECK(u.cookie == NULL || strpbrk(u.cookie, "\r\n") == NULL);
        const char *shown = nbd_uri_shown(a, text);
        CHECK(nbd_uri_parse(a, shown, &again) && (again.cookie == NULL || again.cookie[0] == '\0'));
        if (u.socket != NULL) {
            CHECK(nbd_uri_parse(a, nbd_uri_unix(a, u.socket), &again));
            CHECK(strcmp(again.socket, u.socket) == 0);
        }
    }
    return 0;
}
