/* A server over a disk in memory and a client's end of a connection to it, in one thread: bytes are pushed and
 * pulled while the loop is turned. */
#ifndef TESTS_UNIT_TAPD_NBD_PEER_H
#define TESTS_UNIT_TAPD_NBD_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/nbd/nbd_endian.h"
#include "rpc/nbd/nbd_handshake.h"
#include "storage/tapd/nbd_server.h"
#include "storage/tapd/nbd_wire.h"
#include "tests/lib/ram_block.h"
#include "tests/lib/unit.h"

#define TURNS_MAX 200000
#define KIB 1024u
#define MIB (1024u * KIB)

struct peer {
    struct clock_fake clock;
    struct loop *loop;
    struct ram_block *disk;
    struct nbd_server *server;
    struct nbd_wire wire; /* ours */
    struct nbd_shaken shaken;
};

static inline void peer_start(struct peer *p, int64_t size)
{
    memset(p, 0, sizeof *p);
    clock_fake_init(&p->clock, 0);
    p->loop = loop_new(&p->clock.clock);
    p->disk = ram_block_new(p->loop, size);
    p->server = nbd_server_new(p->loop, &p->disk->block);
    p->wire.fd = -1;
}

static inline void peer_connect(struct peer *p, bool read_only, const char *certificate)
{
    int pair[2];

    if (p->wire.fd >= 0)
        nbd_wire_close(&p->wire);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    nbd_wire_init(&p->wire, pair[0]);
    assert_int_equal(nbd_server_adopt(p->server, pair[1], read_only, certificate), 0);
}

static inline void peer_turn(struct peer *p)
{
    for (unsigned i = 0; i < 4; i++)
        loop_turn(p->loop, 0);
}

static inline void peer_stop(struct peer *p)
{
    if (p->wire.fd >= 0)
        nbd_wire_close(&p->wire);
    for (unsigned i = 0; i < 10; i++)
        loop_turn(p->loop, 0);
    nbd_server_free(p->server);
    ram_block_free(p->disk);
    loop_free(p->loop);
}

/* 0, or -errno of the connection; 1: nobody listens (not accepted after many turns). */
static inline int peer_say(struct peer *p, const void *bytes, size_t n)
{
    unsigned idle = 0;

    while (n > 0 && idle < TURNS_MAX) {
        struct iovec v = { .iov_base = (void *)bytes, .iov_len = n };
        ssize_t put = nbd_wire_writev(&p->wire, &v, 1);

        if (put < 0 && put != -EAGAIN)
            return (int)put;
        idle = put > 0 ? 0 : idle + 1;
        bytes = (const char *)bytes + (put > 0 ? put : 0);
        n -= put > 0 ? (size_t)put : 0;
        loop_turn(p->loop, 0);
    }
    while (nbd_wire_unsent(&p->wire) && nbd_wire_flush(&p->wire) == -EAGAIN)
        loop_turn(p->loop, 0);
    return n > 0;
}

/* 0; 1: nothing came; -errno, or -EPIPE at the end. */
static inline int peer_hear(struct peer *p, void *bytes, size_t n)
{
    for (unsigned idle = 0; n > 0 && idle < 100;) {
        struct iovec v = { .iov_base = bytes, .iov_len = n };
        ssize_t got = nbd_wire_readv(&p->wire, &v, 1);

        if (got == 0)
            return -EPIPE;
        if (got < 0 && got != -EAGAIN)
            return (int)got;
        idle = got > 0 ? 0 : idle + 1;
        bytes = (char *)bytes + (got > 0 ? got : 0);
        n -= got > 0 ? (size_t)got : 0;
        loop_turn(p->loop, 0);
    }
    return n > 0;
}

/* The server has hung up. */
static inline bool peer_is_gone(struct peer *p)
{
    char byte;
    int rc = peer_hear(p, &byte, 1);

    return rc < 0;
}

static inline int peer_tls(struct peer *p)
{
    int rc = -EAGAIN;

    for (unsigned i = 0; i < 1000 && rc == -EAGAIN; i++) {
        rc = nbd_wire_handshake(&p->wire);
        loop_turn(p->loop, 0);
    }
    return rc;
}

/* The client's half of the negotiation. 0 or what it failed with. */
static inline int peer_shake(struct peer *p, const struct nbd_wish *wish, struct disk_tls_context *tls)
{
    static struct nbd_handshake h;
    int rc = 0;

    nbd_handshake_init(&h, wish);
    while (rc == 0)
        switch (nbd_handshake_step(&h)) {
        case NBD_SHAKE_SEND:
            rc = peer_say(p, h.out, h.out_len);
            break;
        case NBD_SHAKE_RECV:
            rc = peer_hear(p, h.in, h.want);
            break;
        case NBD_SHAKE_TLS:
            rc = nbd_wire_tls(&p->wire, tls, NULL, NULL);
            rc = rc == 0 ? peer_tls(p) : rc;
            break;
        case NBD_SHAKE_DONE:
            p->shaken = h.result;
            return 0;
        case NBD_SHAKE_FAILED:
            return h.error;
        }
    return rc;
}

static inline void peer_open(struct peer *p, bool structured)
{
    const struct nbd_wish wish = { .name = "disk", .structured = structured,
                                   .contexts = { NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_HASH, NBD_CONTEXT_DIRTY } };

    peer_connect(p, false, NULL);
    assert_int_equal(peer_shake(p, &wish, NULL), 0);
}

static inline int peer_request(struct peer *p, unsigned type, unsigned flags, uint64_t cookie, uint64_t offset, uint32_t length)
{
    unsigned char head[28];
    unsigned char *at = nbd_put32(head, NBD_MAGIC_REQUEST);

    at = nbd_put64(nbd_put16(nbd_put16(at, (uint16_t)flags), (uint16_t)type), cookie);
    nbd_put32(nbd_put64(at, offset), length);
    return peer_say(p, head, sizeof head);
}

/* The error of a simple reply for the cookie. */
static inline uint32_t peer_simple(struct peer *p, uint64_t cookie)
{
    unsigned char head[16];

    assert_int_equal(peer_hear(p, head, sizeof head), 0);
    assert_int_equal(nbd_get32(head), NBD_MAGIC_SIMPLE_REPLY);
    assert_int_equal(nbd_get64(head + 8), cookie);
    return nbd_get32(head + 4);
}

struct chunk { unsigned flags, type; uint64_t cookie; uint32_t length; };
static inline struct chunk peer_chunk(struct peer *p)
{
    unsigned char head[20];

    assert_int_equal(peer_hear(p, head, sizeof head), 0);
    assert_int_equal(nbd_get32(head), NBD_MAGIC_STRUCTURED_REPLY);
    return (struct chunk){ nbd_get16(head + 4), nbd_get16(head + 6), nbd_get64(head + 8), nbd_get32(head + 16) };
}

/* All chunks of a read: the data, and the error. *holes_r counts bytes of holes. */
static inline uint32_t peer_read_chunks(struct peer *p, uint64_t cookie, uint64_t offset, char *to, uint32_t length, uint32_t *holes_r)
{
    struct chunk c;
    uint32_t error = 0, got = 0;
    unsigned char word[12];

    *holes_r = 0;
    do {
        c = peer_chunk(p);
        assert_int_equal(c.cookie, cookie);
        if (c.type == NBD_REPLY_OFFSET_DATA) {
            assert_int_equal(peer_hear(p, word, 8), 0);
            uint64_t at = nbd_get64(word) - offset;
            assert_true(at + c.length - 8 <= length);
            assert_int_equal(peer_hear(p, to + at, c.length - 8), 0);
            got += c.length - 8;
        } else if (c.type == NBD_REPLY_OFFSET_HOLE) {
            assert_int_equal(c.length, 12);
            assert_int_equal(peer_hear(p, word, 12), 0);
            memset(to + (nbd_get64(word) - offset), 0, nbd_get32(word + 8));
            got += nbd_get32(word + 8);
            *holes_r += nbd_get32(word + 8);
        } else if (c.type == NBD_REPLY_ERROR) {
            assert_int_equal(peer_hear(p, word, 6), 0);
            error = nbd_get32(word);
        } else {
            assert_int_equal(c.type, NBD_REPLY_NONE);
        }
    } while (!(c.flags & NBD_REPLY_FLAG_DONE));
    assert_true(error != 0 || got == length);
    return error;
}

static inline void peer_fill(char *to, size_t n, uint32_t seed)
{
    for (size_t i = 0; i + 4 <= n; i += 4) {
        seed = seed * 1664525u + 1013904223u;
        memcpy(to + i, &seed, 4);
    }
}

#endif
