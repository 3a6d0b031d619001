/* The Ethernet frames by which a network learns where a guest is now (announce.h); pure functions.
 *
 * Each is a whole frame without its check sequence, padded to the least length that Ethernet knows. */
#ifndef XAPI_MIGRATE_ANNOUNCE_FRAME_H
#define XAPI_MIGRATE_ANNOUNCE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANNOUNCE_FRAME_MAX 86 /* Ethernet 14, IPv6 40, neighbour advertisement 24, its option 8 */
#define ANNOUNCE_FRAMES_MAX 2 /* for one address */

struct announce_frame { uint8_t bytes[ANNOUNCE_FRAME_MAX]; size_t len; };

/* "52:54:00:12:34:56"; false for anything else, a group address and zeros. */
bool announce_mac(const char *text, uint8_t mac[6]);
/* Gratuitous ARP (RFC 826 with RFC 5227 §1.1; its reply form as RFC 5944 §4.6). */
void announce_arp(struct announce_frame *, const uint8_t mac[6], const uint8_t ip[4], bool reply);
/* Unsolicited neighbour advertisement to all nodes, with the override flag and the target's link-layer address (RFC 4861
 * §4.4, §4.6.1, §7.2.6). */
void announce_neighbour(struct announce_frame *, const uint8_t mac[6], const uint8_t ip[16]);
/* Reverse ARP request for the MAC's own address (RFC 903): says nothing of IP, but switches learn from it. */
void announce_rarp(struct announce_frame *, const uint8_t mac[6]);
/* The frames for one address as text, with or without a prefix length: 0 for one that is none or that nobody may have (group,
 * loopback, unspecified). */
unsigned announce_address(const char *address, const uint8_t mac[6], struct announce_frame frames[ANNOUNCE_FRAMES_MAX]);

#endif
