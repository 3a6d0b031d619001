/* Big-endian numbers at any address, as the protocol writes them. */
#ifndef RPC_NBD_NBD_ENDIAN_H
#define RPC_NBD_NBD_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t nbd_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return be16toh(v);
}
static inline uint32_t nbd_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}
static inline uint64_t nbd_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return be64toh(v);
}
/* Each returns the place after what it wrote. */
static inline unsigned char *nbd_put16(void *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof v);
    return (unsigned char *)p + sizeof v;
}
static inline unsigned char *nbd_put32(void *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
    return (unsigned char *)p + sizeof v;
}
static inline unsigned char *nbd_put64(void *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
    return (unsigned char *)p + sizeof v;
}

#endif
