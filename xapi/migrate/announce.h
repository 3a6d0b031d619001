/* After the switch the network must learn where the guest is: gratuitous ARP for each IPv4 address (RFC 5227 §1.1, both
 * request and reply form), unsolicited neighbour advertisement for each IPv6 address (RFC 4861 §7.2.6), and for a VIF whose
 * addresses are not known a reverse ARP with its MAC. Sent on the VIF's bridge by a packet socket, at once and again
 * after 50, 150, 350, 750 ms from a thread of its own.
 *
 * What a receiver measures: at_us minus the clock_us() it read when the guest ran is for how long the network did not know
 * where it is (the network's blackout is the guest's and this). It tells the source as "announced_us", -1 where no frame
 * went out, and "frames". */
#ifndef XAPI_MIGRATE_ANNOUNCE_H
#define XAPI_MIGRATE_ANNOUNCE_H

#include "rpc/base/call.h"
#include "rpc/base/value.h"
#include "xapi/core/xapi.h"

/* Makes xapi->announcer. Without it (tests) announcements are not repeated. */
void announce_start(struct xapi *);
/* vifs: set of { bridge, mac, addresses: set of strings }. A bridge that is not there, or not up, is logged and skipped.
 * Returns when the first round is out: frames sent, and the mono time of the first of them (0: none was sent). Takes no time
 * worth speaking of; needs CAP_NET_RAW. */
void announce_vifs(struct call *, struct xapi *, const struct value *vifs, unsigned *frames_r, int64_t *at_us_r);
/* From the VM's rows: VIFs with their networks' bridges and the addresses that guest metrics tell, and those that the VIF
 * itself configures or allows. For migrate.prepare's argument "vifs". */
struct api_call;
struct row;
struct value announce_plan(struct api_call *, const struct row *vm);
void announce_stop(struct xapi *); /* waits for its threads; NULL is fine */

#endif
