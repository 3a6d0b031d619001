#!/usr/bin/env python3
"""After a move the destination's network hears of the guest: gratuitous ARP for the address it reports, an unsolicited
advertisement for an IPv6 one, reverse ARP for an interface of which nothing is known; at once and four times more. A packet
socket on a port of the destination's bridge listens, in network namespaces of this test's own."""
import os
import select
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.lib.isolated import IsolatedPool, NoNamespaces, enter_namespace, ip  # noqa: E402

ETH_P_ALL = 3
BRIDGE = "xenbr0"
ROUNDS = 5


def make_bridge(namespace):
    """A bridge as VIFs are plugged into, and a port of it that a listener stands behind."""
    ip("-n", namespace, "link", "add", BRIDGE, "type", "bridge")
    ip("-n", namespace, "link", "add", "port0", "type", "veth", "peer", "name", "listen0")
    ip("-n", namespace, "link", "set", "port0", "master", BRIDGE, "up")
    for device in ("listen0", BRIDGE):
        ip("-n", namespace, "link", "set", device, "up")


class Listener:
    """Frames that come out of the bridge, with the moment each came."""

    def __init__(self, namespace):
        self.frames, self.ending, self.ready = [], False, threading.Event()
        self.thread = threading.Thread(target=self.run, args=(namespace,), daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def run(self, namespace):
        enter_namespace(f"/run/netns/{namespace}")  # this thread only
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as s:
            s.bind(("listen0", 0))
            self.ready.set()
            while not self.ending:
                if select.select([s], [], [], 0.05)[0]:
                    self.frames.append((time.monotonic(), s.recv(2048)))

    def of(self, mac):
        return [f for _, f in list(self.frames) if f[6:12] == mac]

    def stop(self):
        self.ending = True
        self.thread.join(10)


def arp_frames(mac, address):
    ether, head = b"\xff" * 6 + mac + b"\x08\x06", b"\x00\x01\x08\x00\x06\x04\x00"
    request = ether + head + b"\x01" + mac + address + bytes(6) + address
    reply = ether + head + b"\x02" + mac + address + mac + address
    return request.ljust(60, b"\0"), reply.ljust(60, b"\0")


def rarp_frame(mac):
    return (b"\xff" * 6 + mac + b"\x80\x35" + b"\x00\x01\x08\x00\x06\x04\x00\x03" + mac + bytes(4) + mac + bytes(4)).ljust(60, b"\0")


def checksum_fits(frame):
    """The sum over pseudo-header and message is all ones (RFC 4443)."""
    body = frame[22:86] + (32).to_bytes(4, "big") + (58).to_bytes(4, "big")
    total = sum(int.from_bytes(body[i:i + 2], "big") for i in range(0, len(body), 2))
    while total > 0xffff:
        total = (total & 0xffff) + (total >> 16)
    return total == 0xffff


def bytes_of(mac):
    return bytes.fromhex(mac.replace(":", ""))


def make_vif(pool, vm, network, device, **more):
    return pool.api("VIF.create", dict({"VM": vm, "network": network, "device": device, "MAC": f"02:00:00:00:77:0{device}", "MTU": "1500",
                                        "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}}, **more))


def check(pool):
    listener = Listener(pool.namespace(2))
    here = Listener(pool.namespace(1))
    sr = pool.make_shared_sr()
    networks = {r["bridge"]: ref for ref, r in pool.api("network.get_all_records").items()}
    vm = pool.make_vm("announced", sr=sr)
    make_vif(pool, vm, networks[BRIDGE], "0")
    make_vif(pool, vm, networks[BRIDGE], "1", locking_mode="locked", ipv6_allowed=["2001:db8::77"])
    pool.api("VM.start_on", vm, pool.host_ref(1), False, False)
    metrics = P.wait_until("the guest's addresses", lambda: addresses(pool, vm), 30)
    macs = {d: bytes_of(f"02:00:00:00:77:0{d}") for d in "01"}
    assert not listener.of(macs["0"]) and not here.of(macs["0"])
    pool.api("VM.pool_migrate", vm, pool.host_ref(2), {})

    request, reply = arp_frames(macs["0"], socket.inet_aton(metrics["0/ipv4/0"]))
    P.wait_until("all rounds of the first interface", lambda: len(listener.of(macs["0"])) >= 2 * ROUNDS, 20)
    assert listener.of(macs["0"]) == [request, reply] * ROUNDS, listener.of(macs["0"])
    assert not here.of(macs["0"])  # only where the guest is now

    P.wait_until("all rounds of the second", lambda: len(listener.of(macs["1"])) >= 3 * ROUNDS, 20)
    one_round = listener.of(macs["1"])[:3]
    assert one_round[:2] == list(arp_frames(macs["1"], socket.inet_aton(metrics["1/ipv4/0"]))), one_round
    advertisement = one_round[2]
    assert advertisement[:6] == bytes.fromhex("333300000001") and advertisement[54:56] == b"\x88\x00", advertisement
    assert advertisement[62:78] == socket.inet_pton(socket.AF_INET6, "2001:db8::77") and advertisement[80:86] == macs["1"]
    assert checksum_fits(advertisement)
    gaps(listener, macs["0"])
    P.wait_until("the guest's verdict", lambda: pool.guest_data(vm).get("sim/verify") == "ok", 30)
    listener.stop()
    here.stop()


def addresses(pool, vm):
    metrics = pool.api("VM.get_guest_metrics", vm)
    told = pool.api("VM_guest_metrics.get_networks", metrics) if metrics != "OpaqueRef:NULL" else {}
    return told if "0/ipv4/0" in told and "1/ipv4/0" in told else None


def gaps(listener, mac):
    """Rounds come one after the other, not in one burst; how long they take is only told."""
    at = [t for t, f in listener.frames if f[6:12] == mac][::2]
    print("rounds after", [round(1000 * (t - at[0])) for t in at], "ms", flush=True)
    assert at == sorted(at)


def silent_guest(pool):
    """Nothing is known of its addresses: reverse ARP tells the switches all the same. And a bridge that is not there does no harm."""
    listener = Listener(pool.namespace(2))
    networks = {r["bridge"]: ref for ref, r in pool.api("network.get_all_records").items()}
    nowhere = pool.api("network.create", {"name_label": "nowhere", "bridge": "nowhere0", "managed": False, "other_config": {}})
    vm = pool.make_vm("silent", platform={"sim-no-tools": "true"})
    make_vif(pool, vm, networks[BRIDGE], "2")
    make_vif(pool, vm, nowhere, "3")
    pool.api("VM.start_on", vm, pool.host_ref(1), False, False)
    pool.api("VM.pool_migrate", vm, pool.host_ref(2), {"force": "true"})
    mac = bytes_of("02:00:00:00:77:02")
    P.wait_until("all rounds", lambda: len(listener.of(mac)) >= ROUNDS, 20)
    assert listener.of(mac) == [rarp_frame(mac)] * ROUNDS
    listener.stop()


def main():
    if os.geteuid() != 0 or not os.path.exists("/proc/self/ns/net"):
        print("needs root and network namespaces")
        sys.exit(77)
    try:
        isolated = IsolatedPool(hosts=2)
        for i in (1, 2):
            make_bridge(isolated.namespace(i))
    except NoNamespaces as e:
        print(f"no network namespaces can be made here: {e}")
        sys.exit(77)
    with isolated as pool:
        check(pool)
        silent_guest(pool)


if __name__ == "__main__":
    main()
