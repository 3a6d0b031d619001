#include "rpc/http/chunk.h"

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 32) >= 'a' && (c | 32) <= 'f')
        return (c | 32) - 'a' + 10;
    return -1;
}

static enum chunk_state size_byte(struct chunk_decoder *d, char c)
{
    int v = digit(c);

    if (v >= 0) {
        d->digits++;
        if (d->digits > 15)
            return CHUNK_BAD;
        d->left = d->left * 16 + (unsigned)v;
        return CHUNK_SIZE;
    }
    if (d->digits == 0)
        return CHUNK_BAD;
    if (c == ';')
        return CHUNK_EXTENSION;
    return c == '\r' ? CHUNK_SIZE_LF : CHUNK_BAD;
}

static enum chunk_state extension_byte(struct chunk_decoder *d, char c)
{
    if (c == '\r')
        return CHUNK_SIZE_LF;
    if (++d->extension > 256 || (c != '\t' && (unsigned char)c < 0x20) || c == 0x7f)
        return CHUNK_BAD;
    return CHUNK_EXTENSION;
}

/* One byte of framing. */
static enum chunk_state framing_byte(struct chunk_decoder *d, char c)
{
    switch (d->state) {
    case CHUNK_SIZE:
        return size_byte(d, c);
    case CHUNK_EXTENSION:
        return extension_byte(d, c);
    case CHUNK_SIZE_LF:
        if (c != '\n')
            return CHUNK_BAD;
        d->digits = d->extension = 0;
        return d->left > 0 ? CHUNK_DATA : CHUNK_END_CR;
    case CHUNK_DATA_CR:
        return c == '\r' ? CHUNK_DATA_LF : CHUNK_BAD;
    case CHUNK_DATA_LF:
        return c == '\n' ? CHUNK_SIZE : CHUNK_BAD;
    case CHUNK_END_CR:
        return c == '\r' ? CHUNK_END_LF : CHUNK_BAD;
    case CHUNK_END_LF:
        return c == '\n' ? CHUNK_DONE : CHUNK_BAD;
    case CHUNK_DATA:
    case CHUNK_DONE:
    case CHUNK_BAD:
        break;
    }
    return d->state;
}

bool chunk_decode(struct chunk_decoder *d, const char *in, size_t len, size_t *used_r, const char **data_r, size_t *data_len_r)
{
    size_t i = 0;

    *data_len_r = 0;
    *data_r = in;
    while (i < len && d->state != CHUNK_DATA && d->state != CHUNK_DONE && d->state != CHUNK_BAD)
        d->state = framing_byte(d, in[i++]);
    if (d->state == CHUNK_DATA && i < len) {
        size_t n = len - i < d->left ? len - i : (size_t)d->left;

        *data_r = in + i;
        *data_len_r = n;
        d->left -= n;
        i += n;
        if (d->left == 0)
            d->state = CHUNK_DATA_CR;
    }
    *used_r = i;
    return d->state != CHUNK_BAD;
}
