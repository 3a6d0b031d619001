#include "db/index.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "rpc/base/check.h"
#include "rpc/base/memory.h"

#define MIN_BUCKETS 64

static uint64_t seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void seed_make(void) { CHECK(getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed)); }

static uint64_t mix(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h ^ (h >> 29);
}

uint64_t index_hash(const char *s, size_t len)
{
    pthread_once(&seed_once, seed_make);
    uint64_t h = seed ^ len, word = 0;
    for (; len >= sizeof(word); s += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, s, sizeof(word));
        h = mix(h, word);
    }
    word = 0;
    memcpy(&word, s, len);
    h = mix(h, word);
    return h ^ (h >> 32);
}

void index_release(struct index *t)
{
    xfree(t->buckets);
    *t = (struct index){ 0 };
}

static void index_resize(struct index *t, size_t n_buckets)
{
    struct index_node **buckets = xcalloc(n_buckets, sizeof(struct index_node *));
    for (size_t i = 0; i < t->n_buckets; i++) {
        for (struct index_node *n = t->buckets[i], *next; n != NULL; n = next) {
            next = n->next;
            struct index_node **b = &buckets[n->hash & (n_buckets - 1)];
            n->next = *b;
            *b = n;
        }
    }
    xfree(t->buckets);
    t->buckets = buckets;
    t->n_buckets = n_buckets;
}

void index_reserve(struct index *t, size_t n)
{
    size_t want = t->n_buckets != 0 ? t->n_buckets : MIN_BUCKETS;
    while (want < n)
        want *= 2;
    if (want != t->n_buckets)
        index_resize(t, want);
}

void index_add(struct index *t, struct index_node *n, uint64_t hash)
{
    index_reserve(t, t->n + 1);
    struct index_node **b = &t->buckets[hash & (t->n_buckets - 1)];
    n->hash = hash;
    n->next = *b;
    *b = n;
    t->n++;
}

void index_remove(struct index *t, struct index_node *n)
{
    CHECK(t->n > 0);
    struct index_node **at = &t->buckets[n->hash & (t->n_buckets - 1)];
    while (*at != n) {
        CHECK(*at != NULL);
        at = &(*at)->next;
    }
    *at = n->next;
    n->next = NULL;
    t->n--;
}

struct index_node *index_first(const struct index *t, uint64_t hash)
{
    if (t->n == 0)
        return NULL;
    struct index_node *n = t->buckets[hash & (t->n_buckets - 1)];
    while (n != NULL && n->hash != hash)
        n = n->next;
    return n;
}

struct index_node *index_next(const struct index_node *from)
{
    struct index_node *n = from->next;
    while (n != NULL && n->hash != from->hash)
        n = n->next;
    return n;
}
