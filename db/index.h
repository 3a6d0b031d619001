/* A hash table of nodes embedded in what they index; several nodes may be equal.
 *
 * No lock of its own: db/store.h says which lock guards which table. */
#ifndef DB_INDEX_H
#define DB_INDEX_H

#include <stddef.h>
#include <stdint.h>

struct index_node { struct index_node *next; uint64_t hash; };
struct index { struct index_node **buckets; size_t n_buckets, n; };

void index_release(struct index *);                      /* the nodes are the owner's */
void index_reserve(struct index *, size_t n);            /* room for n nodes without growing */
void index_add(struct index *, struct index_node *, uint64_t hash);
void index_remove(struct index *, struct index_node *);  /* must be in it (CHECK) */

/* The nodes of one hash, in no order: for (n = index_first(t, h); n; n = index_next(n)). */
struct index_node *index_first(const struct index *, uint64_t hash);
struct index_node *index_next(const struct index_node *);

/* Seeded once per process, so that clients cannot choose colliding names. */
uint64_t index_hash(const char *, size_t len);

#endif
