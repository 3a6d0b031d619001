/* After the switch the network must learn where the guest is: gratuitous ARP for each IPv4 address (RFC 5227 §1.1, both
 * request and reply form), unsolicited neighbour advertisement for each IPv6 address (RFC 4861 §7.2.6), and for a VIF whose
 * addresses are not known a reverse ARP with its MAC. Sent on the VIF's bridge by a packet socket, at once and again
 * after 50, 150, 350, 750 ms from a thread of its own. */
#ifndef XAPI_MIGRATE_ANNOUNCE_H
#define XAPI_MIGRATE_ANNOUNCE_H

#include "rpc/base/call.h"
#include "rpc/base/value.h"
#include "xapi/core/xapi.h"

/* vifs: set of { bridge, mac, addresses: set of strings }. A bridge that is not there is logged and skipped. Returns when
 * the first round is out: frames sent, and its mono time. */
void announce_vifs(struct call *, struct xapi *, const struct value *vifs, unsigned *frames_r, int64_t *at_us_r);
/* From the VM's rows: VIFs with their networks' bridges and the addresses that guest metrics tell. For migrate.prepare's
 * argument "vifs". */
struct api_call;
struct row;
struct value announce_plan(struct api_call *, const struct row *vm);
void announce_stop(struct xapi *); /* waits for its threads */

#endif
