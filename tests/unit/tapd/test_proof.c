#include <stdio.h>

#include "rpc/nbd/nbd_protocol.h"
#include "storage/tapd/mirror_zeros.h"
#include "tests/unit/tapd/mirror_world.h"

static void hex(const uint8_t *digest, char text[33])
{
    for (unsigned i = 0; i < PROOF_DIGEST; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

static void test_hash_is_the_canonical_one(void **state)
{
    uint8_t digest[PROOF_DIGEST], zeros[PROOF_DIGEST], *block = xcalloc(NBD_HASH_BLOCK, 1);
    char text[33];

    proof_hash("", 0, digest);
    hex(digest, text);
    assert_string_equal(text, "99aa06d3014798d86001c324468d497f"); /* xxhsum -H2 */
    static const size_t lengths[] = { NBD_HASH_BLOCK, NBD_HASH_BLOCK, 512, 4096 };
    for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
        proof_hash(block, lengths[i], digest);
        proof_hash_zeros(lengths[i], zeros);
        assert_memory_equal(digest, zeros, PROOF_DIGEST);
    }
    xfree(block);
}

static void test_hash_blocks_cut_at_64k(void **state)
{
    uint8_t *bytes = xcalloc(1, 3 * NBD_HASH_BLOCK), all[3][PROOF_DIGEST], one[PROOF_DIGEST];

    for (unsigned i = 0; i < 3 * NBD_HASH_BLOCK; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    assert_int_equal(proof_hash_blocks(bytes, 2 * NBD_HASH_BLOCK + 512, all), 3);
    for (unsigned i = 0; i < 3; i++) {
        proof_hash(bytes + i * NBD_HASH_BLOCK, i < 2 ? NBD_HASH_BLOCK : 512, one);
        assert_memory_equal(all[i], one, PROOF_DIGEST);
    }
    xfree(bytes);
}

/* Each single byte that is not zero is seen, at every place. */
static void test_zeros_are_found_exactly(void **state)
{
    uint8_t *bytes = xcalloc(1, 4096);

    for (unsigned len = 0; len <= 4096; len += 512) {
        assert_true(zeros_all(bytes, len));
        for (unsigned i = 0; i < len; i++) {
            bytes[i] = 1;
            assert_false(zeros_all(bytes, len));
            bytes[i] = 0;
        }
    }
    xfree(bytes);
}

static void test_pieces_cover_the_buffer(void **state)
{
    struct world w = { .seed = 5 };
    uint8_t *bytes = xcalloc(1, MIB);

    for (unsigned round = 0; round < 2000; round++) {
        size_t len = 512 * (size_t)(1 + pick(&w, MIB / 512));
        memset(bytes, 0, len);
        for (unsigned n = pick(&w, 12); n > 0; n--) {
            size_t at = pick(&w, (uint32_t)len), data = pick(&w, 100000);
            memset(bytes + at, 1, data < len - at ? data : len - at);
        }
        bool zero, last = false;
        for (size_t at = 0, n; at < len; at += n) {
            n = zeros_piece(bytes, at, len, &zero);
            assert_true(n > 0 && at + n <= len);
            assert_true(at == 0 || !(zero && last)); /* zeros come in one piece */
            if (zero) {
                assert_true(zeros_all(bytes + at, n / 64 * 64));
                assert_true(n >= 64 * KIB || n == len);
            } else {
                assert_false(zeros_all(bytes + at, n / 64 * 64));
                assert_false(bytes[at] == 0 && n > 64 * KIB + 4096 && zeros_all(bytes + at, 64 * KIB + 4096));
            }
            last = zero;
        }
    }
    xfree(bytes);
}

/* --- what is wrong is found and repaired ---------------------------------------------------------------- */

static void corrupted_once(const char *fault, enum mirror_mode mode, bool remote, bool can_hash, bool later)
{
    struct world w;
    struct mirror_status s;

    world_make(&w, 11, 3 * MIB);
    w.options.mode = mode;
    w.options.remote = remote ? &world_remote : NULL;
    w.cannot_hash = !can_hash;
    assert_true(fault_arm(fault));
    if (later)
        world_later(&w);
    world_start(&w);
    if (mode == MIRROR_FOLLOW || mode == MIRROR_MERGE) {
        world_run(&w, 300, 20);
        mirror_switch(w.layer, world_commit, &w);
        assert_int_equal(world_run(&w, 100000, 0), MIRROR_SWITCHED);
    } else {
        assert_int_equal(world_run(&w, 100000, 0), MIRROR_DONE);
        assert_same(w.target->bytes, w.moment, w.size, "source and target");
    }
    world_status(&w, &s);
    assert_int_equal(s.repaired, 1);
    world_finish(&w, mode == MIRROR_FOLLOW || mode == MIRROR_MERGE);
    world_free(&w);
}

static void test_one_wrong_byte_is_repaired(void **state)
{
    for (unsigned i = 0; i < 4 * 8; i++) {
        corrupted_once("mirror.corrupt-target=flip@1", (enum mirror_mode)(i / 8), i & 1, i & 2, i & 4);
        corrupted_once("mirror.corrupt-target=flip@2", (enum mirror_mode)(i / 8), i & 1, i & 2, i & 4);
    }
}

static void test_wrong_hash_is_repaired(void **state)
{
    for (unsigned i = 0; i < 4 * 8; i++)
        corrupted_once("mirror.hash=flip@3", (enum mirror_mode)(i / 8), i & 1, i & 2, i & 4);
}

/* A medium that forgets: one place reads as something else, always. */
static int spoil(void *ctx, struct memory_block *m, struct block_request *r)
{
    if (r->op == BLOCK_READ && r->offset <= 99 * 4096 && r->offset + r->length > 99 * 4096)
        m->bytes[99 * 4096 + 7] ^= 1;
    return 0;
}

static void test_wrong_for_ever_fails(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct world w;
        struct mirror_status s;
        world_make(&w, 12, 3 * MIB);
        memory_block_fill(w.source, 90 * 4096, 20 * 4096, 9);
        memset(w.model + 90 * 4096, 9, 20 * 4096);
        w.target->hook = spoil;
        w.options.mode = (enum mirror_mode)i;
        world_start(&w);
        mirror_switch(w.layer, world_commit, &w);
        assert_int_equal(world_run(&w, 20000, 0), MIRROR_FAILED);
        world_status(&w, &s);
        assert_int_equal(s.repaired, 3);
        assert_int_equal(w.n_commits, 0);
        assert_true(strstr(s.error, "differs") != NULL || strstr(s.error, "something else") != NULL);
        world_finish(&w, false);
        world_free(&w);
    }
}

/* A target that was said to be fresh and is not: its holes are looked at too. */
static void test_holes_are_proven(void **state)
{
    for (unsigned i = 0; i < 4; i++) {
        struct world w;
        struct mirror_status s;
        world_make(&w, 13, 8 * MIB);
        memset(w.source->bytes, 0, (size_t)w.size);
        memset(w.source->held, 0, (size_t)(w.size / 4096));
        memory_block_fill(w.source, 1 * MIB, 1 * MIB, 3);
        memory_block_fill(w.target, 5 * MIB + 4096, 4096, 4); /* in a long hole */
        if (i >= 2)
            memory_block_fill(w.source, 6 * MIB, 64 * KIB, 3), memory_block_fill(w.source, 6 * MIB + 80 * KIB, 64 * KIB, 3),
                memory_block_fill(w.target, 6 * MIB + 68 * KIB, 4096, 4); /* and in a short one */
        memcpy(w.model, w.source->bytes, (size_t)w.size);
        w.options.mode = i % 2 == 0 ? MIRROR_COPY : MIRROR_FOLLOW;
        w.options.remote = i == 3 ? &world_remote : NULL;
        world_start(&w);
        mirror_switch(w.layer, world_commit, &w);
        assert_int_equal(world_run(&w, 20000, 0), i % 2 == 0 ? MIRROR_DONE : MIRROR_SWITCHED);
        assert_same(w.target->bytes, w.source_closed ? w.model : w.source->bytes, w.size, "source and target");
        world_status(&w, &s);
        assert_int_equal(s.repaired, i >= 2 ? 2 : 1);
        world_finish(&w, i % 2 != 0);
        world_free(&w);
    }
}

static void test_point_mends_a_target_that_is_not_fresh(void **state)
{
    struct world w;

    world_make(&w, 14, 2 * MIB);
    memset(w.source->bytes, 0, MIB);
    memset(w.source->held, 0, MIB / 4096);
    memset(w.model, 0, MIB);
    memset(w.moment, 0, MIB);
    memory_block_fill(w.target, 8192, 4096, 4);
    w.options.mode = MIRROR_POINT;
    world_start(&w);
    assert_int_equal(world_run(&w, 20000, 30), MIRROR_DONE);
    assert_same(w.target->bytes, w.moment, w.size, "the target and the moment");
    world_finish(&w, false);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_is_the_canonical_one),
        cmocka_unit_test(test_hash_blocks_cut_at_64k),
        cmocka_unit_test(test_zeros_are_found_exactly),
        cmocka_unit_test(test_pieces_cover_the_buffer),
        cmocka_unit_test(test_one_wrong_byte_is_repaired),
        cmocka_unit_test(test_wrong_hash_is_repaired),
        cmocka_unit_test(test_wrong_for_ever_fails),
        cmocka_unit_test(test_holes_are_proven),
        cmocka_unit_test(test_point_mends_a_target_that_is_not_fresh),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
