#!/usr/bin/env python3
"""The pre-flight of a migration: each way in which a path, a peer or a disk can be unfit has a cause of its own, and nothing
of the trial is left behind. Asks the verb as the coordinator does, over the agent's port."""
import contextlib
import http.client
import os
import socket
import sqlite3
import ssl
import sys
import threading
import time
import uuid
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
from tests.lib import pool as P  # noqa: E402
from tests.lib.relay import Relay  # noqa: E402

CONTACT = "VM_MIGRATE_CONTACT_REMOTE_SERVICE_FAILED"


def post(host, method, param):
    """One call of an agent verb with the pool's secret; the parsed answer."""
    with open(os.path.join(host.dir, "ptoken")) as f:
        secret = f.read().strip()
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    http_client = http.client.HTTPSConnection(host.address, host.pool.https_port, context=context, timeout=60)
    http_client.request("POST", "/services/agent", xmlrpc.client.dumps((param,), method),
                        {"Content-Type": "text/xml", "Cookie": "pool_secret=" + secret})
    answer = http_client.getresponse()
    body = answer.read()
    http_client.close()
    assert answer.status == 200, (answer.status, body)
    return xmlrpc.client.loads(body)[0][0]


def verb(host, name, args):
    operation, join = str(uuid.uuid4()), False
    while True:
        answer = post(host, "agent." + name, {"operation": operation, "join": join, "wait_ms": 5000, "args": args})
        if answer["Status"] != "Success":
            raise P.Failure(answer["ErrorDescription"])
        if answer["Value"]["state"] == "done":
            return answer["Value"]["result"]
        join = True


class NarrowRelay(Relay):
    """Swallows whatever is larger than 'limit' in one direction (0: towards the far side), and all that follows it, as a link
    with a smaller MTU does that says nothing of it."""

    def __init__(self, connect, side, limit=1200):
        self.side, self.limit, self.stuck = side, limit, []
        super().__init__(connect)

    def move(self, pair, side):
        if (pair, side) in self.stuck:
            return False
        if side == self.side and len(pair[side].recv(self.limit + 1, socket.MSG_PEEK)) > self.limit:
            self.stuck.append((pair, side))
            return False
        return super().move(pair, side)


class DyingRelay(Relay):
    """Nothing moves any more once it has carried 'limit' bytes."""
    limit = 256 << 10

    def move(self, pair, side):
        moved = super().move(pair, side)
        self.frozen = self.up > self.limit
        return moved


class Lab:
    def __init__(self, pool):
        self.pool, (self.one, self.two) = pool, pool.hosts
        certificates = pool.api("Certificate.get_all_records").values()
        by_host = {c["host"]: c["fingerprint"] for c in certificates if c["type"] == "host"}
        self.fingerprints = {h.index: by_host[pool.host_ref(h.index)] for h in pool.hosts}
        self.relays, self.faults, self.lock = [], [], threading.Lock()

    def target(self, host, **changes):
        d = {"address": host.address, "port": self.pool.https_port, "tls": True, "cookie": "",
             "fingerprint": self.fingerprints[host.index]}
        return dict(d, **changes)

    def through(self, kind, *args):
        relay = kind(lambda: socket.create_connection((self.two.address, self.pool.https_port)), *args)
        self.relays.append(relay)
        return relay, self.target(self.two, address="127.0.0.1", port=relay.port)

    def preflight(self, destination=None, back=None, disks=(), shared=()):
        return verb(self.one, "migrate.preflight", {"destination": destination or self.target(self.two), "back": back or self.target(self.one),
                                                    "disks": list(disks), "shared": list(shared)})

    def fails(self, name, at, code, words, **args):
        """A case on a thread of its own."""
        def run():
            try:
                answer = self.preflight(**args)
                assert (answer.get("failed"), answer.get("code")) == (at, code), answer
                assert all(w in answer["cause"] for w in words), answer["cause"]
                print(f"{name}: {answer['failed']}: {answer['cause']}", flush=True)
            except Exception as e:  # told at the end
                with self.lock:
                    self.faults.append((name, repr(e)))
        thread = threading.Thread(target=run)
        thread.start()
        return thread


def healthy(lab, disk):
    facts = lab.preflight(shared=[disk])
    print({k: int(v) for k, v in facts.items()}, flush=True)
    assert "failed" not in facts, facts
    assert all(int(facts[k]) > 0 for k in ("rtt_us", "bandwidth", "bandwidth_back", "mtu", "mss")), facts
    assert abs(int(facts["clock_offset_us"])) < 1_000_000, facts
    _, narrow = lab.through(Relay)
    assert "failed" not in lab.preflight(destination=narrow)


def dead_port(address):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def all_cases(lab, disk):
    other = lab.fingerprints[1]
    frozen, through_frozen = lab.through(Relay)
    frozen.freeze()
    _, narrow_there = lab.through(NarrowRelay, 0)
    _, narrow_back = lab.through(NarrowRelay, 1)
    _, dying = lab.through(DyingRelay)
    key = "migration_key=" + str(uuid.uuid4())
    two, one = lab.two, lab.one
    threads = [
        lab.fails("dead port", "connect", CONTACT, ["nobody listens"], destination=lab.target(two, port=dead_port(two.address))),
        lab.fails("wrong certificate", "TLS", CONTACT, ["certificate"], destination=lab.target(two, fingerprint=other)),
        lab.fails("no TLS there", "TLS", CONTACT, ["TLS"], destination=lab.target(two, port=lab.pool.http_port)),
        lab.fails("wrong key", "credentials", "SESSION_AUTHENTICATION_FAILED", ["does not accept"], destination=lab.target(two, cookie=key)),
        lab.fails("frozen", "TLS", CONTACT, ["nothing is ever answered"], destination=through_frozen),
        lab.fails("large ones are lost there", "sample", CONTACT, ["MTU", "there"], destination=narrow_there),
        lab.fails("large ones are lost on the way back", "TLS", CONTACT, ["MTU"], destination=narrow_back),
        lab.fails("dies under load", "sample", CONTACT, ["small packets neither"], destination=dying),
        lab.fails("no way back", "way back", CONTACT, ["cannot reach this host", "nobody listens"],
                  back=lab.target(one, port=dead_port(one.address))),
        lab.fails("another host answers on the way back", "way back", CONTACT, ["cannot reach this host", "certificate"], back=lab.target(two, fingerprint=other)),
        lab.fails("no such disk", "disks", "VDI_MISSING", ["no-such-disk", "storage"], disks=[dict(disk, location="no-such-disk")]),
        lab.fails("storage not plugged there", "disks", "SR_NOT_ATTACHED", ["plugged"], disks=[dict(disk, sr=str(uuid.uuid4()))]),
    ]
    for thread in threads:
        thread.join()
    assert not lab.faults, lab.faults


def causes(pool):
    """What the ledger says of moves, newest first."""
    with contextlib.closing(sqlite3.connect(f"file:{pool.hosts[0].dir}/migrations.db?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute("SELECT cause FROM migrations ORDER BY began_ms DESC, rowid DESC")]


def through_the_front_door(lab, sr):
    """A move that the pre-flight stops has touched nothing, and its cause is on record; the same move over a good way succeeds."""
    pool = lab.pool
    one, two = pool.host_ref(1), pool.host_ref(2)
    vm = pool.make_vm("guest", sr=sr)
    pool.api("VM.start_on", vm, one, False, False)
    P.wait_until("tools to report", lambda: pool.guest_data(vm).get("feature-suspend") == "1", 30)
    guests = [h.guests() for h in pool.hosts]
    for port, words in ((lab.through(NarrowRelay, 0)[0].port, "MTU"), (dead_port("127.0.0.1"), "nobody listens")):
        P.refused(lambda n=port: pool.api("VM.pool_migrate", vm, two, {"migrate_uri": f"tcp:127.0.0.1:{n}"}), CONTACT)
        assert words in causes(pool)[0], causes(pool)
        record = pool.api("VM.get_record", vm)
        assert (record["power_state"], record["resident_on"], record["current_operations"]) == ("Running", one, {}), record
        assert [h.guests() for h in pool.hosts] == guests
    good, _ = lab.through(Relay)
    pool.api("VM.pool_migrate", vm, two, {"migrate_uri": f"tcp:127.0.0.1:{good.port}"})
    assert pool.api("VM.get_resident_on", vm) == two and good.up > 32 << 10, good.up
    P.wait_until("the guest's verdict", lambda: pool.guest_data(vm).get("sim/verify") == "ok", 30)
    pool.api("VM.hard_shutdown", vm)


def threads_named(host, name):
    names = []
    for task in os.listdir(f"/proc/{host.process.pid}/task"):
        try:
            with open(f"/proc/{host.process.pid}/task/{task}/comm") as f:
                names.append(f.read().strip())
        except FileNotFoundError:
            continue
    return [n for n in names if n.startswith(name)]


def nothing_left(lab, before):
    assert [h.served() for h in lab.pool.hosts] == before
    assert not threads_named(lab.one, "path-watch")
    for relay in lab.relays:
        relay.stop()
    P.wait_until("the destination's halves to end", lambda: not threads_named(lab.two, "path-watch"), 30)


def main():
    with P.Pool(hosts=2) as pool:
        sr = pool.make_shared_sr()
        vdi = pool.api("VDI.create", {"name_label": "disk", "SR": sr, "virtual_size": str(8 * P.MIB), "type": "user"})
        disk = {"sr": pool.api("SR.get_uuid", sr), "location": pool.api("VDI.get_location", vdi)}
        lab = Lab(pool)
        before = [h.served() for h in pool.hosts]
        began = time.monotonic()
        healthy(lab, disk)
        all_cases(lab, disk)
        through_the_front_door(lab, sr)
        nothing_left(lab, before)
        print(f"{time.monotonic() - began:.1f} s", flush=True)
        pool.api("VDI.destroy", vdi)  # nobody uses it


if __name__ == "__main__":
    main()
