/* Sessions (rpc/nbd/nbd_protocol.h): a client that lost its connections and comes back must not meet what they left
 * behind. The older ones are dropped, unread input and all, and the newer ones begin when nothing of theirs is below. */
#include <string.h>

#include "storage/tapd/nbd_server_private.h"

/* 16 digits; false when they are none. */
static bool number(const unsigned char *text, uint64_t *n_r)
{
    *n_r = 0;
    for (unsigned i = 0; i < 16; i++) {
        bool decimal = text[i] >= '0' && text[i] <= '9';
        if (!decimal && (text[i] < 'a' || text[i] > 'f'))
            return false;
        *n_r = *n_r << 4 | (uint64_t)(decimal ? text[i] - '0' : text[i] - 'a' + 10);
    }
    return true;
}

static bool older(const struct nbd_conn *c, const struct nbd_conn *other)
{
    return other != c && other->session == c->session && other->generation < c->generation;
}

static void supersede(struct nbd_conn *c)
{
    for (struct nbd_conn *other = c->server->conns, *next; other != NULL; other = next) {
        next = other->next;
        if (older(c, other))
            nbd_conn_drop(other);
    }
}

void nbd_session_take(struct nbd_conn *c, const unsigned char *query, size_t length)
{
    static const char prefix[] = NBD_CONTEXT_SESSION;
    const size_t n = sizeof prefix - 1;
    uint64_t session, generation;

    if (c->session != 0 || length != n + 32 || memcmp(query, prefix, n) != 0 || !number(query + n, &session) || !number(query + n + 16, &generation))
        return;
    c->session = session;
    c->generation = generation;
    if (c->session != 0)
        supersede(c);
}

bool nbd_session_waits(const struct nbd_conn *c)
{
    if (c->session == 0)
        return false;
    for (const struct nbd_conn *other = c->server->gone; other != NULL; other = other->next)
        if (other->pieces > 0 && older(c, other))
            return true;
    return false;
}
