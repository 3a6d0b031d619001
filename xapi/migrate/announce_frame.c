#include "xapi/migrate/announce_frame.h"

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <string.h>

#define LEAST 60 /* bytes of a frame */
#define ICMPV6_ADVERTISEMENT 136
#define OVERRIDE 0x20
#define OPTION_TARGET_ADDRESS 2

static const uint8_t everybody[6] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool announce_mac(const char *text, uint8_t mac[6])
{
    static const uint8_t none[6] = { 0 };
    for (unsigned i = 0; i < 6; i++, text += 3) {
        if (digit(text[0]) < 0 || digit(text[1]) < 0 || text[2] != (i < 5 ? ':' : '\0'))
            return false;
        mac[i] = (uint8_t)(digit(text[0]) << 4 | digit(text[1]));
    }
    return (mac[0] & 1) == 0 && memcmp(mac, none, sizeof none) != 0;
}

/* --- writing ------------------------------------------------------------------------------------------------ */
static void put(struct announce_frame *f, const void *bytes, size_t n)
{
    memcpy(f->bytes + f->len, bytes, n);
    f->len += n;
}

static void put16(struct announce_frame *f, unsigned n)
{
    put(f, (const uint8_t[]){ (uint8_t)(n >> 8), (uint8_t)n }, 2);
}

static void begin(struct announce_frame *f, const uint8_t to[6], const uint8_t from[6], unsigned type)
{
    memset(f, 0, sizeof *f);
    put(f, to, 6);
    put(f, from, 6);
    put16(f, type);
}

static void arp(struct announce_frame *f, unsigned ethertype, unsigned operation, const uint8_t mac[6], const uint8_t ip[4], const uint8_t target[6])
{
    begin(f, everybody, mac, ethertype);
    put16(f, ARPHRD_ETHER);
    put16(f, ETHERTYPE_IP);
    put(f, (const uint8_t[]){ 6, 4 }, 2);
    put16(f, operation);
    put(f, mac, 6);
    put(f, ip, 4);
    put(f, target, 6);
    put(f, ip, 4);
    f->len = LEAST;
}

void announce_arp(struct announce_frame *f, const uint8_t mac[6], const uint8_t ip[4], bool reply)
{
    static const uint8_t none[6] = { 0 };
    arp(f, ETHERTYPE_ARP, reply ? ARPOP_REPLY : ARPOP_REQUEST, mac, ip, reply ? mac : none);
}

void announce_rarp(struct announce_frame *f, const uint8_t mac[6])
{
    static const uint8_t none[4] = { 0 };
    arp(f, ETHERTYPE_REVARP, ARPOP_RREQUEST, mac, none, mac);
}

/* RFC 4443 §2.3: over a pseudo-header of addresses, length and protocol, and the message. */
static uint16_t checksum(const uint8_t *addresses, const uint8_t *message, size_t n)
{
    uint32_t sum = (uint32_t)n + IPPROTO_ICMPV6;
    for (unsigned i = 0; i < 32; i += 2)
        sum += (uint32_t)addresses[i] << 8 | addresses[i + 1];
    for (size_t i = 0; i < n; i += 2)
        sum += (uint32_t)message[i] << 8 | message[i + 1];
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

void announce_neighbour(struct announce_frame *f, const uint8_t mac[6], const uint8_t ip[16])
{
    static const uint8_t all_nodes[16] = { 0xff, 0x02, [15] = 1 }, all_nodes_mac[6] = { 0x33, 0x33, 0, 0, 0, 1 };
    enum { HEADER = 14, MESSAGE = HEADER + 40, LENGTH = 32 };
    begin(f, all_nodes_mac, mac, ETHERTYPE_IPV6);
    put(f, (const uint8_t[]){ 0x60, 0, 0, 0 }, 4);
    put16(f, LENGTH);
    put(f, (const uint8_t[]){ IPPROTO_ICMPV6, 255 }, 2);
    put(f, ip, 16);
    put(f, all_nodes, 16);
    put(f, (const uint8_t[]){ ICMPV6_ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0 }, 8);
    put(f, ip, 16);
    put(f, (const uint8_t[]){ OPTION_TARGET_ADDRESS, 1 }, 2);
    put(f, mac, 6);
    uint16_t sum = checksum(f->bytes + HEADER + 8, f->bytes + MESSAGE, LENGTH);
    f->bytes[MESSAGE + 2] = (uint8_t)(sum >> 8);
    f->bytes[MESSAGE + 3] = (uint8_t)sum;
}

/* --- from text ----------------------------------------------------------------------------------------------- */
static unsigned frames4(const uint8_t ip[4], const uint8_t mac[6], struct announce_frame *frames)
{
    if (ip[0] == 0 || ip[0] == 127 || ip[0] >= 224)
        return 0;
    announce_arp(&frames[0], mac, ip, false);
    announce_arp(&frames[1], mac, ip, true);
    return 2;
}

static unsigned frames6(const struct in6_addr *ip, const uint8_t mac[6], struct announce_frame *frames)
{
    if (IN6_IS_ADDR_MULTICAST(ip) || IN6_IS_ADDR_LOOPBACK(ip) || IN6_IS_ADDR_UNSPECIFIED(ip) || IN6_IS_ADDR_V4MAPPED(ip))
        return 0;
    announce_neighbour(&frames[0], mac, ip->s6_addr);
    return 1;
}

unsigned announce_address(const char *address, const uint8_t mac[6], struct announce_frame frames[ANNOUNCE_FRAMES_MAX])
{
    char bare[INET6_ADDRSTRLEN];
    size_t len = strcspn(address, "/");
    struct in_addr v4;
    struct in6_addr v6;
    if (len >= sizeof bare)
        return 0;
    memcpy(bare, address, len);
    bare[len] = '\0';
    if (inet_pton(AF_INET, bare, &v4) == 1)
        return frames4((const uint8_t *)&v4.s_addr, mac, frames);
    return inet_pton(AF_INET6, bare, &v6) == 1 ? frames6(&v6, mac, frames) : 0;
}
