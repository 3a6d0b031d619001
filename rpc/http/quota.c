#include "rpc/http/quota.h"

#include <string.h>

#include "rpc/base/check.h"
#include "rpc/base/lock.h"
#include "rpc/base/memory.h"

#define BUCKETS 256u

struct entry { struct entry *next; unsigned n; char address[]; };
struct quota { struct lock lock; struct entry *buckets[BUCKETS]; };

struct quota *quota_new(void)
{
    struct quota *q = xcalloc(1, sizeof *q);

    lock_init(&q->lock, LOCK_HTTP);
    return q;
}

void quota_free(struct quota *q)
{
    if (q == NULL)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (q->buckets[i] != NULL) {
            struct entry *e = q->buckets[i];

            q->buckets[i] = e->next;
            xfree(e);
        }
    }
    lock_release(&q->lock);
    xfree(q);
}

/* Where the address is, or would be appended. */
static struct entry **find_locked(struct quota *q, const char *address)
{
    uint32_t hash = 2166136261u;

    for (const char *p = address; *p != '\0'; p++)
        hash = (hash ^ (unsigned char)*p) * 16777619u;
    struct entry **e = &q->buckets[hash % BUCKETS];

    while (*e != NULL && strcmp((*e)->address, address) != 0)
        e = &(*e)->next;
    return e;
}

bool quota_take(struct quota *q, const char *address, unsigned max)
{
    LOCK_SCOPE(&q->lock);
    struct entry **e = find_locked(q, address);

    if (*e == NULL) {
        size_t len = strlen(address) + 1;

        *e = xcalloc(1, sizeof **e + len);
        memcpy((*e)->address, address, len);
    }
    if ((*e)->n >= max)
        return false;
    (*e)->n++;
    return true;
}

void quota_release(struct quota *q, const char *address)
{
    LOCK_SCOPE(&q->lock);
    struct entry **e = find_locked(q, address);
    struct entry *gone = *e;

    CHECK(gone != NULL && gone->n > 0);
    if (--gone->n > 0)
        return;
    *e = gone->next;
    xfree(gone);
}
