/* Makes a raw disk to be copied: bench_mkdisk FILE sparse|dense|mixed MEGABYTES SEED
 *
 * sparse: in each 16 MiB, 4 MiB of random bytes and 1 MiB of written zeros in 1 to 16 pieces, aligned to 64 KiB;
 * the rest is holes. dense: random bytes. mixed: half random, half written zeros, in runs of 64 KiB to 1 MiB. The
 * same seed gives the same disk. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "rpc/base/text.h"

#define MIB ((int64_t)1 << 20)
#define UNIT ((int64_t)65536)
#define CELL (16 * MIB)

struct disk { int fd; uint64_t state; uint64_t *buffer; };

static uint64_t next_random(struct disk *d)
{
    uint64_t x = d->state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return d->state = x;
}

static int random_bytes(struct disk *d, int64_t offset, int64_t length)
{
    int r = 0;
    while (r == 0 && length > 0) {
        int64_t n = length < MIB ? length : MIB;
        for (int64_t i = 0; i < n / 8; i++)
            d->buffer[i] = next_random(d);
        r = fd_pwrite_all(d->fd, d->buffer, (size_t)n, offset);
        offset += n;
        length -= n;
    }
    return r;
}

static int zeros(struct disk *d, int64_t offset, int64_t length)
{
    memset(d->buffer, 0, (size_t)MIB);
    return fd_pwrite_all(d->fd, d->buffer, (size_t)length, offset);
}

static int sparse_cell(struct disk *d, int64_t cell)
{
    int64_t pieces = 1 << (next_random(d) % 5), size = 4 * MIB / pieces, zero = MIB / pieces, gap = CELL / pieces;
    int r = 0;

    for (int64_t i = 0; i < pieces && r == 0; i++) {
        int64_t room = (gap - size - zero) / UNIT, at = cell + i * gap + (int64_t)(next_random(d) % (uint64_t)(room + 1)) * UNIT;
        r = random_bytes(d, at, size);
        if (r == 0)
            r = zeros(d, at + size, zero);
    }
    return r;
}

static int mixed_cell(struct disk *d, int64_t cell)
{
    int r = 0;
    for (int64_t at = 0; at < CELL && r == 0;) {
        int64_t n = (int64_t)(1 + next_random(d) % 16) * UNIT;
        if (n > CELL - at)
            n = CELL - at;
        r = next_random(d) % 2 == 0 ? random_bytes(d, cell + at, n) : zeros(d, cell + at, n);
        at += n;
    }
    return r;
}

int main(int argc, char **argv)
{
    struct disk d = { 0 };
    int64_t size, seed;
    int r = 0;

    if (argc != 5 || !text_to_int(argv[3], &size) || !text_to_int(argv[4], &seed) || size <= 0) {
        fputs("usage: bench_mkdisk FILE sparse|dense|mixed MEGABYTES SEED\n", stderr);
        return 2;
    }
    size = size * MIB / CELL * CELL;
    d.state = (uint64_t)seed * 0x9e3779b97f4a7c15ull + 1;
    d.buffer = xcalloc(1, (size_t)MIB);
    d.fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (d.fd < 0 || ftruncate(d.fd, size) != 0) {
        perror(argv[1]);
        return 1;
    }
    for (int64_t cell = 0; cell < size && r == 0; cell += CELL)
        r = strcmp(argv[2], "sparse") == 0 ? sparse_cell(&d, cell) : strcmp(argv[2], "mixed") == 0 ? mixed_cell(&d, cell) : random_bytes(&d, cell, CELL);
    if (r < 0)
        fprintf(stderr, "bench_mkdisk: %s: %s\n", argv[1], strerror(-r));
    fd_close(&d.fd);
    xfree(d.buffer);
    return r < 0;
}
