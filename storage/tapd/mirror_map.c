#include "storage/tapd/mirror_map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/arena.h"
#include "rpc/base/check.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/tapd/mirror_bits.h"
#include "storage/tapd/proof_hash.h"

#define MAGIC "xmirror1"
#define VERSION 1u
#define LOOKS_MAX 4096u /* places that cannot be proven now which one call looks at */
#define GAP_MAX 8u /* proven blocks between unproven ones that are hashed again rather than asked about apart */

enum plane { DIRTY, COPYING, UNPROVEN, PROVING, UNFLUSHED, FLUSHING, N_PLANES };

/* The first 4,096 bytes of the file. The machine that wrote it is the one that reads it. */
struct map_header {
    char magic[8];
    uint32_t version, block;
    uint64_t size, planes, proof;
    char boot[64], identity[2048];
    uint8_t check[PROOF_DIGEST]; /* of all above */
    uint64_t scanned, generation; /* these change */
};
_Static_assert(sizeof(struct map_header) <= MIRROR_MAP_BLOCK, "one block");

struct mirror_map {
    struct map_header *header; /* mapped; planes follow, each at a multiple of 4,096 */
    size_t mapped;
    char *path;
    int64_t size;
    uint64_t n;
    bool proof, once;
    struct mirror_bits planes[N_PLANES];
};

/* --- the file -------------------------------------------------------------------------------------- */

static size_t plane_bytes(uint64_t n) { return (bits_bytes(n) + 4095) & ~(size_t)4095; }

static void fill_header(const struct mirror_map_spec *spec, struct map_header *h)
{
    AUTO_ARENA a = arena_new();
    const char *boot = spec->boot;
    char *text;
    size_t len;

    memset(h, 0, sizeof(*h));
    memcpy(h->magic, MAGIC, sizeof(h->magic));
    h->version = VERSION;
    h->block = MIRROR_MAP_BLOCK;
    h->size = (uint64_t)spec->size;
    h->planes = N_PLANES;
    h->proof = spec->proof;
    if (boot == NULL)
        boot = file_read(a, "/proc/sys/kernel/random/boot_id", 256, &text, &len) == 0 ? text : "";
    memcpy(h->boot, boot, strnlen(boot, sizeof(h->boot) - 1));
    memcpy(h->identity, spec->identity, strnlen(spec->identity, 2000));
    proof_hash(h, offsetof(struct map_header, check), h->check);
}

/* Whether the file is a map of this very mirror. */
static bool good_map(int fd, const struct map_header *want, size_t file_size)
{
    struct map_header h;
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == file_size && fd_pread_all(fd, &h, sizeof(h), 0) == 0 &&
           memcmp(&h, want, offsetof(struct map_header, scanned)) == 0 && h.scanned <= h.size;
}

/* Opens what is there if it is good, else makes a new one of zeros. */
static int open_file(const char *path, const struct map_header *want, size_t file_size, int *fd_r, enum mirror_map_found *found_r)
{
    AUTO_FD old = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

    *found_r = old < 0 && errno == ENOENT ? MIRROR_MAP_FRESH : MIRROR_MAP_DOUBTFUL;
    if (old >= 0 && good_map(old, want, file_size)) {
        *found_r = MIRROR_MAP_RESUMED;
        *fd_r = fd_steal(&old);
        return 0;
    }
    if (unlink(path) < 0 && errno != ENOENT)
        return -errno;
    AUTO_FD fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    /* the space is taken now: a full disk later would be a SIGBUS */
    int rc = posix_fallocate(fd, 0, (off_t)file_size);
    if (rc != 0) {
        unlink(path);
        return -rc;
    }
    *fd_r = fd_steal(&fd);
    return 0;
}

static int map_file(struct mirror_map *m, const struct mirror_map_spec *spec, const struct map_header *want, enum mirror_map_found *found_r)
{
    AUTO_FD fd = -1;

    *found_r = MIRROR_MAP_FRESH;
    if (spec->path != NULL) {
        int rc = open_file(spec->path, want, m->mapped, &fd, found_r);
        if (rc < 0)
            return rc;
        m->path = xstrdup(spec->path);
    }
    void *at = mmap(NULL, m->mapped, PROT_READ | PROT_WRITE, fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
    if (at == MAP_FAILED)
        return -errno;
    m->header = at;
    return 0;
}

/* What was under way when the process was killed is as if it had failed. */
static void recover(struct mirror_map *m)
{
    bits_move(&m->planes[DIRTY], &m->planes[COPYING]);
    if (m->proof) {
        bits_move(&m->planes[UNPROVEN], &m->planes[PROVING]);
        mirror_map_target_lost(m);
        for (uint64_t at = 0; (at = bits_next_set(&m->planes[DIRTY], at, m->n)) < m->n;) {
            uint64_t stop = bits_next_clear(&m->planes[DIRTY], at, m->n);
            bits_set(&m->planes[UNPROVEN], at, stop - at);
            at = stop;
        }
    }
}

int mirror_map_open(const struct mirror_map_spec *spec, struct mirror_map **map_r, enum mirror_map_found *found_r)
{
    struct map_header want;

    if (spec->size <= 0 || spec->size > MIRROR_MAP_SIZE_MAX)
        return -EFBIG;
    struct mirror_map *m = xcalloc(1, sizeof(*m));
    m->size = spec->size;
    m->n = ((uint64_t)spec->size + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;
    m->proof = spec->proof;
    m->once = spec->once;
    m->mapped = MIRROR_MAP_BLOCK + N_PLANES * plane_bytes(m->n);
    fill_header(spec, &want);
    int rc = map_file(m, spec, &want, found_r);
    if (rc < 0) {
        mirror_map_close(m, false);
        return rc;
    }
    for (unsigned p = 0; p < N_PLANES; p++)
        bits_init(&m->planes[p], (uint64_t *)(void *)((char *)m->header + MIRROR_MAP_BLOCK + p * plane_bytes(m->n)), m->n);
    if (*found_r == MIRROR_MAP_RESUMED) {
        recover(m);
    } else {
        bits_set(&m->planes[DIRTY], 0, m->n);
        if (m->proof)
            bits_set(&m->planes[UNPROVEN], 0, m->n);
        __atomic_signal_fence(__ATOMIC_SEQ_CST); /* a header is there only over planes that say something */
        *m->header = want;
    }
    m->header->generation++;
    *map_r = m;
    return 0;
}

void mirror_map_forget(struct mirror_map *m)
{
    if (m->path != NULL)
        unlink(m->path);
    xfree(m->path);
    m->path = NULL;
}

void mirror_map_spoil(struct mirror_map *m) { memset(m->header->magic, 0, sizeof(m->header->magic)); }

void mirror_map_close(struct mirror_map *m, bool remove)
{
    if (m == NULL)
        return;
    if (remove)
        mirror_map_forget(m);
    if (m->header != NULL)
        munmap(m->header, m->mapped);
    for (unsigned p = 0; p < N_PLANES; p++)
        bits_release(&m->planes[p]);
    xfree(m->path);
    xfree(m);
}

/* --- counts and ranges ------------------------------------------------------------------------------- */

struct blocks { uint64_t first, n; };

/* The blocks a range touches. */
static struct blocks touching(const struct mirror_map *m, int64_t offset, int64_t length)
{
    CHECK(offset >= 0 && length >= 0 && offset <= m->size && length <= m->size - offset);
    uint64_t first = (uint64_t)offset / MIRROR_MAP_BLOCK;
    uint64_t end = ((uint64_t)(offset + length) + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;
    return (struct blocks){ first, length > 0 ? end - first : 0 };
}

static int64_t bytes_of(const struct mirror_map *m, uint64_t n)
{
    int64_t bytes = (int64_t)(n * MIRROR_MAP_BLOCK);
    return bytes < m->size ? bytes : m->size;
}

/* Blocks [first, end) as bytes; the disk may end within the last one. */
static int64_t range_end(const struct mirror_map *m, uint64_t end)
{
    return (int64_t)(end * MIRROR_MAP_BLOCK) < m->size ? (int64_t)(end * MIRROR_MAP_BLOCK) : m->size;
}

/* Between two stores whose order a kill must see. */
static void then(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }

int64_t mirror_map_dirty(const struct mirror_map *m) { return bytes_of(m, m->planes[DIRTY].set + m->planes[COPYING].set); }
int64_t mirror_map_unproven(const struct mirror_map *m) { return bytes_of(m, m->planes[UNPROVEN].set + m->planes[PROVING].set); }
int64_t mirror_map_unflushed(const struct mirror_map *m) { return bytes_of(m, m->planes[UNFLUSHED].set); }
int64_t mirror_map_scanned(const struct mirror_map *m) { return (int64_t)m->header->scanned; }

void mirror_map_set_scanned(struct mirror_map *m, int64_t to)
{
    CHECK(to >= 0 && to <= m->size);
    then();
    m->header->scanned = (uint64_t)to;
}

void mirror_map_skip(struct mirror_map *m, int64_t offset, int64_t length, bool proven)
{
    uint64_t first = ((uint64_t)offset + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;
    uint64_t end = offset + length >= m->size ? m->n : (uint64_t)(offset + length) / MIRROR_MAP_BLOCK;

    if (end <= first)
        return;
    bits_clear(&m->planes[DIRTY], first, end - first);
    if (proven)
        bits_clear(&m->planes[UNPROVEN], first, end - first);
}

int64_t mirror_map_written(struct mirror_map *m, int64_t offset, int64_t length)
{
    struct blocks b = touching(m, offset, length);

    if (m->proof)
        bits_set(&m->planes[UNPROVEN], b.first, b.n);
    then();
    return (int64_t)(bits_set(&m->planes[DIRTY], b.first, b.n) * MIRROR_MAP_BLOCK);
}

static bool any(const struct mirror_map *m, enum plane one, enum plane other, struct blocks b)
{
    return bits_any(&m->planes[one], b.first, b.n) || bits_any(&m->planes[other], b.first, b.n);
}

bool mirror_map_is_dirty(const struct mirror_map *m, int64_t offset, int64_t length)
{
    return any(m, DIRTY, COPYING, touching(m, offset, length));
}

bool mirror_map_is_unproven(const struct mirror_map *m, int64_t offset, int64_t length)
{
    return any(m, UNPROVEN, PROVING, touching(m, offset, length));
}

/* --- copying ----------------------------------------------------------------------------------------- */

bool mirror_map_next_dirty(const struct mirror_map *m, int64_t from, int64_t end, uint32_t max, int64_t *offset_r, uint32_t *length_r)
{
    const struct mirror_bits *dirty = &m->planes[DIRTY], *copying = &m->planes[COPYING];
    uint64_t at = (uint64_t)from / MIRROR_MAP_BLOCK, step = max / MIRROR_MAP_BLOCK;
    uint64_t limit = ((uint64_t)end + MIRROR_MAP_BLOCK - 1) / MIRROR_MAP_BLOCK;

    if (limit > m->n)
        limit = m->n;
    if (dirty->set == 0)
        return false;
    while ((at = bits_next_set(dirty, at, limit)) < limit) {
        if (bits_test(copying, at)) { /* written while it is copied: its turn comes when that is done */
            at = bits_next_clear(copying, at, limit);
            continue;
        }
        uint64_t most = (at / step + 1) * step;
        most = bits_next_clear(dirty, at, most < limit ? most : limit);
        most = bits_next_set(copying, at, most);
        *offset_r = (int64_t)(at * MIRROR_MAP_BLOCK);
        *length_r = (uint32_t)(range_end(m, most) - *offset_r);
        return true;
    }
    return false;
}

void mirror_map_copy_begin(struct mirror_map *m, int64_t offset, uint32_t length)
{
    struct blocks b = touching(m, offset, length);

    bits_set(&m->planes[COPYING], b.first, b.n);
    then();
    bits_clear(&m->planes[DIRTY], b.first, b.n);
    bits_set(&m->planes[UNFLUSHED], b.first, b.n);
}

void mirror_map_copy_end(struct mirror_map *m, int64_t offset, uint32_t length, bool copied)
{
    struct blocks b = touching(m, offset, length);

    if (!copied)
        bits_set(&m->planes[DIRTY], b.first, b.n);
    bits_set(&m->planes[UNFLUSHED], b.first, b.n); /* a flush that began meanwhile may not have covered it */
    then();
    bits_clear(&m->planes[COPYING], b.first, b.n);
}

/* --- proving ----------------------------------------------------------------------------------------- */

static bool clean(const struct mirror_map *m, uint64_t at)
{
    return !bits_test(&m->planes[DIRTY], at) && !bits_test(&m->planes[COPYING], at);
}

static bool gave_up(unsigned looks) { return looks > LOOKS_MAX; /* counted below zero */ }

/* The first block in [at, limit) that may be proven now, or limit. Gives up after *looks, which it counts down. */
static uint64_t next_provable(const struct mirror_map *m, uint64_t at, uint64_t limit, unsigned *looks)
{
    while ((at = bits_next_set(&m->planes[UNPROVEN], at, limit)) < limit && (*looks)-- > 0) {
        if (bits_test(&m->planes[DIRTY], at))
            at = bits_next_clear(&m->planes[DIRTY], at, limit);
        else if (bits_test(&m->planes[COPYING], at))
            at = bits_next_clear(&m->planes[COPYING], at, limit);
        else if (bits_test(&m->planes[PROVING], at))
            at = bits_next_clear(&m->planes[PROVING], at, limit);
        else
            break;
    }
    return at;
}

/* The end of what may be proven from 'at' on. */
static uint64_t provable_end(const struct mirror_map *m, uint64_t at, uint64_t limit)
{
    limit = bits_next_clear(&m->planes[UNPROVEN], at, limit);
    limit = bits_next_set(&m->planes[DIRTY], at, limit);
    limit = bits_next_set(&m->planes[COPYING], at, limit);
    return bits_next_set(&m->planes[PROVING], at, limit);
}

bool mirror_map_next_unproven(const struct mirror_map *m, int64_t from, uint32_t max, int64_t *offset_r, uint32_t *length_r)
{
    unsigned looks = LOOKS_MAX;
    uint64_t at = next_provable(m, (uint64_t)from / MIRROR_MAP_BLOCK, m->n, &looks), most = max / MIRROR_MAP_BLOCK;

    *offset_r = range_end(m, at);
    if (at >= m->n || gave_up(looks))
        return false; /* nothing, or to be asked again from there */
    looks = LOOKS_MAX;
    uint64_t limit = (at / most + 1) * most < m->n ? (at / most + 1) * most : m->n;
    uint64_t end = provable_end(m, at, limit);
    while (!m->once) { /* over small gaps that are clean and proven */
        uint64_t reach = end + GAP_MAX + 1 < limit ? end + GAP_MAX + 1 : limit;
        uint64_t next = next_provable(m, end, reach, &looks);
        if (next >= reach || gave_up(looks))
            break;
        uint64_t gap = end;
        while (gap < next && clean(m, gap) && !bits_test(&m->planes[PROVING], gap))
            gap++;
        if (gap < next)
            break;
        end = provable_end(m, next, limit);
    }
    *length_r = (uint32_t)(range_end(m, end) - *offset_r);
    return true;
}

bool mirror_map_next_unproven_run(const struct mirror_map *m, int64_t from, int64_t end, int64_t max, int64_t *offset_r, int64_t *length_r)
{
    unsigned looks = LOOKS_MAX;
    uint64_t limit = touching(m, 0, end).n, at = next_provable(m, (uint64_t)from / MIRROR_MAP_BLOCK, limit, &looks);
    uint64_t most = (uint64_t)max / MIRROR_MAP_BLOCK;

    *offset_r = range_end(m, at);
    if (at >= limit || gave_up(looks))
        return false;
    *length_r = range_end(m, provable_end(m, at, at + most < limit ? at + most : limit)) - *offset_r;
    return true;
}

void mirror_map_proven(struct mirror_map *m, int64_t offset, int64_t length)
{
    struct blocks b = touching(m, offset, length);
    bits_clear(&m->planes[UNPROVEN], b.first, b.n);
}

void mirror_map_prove_begin(struct mirror_map *m, int64_t offset, uint32_t length)
{
    struct blocks b = touching(m, offset, length);

    for (uint64_t at = b.first, end = b.first + b.n; (at = bits_next_set(&m->planes[UNPROVEN], at, end)) < end;) {
        uint64_t stop = bits_next_clear(&m->planes[UNPROVEN], at, end);
        bits_set(&m->planes[PROVING], at, stop - at);
        at = stop;
    }
    then();
    bits_clear(&m->planes[UNPROVEN], b.first, b.n);
}

bool mirror_map_touched(const struct mirror_map *m, int64_t offset, uint32_t length)
{
    struct blocks b = touching(m, offset, length);
    return bits_any(&m->planes[UNPROVEN], b.first, b.n) || any(m, DIRTY, COPYING, b);
}

void mirror_map_prove_end(struct mirror_map *m, int64_t offset, uint32_t length, bool proven)
{
    struct blocks b = touching(m, offset, length);

    for (uint64_t at = b.first, end = b.first + b.n; !proven && (at = bits_next_set(&m->planes[PROVING], at, end)) < end;) {
        uint64_t stop = bits_next_clear(&m->planes[PROVING], at, end);
        bits_set(&m->planes[UNPROVEN], at, stop - at);
        at = stop;
    }
    then();
    bits_clear(&m->planes[PROVING], b.first, b.n);
}

/* --- stability of the target --------------------------------------------------------------------------- */

void mirror_map_flush_begin(struct mirror_map *m) { bits_move(&m->planes[FLUSHING], &m->planes[UNFLUSHED]); }

void mirror_map_flush_end(struct mirror_map *m, bool flushed)
{
    if (flushed)
        bits_clear_all(&m->planes[FLUSHING]);
    else
        bits_move(&m->planes[UNFLUSHED], &m->planes[FLUSHING]);
}

void mirror_map_target_lost(struct mirror_map *m)
{
    bits_move(&m->planes[UNFLUSHED], &m->planes[FLUSHING]);
    if (m->proof && !m->once)
        bits_move(&m->planes[UNPROVEN], &m->planes[UNFLUSHED]);
}
