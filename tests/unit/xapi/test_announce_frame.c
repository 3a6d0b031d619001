/* The frames of an announcement, byte by byte as the RFCs lay them out. */
#include <string.h>

#include "tests/lib/unit.h"
#include "xapi/migrate/announce_frame.h"

#define MAC 0x52, 0x54, 0x00, 0xab, 0xcd, 0xef
#define FF6 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
#define ZERO6 0, 0, 0, 0, 0, 0
#define IP4 192, 0, 2, 7

static const uint8_t mac[6] = { MAC };

static void frame_is(const struct announce_frame *f, const uint8_t *wanted, size_t len)
{
    assert_int_equal(f->len, len);
    assert_memory_equal(f->bytes, wanted, len);
}

static void test_mac(void **state)
{
    uint8_t got[6];
    assert_true(announce_mac("52:54:00:AB:cd:ef", got));
    assert_memory_equal(got, mac, 6);
    static const char *const bad[] = { "", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "52-54-00-ab-cd-ef", "52:54:00:ab:cd:eg",
                                       "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "01:00:5e:00:00:01", "5:54:00:ab:cd:ef" };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(announce_mac(bad[i], got));
}

/* RFC 826: hardware type, protocol type, their lengths, operation, sender's and target's addresses. RFC 5227: a request
 * whose sender and target protocol addresses are the one announced, target hardware address all zeros. */
static void test_arp(void **state)
{
    static const uint8_t request[60] = { FF6, MAC, 0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1, MAC, IP4, ZERO6, IP4 };
    static const uint8_t reply[60] = { FF6, MAC, 0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 2, MAC, IP4, MAC, IP4 };
    struct announce_frame frames[ANNOUNCE_FRAMES_MAX];
    assert_int_equal(announce_address("192.0.2.7", mac, frames), 2);
    frame_is(&frames[0], request, sizeof request);
    frame_is(&frames[1], reply, sizeof reply);
    assert_int_equal(announce_address("192.0.2.7/24", mac, frames), 2);
    frame_is(&frames[0], request, sizeof request);
}

/* RFC 4861 §4.4: hop limit 255, to all nodes; type 136, O set, R and S clear; the target; option 2 with its link-layer
 * address. The checksum was computed by another implementation (see test_checksum for the rule). */
static void test_neighbour(void **state)
{
    static const uint8_t wanted[86] = {
        0x33, 0x33, 0, 0, 0, 1, MAC, 0x86, 0xdd,
        0x60, 0, 0, 0, 0, 32, 58, 255,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42,
        0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        136, 0, 0xd9, 0xba, 0x20, 0, 0, 0,
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x42,
        2, 1, MAC,
    };
    struct announce_frame frames[ANNOUNCE_FRAMES_MAX];
    assert_int_equal(announce_address("2001:db8::42/64", mac, frames), 1);
    frame_is(&frames[0], wanted, sizeof wanted);
}

/* What a receiver does: the sum over pseudo-header and message, the checksum included, is all ones. */
static void test_checksum(void **state)
{
    static const char *const addresses[] = { "2001:db8::42", "fe80::1", "fd00:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "2001:db8:1:2:3:4:5:6" };
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        struct announce_frame frames[ANNOUNCE_FRAMES_MAX];
        assert_int_equal(announce_address(addresses[i], mac, frames), 1);
        uint32_t sum = 32 + 58;
        for (unsigned at = 14 + 8; at < 86; at += 2)
            sum += (uint32_t)(frames[0].bytes[at] << 8 | frames[0].bytes[at + 1]);
        while (sum > 0xffff)
            sum = (sum & 0xffff) + (sum >> 16);
        assert_int_equal(sum, 0xffff);
    }
}

/* RFC 903: operation 3, both hardware addresses one's own, no protocol addresses. */
static void test_rarp(void **state)
{
    static const uint8_t wanted[60] = { FF6, MAC, 0x80, 0x35, 0, 1, 0x08, 0x00, 6, 4, 0, 3, MAC, 0, 0, 0, 0, MAC, 0, 0, 0, 0 };
    struct announce_frame f;
    announce_rarp(&f, mac);
    frame_is(&f, wanted, sizeof wanted);
}

static void test_not_announced(void **state)
{
    static const char *const addresses[] = { "", "host", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1",
                                             "::ffff:192.0.2.7", "192.0.2", "2001:db8::42%eth0",
                                             "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000" };
    struct announce_frame frames[ANNOUNCE_FRAMES_MAX];
    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++)
        assert_int_equal(announce_address(addresses[i], mac, frames), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mac),      cmocka_unit_test(test_arp),  cmocka_unit_test(test_neighbour),
        cmocka_unit_test(test_checksum), cmocka_unit_test(test_rarp), cmocka_unit_test(test_not_announced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
