#include "storage/tapd/mirror_map.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rpc/base/child.h"
#include "rpc/base/fd.h"
#include "rpc/base/memory.h"
#include "storage/tapd/mirror_bits.h"
#include "tests/lib/tempdir.h"
#include "tests/lib/unit.h"

#define B ((int64_t)MIRROR_MAP_BLOCK)

static struct mirror_map_spec spec_of(const char *path, int64_t size)
{
    return (struct mirror_map_spec){ .path = path, .size = size, .identity = "mirror\nraw:/a\nraw:/b", .boot = "boot", .proof = true };
}

static struct mirror_map *open_map(const struct mirror_map_spec *spec, enum mirror_map_found want)
{
    struct mirror_map *m;
    enum mirror_map_found found;

    assert_int_equal(mirror_map_open(spec, &m, &found), 0);
    assert_int_equal(found, want);
    return m;
}

/* All copied and proven. */
static struct mirror_map *clean_map(const struct mirror_map_spec *spec)
{
    struct mirror_map *m = open_map(spec, MIRROR_MAP_FRESH);

    mirror_map_set_scanned(m, spec->size);
    mirror_map_skip(m, 0, spec->size, true);
    assert_int_equal(mirror_map_dirty(m), 0);
    assert_int_equal(mirror_map_unproven(m), 0);
    return m;
}

/* --- bits, against a plain array ------------------------------------------------------------------- */

static uint32_t seed;
static uint32_t pick(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * n) >> 32);
}

static void check_bits(const struct mirror_bits *b, const uint8_t *model, uint64_t n)
{
    uint64_t from = pick((uint32_t)n), limit = from + pick((uint32_t)(n - from) + 1), s = from, c = from, set = 0;

    while (s < limit && !model[s])
        s++;
    while (c < limit && model[c])
        c++;
    assert_int_equal(bits_next_set(b, from, limit), s);
    assert_int_equal(bits_next_clear(b, from, limit), c);
    for (uint64_t i = from; i < limit; i++)
        set += model[i];
    assert_int_equal(bits_count(b, from, limit - from), set);
    assert_int_equal(bits_any(b, from, limit - from), set > 0);
}

static void change(struct mirror_bits *b, uint8_t *model, uint64_t n)
{
    uint64_t from = pick((uint32_t)n), len = pick(pick(3) == 0 ? (uint32_t)(n - from) + 1 : 100), changed = 0;
    bool set = pick(2) != 0;

    len = len < n - from ? len : n - from;
    for (uint64_t i = from; i < from + len; i++) {
        changed += model[i] != set;
        model[i] = set;
    }
    assert_int_equal(set ? bits_set(b, from, len) : bits_clear(b, from, len), changed);
}

static void test_bits_against_array(void **state)
{
    static const uint64_t sizes[] = { 1, 63, 64, 65, 8191, 8192, 8193, 40000 };

    for (unsigned k = 0; k < ARRAY_LEN(sizes); k++) {
        uint64_t n = sizes[k];
        uint64_t *words = xcalloc(bits_bytes(n), 1), *words2 = xcalloc(bits_bytes(n), 1);
        uint8_t *model = xcalloc(n, 1), *model2 = xcalloc(n, 1);
        struct mirror_bits b, b2;
        seed = (uint32_t)n;
        memset(words, 0xff, bits_bytes(n)); /* beyond n too: it is cut */
        memset(model, 1, n);
        bits_init(&b, words, n);
        bits_init(&b2, words2, n);
        assert_int_equal(b.set, n);
        for (unsigned i = 0; i < 3000; i++) {
            change(&b, model, n);
            change(&b2, model2, n);
            check_bits(&b, model, n);
            if (pick(100) == 0) {
                bits_move(&b2, &b);
                for (uint64_t j = 0; j < n; j++)
                    model2[j] |= model[j];
                memset(model, 0, n);
                check_bits(&b2, model2, n);
            } else if (pick(200) == 0) {
                bits_clear_all(&b);
                memset(model, 0, n);
            }
        }
        bits_release(&b);
        bits_release(&b2);
        xfree(words);
        xfree(words2);
        xfree(model);
        xfree(model2);
    }
}

/* --- the rules ---------------------------------------------------------------------------------------- */

static void test_map_fresh_is_all_dirty(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 10 * B + 512); /* the last block is short */
    struct mirror_map *m = open_map(&spec, MIRROR_MAP_FRESH);
    int64_t at;
    uint32_t len;

    assert_int_equal(mirror_map_dirty(m), 10 * B + 512);
    assert_int_equal(mirror_map_unproven(m), 10 * B + 512);
    assert_true(mirror_map_next_dirty(m, 0, spec.size, 4 * MIRROR_MAP_BLOCK, &at, &len));
    assert_int_equal(at, 0);
    assert_int_equal(len, 4 * B);
    assert_true(mirror_map_next_dirty(m, 9 * B, spec.size, 4 * MIRROR_MAP_BLOCK, &at, &len)); /* cut at multiples of max, and at the end */
    assert_int_equal(at, 9 * B);
    assert_int_equal(len, B + 512);
    mirror_map_close(m, true);
}

static void test_map_skip_is_of_whole_blocks(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 10 * B + 512);
    struct mirror_map *m = open_map(&spec, MIRROR_MAP_FRESH);

    mirror_map_skip(m, 512, 3 * B, false); /* two whole blocks in it */
    assert_int_equal(mirror_map_dirty(m), 9 * B);
    assert_false(mirror_map_is_dirty(m, B, 2 * B));
    assert_true(mirror_map_is_dirty(m, 0, 512));
    assert_true(mirror_map_is_unproven(m, B, B));
    mirror_map_skip(m, 9 * B + 1024, 1024, false);
    assert_true(mirror_map_is_dirty(m, 9 * B, B));
    mirror_map_skip(m, 10 * B, 512, true); /* up to the end counts as whole */
    assert_false(mirror_map_is_dirty(m, 10 * B, 512));
    assert_false(mirror_map_is_unproven(m, 10 * B, 512));
    mirror_map_close(m, true);
}

static void test_map_write_while_copied_stays_dirty(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 64 * B);
    struct mirror_map *m = clean_map(&spec);
    int64_t at;
    uint32_t len;

    assert_int_equal(mirror_map_written(m, 8 * B, 4 * B), 4 * B);
    assert_int_equal(mirror_map_written(m, 8 * B, 4 * B), 0);
    mirror_map_copy_begin(m, 8 * B, 4 * B);
    assert_int_equal(mirror_map_dirty(m), 4 * B);
    assert_false(mirror_map_next_dirty(m, 0, spec.size, 1 << 20, &at, &len));
    assert_int_equal(mirror_map_written(m, 9 * B + 512, 512), B);
    assert_false(mirror_map_next_dirty(m, 0, spec.size, 1 << 20, &at, &len)); /* not twice at once */
    mirror_map_copy_end(m, 8 * B, 4 * B, true);
    assert_true(mirror_map_next_dirty(m, 0, spec.size, 1 << 20, &at, &len));
    assert_int_equal(at, 9 * B);
    assert_int_equal(len, B);
    mirror_map_copy_begin(m, at, len);
    mirror_map_copy_end(m, at, len, false);
    assert_int_equal(mirror_map_dirty(m), B);
    mirror_map_close(m, true);
}

static void test_map_proof_of_what_was_written_is_void(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 64 * B);
    struct mirror_map *m = clean_map(&spec);
    int64_t at;
    uint32_t len;

    mirror_map_written(m, 0, 8 * B);
    assert_false(mirror_map_next_unproven(m, 0, 1 << 20, &at, &len)); /* it is dirty */
    mirror_map_copy_begin(m, 0, 8 * B);
    assert_false(mirror_map_next_unproven(m, 0, 1 << 20, &at, &len)); /* on its way */
    mirror_map_copy_end(m, 0, 8 * B, true);
    assert_true(mirror_map_next_unproven(m, 0, 1 << 20, &at, &len));
    assert_int_equal(len, 8 * B);
    mirror_map_prove_begin(m, at, len);
    assert_false(mirror_map_next_unproven(m, 0, 1 << 20, &at, &len));
    assert_int_equal(mirror_map_unproven(m), 8 * B);
    mirror_map_written(m, 3 * B, 512);
    assert_true(mirror_map_touched(m, 0, 8 * B));
    assert_false(mirror_map_touched(m, 4 * B, 4 * B));
    mirror_map_prove_end(m, 0, 4 * B, false);
    mirror_map_prove_end(m, 4 * B, 4 * B, true);
    assert_int_equal(mirror_map_unproven(m), 4 * B);
    assert_int_equal(mirror_map_dirty(m), B);
    mirror_map_close(m, true);
}

static void test_map_proof_goes_over_small_gaps_of_the_proven(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 256 * B);
    struct mirror_map *m = clean_map(&spec);
    int64_t at;
    uint32_t len;
    static const int64_t blocks[] = { 10, 14, 100, 103 };

    for (unsigned i = 0; i < ARRAY_LEN(blocks); i++) {
        mirror_map_written(m, blocks[i] * B, B);
        mirror_map_copy_begin(m, blocks[i] * B, B);
        mirror_map_copy_end(m, blocks[i] * B, B, true);
    }
    mirror_map_written(m, 101 * B, B); /* dirty in the gap: not over that one */
    assert_true(mirror_map_next_unproven(m, 0, 1 << 20, &at, &len));
    assert_int_equal(at, 10 * B);
    assert_int_equal(len, 5 * B);
    mirror_map_prove_begin(m, at, len);
    mirror_map_prove_end(m, at, len, true);
    assert_true(mirror_map_next_unproven(m, 0, 1 << 20, &at, &len));
    assert_int_equal(at, 100 * B);
    assert_int_equal(len, B);
    mirror_map_close(m, true);
}

static void test_map_without_proof_is_never_unproven(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 64 * B);
    spec.proof = false;
    struct mirror_map *m = open_map(&spec, MIRROR_MAP_FRESH);

    assert_int_equal(mirror_map_unproven(m), 0);
    mirror_map_written(m, 0, B);
    mirror_map_target_lost(m);
    assert_int_equal(mirror_map_unproven(m), 0);
    mirror_map_close(m, true);
}

static void test_map_lost_target_unproves_what_was_not_stable(void **state)
{
    struct mirror_map_spec spec = spec_of(NULL, 64 * B);
    struct mirror_map *m = clean_map(&spec);

    for (int64_t i = 0; i < 3; i++) {
        mirror_map_written(m, i * B, B);
        mirror_map_copy_begin(m, i * B, B);
        mirror_map_copy_end(m, i * B, B, true);
        mirror_map_prove_begin(m, i * B, B);
        mirror_map_prove_end(m, i * B, B, true);
        if (i == 0) {
            mirror_map_flush_begin(m);
            mirror_map_flush_end(m, true);
        } else if (i == 1) {
            mirror_map_flush_begin(m); /* block 2 comes meanwhile; the flush fails */
        }
    }
    mirror_map_flush_end(m, false);
    mirror_map_target_lost(m);
    assert_int_equal(mirror_map_dirty(m), 0);
    assert_false(mirror_map_is_unproven(m, 0, B));
    assert_true(mirror_map_is_unproven(m, B, B));
    assert_true(mirror_map_is_unproven(m, 2 * B, B));
    mirror_map_close(m, true);
}

/* --- the file ------------------------------------------------------------------------------------------ */

static void test_map_is_found_again(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    tempdir_make(&dir);
    struct mirror_map_spec spec = spec_of(tempdir_file(&dir, "map"), 64 * B);
    struct mirror_map *m = clean_map(&spec);

    mirror_map_written(m, 5 * B, B);
    mirror_map_written(m, 20 * B, 2 * B);
    mirror_map_copy_begin(m, 20 * B, 2 * B);  /* under way */
    mirror_map_written(m, 30 * B, B);
    mirror_map_copy_begin(m, 30 * B, B);
    mirror_map_copy_end(m, 30 * B, B, true);
    mirror_map_prove_begin(m, 30 * B, B);     /* under way */
    mirror_map_close(m, false);
    m = open_map(&spec, MIRROR_MAP_RESUMED);
    assert_int_equal(mirror_map_scanned(m), 64 * B);
    assert_int_equal(mirror_map_dirty(m), 3 * B);
    assert_true(mirror_map_is_dirty(m, 5 * B, B));
    assert_true(mirror_map_is_dirty(m, 20 * B, B));
    assert_true(mirror_map_is_dirty(m, 21 * B, B));
    assert_int_equal(mirror_map_unproven(m), 4 * B);
    assert_true(mirror_map_is_unproven(m, 30 * B, B));
    mirror_map_spoil(m);
    mirror_map_close(m, false);
    m = open_map(&spec, MIRROR_MAP_DOUBTFUL);
    assert_int_equal(mirror_map_dirty(m), 64 * B);
    mirror_map_forget(m);
    mirror_map_close(m, false);
    m = open_map(&spec, MIRROR_MAP_FRESH);
    mirror_map_close(m, true);
    assert_int_equal(access(spec.path, F_OK), -1);
}

static void check_doubtful(const struct mirror_map_spec *spec)
{
    struct mirror_map *m = open_map(spec, MIRROR_MAP_DOUBTFUL);

    assert_int_equal(mirror_map_dirty(m), spec->size);
    assert_int_equal(mirror_map_scanned(m), 0);
    mirror_map_close(m, true);
}

static void test_map_of_another_mirror_is_doubtful(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    tempdir_make(&dir);
    const char *path = tempdir_file(&dir, "map");
    const struct mirror_map_spec spec = spec_of(path, 64 * B);
    struct mirror_map_spec others[5] = { spec, spec, spec, spec, spec };

    others[0].size = 65 * B;
    others[1].identity = "mirror\nraw:/a\nraw:/c";
    others[2].boot = "another";
    others[3].proof = false;
    others[4].size = 63 * B;
    for (unsigned i = 0; i < ARRAY_LEN(others); i++) {
        mirror_map_close(clean_map(&spec), false);
        check_doubtful(&others[i]);
    }
}

/* Each byte of the header in turn, and files of other lengths and kinds. */
static void test_map_damaged_is_doubtful(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    tempdir_make(&dir);
    const struct mirror_map_spec spec = spec_of(tempdir_file(&dir, "map"), 64 * B);
    struct stat st;

    for (unsigned at = 0; at < 2300; at += at < 64 || at > 2130 ? 1 : 97) {
        mirror_map_close(clean_map(&spec), false);
        AUTO_FD fd = open(spec.path, O_RDWR | O_CLOEXEC);
        uint8_t byte;
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 0x80;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        struct mirror_map *m;
        enum mirror_map_found found;
        assert_int_equal(mirror_map_open(&spec, &m, &found), 0);
        assert_true(found == MIRROR_MAP_DOUBTFUL || at >= 2168); /* 'scanned' and 'generation' change; no lie of theirs is too large */
        assert_true(mirror_map_scanned(m) <= spec.size);
        mirror_map_close(m, true);
    }
    for (unsigned i = 0; i < 3; i++) {
        mirror_map_close(clean_map(&spec), false);
        assert_int_equal(truncate(spec.path, i == 0 ? 0 : i == 1 ? st.st_size - 1 : st.st_size + 1), 0);
        check_doubtful(&spec);
    }
    assert_int_equal(symlink("/etc/passwd", spec.path), 0);
    check_doubtful(&spec);
    assert_int_equal(mkdir(spec.path, 0700), 0);
    struct mirror_map *m;
    enum mirror_map_found found;
    assert_true(mirror_map_open(&spec, &m, &found) < 0);
}

static void test_map_refuses_sizes(void **state)
{
    static const int64_t sizes[] = { 0, -1, INT64_MAX, MIRROR_MAP_SIZE_MAX + 1 };
    struct mirror_map *m;
    enum mirror_map_found found;

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        struct mirror_map_spec spec = spec_of(NULL, sizes[i]);
        assert_int_equal(mirror_map_open(&spec, &m, &found), -EFBIG);
    }
}

/* --- killed in the middle --------------------------------------------------------------------------------
 * The child does random transitions for ever and tells on a shared page which block it is at; whatever the
 * moment it is killed: a block whose write was told and whose copy was not told to be done is dirty, and one that is
 * neither dirty nor unproven was told to be proven. */
#define KILL_BLOCKS 512u
struct told { volatile uint32_t started; volatile uint8_t written[KILL_BLOCKS], copied[KILL_BLOCKS], proven[KILL_BLOCKS]; };

static int child_of_kill_test(const char *path, const char *told_path)
{
    struct mirror_map_spec spec = spec_of(path, KILL_BLOCKS * B);
    struct mirror_map *m;
    enum mirror_map_found found;
    AUTO_FD fd = open(told_path, O_RDWR | O_CLOEXEC);
    struct told t = { 0 };

    if (fd < 0 || mirror_map_open(&spec, &m, &found) < 0)
        return 1;
    mirror_map_skip(m, 0, spec.size, true);
    seed = (uint32_t)getpid();
    for (;;) {
        uint32_t i = pick(KILL_BLOCKS);
        t.copied[i] = t.proven[i] = 0; /* before the write is told */
        if (pwrite(fd, (void *)&t, sizeof(t), 0) < 0)
            return 1;
        mirror_map_written(m, i * B, B);
        t.written[i] = 1;
        t.started = 1;
        if (pwrite(fd, (void *)&t, sizeof(t), 0) < 0)
            return 1;
        mirror_map_copy_begin(m, i * B, B);
        mirror_map_copy_end(m, i * B, B, true);
        t.copied[i] = 1;
        if (pwrite(fd, (void *)&t, sizeof(t), 0) < 0)
            return 1;
        mirror_map_prove_begin(m, i * B, B);
        t.proven[i] = 1;
        if (pwrite(fd, (void *)&t, sizeof(t), 0) < 0)
            return 1;
        mirror_map_prove_end(m, i * B, B, true);
    }
}

static void test_map_survives_kill(void **state)
{
    AUTO_TEMPDIR dir = { 0 };
    tempdir_make(&dir);
    struct mirror_map_spec spec = spec_of(tempdir_file(&dir, "map"), KILL_BLOCKS * B);
    const char *told_path = tempdir_file(&dir, "told");
    const char *const argv[] = { "/proc/self/exe", "--kill-me", spec.path, told_path, NULL };

    for (unsigned round = 0; round < 30; round++) {
        struct told t = { 0 };
        AUTO_FD fd = open(told_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(pwrite(fd, (void *)&t, sizeof(t), 0), sizeof(t));
        struct child_spec child = CHILD_SPEC_INIT;
        pid_t pid;
        int status;
        child.argv = argv;
        assert_int_equal(child_start(&child, &pid), 0);
        while (!t.started)
            assert_int_equal(pread(fd, (void *)&t, sizeof(t), 0), sizeof(t));
        for (unsigned i = 0; i < round * 37; i++) /* another moment each time */
            assert_int_equal(pread(fd, (void *)&t, sizeof(t), 0), sizeof(t));
        kill(pid, SIGKILL);
        assert_int_equal(child_wait(pid, 10000, &status), 0);
        assert_int_equal(pread(fd, (void *)&t, sizeof(t), 0), sizeof(t));
        struct mirror_map *m = open_map(&spec, MIRROR_MAP_RESUMED);
        for (uint32_t i = 0; i < KILL_BLOCKS; i++) {
            assert_true(mirror_map_is_dirty(m, i * B, B) || t.copied[i] || !t.written[i] || mirror_map_is_unproven(m, i * B, B));
            /* what is not stable on the target is unproven again, so all that was ever written is */
            assert_true(!t.written[i] || mirror_map_is_unproven(m, i * B, B));
        }
        mirror_map_close(m, true);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_against_array),
        cmocka_unit_test(test_map_fresh_is_all_dirty),
        cmocka_unit_test(test_map_skip_is_of_whole_blocks),
        cmocka_unit_test(test_map_write_while_copied_stays_dirty),
        cmocka_unit_test(test_map_proof_of_what_was_written_is_void),
        cmocka_unit_test(test_map_proof_goes_over_small_gaps_of_the_proven),
        cmocka_unit_test(test_map_without_proof_is_never_unproven),
        cmocka_unit_test(test_map_lost_target_unproves_what_was_not_stable),
        cmocka_unit_test(test_map_is_found_again),
        cmocka_unit_test(test_map_of_another_mirror_is_doubtful),
        cmocka_unit_test(test_map_damaged_is_doubtful),
        cmocka_unit_test(test_map_refuses_sizes),
        cmocka_unit_test(test_map_survives_kill),
    };

    if (argc == 4 && strcmp(argv[1], "--kill-me") == 0)
        return child_of_kill_test(argv[2], argv[3]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
