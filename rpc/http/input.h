/* Bytes read from a connection and not consumed yet. Costs nothing while empty.
 *
 * While a connection is being served it borrows its loop's scratch buffer, so that the usual request,
 * which comes in one piece, is never copied or allocated for; input_settle() before waiting moves
 * what is left to memory of its own and gives the scratch back. */
#ifndef RPC_HTTP_INPUT_H
#define RPC_HTTP_INPUT_H

#include <stdbool.h>
#include <stddef.h>

struct input {
    char *buffer; /* own heap memory, or the scratch when borrowed; NULL when empty and settled */
    size_t start, end, cap;
    bool borrowed;
};

static inline const char *input_bytes(const struct input *in) { return in->buffer + in->start; }
static inline size_t input_len(const struct input *in) { return in->end - in->start; }
void input_consume(struct input *, size_t n);
/* Room for at least 'least' more bytes at the end; *n_r is how many there are. */
char *input_room(struct input *, char *scratch, size_t scratch_size, size_t least, size_t *n_r);
static inline void input_added(struct input *in, size_t n) { in->end += n; }
void input_settle(struct input *);
void input_release(struct input *);

#endif
